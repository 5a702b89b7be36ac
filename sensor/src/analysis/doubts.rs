//! Code of no list that a thread in the loader may account for, until it has lasted too long for that.
//!
//! A library is mapped a moment before it is in the loader's list, and taken from the list a moment
//! before it is unmapped; a busy process may be in such a moment at any look. Whoever wakes a thread
//! often enough looks like that for ever. But a check that finds the same code at the same address at
//! every try, in several visits in a row, has not met that many moments.

use std::collections::BTreeMap;

use super::refusals::{TIMES, span_ns};
use crate::config::Patrol;
use crate::detect::{CheckReport, StrayCode};
use crate::host::{Observation, ProcessId};

/// Processes followed; beyond, the one of the lowest number is forgotten.
const PROCESSES_MAX: usize = 256;

/// What was found of whom.
#[derive(Debug)]
pub(super) struct Doubts {
    span_ns: u64,
    processes: BTreeMap<ProcessId, Doubt>,
}

/// Of checks in a row.
#[derive(Debug)]
struct Doubt {
    first_ns: u64,
    times: u64,
    /// Found by each of them.
    strays: Vec<StrayCode>,
}

// === impl Doubts ===

impl Doubts {
    pub(super) fn new(patrol: &Patrol) -> Self {
        Self { span_ns: span_ns(patrol.every), processes: BTreeMap::new() }
    }

    /// The report of a check that is over, with what has lasted among what is certain.
    pub(super) fn settle(&mut self, seen: &Observation, report: CheckReport) -> CheckReport {
        let id = seen.process.id;
        if report.doubtful.is_empty() {
            self.ended(id);
            return report;
        }
        if self.processes.len() >= PROCESSES_MAX && !self.processes.contains_key(&id) {
            self.processes.pop_first();
        }
        let begun = || Doubt { first_ns: seen.ktime_ns, times: 0, strays: report.doubtful.clone() };
        let doubt = self.processes.entry(id).or_insert_with(begun);
        doubt.strays.retain(|stray| report.doubtful.iter().any(|now| is_same(stray, now)));
        if doubt.strays.is_empty() {
            *doubt = begun();
        }
        doubt.times += 1;
        if doubt.times < TIMES || seen.ktime_ns.saturating_sub(doubt.first_ns) < self.span_ns {
            return report;
        }
        let (lasting, doubtful): (Vec<_>, Vec<_>) = report
            .doubtful
            .into_iter()
            .partition(|now| doubt.strays.iter().any(|stray| is_same(stray, now)));
        let strays = report.strays.into_iter().chain(lasting).collect();
        CheckReport { strays, doubtful, ..report }
    }

    /// A process is over.
    pub(super) fn ended(&mut self, process: ProcessId) {
        self.processes.remove(&process);
    }
}

fn is_same(one: &StrayCode, other: &StrayCode) -> bool {
    (one.address, one.problem, &one.module) == (other.address, other.problem, &other.module)
}
