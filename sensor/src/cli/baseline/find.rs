//! The stored baselines, and the one that is meant.

use std::collections::BTreeMap;
use std::io;

use tracing::warn;

use crate::baseline::{Baseline, Criteria, StoreError, SubjectName, read_subjects, role_of};
use crate::cli::Failure;
use crate::config::Config;
use crate::trouble::chain;

/// Names listed where more than one is meant.
const NAMED_MAX: usize = 8;

pub(super) type Known = BTreeMap<String, Baseline>;

/// Every baseline by subject; none where no sensor has ever run. What is no baseline is said.
pub(super) fn all(config: &Config) -> Result<Known, Failure> {
    let stored = match read_subjects(&config.state_dir) {
        Ok(stored) => stored,
        Err(StoreError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            return Ok(Known::new());
        }
        Err(error) if is_denied(&error) => {
            return Err(Failure::Unsupported(format!("{}; run as root", chain(&error))));
        }
        Err(error) => {
            let what = "cannot read the baselines".to_owned();
            return Err(Failure::Internal { what, source: Box::new(error) });
        }
    };
    let mut known = Known::new();
    for (subject, json) in stored {
        match serde_json::from_slice::<Baseline>(&json) {
            Ok(baseline) if baseline.is_blank() => {}
            Ok(baseline) => drop(known.insert(subject, baseline)),
            Err(error) => warn!(subject, %error, "an entry of the store is no baseline"),
        }
    }
    Ok(known)
}

fn is_denied(error: &StoreError) -> bool {
    let kind = match error {
        StoreError::Io { source, .. } => Some(source.kind()),
        StoreError::Redb { source, .. } => match &**source {
            redb::Error::Io(error) => Some(error.kind()),
            _ => None,
        },
        StoreError::Schema { .. } | StoreError::Off | StoreError::Full => None,
    };
    kind == Some(io::ErrorKind::PermissionDenied)
}

/// The subject that is meant: by its whole name, its path, or a part that only one has.
pub(super) fn one<'a>(
    known: &'a Known,
    asked: &str,
) -> Result<(&'a String, &'a Baseline), Failure> {
    if let Some(found) = known.get_key_value(asked) {
        return Ok(found);
    }
    let path = |subject: &str| SubjectName::of(subject).path == asked;
    let part = |subject: &str| !asked.is_empty() && subject.contains(asked);
    for is_meant in [&path as &dyn Fn(&str) -> bool, &part] {
        let found: Vec<_> = known.iter().filter(|(subject, _)| is_meant(subject)).collect();
        match found.as_slice() {
            [] => {}
            [only] => return Ok(*only),
            several => return Err(ambiguous(asked, several)),
        }
    }
    Err(Failure::Usage(format!(
        "no program that is known matches {asked:?}; `halfsecond baseline show` lists them"
    )))
}

/// Only those that are meant; all where nobody is named.
pub(super) fn only(known: &Known, asked: &[String]) -> Result<Known, Failure> {
    if asked.is_empty() {
        return Ok(known.clone());
    }
    let mut chosen = Known::new();
    for name in asked {
        let (subject, baseline) = one(known, name)?;
        chosen.insert(subject.clone(), baseline.clone());
    }
    Ok(chosen)
}

fn ambiguous(asked: &str, found: &[(&String, &Baseline)]) -> Failure {
    let named: Vec<String> =
        found.iter().take(NAMED_MAX).map(|(subject, _)| format!("\n  {subject}")).collect();
    let more = found.len().saturating_sub(NAMED_MAX);
    let more = if more > 0 { format!("\n  and {more} more") } else { String::new() };
    Failure::Usage(format!(
        "{} programs match {asked:?}; give more of the name:{}{more}",
        found.len(),
        named.concat()
    ))
}

/// What decides about the state of a subject's baseline.
pub(super) fn criteria(config: &Config, subject: &str) -> Criteria {
    let role = role_of(subject, &config.guarded);
    Criteria {
        observations: config.learning.observations,
        run_length: config.detect.run_length,
        guarded: role.guarded,
        unit: if role.sshd { "logins" } else { "starts" },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(names: &[&str]) -> Known {
        names.iter().map(|name| ((*name).to_owned(), Baseline::default())).collect()
    }

    #[test]
    fn a_subject_is_found_by_name_path_or_unique_part() {
        let known = known(&["/usr/bin/cat ab", "/usr/sbin/sshd cd", "/usr/sbin/sshd-session ef"]);
        let found = |asked: &str| one(&known, asked).map(|(subject, _)| subject.as_str());
        assert_eq!(found("/usr/bin/cat ab").unwrap(), "/usr/bin/cat ab");
        assert_eq!(found("/usr/sbin/sshd").unwrap(), "/usr/sbin/sshd cd", "the path before parts");
        assert_eq!(found("session").unwrap(), "/usr/sbin/sshd-session ef");
        let error = found("sshd").unwrap_err().told();
        assert!(error.starts_with("2 programs match \"sshd\""), "{error}");
        assert!(error.contains("\n  /usr/sbin/sshd cd\n"), "{error}");
        for none in ["", "dog"] {
            let error = found(none).unwrap_err();
            assert_eq!(error.exit(), crate::cli::Exit::Usage);
            assert!(error.told().contains("baseline show"), "{}", error.told());
        }
    }

    #[test]
    fn two_builds_of_one_path_are_ambiguous() {
        let known = known(&["/usr/sbin/sshd ab", "/usr/sbin/sshd cd"]);
        assert!(one(&known, "/usr/sbin/sshd").is_err());
        assert_eq!(one(&known, "sshd cd").unwrap().0, "/usr/sbin/sshd cd");
    }
}
