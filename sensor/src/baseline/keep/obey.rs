//! Carrying out what a person asks of the baselines, in memory; the next flush writes it.

use jiff::{SignedDuration, Timestamp};

use super::{Baselines, Changed};
use crate::baseline::order::{Act, Answer, Done, Orders};
use crate::baseline::{Approval, Baseline, Import, Merged, Opened, Terms, role_of};
use crate::config::{Config, GuardedProgram, Learning};
use crate::trouble::chain;

/// See [`Act::Import`]'s check.
const SKEWS: SignedDuration = SignedDuration::from_hours(48);

/// What decides whether a baseline has settled.
#[derive(Clone, Debug)]
pub(crate) struct Measure {
    learning: Learning,
    guarded: Vec<GuardedProgram>,
}

/// What came of a turn of orders.
#[derive(Debug, Default)]
pub(crate) struct Carried {
    /// Something was forgotten: what the kernel side holds for known is not any more.
    pub(crate) forgotten: bool,
    /// Whose baselines were changed.
    pub(crate) subjects: Vec<String>,
    /// What happened to the store.
    pub(crate) opened: Option<Opened>,
    /// For the log: what each came to.
    pub(crate) told: Vec<String>,
}

// === impl Measure ===

impl Measure {
    pub(crate) fn new(config: &Config) -> Self {
        Self { learning: config.learning, guarded: config.guarded.clone() }
    }

    fn settled(&self, subject: &str, baseline: &Baseline) -> bool {
        let role = role_of(subject, &self.guarded);
        baseline.settled(self.learning.observations, role.guarded)
    }
}

// === impl Baselines ===

impl Baselines {
    /// Carries out the orders of a turn and answers them, once they are on the disk. Those that could
    /// not be written stay taken, and are carried out again with the next turn.
    pub(crate) fn carry_out(
        &mut self,
        orders: &Orders,
        measure: &Measure,
        time: Timestamp,
    ) -> Carried {
        let mut carried = Carried::default();
        let taken = orders.take();
        if taken.is_empty() {
            return carried;
        }
        let mut outcomes = Vec::new();
        for one in &taken {
            let outcome = match &one.act {
                Ok(act) => self.obey(act, measure),
                Err(reason) => Err(reason.clone()),
            };
            if let (Ok(act), Ok(_)) = (&one.act, &outcome) {
                carried.subjects.extend(act.subjects());
            }
            carried.forgotten |= matches!(outcome, Ok(Done::Forgotten { was: true }));
            outcomes.push(outcome);
        }
        carried.opened = self.flush(true);
        if let Some(reason) = self.failure() {
            carried.told.push(format!("an order waits for the store: {reason}"));
            return carried;
        }
        for (one, outcome) in taken.iter().zip(outcomes) {
            carried.told.push(told(one.act.as_ref().ok(), &outcome));
            if let Err(error) = one.answer(&Answer::new(time, outcome)) {
                carried.told.push(format!("an order cannot be answered: {}", chain(&error)));
            }
        }
        carried
    }

    /// Does all of it or nothing; a second time it changes nothing more. What was done, or why not.
    pub(crate) fn obey(&mut self, act: &Act, measure: &Measure) -> Result<Done, String> {
        match act {
            Act::Approve { subject, approvals } => {
                let mut baseline = self.get(subject).clone();
                if baseline.is_blank() {
                    return Err(format!("there is no baseline of {subject}"));
                }
                for approval in approvals {
                    let failed = |error| format!("{}: {error}", approval.object.shown());
                    baseline.approve(approval).map_err(failed)?;
                }
                *self.learn(subject, Changed::Learned) = baseline;
                Ok(Done::Approved { count: approvals.len() })
            }
            Act::Forget { subject } => {
                let was = !self.get(subject).is_blank();
                if was {
                    // An empty one is taken out of the store.
                    *self.learn(subject, Changed::Learned) = Baseline::default();
                }
                Ok(Done::Forgotten { was })
            }
            Act::Import { import, terms, baselines } => {
                // Twice what clocks may be apart: the export's from ours, its entries' from its own.
                let until = import.time.saturating_add(SKEWS).unwrap_or(Timestamp::MAX);
                for (subject, baseline) in baselines {
                    let failed = |error| format!("{subject}: {error}");
                    baseline.check(until).map_err(failed)?;
                }
                let each = baselines.iter().map(|(subject, theirs)| {
                    let merged = self.import(subject, theirs, import, *terms, measure);
                    (subject.clone(), merged)
                });
                Ok(Done::Imported { subjects: each.collect() })
            }
        }
    }

    fn import(
        &mut self,
        subject: &str,
        theirs: &Baseline,
        import: &Import,
        terms: Terms,
        measure: &Measure,
    ) -> Merged {
        let mut own = self.get(subject).clone();
        let settled = measure.settled(subject, &own);
        let merged = own.merge(theirs, import, terms, settled);
        if !merged.kept {
            let role = role_of(subject, &measure.guarded);
            own.note_settled(measure.learning.observations, role.guarded, import.time);
            *self.learn(subject, Changed::Learned) = own;
            if role.guarded {
                self.mark_guarded(subject);
            }
        }
        merged
    }
}

/// For the log: who did what to whose baseline.
fn told(act: Option<&Act>, outcome: &Result<Done, String>) -> String {
    let what = match act {
        None => "an order".to_owned(),
        Some(Act::Forget { subject }) => format!("forget {subject}"),
        Some(Act::Import { import, baselines, .. }) => {
            format!("import {} baselines of {}", baselines.len(), import.host)
        }
        Some(Act::Approve { subject, approvals }) => {
            let one = |approval: &Approval| {
                format!("{} by {}: {}", approval.object.shown(), approval.who, approval.why)
            };
            let all: Vec<String> = approvals.iter().map(one).collect();
            format!("approve for {subject}: {}", all.join("; "))
        }
    };
    match outcome {
        Ok(_) => format!("{what}: done"),
        Err(reason) => format!("{what}: refused: {reason}"),
    }
}
