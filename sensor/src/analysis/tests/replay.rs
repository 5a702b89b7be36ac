//! Live against replay: whatever a test here tells an analysis is recorded, and replayed when it ends.

mod days;
mod decided;

use std::ops::{Deref, DerefMut};
use std::path::PathBuf;

use self::days::{attacked_day, clean_day, talkative_day};
use self::decided::decided_day;
use super::*;
use crate::baseline::Store;
use crate::finding::Evidence;
use crate::host::Observation;
use crate::incident::{Decision, Entry, Refusal, Suppression};
use crate::record::testing::{Tape, recording};
use crate::record::{Ended, Reader, Recorded, Redactor, Replayed, Settings, Step, replay};

/// An analysis that is recorded. Its recording must replay to what it has told, to the byte.
pub(super) struct Watched {
    recorded: Option<Recorded>,
    tape: Option<Tape>,
    told: Vec<String>,
}

// === impl Watched ===

impl Watched {
    pub(super) fn new(config: &Config, store: Store, slots: Box<dyn SlotCheck + Send>) -> Self {
        Self::redacted(config, store, slots, None)
    }

    fn redacted(
        config: &Config,
        store: Store,
        slots: Box<dyn SlotCheck + Send>,
        redactor: Option<Redactor>,
    ) -> Self {
        let (recorder, tape) = Tape::start(config, redactor);
        let live = Recorded::new(config, "host1".to_owned(), store, slots, Some(recorder));
        Self { recorded: Some(live), tape: Some(tape), told: Vec::new() }
    }

    pub(super) fn on_observation(&mut self, seen: Observation) -> Vec<IncidentUpdate> {
        let updates = (**self).on_observation(seen);
        self.note(updates)
    }

    pub(super) fn tick(&mut self, now_ktime_ns: u64) -> Vec<IncidentUpdate> {
        let updates = (**self).tick(now_ktime_ns);
        self.note(updates)
    }

    pub(super) fn finish(&mut self) -> Vec<IncidentUpdate> {
        let updates = (**self).finish();
        self.note(updates)
    }

    pub(super) fn decide(
        &mut self,
        id: &str,
        stored: Option<Entry>,
        decision: &Decision,
        ktime_ns: u64,
    ) -> Result<IncidentUpdate, Refusal> {
        let update = (**self).decide(id, stored, decision, ktime_ns)?;
        self.told.push(line(&update));
        Ok(update)
    }

    /// What is to be expected, with what each has matched.
    pub(super) fn suppressions(&mut self) -> Vec<Suppression> {
        self.incidents().suppressions().iter().cloned().collect()
    }

    fn note(&mut self, updates: Vec<IncidentUpdate>) -> Vec<IncidentUpdate> {
        self.told.extend(updates.iter().map(line));
        updates
    }

    /// Ends the analysis: its recording.
    fn end(&mut self) -> Vec<u8> {
        self.recorded = None;
        self.tape.take().map(Tape::end).unwrap_or_default()
    }
}

impl Deref for Watched {
    type Target = Recorded;

    fn deref(&self) -> &Recorded {
        self.recorded.as_ref().expect("it has ended")
    }
}

impl DerefMut for Watched {
    fn deref_mut(&mut self) -> &mut Recorded {
        self.recorded.as_mut().expect("it has ended")
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if self.tape.is_none() || std::thread::panicking() {
            return;
        }
        let (suppressions, suppressed) =
            (self.suppressions(), self.incidents().counters().suppressed);
        let (again, replayed) = play(&self.end());
        assert_eq!(replayed.ended, Ended::Whole);
        assert_eq!((replayed.counts.unanswered, replayed.counts.unasked), (0, 0));
        assert_eq!((replayed.counts.unfollowed, replayed.counts.suppressed), (0, suppressed));
        assert_eq!(replayed.suppressions, suppressions, "they have matched otherwise");
        assert_eq!(again, self.told, "replay tells something else than was told live");
    }
}

fn line(update: &IncidentUpdate) -> String {
    format!("{:?} {}", update.reason, serde_json::to_string(&update.incident).unwrap())
}

