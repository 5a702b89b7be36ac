//! Rounds over everything that runs, for what changes without an event that the sensor sees.
//!
//! A round visits every guarded process, each root daemon every tenth time and any other every
//! sixtieth, evenly spread over its length. Where checks had to be dropped the next round begins at
//! once and leaves nobody out.

use std::collections::VecDeque;

use super::observe::{Body, CheckReason, Observation, ProcessId};
use super::pipeline::Pipeline;
use super::table::Proc;

/// Of how many rounds a root daemon is visited in one, and anything else.
const DAEMONS: u64 = 10;
const OTHERS: u64 = 60;

/// The rounds.
#[derive(Debug)]
pub(super) struct Patrol {
    /// Length of a round, ns; 0 is never.
    every_ns: u64,
    round: u64,
    /// When the next round begins; none before the first tick.
    begins_ns: Option<u64>,
    left: VecDeque<(ProcessId, Beat)>,
    next_ns: u64,
    pace_ns: u64,
    /// Checks dropped that a round has made up for.
    made_up: u64,
    /// The round that is under way leaves nobody out.
    sweeping: bool,
    sweeps: u64,
}

/// Who is visited how often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Beat {
    Guarded,
    Daemon,
    Other,
}

// === impl Beat ===

impl Beat {
    fn rounds(self) -> u64 {
        match self {
            Self::Guarded => 1,
            Self::Daemon => DAEMONS,
            Self::Other => OTHERS,
        }
    }
}

// === impl Patrol ===

impl Patrol {
    pub(super) fn new(every_ns: u64) -> Self {
        Self {
            every_ns,
            round: 0,
            begins_ns: None,
            left: VecDeque::new(),
            next_ns: 0,
            pace_ns: 0,
            made_up: 0,
            sweeping: false,
            sweeps: 0,
        }
    }

    /// Whether a new round has to begin. `dropped` counts the checks given up so far.
    fn is_due(&mut self, now_ns: u64, dropped: u64) -> bool {
        if self.every_ns == 0 {
            return false;
        }
        let begins = *self.begins_ns.get_or_insert_with(|| now_ns.saturating_add(self.every_ns));
        let under_way = self.sweeping && !self.left.is_empty();
        (dropped > self.made_up && !under_way) || (begins <= now_ns && self.left.is_empty())
    }

    /// Begins a round among these, in an order that does not depend on the table's; true where
    /// it leaves nobody out.
    fn begin(
        &mut self,
        now_ns: u64,
        dropped: u64,
        running: impl Iterator<Item = (ProcessId, Beat)>,
    ) -> bool {
        let sweep = dropped > self.made_up;
        (self.made_up, self.sweeping) = (dropped, sweep);
        self.sweeps += u64::from(sweep);
        let turn = |id: ProcessId, beat: Beat| {
            sweep || u64::from(id.tgid) % beat.rounds() == self.round % beat.rounds()
        };
        let mut visited: Vec<_> = running.filter(|(id, beat)| turn(*id, *beat)).collect();
        visited.sort_unstable_by_key(|(id, beat)| (beat.rounds(), *id));
        // Where time runs out, not always the same ones go without.
        let others = visited.partition_point(|(_, beat)| *beat == Beat::Guarded);
        if let Some(rest) = visited.get_mut(others..).filter(|rest| !rest.is_empty()) {
            let turns = self.round / OTHERS % u64::try_from(rest.len()).unwrap_or(1);
            rest.rotate_left(usize::try_from(turns).unwrap_or(0));
        }
        let count = u64::try_from(visited.len()).unwrap_or(u64::MAX).max(1);
        self.round += u64::from(!sweep);
        self.pace_ns = self.every_ns / count;
        self.next_ns = now_ns;
        self.begins_ns = Some(now_ns.saturating_add(self.every_ns));
        self.left = visited.into();
        sweep
    }

    /// Whose turn it is. Turns that were missed move the rest of the round.
    fn pop(&mut self, now_ns: u64) -> Option<(ProcessId, Beat)> {
        if self.next_ns > now_ns {
            return None;
        }
        let next = self.left.pop_front()?;
        self.next_ns = now_ns.saturating_add(self.pace_ns);
        Some(next)
    }

    pub(super) fn next_due(&self) -> Option<u64> {
        if self.left.is_empty() { self.begins_ns } else { Some(self.next_ns) }
    }

    /// Rounds begun out of turn because checks had been dropped.
    pub(super) fn sweeps(&self) -> u64 {
        self.sweeps
    }
}

// === impl Pipeline ===

