//! Who did it, caught while it may still be there to ask.

use std::collections::BTreeMap;

use super::change::Actor;
use crate::host::{Outside, Procfs};

/// Actors of one batch of events: each is asked once.
#[derive(Debug, Default)]
pub(super) struct Actors(BTreeMap<u32, Actor>);

// === impl Actors ===

impl Actors {
    pub(super) fn get(&mut self, tgid: u32) -> &Actor {
        self.0.entry(tgid).or_insert_with(|| catch(tgid))
    }
}

/// A process that has ended meanwhile is known by its id only: the host station has seen it start.
fn catch(tgid: u32) -> Actor {
    let bare = Actor { tgid, ..Actor::default() };
    let Some(stat) = Procfs.stat(tgid) else { return bare };
    let caught = Actor {
        tgid,
        start_ticks: Some(stat.start_ticks),
        exe: Procfs.exe(tgid).map(|(path, _)| path),
        cmdline: Procfs.cmdline(tgid),
        cgroup: Procfs.cgroup(tgid),
    };
    // The id may have passed to another between the readings.
    let same = Procfs.stat(tgid).is_some_and(|now| now.start_ticks == stat.start_ticks);
    if same { caught } else { bare }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_living_process_is_described_and_a_dead_one_named() {
        let own = std::process::id();
        let mut actors = Actors::default();
        let actor = actors.get(own).clone();
        assert!(actor.start_ticks.is_some() && !actor.cmdline.is_empty());
        assert_eq!(actor.exe, std::env::current_exe().ok());
        let gone = u32::MAX;
        assert_eq!(*actors.get(gone), Actor { tgid: gone, ..Actor::default() });
    }
}
