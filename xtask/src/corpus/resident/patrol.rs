//! The sensor's own rounds over the resident programs: what it checked, as it logs it, and found.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;

use super::census::Census;
use super::programs::CONTROL;
use super::table::Table;
use crate::corpus::found::{self, Found};
use crate::corpus::watch::Watch;

/// Every check is logged.
const LEVEL: &str = "warn,sensor=info,halfsecond=info,sensor::app::slots=debug";
/// What a line of the log that tells of a check has before its fields.
const CHECKED: &str = " checked pid=";
/// As many observations as a sensor in use asks for.
const OBSERVATIONS: u32 = 20;
/// CPU time for checks of programs that are not guarded, of each second; a hundred times the usual,
/// as the rounds come sixty times as often.
const CPU_PER_SECOND: Duration = Duration::from_millis(200);

/// What the sensor is told of its rounds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rounds {
    every: Duration,
    guard: bool,
}

/// The running sensor.
pub(super) struct Patrol {
    watch: Watch,
    folder: PathBuf,
    corpus: PathBuf,
    log: PathBuf,
    /// Bytes of it that were read.
    read: u64,
    /// Every program is guarded.
    guard: bool,
    checks: Checks,
}

/// Checks by program and outcome.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Checks {
    by_class: BTreeMap<String, BTreeMap<String, u64>>,
    /// Of processes that are none of the corpus', or that were gone before anybody looked.
    elsewhere: u64,
}

// === impl Rounds ===

impl Rounds {
    pub(super) fn new(seconds: u64, guard: bool) -> Self {
        Self { every: Duration::from_secs(seconds), guard }
    }

    /// Until everyone was visited.
    pub(super) fn longest(&self) -> Duration {
        self.every * if self.guard { 1 } else { 60 }
    }

    fn config(&self, census: &Census) -> String {
        let (every, cpu) = (self.every.as_secs(), CPU_PER_SECOND.as_millis());
        let mut text = format!("[patrol]\nevery = \"{every}s\"\ncpu_per_second = \"{cpu}ms\"\n");
        if self.guard {
            let control = Path::new("/tmp").join(CONTROL);
            for path in census.paths().into_iter().chain([control.as_path()]) {
                // Writing to a String cannot fail; no path in there has a quote.
                let _ = writeln!(text, "[[guarded]]\npath = \"{}\"", path.display());
            }
        }
        text
    }
}

impl fmt::Display for Rounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.every.as_secs();
        let guarded = if self.guard { "every resident program" } else { "as shipped" };
        write!(
            f,
            "rounds: guarded programs every {seconds} s in full, root daemons every {} s in full, \
             others every {} s by their imports, within {} ms of CPU time a second ([patrol] every = \
             \"{seconds}s\"); guarded: {guarded}",
            seconds * 10,
            seconds * 60,
            CPU_PER_SECOND.as_millis(),
        )
    }
}

// === impl Patrol ===

impl Patrol {
    /// With state and output in `folder`; `corpus` holds the programs.
    pub(super) fn start(
        agent: &Path,
        folder: &Path,
        corpus: &Path,
        rounds: &Rounds,
        census: &Census,
    ) -> Result<Self> {
        let more = rounds.config(census);
        let watch = Watch::start(agent, folder, OBSERVATIONS, &more, Some(LEVEL))?;
        Ok(Self {
            watch,
            folder: folder.to_owned(),
            corpus: corpus.to_owned(),
            log: folder.join("logs/halfsecond.log"),
            read: 0,
            guard: rounds.guard,
            checks: Checks::default(),
        })
    }

    /// Takes in what was logged since the last call.
    pub(super) fn read(&mut self, census: &Census) -> Result<()> {
        let mut file = File::open(&self.log)?;
        file.seek(SeekFrom::Start(self.read))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        // The last line may be half written.
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        self.read += u64::try_from(whole)?;
        for line in String::from_utf8_lossy(&bytes[..whole]).lines() {
            self.checks.take(line, census);
        }
        Ok(())
    }

