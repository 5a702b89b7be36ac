//! The search lists that glibc itself keeps for a module opened at run time (`l_scope`).
//!
//! They live in memory the process can write, so they are consulted only for modules whose order
//! the files do not prove, and believed only where they are made of lists the files do prove.
//! glibc's layout is private; the word is found by its neighbours, whose order has not changed from
//! 2.17 to 2.42: `l_scope_mem[4]`, `l_scope_max`, `l_scope`, `l_local_scope[2]` (`include/link.h`).

use std::collections::HashMap;

use super::bytes::index;
use super::layout::{Layout, Module};
use super::process::Process;
use super::scope::Scopes;
use super::width::Width;

/// Words of a `struct link_map` that are searched; it has 145 in glibc 2.41.
const LINK_MAP: u64 = 256;
/// Modules whose link map is searched for the word.
const SAMPLES: usize = 8;
/// Scopes per module and modules per scope that are followed.
const MAX_SCOPES: u64 = 256;
/// See [`MAX_SCOPES`].
const MAX_LIST: u64 = 4096;
/// Scopes that fit into `l_scope_mem`.
const INLINE_SCOPES: u64 = 4;

/// Where the search lists of a process are.
#[derive(Debug)]
pub(crate) struct LiveScopes<'a> {
    process: &'a Process,
    layout: &'a Layout,
    /// Offset of `l_scope` in a `struct link_map`.
    offset: u64,
    by_address: HashMap<u64, usize>,
}

impl<'a> LiveScopes<'a> {
    /// Finds the word; `None` where the loader is not glibc's or looks different.
    pub(crate) fn find(process: &'a Process, layout: &'a Layout) -> Option<Self> {
        let sample = layout.modules.iter().filter(|module| module.object().is_some());
        let width = layout.width;
        let mut offsets =
            sample.take(SAMPLES).filter_map(|module| scope_offset(process, module, width));
        let offset = offsets.next().filter(|first| offsets.all(|other| other == *first))?;
        let modules = layout.modules.iter().enumerate();
        let by_address = modules.map(|(number, module)| (module.link_map, number)).collect();
        Some(Self { process, layout, offset, by_address })
    }

    /// The lists a module is searched in, in order; `None` if they cannot be read, name something
    /// that is no module, or are not what the files' needs give.
    pub(crate) fn lists(&self, scopes: &Scopes, module: usize) -> Option<Vec<Vec<usize>>> {
        let link_map = self.layout.modules.get(module)?.link_map;
        let width = self.layout.width;
        let mut at = self.process.read_word(link_map.wrapping_add(self.offset), width).ok()?;
        let mut lists = Vec::new();
        for _ in 0..MAX_SCOPES {
            let scope = self.process.read_word(at, width).ok()?;
            if scope == 0 {
                return Some(lists);
            }
            let list = self.read_list(scope)?;
            if !scopes.is_proven(self.layout, module, &list) {
                return None;
            }
            lists.push(list);
            at = at.wrapping_add(width.bytes());
        }
        None
    }

    /// `struct r_scope_elem`: pointer to an array of link maps, and their number.
    fn read_list(&self, scope: u64) -> Option<Vec<usize>> {
        let width = self.layout.width;
        let array = self.process.read_word(scope, width).ok()?;
        let count = self.process.read_word(scope.wrapping_add(width.bytes()), width).ok()?;
        let count = (count & 0xffff_ffff).min(MAX_LIST);
        let mut bytes = vec![0; index(count * width.bytes())];
        self.process.read(array, &mut bytes).ok()?;
        let places = (0..bytes.len()).step_by(width.len());
        let pointers = places.filter_map(|at| width.word_at(&bytes, at));
        pointers.map(|pointer| self.by_address.get(&pointer).copied()).collect()
    }
}

/// Looks for `l_scope` in one link map: the word that points to the five words before itself, after
/// the number 4 and before a pointer into the same link map. A module with more scopes than fit
/// inline has none.
fn scope_offset(process: &Process, module: &Module, width: Width) -> Option<u64> {
    let start = module.link_map;
    let vma = process.area(start)?;
    let size = LINK_MAP * width.bytes();
    let mut bytes = vec![0; index(size.min(vma.end - start))];
    process.read(start, &mut bytes).ok()?;
    (5 * width.len()..bytes.len()).step_by(width.len()).find_map(|at| {
        let offset = u64::try_from(at).ok()?;
        let inline = start.wrapping_add(offset) - (INLINE_SCOPES + 1) * width.bytes();
        let local = width.word_at(&bytes, at + width.len())?;
        let found = width.word_at(&bytes, at)? == inline
            && width.word_at(&bytes, at - width.len())? == INLINE_SCOPES
            && start <= local
            && local < start.wrapping_add(size);
        found.then_some(offset)
    })
}
