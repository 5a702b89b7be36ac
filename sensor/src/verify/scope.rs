//! In which order a module's symbols are searched, from the files' needs alone.
//!
//! glibc keeps this order in private memory (`l_scope`), which the process can write; for the
//! modules of program start it follows from the files (`_dl_map_object_deps`), so those are used.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use super::layout::{Kind, Layout};
use super::report::Linkage;

/// `LD_PRELOAD` lists are short; each costs one more traversal of the needs.
const MAX_PRELOADS: usize = 64;

/// Search orders of all modules of a process.
#[derive(Debug)]
pub(crate) struct Scopes {
    /// Per module: what its `DT_NEEDED` entries mean, in order.
    needs: Vec<Box<[usize]>>,
    /// Per namespace: the global scope as of program start.
    global: Vec<Arc<[usize]>>,
    /// Per module: what is searched after the global scope. Empty for modules of program start.
    local: Vec<Arc<[usize]>>,
    /// Per module: the search order is proven (not opened at run time).
    exact: Vec<bool>,
    /// Modules that precede the program's own needs.
    pub(crate) preloads: Vec<usize>,
    /// The link map contradicts the order of the files' needs.
    pub(crate) order_differs: bool,
}

// === impl Scopes ===

impl Scopes {
    pub(crate) fn build(layout: &Layout) -> Self {
        let nothing: Arc<[usize]> = Arc::from([]);
        let mut scopes = Self {
            needs: vec![Box::from([]); layout.modules.len()],
            global: Vec::new(),
            local: vec![nothing; layout.modules.len()],
            exact: vec![true; layout.modules.len()],
            preloads: Vec::new(),
            order_differs: false,
        };
        for range in &layout.namespaces {
            scopes.add_needs(layout, range);
        }
        for (number, range) in layout.namespaces.iter().enumerate() {
            let global = scopes.add_namespace(layout, range, number == 0);
            scopes.global.push(global.into());
        }
        scopes
    }

    fn add_needs(&mut self, layout: &Layout, range: &Range<usize>) {
        let names = names(layout, range);
        let find = |name: &[u8]| {
            if layout.linkage == Linkage::Musl && is_musl_itself(name) {
                return layout.loader;
            }
            names.get(name).or_else(|| names.get(base_name(name))).copied()
        };
        for module in range.clone() {
            let Some(object) = layout.object(module) else { continue };
            let needs = object.elf.dynamic.needed.iter().filter_map(|name| find(name));
            if let Some(place) = self.needs.get_mut(module) {
                *place = needs.collect();
            }
        }
    }

    /// Global scope of one namespace; fills in the local scopes of modules outside it.
    fn add_namespace(&mut self, layout: &Layout, range: &Range<usize>, base: bool) -> Vec<usize> {
        let order: Vec<usize> = searchable(layout, range)
            .filter(|module| Some(*module) != layout.loader && layout.real(*module) == *module)
            .collect();
        let Some(head) = order.first() else { return Vec::new() };
        let mut roots = vec![*head];
        let mut global = self.closure(&roots);
        while base && roots.len() <= MAX_PRELOADS {
            match first_difference(layout, &global, &order) {
                None => break,
                Some(at) if at == roots.len() && at < order.len() => {
                    roots.extend(order.get(at));
                    global = self.closure(&roots);
                }
                Some(_) => {
                    self.order_differs = true;
                    break;
                }
            }
        }
        if base {
            self.preloads = roots.split_off(1);
        }
        self.add_opened(layout, range, &global);
        global
    }

    /// Modules opened later: each first one of a `dlopen` is searched with its own needs, and so
    /// are the modules it pulled in.
    fn add_opened(&mut self, layout: &Layout, range: &Range<usize>, global: &[usize]) {
        let at_start: HashSet<usize> = global.iter().copied().collect();
        let mut family: Arc<[usize]> = Arc::from([]);
        let mut members = HashSet::new();
        for module in searchable(layout, range).filter(|module| !at_start.contains(module)) {
            if !members.contains(&module) {
                family = self.closure(&[module]).into();
                members = family.iter().copied().collect();
            }
            if let (Some(local), Some(exact)) =
                (self.local.get_mut(module), self.exact.get_mut(module))
            {
                *local = Arc::clone(&family);
                *exact = false;
            }
        }
    }

