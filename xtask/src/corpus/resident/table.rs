//! The result: a line for each program, and below it whatever was refused or found.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use anyhow::Result;

use super::census::Census;
use super::patrol::Checks;
use super::scan::Account;
use crate::corpus::found::Found;

/// Texts told of each kind; the rest is counted.
const TOLD: usize = 40;
/// Programs that make code as they run; of valgrind, the start of its tool's name.
const COMPILERS: [&str; 4] = ["chromium", "java", "node", "memcheck-"];

/// Everything counted so far.
#[derive(Default)]
pub(super) struct Table {
    /// Processes at the beginning, by program.
    begun: BTreeMap<String, Vec<u32>>,
    /// Programs of which one process was there from the beginning to the end.
    stayed: BTreeSet<String>,
    /// Over all scans, by program.
    scans: BTreeMap<String, Account>,
    checks: Checks,
    /// Above info, by program.
    found: BTreeMap<String, Vec<String>>,
    /// Above info, and rightly: what the sensor tells of guarded programs whatever it has learned,
    /// where those are guarded that do it by nature.
    due: Vec<String>,
    /// Above info, of processes that are none of the corpus'.
    elsewhere: u64,
    /// Why the control was not found; none while it has not come to that.
    control: Option<Result<()>>,
}

// === impl Table ===

impl Table {
    pub(super) fn begin(&mut self, census: &Census) {
        self.begun = census.staying();
    }

    pub(super) fn scanned(&mut self, class: &str, account: &Account) {
        self.scans.entry(class.to_owned()).or_default().add(account);
    }

    /// What the rounds checked and found, every program being guarded or not.
    pub(super) fn patrolled(
        &mut self,
        checks: Checks,
        found: &[Found],
        census: &Census,
        guard: bool,
    ) {
        self.checks = checks;
        let stayed =
            self.begun.iter().filter(|(_, pids)| pids.iter().any(|pid| census.is_alive(*pid)));
        self.stayed = stayed.map(|(class, _)| class.clone()).collect();
        for one in found.iter().filter(|one| one.severity != "info") {
            let class = match census.class(one.pid) {
                Some(class) => class,
                None if one.ours => "(short-lived)",
                None => {
                    self.elsewhere += one.count;
                    continue;
                }
            };
            if guard && is_due(class, one) {
                self.due.push(told(one));
            } else {
                self.found.entry(class.to_owned()).or_default().push(told(one));
            }
        }
    }

    pub(super) fn control(&mut self, outcome: Result<()>) {
        self.control = Some(outcome);
    }

    /// Nothing was found but the control, and whoever stayed was checked in the rounds.
    pub(super) fn passed(&self) -> bool {
        self.found.is_empty()
            && self.scans.values().all(|account| account.found.is_empty())
            && !self.stayed.is_empty()
            && self.stayed.iter().all(|class| self.visits(class) > 0)
            && matches!(self.control, Some(Ok(())))
    }

    fn visits(&self, class: &str) -> u64 {
        self.checks.of(class, "clean") + self.checks.of(class, "mismatch")
    }

    fn classes(&self) -> BTreeSet<&str> {
        let scanned = self.scans.keys().chain(self.begun.keys()).chain(self.found.keys());
        scanned.map(String::as_str).chain(self.checks.classes()).collect()
    }

    fn line(&self, f: &mut fmt::Formatter<'_>, class: &str) -> fmt::Result {
        let begun = self.begun.get(class).map_or(0, Vec::len);
        let scans = self.scans.get(class).cloned().unwrap_or_default();
        let Account { checked, without_loader, refused, found, .. } = &scans;
        let of = |outcome| self.checks.of(class, outcome);
        let above = self.found.get(class).map_or(0, Vec::len) + found.len();
        writeln!(
            f,
            "{class:<22} {begun:>9} {checked:>7} {without_loader:>6} {:>7} {:>7} {:>7} {:>7} {:>5} {above:>10}",
            refused.len(),
            of("clean") + of("mismatch"),
            of("failed") + of("unsettled"),
            of("put_off"),
            of("gone"),
        )
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.scans.is_empty() {
            let count: usize = self.begun.values().map(Vec::len).sum();
            let each = self.begun.iter().map(|(class, pids)| format!("{} {class}", pids.len()));
            let each: Vec<_> = each.collect();
            return writeln!(f, "{count} processes: {}", each.join(", "));
        }
        writeln!(
            f,
            "{:<22} {:>9} {:>22} {:>29} {:>10}\n{:<22} {:>9} {:>7} {:>6} {:>7} {:>7} {:>7} {:>7} \
             {:>5} {:>10}",
            "",
            "",
            "scans:",
            "rounds:",
            "",
            "program",
            "processes",
            "checked",
            "static",
            "refused",
            "checked",
            "refused",
            "put off",
            "gone",
            "above info"
        )?;
        for class in self.classes() {
            self.line(f, class)?;
        }
        writeln!(f, "{} findings above info elsewhere on this machine", self.elsewhere)?;
        match &self.control {
            None => writeln!(f, "control: not run")?,
            Some(Ok(())) => writeln!(f, "control (a slot that is changed): found by both")?,
            Some(Err(error)) => writeln!(f, "control: MISSED: {error:#}")?,
        }
        let scans = |texts: fn(&Account) -> &[String]| {
            self.scans.values().flat_map(texts).cloned().collect::<Vec<_>>()
        };
        list(f, "refused by the scans", &scans(|account| &account.refused))?;
        list(f, "not covered by the scans", &scans(|account| &account.gaps))?;
        list(f, "FOUND by the scans", &scans(|account| &account.found))?;
        list(f, "told by the sensor of guarded programs, as it should be", &self.due)?;
        let found: Vec<_> = self.found.values().flatten().cloned().collect();
        list(f, "FOUND by the sensor, above info", &found)
    }
}

