//! Recordings in memory, and what goes into them.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::{Header, Reader, Recorder, Recording, Redactor, Settings, Step, Target};
use crate::config::Config;
use crate::finding::{Family, Finding, ProcessRef, Severity};
use crate::host::Lineage;
use crate::incident::{Decision, Entry, Incident, Origin, State, Suppression, Verb};

/// More than any test is ahead of the disk.
const WAITING: usize = 1 << 17;
/// A machine that does other things.
const PATIENCE: Duration = Duration::from_mins(10);

/// A file in memory; its copies are one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shared(pub(crate) Arc<Mutex<Vec<u8>>>);

/// A recording under way in memory.
#[derive(Debug)]
pub(crate) struct Tape {
    file: Shared,
    recording: Recording,
}

// === impl Shared ===

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Target for Shared {
    fn end(&mut self, whole: u64, failed: bool) -> io::Result<()> {
        if failed {
            self.0.lock().unwrap().truncate(usize::try_from(whole).unwrap());
        }
        Ok(())
    }
}

// === impl Tape ===

impl Tape {
    pub(crate) fn start(config: &Config, redactor: Option<Redactor>) -> (Recorder, Self) {
        let file = Shared::default();
        let header = Header { redacted: redactor.is_some(), ..header(config) };
        let target = Box::new(file.clone());
        let (recorder, recording) =
            Recorder::start_with(target, &header, redactor, WAITING).unwrap();
        (recorder, Self { file, recording })
    }

    /// The whole recording, once every recorder of it is dropped.
    pub(crate) fn end(self) -> Vec<u8> {
        let told = self.recording.wait(PATIENCE);
        assert_eq!(told.failure, None);
        let bytes = self.file.0.lock().unwrap().clone();
        assert_eq!(told.bytes, bytes.len() as u64);
        bytes
    }
}

/// Of a host that does not exist.
pub(crate) fn header(config: &Config) -> Header {
    Header {
        agent: "0.1.0".to_owned(),
        host: "host1".to_owned(),
        kernel: "6.1.0 #1 SMP x86_64".to_owned(),
        begun: at(0),
        wall_minus_monotonic_ns: 1_700_000_000_000_000_000,
        boot_minus_monotonic_ns: 0,
        redacted: false,
        settings: Settings::of(config),
    }
}

/// A whole recording of these.
pub(crate) fn recording(steps: &[Step]) -> Vec<u8> {
    let (recorder, tape) = Tape::start(&Config::default(), None);
    for step in steps {
        recorder.tell(|| step.clone());
    }
    drop(recorder);
    tape.end()
}

/// The steps of a recording, each as JSON.
pub(crate) fn steps(bytes: &[u8]) -> Result<Vec<String>, super::ReadError> {
    let mut reader = Reader::open(bytes)?;
    let mut all = Vec::new();
    while let Some(step) = reader.step()? {
        all.push(serde_json::to_string(&step).unwrap());
    }
    Ok(all)
}

/// An incident of one finding about this subject.
pub(crate) fn incident(id: &str, subject: &str, seconds: i64) -> Incident {
    let finding = Finding {
        time: at(seconds),
        ktime_ns: 0,
        id: "0".to_owned(),
        detector: "got_redirected".to_owned(),
        family: Family::Hook,
        severity: Severity::High,
        confidence: 0.9,
        title: "a slot leads elsewhere".to_owned(),
        host: "host1".to_owned(),
        process: ProcessRef::default(),
        subject: subject.to_owned(),
        evidence: Vec::new(),
        attack: Vec::new(),
        explained_by: None,
        suppressed_by: None,
    };
    Incident {
        id: id.to_owned(),
        opened: at(seconds),
        updated: at(seconds + 30),
        state: State::Open,
        severity: Severity::High,
        score: 70,
        title: "A slot of sshd leads elsewhere".to_owned(),
        story: "It does.".to_owned(),
        findings: vec![finding],
        hosts: vec!["host1".to_owned()],
        recommendation: "Look.".to_owned(),
        partial: false,
        decisions: Vec::new(),
    }
}

/// That incident as a store has it, once it is over.
pub(crate) fn over(incident: Incident) -> Entry {
    let lineage = Lineage::Program(incident.findings[0].subject.clone());
    let (others, omitted, connections, over) = (Vec::new(), 0, 0, true);
    Entry { lineage, others, omitted, connections, over, incident }
}

/// What somebody decides then; a suppression is for an hour.
pub(crate) fn decision(verb: Verb, seconds: i64) -> Decision {
    Decision {
        verb,
        time: at(seconds),
        who: "alice".to_owned(),
        why: "ticket 4711".to_owned(),
        uid: 0,
        until: (verb == Verb::Suppress).then(|| at(seconds + 3600)),
    }
}

/// A rule about sshd that has not matched yet.
pub(crate) fn suppression(name: &str) -> Suppression {
    Suppression {
        name: name.to_owned(),
        origin: Origin::Rule,
        detector: None,
        subject: Some("/usr/sbin/sshd".to_owned()),
        package: None,
        build_id: None,
        sha256: None,
        keys: Vec::new(),
        who: "bob".to_owned(),
        why: "it wraps crypto".to_owned(),
        until: at(1_000_000),
        since: at(0),
        matches: 0,
        last_match: None,
    }
}

pub(crate) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000).unwrap() + SignedDuration::from_secs(seconds)
}
