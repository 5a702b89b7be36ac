//! The analysis over a recording.

mod people;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io::Read;
use std::mem;

use jiff::Timestamp;

use super::check::Recorded;
use super::reader::{Ended, ReadError, Reader};
use super::step::{Header, Settings, Step};
use crate::analysis::Analysis;
use crate::baseline::{Memory, Store};
use crate::config::Suppress;
use crate::incident::{Entry, Incident, IncidentUpdate, MAX_OPEN, Suppression};
use people::Expected;

/// Incidents kept, as by the store.
const INCIDENTS_MAX: usize = 10_000;

/// What came of a replay.
#[derive(Clone, Debug)]
pub struct Replayed {
    /// The latest state of each incident that the recording opened or changed, newest first.
    pub incidents: Vec<Incident>,
    /// What is to be expected at its end, with what each has matched.
    pub suppressions: Vec<Suppression>,
    /// How the recording ended.
    pub ended: Ended,
    /// What was counted.
    pub counts: Counts,
}

/// What a replay counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Observations.
    pub observations: u64,
    /// Losses told.
    pub losses: u64,
    /// Slot checks that were asked for and that the recording does not have.
    pub unanswered: u64,
    /// Slot checks of the recording that were not asked for.
    pub unasked: u64,
    /// Incidents for which there was no room.
    pub omitted: u64,
    /// People's decisions that were followed.
    pub decisions: u64,
    /// Those that were followed then and cannot be here: their incident is not told, or stands otherwise.
    pub unfollowed: u64,
    /// Findings that were suppressed.
    pub suppressed: u64,
}

/// An analysis that is told what stands in a recording.
struct Player {
    analysis: Analysis,
    checks: Recorded,
    memory: Memory,
    provenance: bool,
    restored: Vec<Entry>,
    expected: Expected,
    /// As the agent's store has them.
    entries: BTreeMap<String, Entry>,
    /// Bytes of incidents that were there before.
    before: usize,
    /// When the recording began.
    begun: Timestamp,
    counts: Counts,
}

/// Runs a recording to its end under `settings`; `told` hears of every incident worth telling, in
/// order.
///
/// # Errors
/// Where the recording is damaged: what was told until then holds.
pub fn replay<R: Read>(
    recording: &mut Reader<R>,
    settings: &Settings,
    told: &mut dyn FnMut(&IncidentUpdate),
) -> Result<Replayed, ReadError> {
    replay_with_rules(recording, settings, None, told)
}

/// The same, with `rules` for those of the recording where they are given. What people have decided
/// about incidents, suppressions among it, stays.
///
/// # Errors
/// See [`replay`].
pub fn replay_with_rules<R: Read>(
    recording: &mut Reader<R>,
    settings: &Settings,
    rules: Option<&[Suppress]>,
    told: &mut dyn FnMut(&IncidentUpdate),
) -> Result<Replayed, ReadError> {
    let mut player = Player::new(recording.header(), settings, Expected::new(rules));
    let mut next = recording.step()?;
    while let Some(step) = next {
        // What it will ask for stands behind it.
        next = recording.step()?;
        while let Some(answer) = next.take_if(|step| step.is_answer()) {
            player.prepare(answer).map_err(|what| recording.damaged(what))?;
            next = recording.step()?;
        }
        let updates = player.play(step).map_err(|what| recording.damaged(what))?;
        updates.iter().for_each(&mut *told);
    }
    let cut = Ended::Cut { offset: 0 };
    Ok(player.end(recording.ended().unwrap_or(cut)))
}

// === impl Player ===

impl Player {
    fn new(header: &Header, settings: &Settings, mut expected: Expected) -> Self {
        let (checks, memory) = (Recorded::default(), Memory::default());
        let store = Store::remembering(memory.clone());
        let config = settings.config();
        let mut analysis =
            Analysis::new(&config, header.host.clone(), store, Box::new(checks.clone()));
        // A recording may have none.
        analysis.incidents().set_suppressions(expected.take());
        Self {
            analysis,
            checks,
            memory,
            provenance: settings.provenance,
            restored: Vec::new(),
            expected,
            entries: BTreeMap::new(),
            before: 0,
            begun: header.begun,
            counts: Counts::default(),
        }
    }