/// Code that a compiler at run time makes, and a library that an administrator has put in front of
/// others: nobody guards such programs, and of those that are guarded both are told.
fn is_due(class: &str, found: &Found) -> bool {
    let by_root = |line: &String| line.contains("in a place only root may write to");
    match (found.detector.as_str(), found.severity.as_str()) {
        ("module_unlinked", "medium") => COMPILERS.iter().any(|name| class.starts_with(name)),
        ("preload_env", "high") => {
            found.title.contains("LD_PRELOAD") && found.evidence.iter().any(by_root)
        }
        _ => false,
    }
}

fn told(found: &Found) -> String {
    let Found { time, detector, severity, title, count, pid, process, evidence, .. } = found;
    let mut text = format!("{time} {detector}, {severity}, {count} times: {title}");
    for line in [&format!("{pid} {process}")].into_iter().chain(evidence) {
        text.push_str("\n      ");
        text.push_str(line);
    }
    text
}

/// Each text once, with how often it comes; numbers of processes tell no two apart.
fn list(f: &mut fmt::Formatter<'_>, heading: &str, texts: &[String]) -> fmt::Result {
    let mut counts: BTreeMap<String, (usize, &str)> = BTreeMap::new();
    for text in texts {
        let alike: String =
            text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
        counts.entry(alike).or_insert((0, text)).0 += 1;
    }
    if counts.is_empty() {
        return Ok(());
    }
    writeln!(f, "\n{heading}:")?;
    for (count, text) in counts.values().take(TOLD) {
        writeln!(f, "  {count} times: {text}")?;
    }
    match counts.len().saturating_sub(TOLD) {
        0 => Ok(()),
        more => writeln!(f, "  and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_passes_without_its_control_and_without_visits() {
        let mut table = Table::default();
        assert!(!table.passed());
        table.control(Ok(()));
        assert!(!table.passed(), "nobody stayed");
        table.stayed.insert("perl".to_owned());
        assert!(!table.passed(), "nobody visited perl");
        table.checks = Checks::one("perl", "clean");
        assert!(table.passed());
        table.control(Err(anyhow::anyhow!("no")));
        assert!(!table.passed());
    }

    #[test]
    fn of_guarded_programs_code_made_at_run_time_is_due_in_compilers_only() {
        let found = |detector: &str, severity: &str, evidence: &str| Found {
            time: jiff::Timestamp::UNIX_EPOCH,
            detector: detector.to_owned(),
            severity: severity.to_owned(),
            title: "x was started with LD_PRELOAD".to_owned(),
            ours: true,
            count: 1,
            pid: 1,
            process: String::new(),
            evidence: vec![evidence.to_owned()],
        };
        let code = found("module_unlinked", "medium", "");
        assert!(is_due("java", &code) && is_due("memcheck-amd64-linux", &code));
        assert!(!is_due("perl", &code), "it makes none");
        assert!(!is_due("java", &found("module_unlinked", "critical", "")));
        let note = "note: text x.so is /usr/lib/x.so, in a place only root may write to";
        assert!(is_due("sleep", &found("preload_env", "high", note)));
        assert!(!is_due("sleep", &found("preload_env", "high", "note: text x.so is /tmp/x.so")));
        assert!(!is_due("perl", &found("dlopen_unexpected", "critical", "")));
    }

    #[test]
    fn a_finding_of_a_scan_fails_and_is_shown() {
        let mut table = Table { checks: Checks::one("perl", "clean"), ..Table::default() };
        table.control(Ok(()));
        table.stayed.insert("perl".to_owned());
        assert!(table.passed());
        let found =
            vec!["text_patched: process 4".to_owned(), "text_patched: process 55".to_owned()];
        table.scanned("perl", &Account { checked: 2, found, ..Account::default() });
        assert!(!table.passed());
        let shown = table.to_string();
        assert!(shown.contains("FOUND by the scans") && shown.contains("process 4"), "{shown}");
    }
}
