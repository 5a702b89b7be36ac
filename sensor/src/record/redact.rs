//! What a recording leaves out unless it is asked for: arguments, values of variables, the names of
//! users who were not let in, and who decided what and why.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read as _};
use std::sync::Arc;

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::step::Step;
use crate::finding::{Evidence, ProcessRef};
use crate::host::{Body, Connection, Observation, Process};
use crate::incident::{Decision, Entry};

/// Replaces texts in steps. Equal texts stay equal: each becomes a token that is computed with a key
/// of this recording, which is written nowhere.
///
/// * Arguments: all but the first. Flags of one letter stay; of a title that a process has
///   written over its arguments (`sshd: alice [priv]`) what stands before the colon and in brackets.
/// * Values of loader variables keep their length and punctuation, by which detectors judge them
///   (`/x/x:/xxx`). Libraries that they make the loader load stay, as every other library does.
/// * User names of connections that are not (yet) authenticated.
/// * Who has decided about an incident, answers for a suppression or has approved a part of a baseline, and
///   why; and the host from which a baseline was imported. What a suppression matches
///   by stays: its name, detector, subject, package and digests, and the hashes by which findings of an
///   incident are recognised. Those hold the values of variables: whoever guesses one can see that
///   it was right. So does a decision's user id stay, like every other.
///
/// Paths of files, addresses of clients and lines of PAM's configuration are no part of this.
#[derive(Clone)]
pub struct Redactor {
    key: [u8; 32],
}

// === impl Redactor ===

impl Redactor {
    /// With a key that nobody knows.
    pub fn new() -> io::Result<Self> {
        let mut key = [0; 32];
        File::open("/dev/urandom")?.read_exact(&mut key)?;
        Ok(Self { key })
    }

    /// With this one.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn with(key: [u8; 32]) -> Self {
        Self { key }
    }

    /// The step as it may be written.
    #[must_use]
    pub fn apply(&self, step: Step) -> Step {
        match step {
            Step::Seen(mut seen) => {
                self.observation(&mut seen);
                Step::Seen(seen)
            }
            Step::Restored(mut entry) => {
                self.entry(&mut entry);
                Step::Restored(entry)
            }
            Step::Suppression(mut one) => {
                self.said(&mut one.who);
                self.said(&mut one.why);
                Step::Suppression(one)
            }
            Step::Decided(mut decided) => {
                self.decision(&mut decided.decision);
                if let Some(past) = &mut decided.past {
                    self.entry(past);
                }
                Step::Decided(decided)
            }
            Step::Known { subject, stored } => {
                Step::Known { subject, stored: self.baseline(&stored) }
            }
            Step::Changed { subject, baseline } => {
                Step::Changed { subject, baseline: self.baseline(&baseline) }
            }
            other => other,
        }
    }

    /// Without the words of those who approved parts of it, and the hosts it was imported from. Text that
    /// is none is as good as an empty one.
    fn baseline(&self, text: &str) -> String {
        let Ok(mut baseline) = serde_json::from_str::<Value>(text) else { return String::new() };
        for (list, field) in [("approvals", "who"), ("approvals", "why"), ("imports", "host")] {
            let entries = baseline.get_mut(list).and_then(Value::as_array_mut);
            for entry in entries.into_iter().flatten() {
                if let Some(Value::String(text)) = entry.get_mut(field) {
                    self.said(text);
                }
            }
        }
        baseline.to_string()
    }

    fn observation(&self, seen: &mut Observation) {
        self.process(&mut seen.process);
        if let Some(connection) = &mut seen.connection {
            self.connection(connection);
        }
        match &mut seen.body {
            Body::Environment(variable) => variable.value = shape(&variable.value),
            Body::Written(written) => self.process(&mut written.writer),
            Body::Instrument(instrument) => {
                if let Some(owner) = &mut instrument.owner {
                    self.shown(&mut owner.shown);
                }
            }
            _ => {}
        }
    }

    fn process(&self, process: &mut Arc<Process>) {
        let process = Arc::make_mut(process);
        self.shown(&mut process.shown);
        process.variables = process.variables.iter().map(|variable| assignment(variable)).collect();
    }

    fn connection(&self, connection: &mut Arc<Connection>) {
        if !connection.authenticated && connection.user.is_some() {
            let connection = Arc::make_mut(connection);
            connection.user = connection.user.as_deref().map(|user| self.token(user));
        }
    }

    fn shown(&self, shown: &mut ProcessRef) {
        self.arguments(&mut shown.cmdline);
    }

    fn entry(&self, entry: &mut Entry) {
        for finding in &mut entry.incident.findings {
            self.shown(&mut finding.process);
            for evidence in &mut finding.evidence {
                match evidence {
                    Evidence::Environment { value, .. } => *value = shape(value),
                    Evidence::Exec { cmdline, .. } | Evidence::Writer { cmdline, .. } => {
                        self.arguments(cmdline);
                    }
                    Evidence::Session { user: Some(user), .. }
                    | Evidence::Libpam { user: Some(user), .. } => *user = self.token(user),
                    _ => {}
                }
            }
        }
        for decision in &mut entry.incident.decisions {
            self.decision(decision);
        }
        entry.tell();
    }

    fn decision(&self, decision: &mut Decision) {
        self.said(&mut decision.who);
        self.said(&mut decision.why);
    }

    /// Nothing stays nothing.
    fn said(&self, text: &mut String) {
        if !text.is_empty() {
            *text = self.token(text);
        }
    }

    fn arguments(&self, all: &mut [String]) {
        let Some((first, rest)) = all.split_first_mut() else { return };
        *first = self.title(first);
        for argument in rest.iter_mut().filter(|argument| !is_flag(argument)) {
            *argument = self.token(argument);
        }
    }

    /// The first argument, which is all of them where a process has written over them.
    fn title(&self, first: &str) -> String {
        let Some((name, rest)) = first.split_once(' ') else { return first.to_owned() };
        let words = rest.split(' ').map(|word| match word.strip_prefix('[') {
            Some(_) => word.to_owned(),
            None => self.token(word),
        });
        std::iter::once(name.to_owned()).chain(words).collect::<Vec<_>>().join(" ")
    }

    fn token(&self, text: &str) -> String {
        let mut hash = Sha256::new();
        hash.update(self.key);
        hash.update(text.as_bytes());
        let mut token = "redacted-".to_owned();
        for byte in hash.finalize().iter().take(4) {
            // Writing to a string cannot fail.
            let _ = write!(token, "{byte:02x}");
        }
        token
    }
}

