//! The sensor while the corpus runs: its configuration, its counters, and when it has caught up.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

use crate::sensor::{self, Sensor, Start};

/// The sensor's incidents, in the corpus' folder; older ones in files of this name and a number.
pub(super) const INCIDENTS: &str = "incidents.jsonl";

/// The sensor's state directory, in the same folder.
pub(super) const STATE: &str = "state";
/// A copy of it as it was after the learning rounds: those that count teach the sensor as well.
pub(super) const LEARNED: &str = "state.learned";

/// How long the sensor gets to read what the rings hold.
const PATIENCE: Duration = Duration::from_mins(2);
/// Between two looks at its counters.
const LOOK_AGAIN: Duration = Duration::from_millis(400);
/// Looks without a new finding before it is taken to have judged what it read. Only the counters
/// of a workload depend on it: findings are told apart by their own time.
const QUIET_LOOKS: u32 = 3;

/// A sensor with state and output below `target/corpus`.
pub(super) struct Watch(Sensor);

/// What it has counted, on the whole machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Counts {
    pub(super) execs: u64,
    /// Emitted by the kernel programs, lost ones included.
    pub(super) records: u64,
    pub(super) consumed: u64,
    pub(super) lost: u64,
    /// Refused by a queue inside the agent, incidents that could not be written included.
    pub(super) dropped: u64,
    /// Findings by severity.
    pub(super) findings: BTreeMap<String, u64>,
    /// Programs with a baseline at the end, by its state.
    pub(super) baselines: BTreeMap<String, u64>,
}

// === impl Watch ===

impl Watch {
    /// With `more` sections of its configuration, and what it logs to `logs/halfsecond.log` if not the
    /// usual.
    pub(super) fn start(
        agent: &Path,
        folder: &Path,
        observations: u32,
        more: &str,
        level: Option<&str>,
    ) -> Result<Self> {
        let listen = sensor::free_address()?;
        let shown = folder.display();
        fs::create_dir_all(folder.join(STATE))?;
        // A finding that is there again after a second is told again, not counted with the first.
        let text = format!(
            "state_dir = \"{shown}/{STATE}\"\n\
             [http]\nlisten = \"{listen}\"\n\
             [output]\nstdout = false\nfile = \"{shown}/{INCIDENTS}\"\nmax_bytes = \"1GiB\"\n\
             [learning]\nobservations = {observations}\nflush_every = \"1s\"\n\
             [detect]\nincident_window = \"1s\"\n{more}"
        );
        let config = folder.join("halfsecond.toml");
        fs::write(&config, text)?;
        let log = folder.join("logs/halfsecond.log");
        let (config, log, lines) = (&config, &log, Stdio::null());
        Ok(Self(Start { agent, config, log, listen, lines, level, record: None }.run()?))
    }

    pub(super) fn counts(&self) -> Result<Counts> {
        let page = self.0.get("/metrics")?;
        // The sensor leaves them out where it cannot read them.
        ensure!(
            page.contains("\nhalfsecond_records_emitted_total{"),
            "no counters of the kernel side"
        );
        Ok(Counts::read(&page))
    }

    /// Waits until it has read what was emitted up to now, and finds nothing more.
    pub(super) fn drain(&self) -> Result<()> {
        let began = Instant::now();
        let emitted = self.counts()?.records;
        let (mut quiet, mut known) = (0, None);
        while quiet < QUIET_LOOKS {
            ensure!(began.elapsed() < PATIENCE, "the sensor does not catch up with its rings");
            thread::sleep(LOOK_AGAIN);
            let now = self.counts()?;
            let read = now.consumed + now.lost >= emitted;
            let same = known.as_ref() == Some(&now.findings);
            quiet = if read && same { quiet + 1 } else { 0 };
            known = Some(now.findings);
        }
        Ok(())
    }

    pub(super) fn stop(self) -> Result<()> {
        self.0.stop()
    }
}

// === impl Counts ===

