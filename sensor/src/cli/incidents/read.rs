//! Where incidents are read from: the running sensor, else its store, else its output file.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use serde_json::Value;
use tracing::{debug, warn};

use crate::cli::Failure;
use crate::config::{Config, Output};
use crate::http::client::{self, AskError};
use crate::incident::Incident;

/// Longer than any incident we write.
const LINE_MAX: u64 = 8 * 1024 * 1024;

/// Reads every incident of the store in the state directory.
pub type ReadStore = fn(&Path) -> Result<Vec<Incident>, StoreError>;

/// Why the store gave nothing.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is none: the sensor has not run here.
    #[error("there is no store in {}", .0.display())]
    Absent(PathBuf),
    /// The sensor that runs has it.
    #[error("the store is in use")]
    InUse,
    /// It is not for this user.
    #[error("the store in {} may not be read by this user", .0.display())]
    Denied(PathBuf),
    /// It is damaged, or the disk is.
    #[error("{0}")]
    Other(String),
}

/// Every incident, newest first.
pub(super) fn incidents(config: &Config, store: ReadStore) -> Result<Vec<Incident>, Failure> {
    let mut incidents = match from_sensor(config)? {
        Some(incidents) => incidents,
        None => match store(&config.state_dir) {
            Ok(incidents) => incidents,
            Err(StoreError::Absent(_)) => from_file(&config.output)?,
            Err(StoreError::InUse) => {
                warn!("a sensor runs without answering; reading its output file instead");
                from_file(&config.output)?
            }
            Err(error @ StoreError::Denied(_)) => {
                return Err(Failure::Unsupported(format!("{error}; run as root")));
            }
            Err(error @ StoreError::Other(_)) => {
                return Err(Failure::Internal {
                    what: format!("cannot read the store in {}", config.state_dir.display()),
                    source: Box::new(error),
                });
            }
        },
    };
    incidents.sort_by(|a, b| b.opened.cmp(&a.opened).then_with(|| b.id.cmp(&a.id)));
    Ok(incidents)
}

/// `None` where no sensor answers.
fn from_sensor(config: &Config) -> Result<Option<Vec<Incident>>, Failure> {
    let Some(listen) = config.http.listen else { return Ok(None) };
    let answer = match client::get(listen, "/api/v1/incidents") {
        Ok(answer) => answer,
        Err(error @ AskError::NotRunning { .. }) => {
            debug!(%error, "reading the files instead");
            return Ok(None);
        }
        Err(error) => {
            warn!(%error, "reading the files instead");
            return Ok(None);
        }
    };
    if answer.status != 200 {
        let reason = answer.json().and_then(|json| Some(json.get("error")?.as_str()?.to_owned()));
        return Err(Failure::Internal {
            what: format!("the sensor on {listen} cannot list its incidents"),
            source: reason.unwrap_or_else(|| answer.text()).into(),
        });
    }
    let found = answer.json().and_then(|mut json| json.get_mut("incidents").map(Value::take));
    let incidents = found.and_then(|found| serde_json::from_value(found).ok());
    if incidents.is_none() {
        warn!(%listen, "the program there does not answer as a sensor; reading the files instead");
    }
    Ok(incidents)
}

/// The last state of every incident in the output file and its rotated ones, oldest file first.
fn from_file(output: &Output) -> Result<Vec<Incident>, Failure> {
    let Some(path) = &output.file else { return Ok(Vec::new()) };
    let mut last = HashMap::new();
    for number in (0..=output.keep).rev() {
        let mut name = path.clone().into_os_string();
        if number > 0 {
            name.push(format!(".{number}"));
        }
        let name = PathBuf::from(name);
        match read_lines(&name, &mut last) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                let text = format!("{} may not be read by this user; run as root", name.display());
                return Err(Failure::Unsupported(text));
            }
            Err(source) => {
                let what = format!("cannot read {}", name.display());
                return Err(Failure::Internal { what, source: Box::new(source) });
            }
        }
    }
    Ok(last.into_values().collect())
}

fn read_lines(path: &Path, last: &mut HashMap<String, Incident>) -> io::Result<()> {
    let mut reader = BufReader::new(File::open(path)?);
    let mut line = Vec::new();
    loop {
        line.clear();
        if reader.by_ref().take(LINE_MAX).read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        match serde_json::from_slice::<Incident>(&line) {
            Ok(incident) => {
                last.insert(incident.id.clone(), incident);
            }
            Err(error) => warn!(path = %path.display(), %error, "a line is no incident"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn incident(id: &str, opened: &str, title: &str) -> String {
        serde_json::json!({
            "id": id, "opened": opened, "updated": opened, "state": "open",
            "severity": "high", "score": 50, "title": title, "story": "s",
            "findings": [], "hosts": ["h"], "recommendation": "r", "partial": false,
        })
        .to_string()
    }

    fn in_folder(folder: &Path) -> Config {
        let mut config = Config::default();
        config.http.listen = None;
        config.state_dir = folder.to_owned();
        config.output.file = Some(folder.join("incidents.jsonl"));
        config
    }

    fn absent(path: &Path) -> Result<Vec<Incident>, StoreError> {
        Err(StoreError::Absent(path.to_owned()))
    }

    #[test]
    fn the_last_state_counts_across_rotated_files_and_torn_lines() {
        let folder = tempfile::tempdir().unwrap();
        let (old, new) = ("2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z");
        let config = in_folder(folder.path());
        fs::write(
            folder.path().join("incidents.jsonl.1"),
            format!(
                "{}\n{}\n{{\"id\": \"to\n",
                incident("a", old, "first"),
                incident("b", new, "b")
            ),
        )
        .unwrap();
        fs::write(
            folder.path().join("incidents.jsonl"),
            format!("{}\n", incident("a", old, "second")),
        )
        .unwrap();
        let found = incidents(&config, absent).unwrap();
        let told: Vec<_> = found.iter().map(|one| (one.id.as_str(), one.title.as_str())).collect();
        assert_eq!(told, [("b", "b"), ("a", "second")]);
    }

    #[test]
    fn a_sensor_that_never_ran_has_no_incidents() {
        let folder = tempfile::tempdir().unwrap();
        assert!(incidents(&in_folder(folder.path()), absent).unwrap().is_empty());
    }

    #[test]
    fn a_store_for_others_is_a_missing_privilege() {
        let folder = tempfile::tempdir().unwrap();
        let denied: ReadStore = |path| Err(StoreError::Denied(path.to_owned()));
        let failure = incidents(&in_folder(folder.path()), denied).unwrap_err();
        assert_eq!(failure.exit(), crate::cli::Exit::Unsupported, "{failure}");
    }
}
