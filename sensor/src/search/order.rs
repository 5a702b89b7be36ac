//! Who asked for which module first: the order in which a loader follows `DT_NEEDED`.

use std::collections::{HashMap, HashSet, VecDeque};

use super::Start;

/// Names followed in all.
const NAMES_MAX: usize = 16_384;

/// The modules of a process by who asked for them.
#[derive(Debug, Default)]
pub(super) struct Order {
    /// By number of the module: who asked for it.
    by: HashMap<usize, usize>,
    /// Modules in the order in which they were met.
    met: Vec<usize>,
    /// Names that lead to a module by its soname or file name.
    known: HashSet<String>,
}

// === impl Order ===

impl Order {
    /// Breadth first from the program, then what is preloaded, then what the program opened later.
    pub(super) fn of(start: &Start) -> Self {
        let mut by_name: HashMap<&str, usize> = HashMap::new();
        for (at, module) in start.modules.iter().enumerate() {
            let file = module.path.file_name().and_then(std::ffi::OsStr::to_str);
            for name in [module.names.soname.as_deref(), file].into_iter().flatten() {
                by_name.entry(name).or_insert(at);
            }
        }
        let mut order = Self {
            known: by_name.keys().map(|name| (*name).to_owned()).collect(),
            ..Self::default()
        };
        let mut seen = HashSet::new();
        let mut left = NAMES_MAX;
        let preloaded = start.preloads.iter().filter_map(|(_, name)| {
            let name = name.rsplit('/').next().unwrap_or(name);
            by_name.get(name).copied()
        });
        let first: Vec<usize> = [0].into_iter().chain(preloaded).collect();
        order.follow(start, &by_name, &mut seen, first, &mut left);
        for at in 0..start.modules.len() {
            order.follow(start, &by_name, &mut seen, vec![at], &mut left);
        }
        order
    }

    fn follow(
        &mut self,
        start: &Start,
        by_name: &HashMap<&str, usize>,
        seen: &mut HashSet<usize>,
        from: Vec<usize>,
        left: &mut usize,
    ) {
        let mut queue: VecDeque<usize> = from.into_iter().filter(|at| seen.insert(*at)).collect();
        while let Some(at) = queue.pop_front() {
            let Some(module) = start.modules.get(at) else { continue };
            self.met.push(at);
            for name in &module.names.needed {
                let Some(rest) = left.checked_sub(1) else { return };
                *left = rest;
                let name = name.rsplit('/').next().unwrap_or(name);
                if let Some(needed) = by_name.get(name).copied().filter(|one| seen.insert(*one)) {
                    self.by.insert(needed, at);
                    queue.push_back(needed);
                }
            }
        }
    }

    /// Who asked for a module; `None` for the program and what is not needed by anyone.
    pub(super) fn asked_by(&self, module: usize) -> Option<usize> {
        self.by.get(&module).copied()
    }

    /// Every name that a module needs, in order, with the number of the module.
    pub(super) fn asked<'a>(&self, start: &'a Start) -> Vec<(usize, &'a str)> {
        let mut seen = HashSet::new();
        let modules = self.met.iter().filter_map(|at| Some((*at, start.modules.get(*at)?)));
        let names = modules
            .flat_map(|(at, module)| module.names.needed.iter().map(move |it| (at, it.as_str())));
        // The first who asks decides.
        names.filter(|(_, name)| seen.insert(*name)).take(NAMES_MAX).collect()
    }

    /// A module is called so.
    pub(super) fn is_known(&self, name: &str) -> bool {
        self.known.contains(name.rsplit('/').next().unwrap_or(name))
    }
}