/// What a recording tells, in order, with what is left at its end.
fn play(bytes: &[u8]) -> (Vec<String>, Replayed) {
    let mut reader = Reader::open(bytes).unwrap();
    let settings = reader.header().settings;
    let mut told = Vec::new();
    let replayed = replay(&mut reader, &settings, &mut |update| told.push(line(update)));
    (told, replayed.unwrap())
}

fn json(incidents: &[Incident]) -> Vec<String> {
    incidents.iter().map(|incident| serde_json::to_string(incident).unwrap()).collect()
}

/// Settled soon, so that recordings are small.
fn soon() -> Config {
    let mut config = Config::default();
    config.learning.observations = 5;
    config
}

/// A bench whose recording leaves out what this says.
fn bench(config: &Config, redactor: Option<Redactor>) -> Bench {
    let mut bench = Bench::with(config, Store::off());
    let slots = Box::new(bench.slots.clone());
    bench.analysis = Watched::redacted(config, Store::off(), slots, redactor);
    bench
}

#[test]
fn a_recording_replays_to_the_same_bytes_each_time() {
    let mut bench = bench(&soon(), None);
    attacked_day(&mut bench);
    // As the agent's store has them.
    let mut saved = Vec::new();
    let save = |entries: &[&Entry]| {
        saved.extend(entries.iter().map(|entry| entry.incident.clone()));
        Ok::<_, ()>(())
    };
    bench.analysis.incidents().save(save).unwrap();
    let live = bench.analysis.told.clone();
    let bytes = bench.analysis.end();
    let ((first, one), (second, two)) = (play(&bytes), play(&bytes));
    assert!(!first.is_empty());
    assert_eq!((&first, &first), (&second, &live));
    assert_eq!(json(&one.incidents), json(&two.incidents));
    saved.sort_by_key(|incident| std::cmp::Reverse(incident.opened));
    assert_eq!(json(&one.incidents), json(&saved));
    assert_eq!(one.counts.losses, 1);
}

#[test]
fn what_the_store_knew_and_had_open_is_in_the_recording() {
    let dir = tempfile::tempdir().unwrap();
    let config = soon();
    let mut learned = Bench::with(&config, Store::open(dir.path()).0);
    clean_day(&mut learned);
    learned.attack(300, false, Tree::V9);
    learned.analysis.flush();
    let mut kept: Vec<Entry> = Vec::new();
    let keep = |entries: &[&Entry]| {
        kept.extend(entries.iter().map(|&entry| entry.clone()));
        Ok::<_, ()>(())
    };
    learned.analysis.incidents().save(keep).unwrap();
    drop(learned);

    // After a restart: nothing need be learned, and what was open goes on.
    let mut bench = Bench::with(&config, Store::open(dir.path()).0);
    let now = kept[0].incident.updated;
    let id = kept[0].incident.id.clone();
    let ktime_ns = bench.world.now;
    bench.analysis.restore(kept, now, ktime_ns);
    bench.attack(300, false, Tree::V9);
    let open: Vec<_> = bench.analysis.incidents().open().map(|open| open.id.clone()).collect();
    assert!(open.contains(&id), "{open:?}");
    let (_, replayed) = play(&bench.analysis.end());
    assert!(replayed.incidents.iter().any(|incident| incident.id == id));
}

#[test]
fn answers_about_dates_and_their_absence_are_replayed() {
    let mut bench = bench(&soon(), None);
    bench.analysis.ask_dates(true);
    clean_day(&mut bench);
    let mut login = Login::new("publickey").with_evil(300 * MS);
    login.caller = PathBuf::from(SSHD_PATH);
    bench.login(&login);
    let questions = bench.analysis.questions();
    assert!(!questions.is_empty());
    for (at, question) in questions.into_iter().enumerate() {
        let mut question = question;
        if let crate::host::Body::Dated(dated) = &mut question.body
            && at == 0
        {
            dated.answer = Some(Evidence::Note { text: "nothing has changed".to_owned() });
        }
        // The others come back as they were: nobody took them.
        let updates = bench.analysis.on_observation(question);
        bench.told.extend(updates);
    }
    bench.world.now += 10_000 * MS;
    bench.run();
    let live = bench.analysis.told.clone();
    let (again, _) = play(&bench.analysis.end());
    assert_eq!(again, live);
    assert!(again.iter().any(|line| line.contains("nothing has changed")), "{again:#?}");
}