    /// One line: checks and findings so far.
    pub(super) fn told(&self) -> Result<String> {
        let above = self.watch.counts()?.above_info();
        Ok(format!("{}; {above} findings above info on this machine", self.checks))
    }

    /// Whether one of these was found to be changed.
    pub(super) fn has_found(&self, pids: &[u32]) -> Result<bool> {
        let found = found::read(&self.folder, &self.corpus)?;
        Ok(found.iter().any(|one| one.detector == "got_redirected" && pids.contains(&one.pid)))
    }

    /// Ends the sensor, and puts down what it checked and found.
    pub(super) fn stop(mut self, census: &Census, table: &mut Table) -> Result<()> {
        self.watch.drain()?;
        self.read(census)?;
        let lost = self.watch.counts()?;
        let Self { watch, folder, corpus, checks, guard, .. } = self;
        watch.stop()?;
        let found = found::read(&folder, &corpus)?;
        let (found, aside): (Vec<Found>, Vec<Found>) =
            found.into_iter().partition(|one| !census.is_aside(one.pid));
        table.patrolled(checks, &found, census, guard);
        println!(
            "the sensor has lost {} records and dropped {}; {} findings of the control",
            lost.lost,
            lost.dropped,
            aside.len()
        );
        Ok(())
    }
}

// === impl Checks ===

impl Checks {
    /// Counts the check that a line of the log tells of, if it does.
    fn take(&mut self, line: &str, census: &Census) {
        let Some((pid, outcome)) = checked(line) else { return };
        match census.class(pid) {
            Some(class) => {
                let outcomes = self.by_class.entry(class.to_owned()).or_default();
                *outcomes.entry(outcome.to_owned()).or_default() += 1;
            }
            None => self.elsewhere += 1,
        }
    }

    #[cfg(test)]
    pub(super) fn one(class: &str, outcome: &str) -> Self {
        let outcomes = BTreeMap::from([(outcome.to_owned(), 1)]);
        Self { by_class: BTreeMap::from([(class.to_owned(), outcomes)]), elsewhere: 0 }
    }

    pub(super) fn of(&self, class: &str, outcome: &str) -> u64 {
        self.by_class.get(class).and_then(|outcomes| outcomes.get(outcome)).copied().unwrap_or(0)
    }

    pub(super) fn classes(&self) -> impl Iterator<Item = &str> {
        self.by_class.keys().map(String::as_str)
    }

    fn sum(&self, outcome: &str) -> u64 {
        self.classes().map(|class| self.of(class, outcome)).sum()
    }
}

impl fmt::Display for Checks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for outcome in ["clean", "mismatch", "unsettled", "failed", "put_off", "gone"] {
            write!(f, "{} {outcome}, ", self.sum(outcome))?;
        }
        write!(f, "{} of others", self.elsewhere)
    }
}

/// Process and outcome.
fn checked(line: &str) -> Option<(u32, &str)> {
    let (_, fields) = line.split_once(CHECKED)?;
    let (pid, fields) = fields.split_once(' ')?;
    let (_, outcome) = fields.split_once("outcome=\"")?;
    Some((pid.parse().ok()?, outcome.split_once('"')?.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_are_told_from_other_lines_of_the_log() {
        let line = "2026-01-01T00:00:00.5Z DEBUG sensor::app::slots: checked pid=17 reason=Other \
                    outcome=\"put_off\" slots=0";
        assert_eq!(checked(line), Some((17, "put_off")));
        assert_eq!(checked("INFO sensor::app: armed"), None);
        assert_eq!(checked("checked pid=x outcome=\"clean\""), None);
    }

    #[test]
    fn a_guarded_program_comes_with_each_round() {
        let census = Census::new(Path::new("/t"));
        let rounds = Rounds::new(2, true);
        assert_eq!(rounds.longest(), Duration::from_secs(2));
        let config = rounds.config(&census);
        assert!(
            config.contains("every = \"2s\"") && config.contains("halfsecond-control"),
            "{config}"
        );
        assert!(!Rounds::new(1, false).config(&census).contains("guarded"));
        assert_eq!(Rounds::new(1, false).longest(), Duration::from_mins(1));
    }
}