impl std::fmt::Debug for Redactor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Redactor").finish_non_exhaustive()
    }
}

/// `-R` tells a process that serves a connection.
fn is_flag(argument: &str) -> bool {
    matches!(argument.as_bytes(), [b'-', letter] if letter.is_ascii_alphabetic())
}

/// The same with every letter and digit as an `x`, and as many bytes.
fn shape(value: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || !byte.is_ascii();
    value.bytes().map(|byte| if plain(byte) { 'x' } else { char::from(byte) }).collect()
}

/// `NAME=value` with the value's shape.
fn assignment(variable: &str) -> String {
    match variable.split_once('=') {
        Some((name, value)) => format!("{name}={}", shape(value)),
        None => shape(variable),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::baseline::Baseline;
    use crate::incident::{Suppression, Verb};
    use crate::record::Decided;
    use crate::record::testing::{decision, incident, over, suppression};

    fn redacted(arguments: &[&str]) -> Vec<String> {
        let mut all: Vec<String> = arguments.iter().map(|&text| text.to_owned()).collect();
        Redactor::with([7; 32]).arguments(&mut all);
        all
    }

    #[test]
    fn arguments_become_tokens_and_equal_ones_stay_equal() {
        let all = redacted(&["/usr/bin/mysql", "-p", "--password=hunter2", "--password=hunter2"]);
        assert_eq!((all[0].as_str(), all[1].as_str()), ("/usr/bin/mysql", "-p"));
        assert!(all[2].starts_with("redacted-") && all[2] == all[3], "{all:?}");
        assert!(!all.concat().contains("hunter2"));
        let other = Redactor::with([8; 32]);
        assert_ne!(other.token("hunter2"), Redactor::with([7; 32]).token("hunter2"));
    }

    #[test]
    fn titles_lose_their_user_and_keep_what_they_say_of_the_process() {
        let title = |text| redacted(&[text]).remove(0);
        assert!(title("sshd: alice [priv]").starts_with("sshd: redacted-"));
        assert!(title("sshd: alice [priv]").ends_with(" [priv]"));
        let listener = title("sshd: /usr/sbin/sshd -D [listener] 0 of 10-100 startups");
        assert!(listener.starts_with("sshd: ") && listener.contains(" [listener] "), "{listener}");
        assert_eq!(title("/usr/sbin/sshd"), "/usr/sbin/sshd");
        assert_eq!(redacted(&[]), Vec::<String>::new());
    }

    #[test]
    fn who_decides_and_why_is_left_out_and_what_a_suppression_matches_by_stays() {
        let redactor = Redactor::with([7; 32]);
        let text = |step| serde_json::to_string(&redactor.apply(step)).unwrap();
        let mut one = suppression("edr");
        (one.who, one.why) = ("alice".to_owned(), "ticket 4711".to_owned());
        one.keys = vec!["9f".repeat(32)];
        let told = text(Step::Suppression(Box::new(one.clone())));
        let kept: Suppression = serde_json::from_value(
            serde_json::from_str::<Value>(&told).unwrap()["suppression"].take(),
        )
        .unwrap();
        let (who, why) = (kept.who.clone(), kept.why.clone());
        assert_eq!(kept, Suppression { who, why, ..one });

        let mut incident = incident("aa", "/usr/sbin/sshd ab", 0);
        incident.decisions = vec![decision(Verb::Acknowledge, 5)];
        let entry = over(incident);
        let before = text(Step::Restored(Box::new(entry.clone())));
        let decision = decision(Verb::Suppress, 9);
        let decided = Decided { id: "aa".to_owned(), decision, ktime_ns: 9, past: Some(entry) };
        let decided = text(Step::Decided(Box::new(decided)));
        for told in [told, before, decided] {
            assert!(!told.contains("alice") && !told.contains("ticket"), "{told}");
            // Equal ones stay equal.
            assert!(told.contains(&kept.who) && told.contains(&kept.why), "{told}");
        }
    }

    #[test]
    fn who_approved_a_part_of_a_baseline_and_why_is_left_out_and_nothing_else() {
        let redactor = Redactor::with([7; 32]);
        let approval = serde_json::json!({
            "time": "2026-01-01T00:00:00Z", "who": "alice", "why": "ticket 4711",
            "object": {"kind": "times", "stream": "link"},
        });
        let import =
            serde_json::json!({"time": "2026-01-01T00:00:00Z", "host": "db7", "signer": null});
        let mut value = serde_json::to_value(Baseline::default()).unwrap();
        value["approvals"] = serde_json::json!([approval]);
        value["imports"] = serde_json::json!([import]);
        let before: Baseline = serde_json::from_value(value.clone()).unwrap();
        let (subject, stored) = ("/usr/sbin/sshd ab".to_owned(), value.to_string());
        let steps = [
            Step::Known { subject: subject.clone(), stored: stored.clone() },
            Step::Changed { subject, baseline: stored },
        ];
        for step in steps {
            let (Step::Known { stored: text, .. } | Step::Changed { baseline: text, .. }) =
                redactor.apply(step)
            else {
                panic!("another step");
            };
            assert!(!text.contains("alice") && !text.contains("4711") && !text.contains("db7"));
            let mut after: Baseline = serde_json::from_str(&text).unwrap();
            assert!(after.approvals[0].who.starts_with("redacted-"), "{text}");
            after.approvals.clone_from(&before.approvals);
            after.imports.clone_from(&before.imports);
            assert_eq!(after, before);
        }
        let damaged = Step::Known { subject: String::new(), stored: "alice {".to_owned() };
        let Step::Known { stored, .. } = redactor.apply(damaged) else { panic!("another step") };
        assert_eq!(stored, "");
    }

    #[test]
    fn the_user_of_a_login_that_libpam_refused_is_left_out() {
        let mut incident = incident("aa", "/usr/sbin/sshd ab", 0);
        incident.findings[0].evidence = vec![Evidence::Libpam {
            verdict: "let the user in".to_owned(),
            libpam: "libpam refused".to_owned(),
            user: Some("alice".to_owned()),
        }];
        let mut entry = over(incident);
        entry.tell();
        assert!(entry.incident.story.contains("alice"), "{}", entry.incident.story);
        let told = Redactor::with([7; 32]).apply(Step::Restored(Box::new(entry)));
        let told = serde_json::to_string(&told).unwrap();
        assert!(!told.contains("alice") && told.contains("redacted-"), "{told}");
    }

    #[test]
    fn values_keep_their_shape() {
        assert_eq!(assignment("LD_LIBRARY_PATH=/home/ä7:."), "LD_LIBRARY_PATH=/xxxx/xxx:.");
        assert_eq!(shape(" "), " ");
        assert_eq!(shape("a=b=c").len(), 5);
    }
}