#[test]
fn another_configuration_over_a_recording_tells_something_else() {
    let mut bench = bench(&soon(), None);
    attacked_day(&mut bench);
    let bytes = bench.analysis.end();
    let mut reader = Reader::open(&bytes[..]).unwrap();
    let mut config = soon();
    config.learning.observations = 1_000;
    let patient = replay(&mut reader, &Settings::of(&config), &mut |_| {}).unwrap();
    let (_, usual) = play(&bytes);
    let changes = crate::record::diff(&usual.incidents, &patient.incidents);
    assert!(!changes.is_empty(), "what is not settled cannot be unexpected");
    assert!(crate::record::diff(&usual.incidents, &usual.incidents).is_empty());
}

#[test]
fn a_check_that_the_recording_does_not_have_is_counted() {
    let mut bench = bench(&soon(), None);
    attacked_day(&mut bench);
    let bytes = bench.analysis.end();
    let mut reader = Reader::open(&bytes[..]).unwrap();
    let mut steps = Vec::new();
    while let Some(step) = reader.step().unwrap() {
        if !matches!(step, Step::Answer(_)) {
            steps.push(step);
        }
    }
    let bytes = recording(&steps);
    let mut reader = Reader::open(&bytes[..]).unwrap();
    let replayed = replay(&mut reader, &Settings::of(&soon()), &mut |_| {}).unwrap();
    assert!(replayed.counts.unanswered > 0);
    let redirected = |incident: &Incident| detectors(incident).contains(&"got_redirected");
    assert!(!replayed.incidents.iter().any(redirected), "nobody has seen the slot");
}

/// An incident without what a redacted recording does not have.
fn masked(incident: &Incident) -> Incident {
    let mut masked = incident.clone();
    (masked.title, masked.story) = (String::new(), String::new());
    for decision in &mut masked.decisions {
        (decision.who, decision.why) = (String::new(), String::new());
    }
    for finding in &mut masked.findings {
        finding.process.cmdline.clear();
        for evidence in &mut finding.evidence {
            match evidence {
                Evidence::Environment { value, .. } => value.clear(),
                Evidence::Exec { cmdline, .. } | Evidence::Writer { cmdline, .. } => {
                    cmdline.clear();
                }
                Evidence::Session { user, .. } => *user = None,
                _ => {}
            }
        }
    }
    masked
}

#[test]
fn a_redacted_recording_tells_the_same_but_for_what_was_redacted() {
    let (mut open, mut closed) =
        (bench(&soon(), None), bench(&soon(), Some(Redactor::with([7; 32]))));
    for bench in [&mut open, &mut closed] {
        talkative_day(bench);
        decided_day(bench);
    }
    assert_eq!(open.analysis.told, closed.analysis.told, "what is told live is not redacted");
    let bytes = closed.analysis.end();
    let (told, redacted) = play(&bytes);
    let (_, whole) = play(&open.analysis.end());
    let text = json(&whole.incidents).concat();
    assert!(text.contains("mallory/s3cret"), "the value is evidence: {text}");
    assert!(text.contains("carol") && text.contains("ticket 4711"), "{text}");
    let steps = crate::record::testing::steps(&bytes).unwrap().concat();
    for secret in ["s3cret", "carol", "ticket 4711", "bob", "it wraps crypto"] {
        assert!(!told.concat().contains(secret), "{secret}");
        assert!(!json(&redacted.incidents).concat().contains(secret), "{secret}");
        assert!(!steps.contains(secret), "{secret} is nowhere in the file");
    }
    assert_eq!(redacted.counts, whole.counts);
    let all =
        |replayed: &Replayed| -> Vec<Incident> { replayed.incidents.iter().map(masked).collect() };
    assert_eq!(json(&all(&redacted)), json(&all(&whole)));
    assert_eq!(play(&bytes).0, told, "and the same each time");
}