impl Pipeline {
    pub(super) fn patrol_tick(&mut self, now_ns: u64, out: &mut impl FnMut(Observation)) {
        let dropped = self.schedule.dropped();
        if self.patrol.is_due(now_ns, dropped) {
            // Who still seems to be linking may have had its link told for another start: a check of
            // one that really is says so.
            let running = self.table.alive().filter(|proc| proc.program.is_some());
            let running: Vec<_> = running.map(|proc| (proc.id, self.beat(proc))).collect();
            if self.patrol.begin(now_ns, dropped, running.into_iter()) {
                tracing::warn!(dropped, "checks were dropped: everything that runs is looked at");
            }
        }
        if let Some((id, beat)) = self.patrol.pop(now_ns)
            && self.table.get(id).is_some_and(|proc| !proc.ended)
        {
            let reason = match beat {
                Beat::Guarded => CheckReason::Patrol,
                Beat::Daemon => CheckReason::Daemon,
                Beat::Other => CheckReason::Other,
            };
            self.learn_details(id);
            self.emit(id, now_ns, Body::CheckDue(reason), out);
        }
    }

    fn beat(&self, proc: &Proc) -> Beat {
        if proc.guarded() {
            Beat::Guarded
        } else if self.is_root_daemon(proc.id) {
            Beat::Daemon
        } else {
            Beat::Other
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(tgid: u32) -> ProcessId {
        ProcessId { tgid, start_ticks: 1 }
    }

    /// 1 and 2 are guarded, up to 30 are daemons, the rest is ordinary.
    fn running(count: u32) -> impl Iterator<Item = (ProcessId, Beat)> {
        (1..=count).map(|tgid| {
            let beat = match tgid {
                1..=2 => Beat::Guarded,
                3..=30 => Beat::Daemon,
                _ => Beat::Other,
            };
            (id(tgid), beat)
        })
    }

    /// Everybody visited in one round of 600 ns, with the time of each visit.
    fn round(patrol: &mut Patrol, begins: u64, count: u32) -> Vec<(u64, u32)> {
        assert!(patrol.is_due(begins, 0));
        patrol.begin(begins, 0, running(count));
        let visits = (begins..begins + 600).filter_map(|now| Some((now, patrol.pop(now)?.0.tgid)));
        visits.collect()
    }

    #[test]
    fn guarded_programs_are_visited_each_round_and_everybody_in_sixty() {
        let mut patrol = Patrol::new(600);
        assert!(!patrol.is_due(0, 0));
        let mut visits = vec![0; 101];
        for number in 1..=60 {
            for (_, tgid) in round(&mut patrol, number * 600, 100) {
                visits[tgid as usize] += 1;
            }
        }
        assert_eq!(visits[1..=2], [60; 2]);
        assert_eq!(visits[3..=30], [6; 28]);
        assert_eq!(visits[31..=100], [1; 70]);
    }

    #[test]
    fn a_round_is_spread_over_its_length_guarded_programs_first() {
        let mut patrol = Patrol::new(600);
        assert!(!patrol.is_due(0, 0));
        let visits = round(&mut patrol, 600, 30);
        // Two guarded ones and every tenth of the 28 daemons.
        assert_eq!(visits, [(600, 1), (720, 2), (840, 10), (960, 20), (1080, 30)]);
    }

    #[test]
    fn dropped_checks_are_made_up_for_by_a_round_that_leaves_nobody_out() {
        let mut patrol = Patrol::new(600);
        assert!(!patrol.is_due(0, 0));
        assert!(patrol.is_due(5, 3));
        patrol.begin(5, 3, running(40));
        assert_eq!((patrol.left.len(), patrol.sweeps()), (40, 1));
        assert!(!patrol.is_due(6, 3));
        assert!(!patrol.is_due(6, 4), "not before it has come to its end");
        while patrol.pop(u64::MAX).is_some() {
            patrol.next_ns = 0;
        }
        assert!(patrol.is_due(6, 4));
    }

    #[test]
    fn turns_that_were_missed_are_not_made_up_for_in_a_burst() {
        let mut patrol = Patrol::new(600);
        assert!(!patrol.is_due(0, 0));
        patrol.begin(600, 0, running(30));
        assert_eq!(patrol.pop(5000).map(|(id, _)| id), Some(id(1)));
        assert_eq!(patrol.pop(5000), None);
        assert_eq!(patrol.next_due(), Some(5120));
    }

    #[test]
    fn who_wants_no_rounds_has_none() {
        let mut patrol = Patrol::new(0);
        assert!(!patrol.is_due(u64::MAX, 7));
        assert_eq!(patrol.next_due(), None);
    }
}
