//! An analysis at work, with the recording that is made of it.

use std::fmt;
use std::ops::{Deref, DerefMut};

use jiff::Timestamp;
use tracing::warn;

use super::check::Recording;
use super::recorder::Recorder;
use super::step::{Decided, Step};
use crate::analysis::Analysis;
use crate::baseline::{Orders, Store};
use crate::config::Config;
use crate::detect::SlotCheck;
use crate::host::Observation;
use crate::incident::{Decision, Entry, IncidentUpdate, Reason, Refusal, Suppressions};

/// An analysis. All that it is told goes through here, and into the recording, if there is one.
pub struct Recorded {
    analysis: Analysis,
    recorder: Option<Recorder>,
}

// === impl Recorded ===

impl Recorded {
    /// On top of a store. `host` is this machine's name.
    #[must_use]
    pub fn new(
        config: &Config,
        host: String,
        mut store: Store,
        mut checker: Box<dyn SlotCheck + Send>,
        recorder: Option<Recorder>,
    ) -> Self {
        if let Some(recorder) = &recorder {
            let tap = recorder.clone();
            // Bytes that are no text are no baseline either: as good as none.
            store.tell(move |subject, stored| {
                if let Ok(stored) = str::from_utf8(stored) {
                    let (subject, stored) = (subject.to_owned(), stored.to_owned());
                    tap.tell(|| Step::Known { subject, stored });
                }
            });
            checker = Box::new(Recording { checker, recorder: recorder.clone() });
        }
        let mut live = Self { analysis: Analysis::new(config, host, store, checker), recorder };
        if !config.suppress.is_empty() {
            // Until somebody who keeps them says what they have matched before.
            let rules = Suppressions::new(&config.suppress, Vec::new(), Timestamp::UNIX_EPOCH);
            live.suppress(rules);
        }
        live
    }

    /// See [`Analysis::on_observation`].
    pub fn on_observation(&mut self, seen: Observation) -> Vec<IncidentUpdate> {
        self.tell(|| Step::Seen(Box::new(seen.clone())));
        self.analysis.on_observation(seen)
    }

    /// See [`Analysis::on_loss`].
    pub fn on_loss(&mut self) {
        self.tell(|| Step::Loss);
        self.analysis.on_loss();
    }

    /// See [`Analysis::tick`].
    pub fn tick(&mut self, now_ktime_ns: u64) -> Vec<IncidentUpdate> {
        self.tell(|| Step::Tick(now_ktime_ns));
        self.analysis.tick(now_ktime_ns)
    }

    /// See [`Analysis::finish`].
    pub fn finish(&mut self) -> Vec<IncidentUpdate> {
        self.tell(|| Step::Finish);
        self.analysis.finish()
    }

    /// See [`Analysis::ask_dates`].
    pub fn ask_dates(&mut self, asks: bool) {
        self.tell(|| Step::AskDates(asks));
        self.analysis.ask_dates(asks);
    }

    /// Takes in what a store kept as open: [`Incidents::restore`](crate::incident::Incidents::restore).
    pub fn restore(&mut self, entries: Vec<Entry>, now: Timestamp, ktime_ns: u64) {
        for entry in &entries {
            self.tell(|| Step::Restored(Box::new(entry.clone())));
        }
        self.tell(|| Step::Restore { now, ktime_ns });
        self.analysis.incidents().restore(entries, now, ktime_ns);
    }

    /// Says what is to be expected from now on:
    /// [`Incidents::set_suppressions`](crate::incident::Incidents::set_suppressions).
    pub fn suppress(&mut self, suppressions: Suppressions) {
        for one in suppressions.iter() {
            self.tell(|| Step::Suppression(Box::new(one.clone())));
        }
        self.tell(|| Step::Suppressions);
        self.analysis.incidents().set_suppressions(suppressions);
    }

    /// Follows a decision: [`Incidents::decide`](crate::incident::Incidents::decide). One that is
    /// refused changes nothing, and is not recorded.
    pub fn decide(
        &mut self,
        id: &str,
        stored: Option<Entry>,
        decision: &Decision,
        ktime_ns: u64,
    ) -> Result<IncidentUpdate, Refusal> {
        let incidents = self.analysis.incidents();
        let past = incidents.past(id, stored);
        let incident = incidents.decide(id, past.clone(), decision, ktime_ns)?;
        self.tell(|| {
            let (id, decision) = (id.to_owned(), decision.clone());
            Step::Decided(Box::new(Decided { id, decision, ktime_ns, past }))
        });
        Ok(IncidentUpdate { reason: Reason::Decided, incident })
    }

    /// See [`Analysis::obey`]. What an order was is of no matter later, only what it has made.
    pub(crate) fn obey(&mut self, orders: &Orders, now: Timestamp) -> Vec<String> {
        let (told, subjects) = self.analysis.obey(orders, now);
        if self.recorder.is_some() {
            for subject in subjects {
                match serde_json::to_string(self.analysis.baseline(&subject)) {
                    Ok(baseline) => self.tell(|| Step::Changed { subject, baseline }),
                    Err(error) => {
                        warn!(%error, subject, "not recorded: replays know it otherwise");
                    }
                }
            }
        }
        told
    }

    fn tell(&self, step: impl FnOnce() -> Step) {
        if let Some(recorder) = &self.recorder {
            recorder.tell(step);
        }
    }
}

impl Deref for Recorded {
    type Target = Analysis;

    fn deref(&self) -> &Analysis {
        &self.analysis
    }
}

impl DerefMut for Recorded {
    fn deref_mut(&mut self) -> &mut Analysis {
        &mut self.analysis
    }
}

impl fmt::Debug for Recorded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorded").field("analysis", &self.analysis).finish_non_exhaustive()
    }
}
