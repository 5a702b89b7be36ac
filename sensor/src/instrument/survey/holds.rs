//! Holds of all processes, by what they are on.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::super::fdinfo::Link;
use super::super::holders::{Handle, Holding};
use super::Own;
use crate::loader::PerfSite;

/// Holds by what they are on.
#[derive(Debug, Default)]
pub(super) struct Holds {
    pub(super) links: BTreeMap<u32, HeldLink>,
    pub(super) perf: Vec<HeldPerf>,
    /// Processes by program, whatever they hold it by.
    programs: BTreeMap<u32, BTreeSet<u32>>,
}

/// A link and who holds it.
#[derive(Debug)]
pub(super) struct HeldLink {
    pub(super) link: Link,
    pub(super) pids: BTreeSet<u32>,
    /// The sensor holds it, to a program of its own.
    pub(super) is_own: bool,
}

/// A perf event and who holds one at that place.
#[derive(Debug)]
pub(super) struct HeldPerf {
    pub(super) site: PerfSite,
    pub(super) pids: BTreeSet<u32>,
    /// As above; what others have at the same place is theirs.
    pub(super) is_own: bool,
}

// === impl Holds ===

impl Holds {
    pub(super) fn of(holdings: Vec<Holding>, own: &Own) -> Self {
        let mut holds = Self::default();
        let mut sites: HashMap<(PerfSite, bool), usize> = HashMap::new();
        for Holding { pid, what } in holdings {
            match what {
                Handle::Program(id) => {
                    holds.programs.entry(id).or_default().insert(pid);
                }
                Handle::Link(link) => {
                    holds.programs.entry(link.program).or_default().insert(pid);
                    let is_own = own.has(pid, Some(link.program));
                    let held = holds.links.entry(link.id).or_insert_with(|| HeldLink {
                        link,
                        pids: BTreeSet::new(),
                        is_own: false,
                    });
                    held.pids.insert(pid);
                    held.is_own |= is_own;
                }
                Handle::Perf(site) => {
                    if let Some(program) = site.program {
                        holds.programs.entry(program).or_default().insert(pid);
                    }
                    let is_own = own.has(pid, site.program);
                    let at = *sites.entry((site.clone(), is_own)).or_insert_with(|| {
                        holds.perf.push(HeldPerf { site, pids: BTreeSet::new(), is_own });
                        holds.perf.len() - 1
                    });
                    if let Some(held) = holds.perf.get_mut(at) {
                        held.pids.insert(pid);
                    }
                }
            }
        }
        holds
    }

    /// Processes that hold a program, by itself, a link or a perf event.
    pub(super) fn of_program(&self, program: u32) -> Vec<u32> {
        self.programs.get(&program).into_iter().flatten().copied().collect()
    }
}

impl HeldPerf {
    /// Whose it is: its program's, and without one its first holder's.
    pub(super) fn who(&self) -> String {
        let holder = self.pids.first().copied().unwrap_or(0);
        self.site.program.map_or(format!("pid {holder}"), |id| format!("program {id}"))
    }
}