    /// What the next step will ask for.
    fn prepare(&mut self, answer: Step) -> Result<(), &'static str> {
        let (room, otherwise) = match answer {
            Step::Known { subject, stored } => {
                (self.memory.recall(&subject, &stored), "it has larger baselines than any host")
            }
            Step::Answer(answer) => {
                (self.checks.expect(*answer), "it has more slot checks in a row than any host")
            }
            _ => return Ok(()),
        };
        if room { Ok(()) } else { Err(otherwise) }
    }

    fn play(&mut self, step: Step) -> Result<Vec<IncidentUpdate>, &'static str> {
        let updates = match step {
            Step::Seen(seen) => {
                self.counts.observations += 1;
                self.analysis.on_observation(*seen)
            }
            Step::Tick(now) => {
                let updates = self.analysis.tick(now);
                self.collect();
                updates
            }
            Step::Finish => self.analysis.finish(),
            Step::Decided(decided) => self.decide(*decided)?,
            other => {
                self.take_in(other)?;
                Vec::new()
            }
        };
        if !updates.is_empty() {
            self.collect();
        }
        self.set_aside();
        Ok(updates)
    }

    /// A step that tells nobody anything by itself.
    fn take_in(&mut self, step: Step) -> Result<(), &'static str> {
        match step {
            Step::Loss => {
                self.counts.losses += 1;
                self.analysis.on_loss();
            }
            Step::AskDates(asks) => self.analysis.ask_dates(asks && self.provenance),
            Step::Restored(_) if self.restored.len() >= MAX_OPEN => {
                return Err("it has more open incidents than any host");
            }
            Step::Restored(entry) => {
                self.admit(&entry)?;
                self.restored.push(*entry);
            }
            Step::Restore { now, ktime_ns } => {
                let entries = mem::take(&mut self.restored);
                self.analysis.incidents().restore(entries, now, ktime_ns);
            }
            Step::Suppression(one) => self.expected.tell(*one)?,
            Step::Suppressions => {
                let expected = self.expected.take();
                self.analysis.incidents().set_suppressions(expected);
            }
            Step::Changed { subject, baseline } => {
                let Ok(baseline) = serde_json::from_str(&baseline) else {
                    return Err("it has a changed baseline that cannot be read");
                };
                self.analysis.change(&subject, baseline);
            }
            // Answers to nothing.
            answer @ (Step::Known { .. } | Step::Answer(_)) => self.prepare(answer)?,
            // These tell something, and an end the reader takes for itself.
            Step::Seen(_) | Step::Tick(_) | Step::Finish | Step::Decided(_) | Step::End { .. } => {}
        }
        Ok(())
    }

    /// As the agent saves them.
    fn collect(&mut self) {
        let Self { analysis, entries, counts, .. } = self;
        let keep = |changed: &[&Entry]| {
            for &entry in changed {
                let id = &entry.incident.id;
                if entries.len() >= INCIDENTS_MAX && !entries.contains_key(id) {
                    counts.omitted += 1;
                } else {
                    entries.insert(id.clone(), entry.clone());
                }
            }
            Ok::<_, Infallible>(())
        };
        match analysis.incidents().save(keep) {
            Ok(()) => {}
        }
    }

    /// What an agent passes on to others.
    fn set_aside(&mut self) {
        self.counts.unasked += self.checks.clear();
        // Their answers stand in the recording.
        self.analysis.questions();
        self.analysis.directives();
        self.analysis.found();
        self.analysis.store_notes();
    }

    fn end(mut self, ended: Ended) -> Replayed {
        self.collect();
        self.counts.unanswered = self.checks.unanswered();
        let kept = self.analysis.incidents();
        self.counts.suppressed = kept.counters().suppressed;
        let suppressions = kept.suppressions().iter().cloned().collect();
        let mut incidents: Vec<_> =
            self.entries.into_values().map(|entry| entry.incident).collect();
        incidents.sort_by(|a, b| b.opened.cmp(&a.opened).then_with(|| b.id.cmp(&a.id)));
        Replayed { incidents, suppressions, ended, counts: self.counts }
    }
}
