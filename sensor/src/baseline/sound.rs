//! Whether a baseline from elsewhere is one that this sensor could have learned: nothing in it is larger
//! than learning lets it become, and nothing lies in the future.

use jiff::Timestamp;

use super::approval::{APPROVALS_MAX, TEXT_MAX};
use super::merge::IMPORTS_MAX;
use super::samples::Samples;
use super::shift::STREAMS_MAX;
use super::subject::{
    ASKERS_MAX, Baseline, INSTRUMENTS_MAX, LIBRARIES_MAX, NAMES_MAX, SAMPLES, SHARE_SAMPLES,
};
use crate::host::ModuleId;

/// More than any host counts, and far from where counting ends.
const COUNT_MAX: u64 = 1 << 40;
/// Bytes of a subject's name.
const SUBJECT_MAX: usize = 2 * TEXT_MAX;
/// Subject of the baseline that the host's instrumentation has.
const HOST: &str = "(host) ";

/// What is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsound {
    /// More than learning keeps.
    #[error("{0} has {1} entries, more than {2}")]
    Many(&'static str, usize, usize),
    /// A count that no host reaches.
    #[error("{0} is a count of {1}")]
    Count(&'static str, u64),
    /// A name that is empty, too long, or holds control characters.
    #[error(
        "{0} holds a name that is empty, longer than {TEXT_MAX} bytes, or with control characters"
    )]
    Name(&'static str),
    /// A time after the export.
    #[error("{0} is a time after the export")]
    Future(&'static str),
    /// A subject that is none.
    #[error("the subject is no path with a build-id")]
    Subject,
}

/// Whether this may be a subject's name.
///
/// # Errors
/// Where not.
pub(super) fn subject(name: &str) -> Result<(), Unsound> {
    let shaped = name.starts_with(HOST) || (name.starts_with('/') && name.contains(' '));
    let plain = name.len() <= SUBJECT_MAX && !name.chars().any(char::is_control);
    if shaped && plain { Ok(()) } else { Err(Unsound::Subject) }
}

// === impl Baseline ===

impl Baseline {
    /// Checks everything in it. `until`: the time of the export.
    ///
    /// # Errors
    /// What is wrong, the first of it.
    pub fn check(&self, until: Timestamp) -> Result<(), Unsound> {
        self.check_counts()?;
        self.check_sizes()?;
        self.check_names()?;
        self.check_times(until)
    }

    fn check_counts(&self) -> Result<(), Unsound> {
        count("starts", self.starts)?;
        count("since_new", self.since_new)?;
        count("openings", self.openings.starts)?;
        self.methods.values().try_for_each(|logins| count("methods", *logins))?;
        self.callers.values().try_for_each(|callers| count("callers", callers.calls))?;
        self.openings.unasked.values().try_for_each(|then| count("unasked", *then))
    }

    fn check_sizes(&self) -> Result<(), Unsound> {
        most("libraries", self.libraries.len(), LIBRARIES_MAX)?;
        most("callers", self.callers.len(), NAMES_MAX)?;
        for callers in self.callers.values() {
            most("callers of a function", callers.modules.len(), NAMES_MAX)?;
        }
        most("openings", self.openings.askers.len(), LIBRARIES_MAX)?;
        for askers in self.openings.askers.values() {
            most("askers of a library", askers.len(), ASKERS_MAX)?;
        }
        most("unasked", self.openings.unasked.len(), LIBRARIES_MAX)?;
        most("environment", self.environment.len(), NAMES_MAX)?;
        most("helpers", self.helpers.len(), NAMES_MAX)?;
        most("instruments", self.instruments.len(), INSTRUMENTS_MAX)?;
        most("shares", self.shares.len(), NAMES_MAX)?;
        most("streams", self.shifts.len(), STREAMS_MAX)?;
        most("usual_at", self.usual_at.len(), STREAMS_MAX)?;
        most("approvals", self.approvals.len(), APPROVALS_MAX)?;
        most("imports", self.imports.len(), IMPORTS_MAX)?;
        samples("link", &self.link, SAMPLES.0)?;
        self.shares.values().try_for_each(|one| samples("shares", one, SHARE_SAMPLES))?;
        self.auth.values().try_for_each(|one| samples("auth", one, SAMPLES.0))?;
        for shift in self.shifts.values() {
            let learned = usize::try_from(shift.reference().count()).unwrap_or(usize::MAX);
            let all = usize::try_from(sensor_stats::REFERENCE_MAX).unwrap_or(usize::MAX);
            most("a stream's reference", learned, all)?;
        }
        Ok(())
    }

    fn check_names(&self) -> Result<(), Unsound> {
        for (library, _) in &self.libraries {
            module("libraries", library)?;
        }
        for (function, callers) in &self.callers {
            name("callers", function)?;
            callers.modules.iter().try_for_each(|one| module("callers", one))?;
        }
        for (library, askers) in &self.openings.askers {
            name("openings", library)?;
            askers.iter().try_for_each(|one| module("openings", one))?;
        }
        let all = |what: &'static str, names: &mut dyn Iterator<Item = &String>| {
            names.map(|one| name(what, one)).find(Result::is_err).unwrap_or(Ok(()))
        };
        all("openings", &mut self.openings.unasked.keys())?;
        all("environment", &mut self.environment.iter())?;
        all("helpers", &mut self.helpers.iter())?;
        all("instruments", &mut self.instruments.iter())?;
        all("shares", &mut self.shares.keys())?;
        all("streams", &mut self.shifts.keys().chain(self.usual_at.keys()))?;
        for approval in &self.approvals {
            approval.check().map_err(|_| Unsound::Name("approvals"))?;
        }
        self.imports.iter().try_for_each(|one| name("imports", &one.host))
    }

    fn check_times(&self, until: Timestamp) -> Result<(), Unsound> {
        let past = |what: &'static str, time: Timestamp| {
            if time <= until { Ok(()) } else { Err(Unsound::Future(what)) }
        };
        let marks = self.first_seen.into_iter().chain(self.last_seen).chain(self.settled_at);
        marks.into_iter().try_for_each(|time| past("first_seen, last_seen or settled_at", time))?;
        for (_, seen) in &self.libraries {
            past("libraries", seen.first.max(seen.last))?;
        }
        self.usual_at.values().try_for_each(|time| past("usual_at", *time))?;
        self.approvals.iter().try_for_each(|one| past("approvals", one.time))?;
        self.imports.iter().try_for_each(|one| past("imports", one.time))
    }
}

