//! Which targets of an IFUNC slot are plausible.
//!
//! A resolver's answer depends on the processor and tunables, so it is bounded rather than
//! computed: it must be where a function of the defining module starts, must not be one of that
//! module's ordinary exported functions, and must be the same for all slots of one resolver.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::auxv::Auxv;
use super::elf::ElfFile;
use super::layout::{Layout, Loaded};
use super::maps::{Maps, Vma};
use super::process::Process;
use super::width::Width;

/// The vDSO is two pages of code on both machines; more is not read.
const MAX_VDSO: usize = 64 << 10;

/// Offsets of the functions the kernel exports in its vDSO, the same in all processes of our own
/// width. The other width's is read from the process itself: who could change it could change its
/// code as well, which is for the comparison of text to find.
#[derive(Clone, Debug, Default)]
pub(crate) struct Vdso {
    width: Width,
    functions: Vec<u64>,
}

/// An IFUNC slot that was seen: who defines it, by which resolver, whose slot, what it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Seen {
    pub(crate) definer: u32,
    pub(crate) resolver: u64,
    pub(crate) actual: u64,
    pub(crate) module: usize,
    pub(crate) slot: usize,
}

impl Vdso {
    /// Reads our own; without one (or without its symbols) no vDSO target is accepted.
    pub(crate) fn own() -> Self {
        Self::read_own().unwrap_or_default()
    }

    fn read_own() -> Option<Self> {
        let auxv = Auxv::parse(&std::fs::read("/proc/self/auxv").ok()?).ok()?;
        let maps = Maps::parse(&std::fs::read("/proc/self/maps").ok()?).ok()?;
        let memory = File::open("/proc/self/mem").ok()?;
        Self::read(auxv.width, maps.find(auxv.vdso)?, |image, at| memory.read_exact_at(image, at))
    }

    fn read(
        width: Width,
        vma: &Vma,
        read: impl FnOnce(&mut [u8], u64) -> io::Result<()>,
    ) -> Option<Self> {
        let bytes = usize::try_from(vma.end - vma.start).ok()?.min(MAX_VDSO);
        let mut image = vec![0; bytes];
        read(&mut image, vma.start).ok()?;
        let elf = ElfFile::read(image.as_slice()).ok()?;
        let functions = elf.symbols.iter().filter(|(_, sym)| sym.is_defined());
        Some(Self { width, functions: functions.map(|(_, sym)| sym.value).collect() })
    }

    fn is_function(&self, process: &Process, addr: u64) -> bool {
        let area = process.area(addr).filter(|vma| &*vma.path == "[vdso]");
        let Some(vma) = area else { return false };
        let width = process.width();
        if width == self.width {
            return self.functions.contains(&(addr - vma.start));
        }
        let theirs = Self::read(width, vma, |image, at| process.read(at, image));
        theirs.is_some_and(|theirs| theirs.functions.contains(&(addr - vma.start)))
    }
}

/// Whether the resolver of `definer` may have answered `actual`.
pub(crate) fn is_plausible(
    process: &Process,
    layout: &Layout,
    vdso: &Vdso,
    definer: usize,
    actual: u64,
) -> bool {
    let Some(module) = layout.modules.get(definer) else { return false };
    let Some(loaded) = module.object() else { return false };
    starts_function(loaded, module.width.sub(actual, module.base))
        || vdso.is_function(process, actual)
}

fn starts_function(loaded: &Loaded, vaddr: u64) -> bool {
    let elf = &loaded.elf;
    elf.headers.is_text(vaddr)
        && (elf.fde_starts.is_empty() || elf.fde_starts.binary_search(&vaddr).is_ok())
        && elf.exported_functions.binary_search(&vaddr).is_err()
}

/// Picks the slots that disagree with the other slots of the same resolver, each with what another
/// one holds: with a majority the others, without one all of them.
pub(crate) fn disagreeing(mut seen: Vec<Seen>) -> Vec<(Seen, u64)> {
    seen.sort_unstable();
    let mut found = Vec::new();
    for group in seen.chunk_by(|a, b| (a.definer, a.resolver) == (b.definer, b.resolver)) {
        let answers = || group.chunk_by(|a, b| a.actual == b.actual);
        let most = answers().max_by_key(|answer| answer.len()).unwrap_or(group);
        let majority = most.len() * 2 > group.len();
        let (Some(first), Some(last), Some(usual)) = (group.first(), group.last(), most.first())
        else {
            continue;
        };
        for odd in group.iter().filter(|odd| !majority || odd.actual != usual.actual) {
            // Ascending by content, so the two ends differ if anything does.
            let other = [usual, first, last].into_iter().find(|other| other.actual != odd.actual);
            found.extend(other.map(|other| (*odd, other.actual)));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(resolver: u64, actual: u64, slot: usize) -> Seen {
        Seen { definer: 0, resolver, actual, module: 0, slot }
    }

    #[test]
    fn the_minority_of_one_resolver_is_picked() {
        let all = vec![seen(1, 7, 0), seen(1, 9, 1), seen(1, 7, 2), seen(2, 5, 3)];
        assert_eq!(disagreeing(all), vec![(seen(1, 9, 1), 7)]);
    }

    #[test]
    fn without_majority_all_are_picked() {
        let all = vec![seen(1, 7, 0), seen(1, 9, 1)];
        assert_eq!(disagreeing(all), vec![(seen(1, 7, 0), 9), (seen(1, 9, 1), 7)]);
    }

    #[test]
    fn the_own_vdso_exports_its_clock() {
        assert!(Vdso::own().functions.len() >= 3);
    }
}