impl Counts {
    /// From a page in Prometheus' text format.
    fn read(page: &str) -> Self {
        let mut counts = Self::default();
        for (name, labels, value) in page.lines().filter_map(series) {
            match name {
                "halfsecond_events_total" if label(labels, "kind") == Some("exec") => {
                    counts.execs += value;
                }
                "halfsecond_records_emitted_total" => counts.records += value,
                "halfsecond_records_consumed_total" => counts.consumed += value,
                "halfsecond_records_lost_total" => counts.lost += value,
                "halfsecond_queue_dropped_total" | "halfsecond_sink_dropped_total" => {
                    counts.dropped += value;
                }
                "halfsecond_baselines" => {
                    let state = label(labels, "state").unwrap_or("unknown");
                    counts.baselines.insert(state.to_owned(), value);
                }
                "halfsecond_findings_total" => {
                    let severity = label(labels, "severity").unwrap_or("unknown");
                    *counts.findings.entry(severity.to_owned()).or_default() += value;
                }
                _ => {}
            }
        }
        counts
    }

    /// What was added since `before`; the baselines are as they are now.
    pub(super) fn since(&self, before: &Self) -> Self {
        let mut findings = self.findings.clone();
        for (severity, count) in &mut findings {
            *count -= before.findings.get(severity).copied().unwrap_or(0).min(*count);
        }
        findings.retain(|_, count| *count > 0);
        Self {
            execs: self.execs.saturating_sub(before.execs),
            records: self.records.saturating_sub(before.records),
            consumed: self.consumed.saturating_sub(before.consumed),
            lost: self.lost.saturating_sub(before.lost),
            dropped: self.dropped.saturating_sub(before.dropped),
            findings,
            baselines: self.baselines.clone(),
        }
    }

    pub(super) fn add(&mut self, more: &Self) {
        self.execs += more.execs;
        self.records += more.records;
        self.consumed += more.consumed;
        self.lost += more.lost;
        self.dropped += more.dropped;
        for (severity, count) in &more.findings {
            *self.findings.entry(severity.clone()).or_default() += count;
        }
        self.baselines.clone_from(&more.baselines);
    }

    /// Findings above info.
    pub(super) fn above_info(&self) -> u64 {
        self.findings.iter().filter(|(severity, _)| *severity != "info").map(|(_, n)| n).sum()
    }
}

/// Name, labels as they stand, and value of a line that holds a whole number.
fn series(line: &str) -> Option<(&str, &str, u64)> {
    let (series, value) = line.rsplit_once(' ')?;
    let (name, labels) = series.split_once('{').unwrap_or((series, ""));
    Some((name, labels.trim_end_matches('}'), value.parse().ok()?))
}

/// A label's value; no value of ours holds a quote or a comma.
fn label<'a>(labels: &'a str, wanted: &str) -> Option<&'a str> {
    labels.split(',').find_map(|label| {
        let (name, value) = label.split_once('=')?;
        (name == wanted).then(|| value.trim_matches('"'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "# HELP halfsecond_events_total Events decoded, by kind.\n\
        halfsecond_events_total{kind=\"exec\"} 7\n\
        halfsecond_events_total{kind=\"map\"} 90\n\
        halfsecond_records_emitted_total{ring=\"bulk\"} 100\n\
        halfsecond_records_emitted_total{ring=\"priority\"} 5\n\
        halfsecond_records_consumed_total{ring=\"bulk\"} 98\n\
        halfsecond_records_lost_total{ring=\"bulk\"} 2\n\
        halfsecond_baselines{state=\"settled\"} 3\n\
        halfsecond_start_to_armed_seconds 0.5\n\
        halfsecond_findings_total{detector=\"preload_env\",severity=\"medium\"} 2\n\
        halfsecond_findings_total{detector=\"link_time_shift\",severity=\"medium\"} 1\n\
        halfsecond_findings_total{detector=\"preload_env\",severity=\"info\"} 4\n";

    #[test]
    fn counters_are_summed_over_their_labels() {
        let counts = Counts::read(PAGE);
        assert_eq!((counts.execs, counts.records, counts.consumed, counts.lost), (7, 105, 98, 2));
        assert_eq!(counts.findings["medium"], 3);
        assert_eq!(counts.above_info(), 3);
    }

    #[test]
    fn what_was_there_before_is_not_counted() {
        let before = Counts::read(PAGE);
        assert_eq!(
            before.since(&before),
            Counts { baselines: before.baselines.clone(), ..Counts::default() }
        );
        let page = PAGE.replace("severity=\"info\"} 4", "severity=\"info\"} 6");
        let since = Counts::read(&page).since(&before);
        assert_eq!(since.findings, BTreeMap::from([("info".to_owned(), 2)]));
    }
}