    /// Breadth-first over the needs, as `_dl_map_object_deps` (glibc `elf/dl-deps.c`) lists them.
    fn closure(&self, roots: &[usize]) -> Vec<usize> {
        let mut found = roots.to_vec();
        let mut seen: HashSet<usize> = roots.iter().copied().collect();
        let mut at = 0;
        while let Some(needs) = found.get(at).map(|module| self.needs.get(*module)) {
            for needed in needs.into_iter().flatten() {
                if seen.insert(*needed) {
                    found.push(*needed);
                }
            }
            at += 1;
        }
        found
    }

    /// The modules a reference of `module` is searched in, in order.
    pub(crate) fn search_order<'a>(
        &'a self,
        layout: &'a Layout,
        module: usize,
    ) -> impl Iterator<Item = usize> + 'a {
        let object = layout.object(module);
        let symbolic = object.is_some_and(|object| object.elf.dynamic.symbolic);
        let own = (symbolic && layout.linkage != Linkage::Musl).then_some(module);
        let local = self.local.get(module).map_or(&[][..], |scope| scope);
        own.into_iter()
            .chain(self.global_of(layout, module).iter().copied())
            .chain(local.iter().copied())
    }

    /// Whether the search order of `module` is proven.
    pub(crate) fn is_exact(&self, module: usize) -> bool {
        self.exact.get(module).copied().unwrap_or(false)
    }

    /// Whether the files' needs give this list: the global scope (to which `RTLD_GLOBAL` appends),
    /// one module with its needs, or the module alone (`DT_SYMBOLIC`).
    pub(crate) fn is_proven(&self, layout: &Layout, module: usize, list: &[usize]) -> bool {
        let same = |ours: &[usize], rest: bool| {
            let not_loader = |module: &&usize| Some(**module) != layout.loader;
            let mut theirs = list.iter().filter(not_loader);
            ours.iter().filter(not_loader).all(|module| theirs.next() == Some(module))
                && (rest || theirs.next().is_none())
        };
        let Some(first) = list.first() else { return true };
        list == [module]
            || same(self.global_of(layout, module), true)
            || same(&self.closure(&[*first]), false)
    }

    /// The global scope, as of program start, of a module's namespace.
    pub(crate) fn global_of<'a>(&'a self, layout: &Layout, module: usize) -> &'a [usize] {
        let namespace = layout.modules.get(module).map_or(0, |module| module.namespace);
        self.global.get(namespace).map_or(&[][..], |scope| scope)
    }
}

/// The modules of a namespace that lookups can see.
fn searchable(layout: &Layout, range: &Range<usize>) -> impl Iterator<Item = usize> {
    range.clone().filter(|at| {
        layout.modules.get(*at).is_some_and(|module| !matches!(module.kind, Kind::Vdso))
    })
}

/// Where the link map leaves the computed order, the loader apart: glibc moves its entry.
fn first_difference(layout: &Layout, computed: &[usize], order: &[usize]) -> Option<usize> {
    let computed = computed.iter().filter(|module| Some(**module) != layout.loader);
    let mut order = order.iter();
    computed.enumerate().find(|(_, module)| order.next() != Some(*module)).map(|(at, _)| at)
}

/// Names that a `DT_NEEDED` entry of one namespace can mean.
fn names<'a>(layout: &'a Layout, range: &Range<usize>) -> HashMap<&'a [u8], usize> {
    let mut names = HashMap::new();
    for at in range.clone() {
        let Some(module) = layout.modules.get(at) else { continue };
        let real = layout.real(at);
        let soname = layout.object(real).and_then(|object| object.elf.dynamic.soname.as_deref());
        for name in [soname, Some(base_name(&module.name)), Some(&*module.name)] {
            if let Some(name) = name.filter(|name| !name.is_empty()) {
                names.entry(name).or_insert(real);
            }
        }
    }
    names
}

/// musl answers these libraries itself (`load_library` in `ldso/dynlink.c`).
fn is_musl_itself(name: &[u8]) -> bool {
    let stem = name.strip_prefix(b"lib").and_then(|rest| rest.split(|byte| *byte == b'.').next());
    let reserved = ["c", "pthread", "rt", "m", "dl", "util", "xnet"];
    stem.is_some_and(|stem| reserved.iter().any(|name| name.as_bytes() == stem))
}

fn base_name(path: &[u8]) -> &[u8] {
    path.rsplit(|byte| *byte == b'/').next().unwrap_or(path)
}