fn most(what: &'static str, found: usize, most: usize) -> Result<(), Unsound> {
    if found <= most { Ok(()) } else { Err(Unsound::Many(what, found, most)) }
}

fn count(what: &'static str, found: u64) -> Result<(), Unsound> {
    if found <= COUNT_MAX { Ok(()) } else { Err(Unsound::Count(what, found)) }
}

fn samples(what: &'static str, samples: &Samples, capacity: usize) -> Result<(), Unsound> {
    count(what, samples.total())?;
    most(what, samples.held(), capacity)
}

fn module(what: &'static str, module: &ModuleId) -> Result<(), Unsound> {
    name(what, &module.path)?;
    name(what, &module.build)
}

fn name(what: &'static str, text: &str) -> Result<(), Unsound> {
    let plain = !text.is_empty() && text.len() <= TEXT_MAX && !text.chars().any(char::is_control);
    if plain { Ok(()) } else { Err(Unsound::Name(what)) }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::host::Method;

    fn learned() -> Baseline {
        let mut baseline = Baseline::default();
        for at in 0..600 {
            let path = format!("/lib/{at}.so");
            let module = ModuleId { path: path.clone(), build: "aa".to_owned() };
            baseline.add_start(Timestamp::UNIX_EPOCH, Some(Method::Password));
            baseline.add_library(&module, Timestamp::UNIX_EPOCH, true);
            baseline.add_caller("f", &module);
            baseline.add_opening(&path, &module);
            baseline.add_unasked(&path);
            baseline.add_variable(&path);
            baseline.add_constructors(300_000 + at);
            baseline.add_auth(Method::Password, 30_000_000, Some(8_000_000), None);
        }
        baseline
    }

    #[test]
    fn whatever_was_learned_here_is_sound() {
        assert_eq!(learned().check(Timestamp::UNIX_EPOCH), Ok(()));
        assert_eq!(Baseline::default().check(Timestamp::UNIX_EPOCH), Ok(()));
    }

    #[test]
    fn what_learning_could_not_have_made_is_refused() {
        let names = |count: usize| (0..count).map(|at| format!("n{at}")).collect::<Vec<_>>();
        let future = "2026-11-21T10:00:00Z";
        let long = "x".repeat(5000);
        for (key, value) in [
            ("starts", json!(u64::MAX)),
            ("methods", json!({"password": u64::MAX})),
            ("environment", json!(names(129))),
            ("helpers", json!([long])),
            ("helpers", json!([""])),
            ("environment", json!(["\u{1b}[2J"])),
            ("instruments", json!(names(1025))),
            ("last_seen", json!(future)),
            ("usual_at", json!({"link": future})),
            ("link", json!({"total": 201, "latest_us": vec![1; 201]})),
            ("link", json!({"total": u64::MAX, "latest_us": [1]})),
            ("link", json!({"total": 1, "latest_us": [1], "doubted_us": vec![1; 500]})),
            ("shifts", json!({"link": {"reference": [[5, 201]]}})),
            ("callers", json!({"f": {"calls": 1, "modules": [{"path": "", "build": "aa"}]}})),
        ] {
            let mut json = serde_json::to_value(learned()).unwrap();
            json[key] = value.clone();
            let read: Baseline = serde_json::from_value(json).unwrap();
            let found = read.check(Timestamp::UNIX_EPOCH);
            assert!(found.is_err(), "{key}: {}", short(&value));
        }
    }

    fn short(value: &Value) -> String {
        value.to_string().chars().take(80).collect()
    }

    #[test]
    fn a_subject_is_a_path_and_a_build() {
        for good in ["/usr/sbin/sshd ab", "/x ab image:cd", "(host) instrumentation"] {
            assert_eq!(subject(good), Ok(()), "{good}");
        }
        for bad in
            ["", "sshd", "/usr/sbin/sshd", "/x \u{1b}[2J", "host", &*format!("/{:9000} a", 1)]
        {
            assert_eq!(subject(bad), Err(Unsound::Subject), "{bad:?}");
        }
    }
}
