//! In which order a module's symbols are searched, from the files' needs alone.
//!
//! glibc keeps this order in private memory (`l_scope`), which the process can write; for the
//! modules of program start it follows from the files (`_dl_map_object_deps`), so those are used.

use std::collections::{HashMap, HashSet, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use super::layout::{Kind, Layout};
use super::report::Linkage;

/// `LD_PRELOAD` lists are short; each costs one more traversal of the needs.
const MAX_PRELOADS: usize = 64;

/// Search orders of all modules of a process.
#[derive(Debug)]
pub(crate) struct Scopes {
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

/// Names that a `DT_NEEDED` entry of one namespace can mean.
struct Names<'a> {
    layout: &'a Layout,
    by_name: HashMap<&'a [u8], usize>,
}

// === impl Scopes ===

impl Scopes {
    pub(crate) fn build(layout: &Layout) -> Self {
        let nothing: Arc<[usize]> = Arc::from([]);
        let mut scopes = Self {
            global: Vec::new(),
            local: vec![nothing; layout.modules.len()],
            exact: vec![true; layout.modules.len()],
            preloads: Vec::new(),
            order_differs: false,
        };
        for (number, range) in layout.namespaces.iter().enumerate() {
            let global = scopes.add_namespace(layout, range, number == 0);
            scopes.global.push(global.into());
        }
        scopes
    }

    /// Global scope of one namespace; fills in the local scopes of modules outside it.
    fn add_namespace(&mut self, layout: &Layout, range: &Range<usize>, base: bool) -> Vec<usize> {
        let names = Names::new(layout, range);
        let order: Vec<usize> = searchable(layout, range)
            .filter(|module| Some(*module) != layout.loader && layout.real(*module) == *module)
            .collect();
        let Some(head) = order.first() else { return Vec::new() };
        let mut roots = vec![*head];
        let mut global = names.closure(&roots);
        while base && roots.len() <= MAX_PRELOADS {
            match first_difference(layout, &global, &order) {
                None => break,
                Some(at) if at == roots.len() && at < order.len() => {
                    roots.extend(order.get(at));
                    global = names.closure(&roots);
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
        self.add_opened(&names, range, &global);
        global
    }

    /// Modules opened later: each first one of a `dlopen` is searched with its own needs, and so
    /// are the modules it pulled in.
    fn add_opened(&mut self, names: &Names<'_>, range: &Range<usize>, global: &[usize]) {
        let at_start: HashSet<usize> = global.iter().copied().collect();
        let mut family: (Arc<[usize]>, HashSet<usize>) = (Arc::from([]), HashSet::new());
        for module in searchable(names.layout, range).filter(|module| !at_start.contains(module)) {
            if !family.1.contains(&module) {
                let closure = names.closure(&[module]);
                family = (closure.iter().copied().collect(), closure.into_iter().collect());
            }
            if let (Some(local), Some(exact)) =
                (self.local.get_mut(module), self.exact.get_mut(module))
            {
                *local = Arc::clone(&family.0);
                *exact = false;
            }
        }
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
        let namespace = layout.modules.get(module).map_or(0, |module| module.namespace);
        let global = self.global.get(namespace).map_or(&[][..], |scope| scope);
        let local = self.local.get(module).map_or(&[][..], |scope| scope);
        own.into_iter().chain(global.iter().copied()).chain(local.iter().copied())
    }

    /// Whether the search order of `module` is proven.
    pub(crate) fn is_exact(&self, module: usize) -> bool {
        self.exact.get(module).copied().unwrap_or(false)
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

// === impl Names ===

impl<'a> Names<'a> {
    fn new(layout: &'a Layout, range: &Range<usize>) -> Self {
        let mut by_name = HashMap::new();
        for at in range.clone() {
            let Some(module) = layout.modules.get(at) else { continue };
            let real = layout.real(at);
            let soname =
                layout.object(real).and_then(|object| object.elf.dynamic.soname.as_deref());
            for name in [soname, Some(base_name(&module.name)), Some(&*module.name)] {
                if let Some(name) = name.filter(|name| !name.is_empty()) {
                    by_name.entry(name).or_insert(real);
                }
            }
        }
        Self { layout, by_name }
    }

    /// Breadth-first over the needs, as `_dl_map_object_deps` (glibc `elf/dl-deps.c`) lists them.
    fn closure(&self, roots: &[usize]) -> Vec<usize> {
        let mut found = roots.to_vec();
        let mut seen: HashSet<usize> = roots.iter().copied().collect();
        let mut queue: VecDeque<usize> = roots.iter().copied().collect();
        while let Some(module) = queue.pop_front() {
            let Some(object) = self.layout.object(module) else { continue };
            for name in &object.elf.dynamic.needed {
                let Some(needed) = self.find(name) else { continue };
                if seen.insert(needed) {
                    found.push(needed);
                    queue.push_back(needed);
                }
            }
        }
        found
    }

    fn find(&self, name: &[u8]) -> Option<usize> {
        if self.layout.linkage == Linkage::Musl && is_musl_itself(name) {
            return self.layout.loader;
        }
        self.by_name.get(name).or_else(|| self.by_name.get(base_name(name))).copied()
    }
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
