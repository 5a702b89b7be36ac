//! What the tiers found: counts read from libtest's output, and the closing table.

use std::fmt;
use std::time::Duration;

use crate::vm::{Outcome, Verdict};

/// Sums over `test result:` lines of libtest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    passed: u64,
    failed: u64,
    ignored: u64,
}

/// One row of the table.
pub(super) struct Part {
    name: String,
    counts: Counts,
    took: Duration,
    ok: bool,
    /// Why it failed or did not run, when the counts do not say it.
    note: String,
}

#[derive(Default)]
pub(super) struct Report {
    parts: Vec<Part>,
}

// === impl Counts ===

impl Counts {
    /// Counted by somebody else.
    pub(super) fn of(passed: u64, failed: u64) -> Self {
        Self { passed, failed, ignored: 0 }
    }

    pub(super) fn failed(&self) -> u64 {
        self.failed
    }

    /// Takes in one line of output:
    /// `test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; …`.
    pub(super) fn read(&mut self, line: &str) {
        let Some((_, totals)) = line.split_once("test result: ") else {
            return;
        };
        for part in totals.split([';', '.']) {
            let mut words = part.split_whitespace();
            let (Some(count), Some(what)) = (words.next(), words.next()) else {
                continue;
            };
            let Ok(count) = count.parse::<u64>() else {
                continue;
            };
            match what {
                "passed" => self.passed += count,
                "failed" => self.failed += count,
                "ignored" => self.ignored += count,
                _ => {}
            }
        }
    }
}

// === impl Part ===

impl Part {
    /// A part whose tests were counted; `ok` is whether its process exited with 0.
    pub(super) fn counted(name: &str, took: Duration, mut counts: Counts, ok: bool) -> Self {
        let mut note = String::new();
        if !ok && counts.failed == 0 {
            // It did not build, or it died before libtest could count.
            counts.failed = 1;
            note.push_str("ended early");
        } else if ok && counts.passed == 0 {
            counts.failed = 1;
            note.push_str("ran no test");
        }
        Self { name: name.to_owned(), ok: counts.failed == 0, counts, took, note }
    }

    /// A part of so many tests that this machine cannot run.
    pub(super) fn skipped(name: &str, took: Duration, ignored: u64, why: &anyhow::Error) -> Self {
        let counts = Counts { ignored, ..Counts::default() };
        let note = format!("skipped: {why:#}");
        Self { name: name.to_owned(), counts, took, ok: true, note }
    }

    /// Why it failed, in the words of the tests.
    pub(super) fn explain(&mut self, note: &str) {
        note.clone_into(&mut self.note);
    }

    /// One of its failures was tried again, alone: what passed then has passed, and is told.
    pub(super) fn tried_again(&mut self, test: &str, again: &Self) {
        self.took += again.took;
        let said = if again.ok {
            self.counts.failed = self.counts.failed.saturating_sub(1);
            self.counts.passed += 1;
            self.ok = self.counts.failed == 0;
            format!("UNSTEADY {test}: failed, then passed alone")
        } else {
            format!("{test}: failed twice")
        };
        let between = if self.note.is_empty() { "" } else { "; " };
        self.note = format!("{}{between}{said}", self.note);
    }

    /// A part that could not run at all.
    pub(super) fn failed(name: &str, took: Duration, error: &anyhow::Error) -> Self {
        let counts = Counts { failed: 1, ..Counts::default() };
        let note = format!("{error:#}");
        Self { name: name.to_owned(), counts, took, ok: false, note }
    }
}

impl From<Outcome> for Part {
    fn from(outcome: Outcome) -> Self {
        let mut counts = Counts::default();
        outcome.results.iter().for_each(|line| counts.read(line));
        let name = format!("vm: {}", outcome.kernel);
        let (passed, note) = match outcome.verdict {
            Verdict::Passed => (true, outcome.facts),
            Verdict::Failed(why) => (false, why),
            Verdict::NotTested(why) => {
                counts.ignored += 1;
                let note = format!("skipped: {why}");
                return Self { name, counts, took: outcome.took, ok: true, note };
            }
        };
        let mut part = Self::counted(&name, outcome.took, counts, passed);
        part.note = note;
        part
    }
}

// === impl Report ===

impl Report {
    pub(super) fn extend(&mut self, parts: Vec<Part>) {
        self.parts.extend(parts);
    }

    pub(super) fn passed(&self) -> bool {
        self.parts.iter().all(|part| part.ok)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n{:<20} {:>7} {:>7} {:>8} {:>8}", "", "passed", "failed", "ignored", "time")?;
        let mut sum = Counts::default();
        for Part { name, counts, took, ok, note } in &self.parts {
            let seconds = took.as_secs_f64();
            let Counts { passed, failed, ignored } = counts;
            let sign = if *ok { "ok" } else { "FAILED" };
            write!(f, "{name:<20} {passed:>7} {failed:>7} {ignored:>8} {seconds:>7.1}s  {sign}")?;
            writeln!(f, "{}{note}", if note.is_empty() { "" } else { ": " })?;
            sum.passed += passed;
            sum.failed += failed;
            sum.ignored += ignored;
        }
        writeln!(f, "\n{} passed, {} failed, {} skipped", sum.passed, sum.failed, sum.ignored)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = "test result: FAILED. 31 passed; 2 failed; 1 ignored; 0 measured; \
                        4 filtered out; finished in 0.10s";

    #[test]
    fn counts_add_up_over_several_test_binaries() {
        let mut counts = Counts::default();
        counts.read(LINE);
        counts.read("test result: ok. 4 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out");
        counts.read("test parses::test_result ... ok");
        assert_eq!(counts, Counts { passed: 35, failed: 2, ignored: 1 });
    }

    #[test]
    fn a_part_that_died_before_counting_has_failed() {
        let part = Part::counted("kernel", Duration::ZERO, Counts::default(), false);
        assert!(!part.ok);
        assert_eq!(part.counts.failed, 1);
    }

    #[test]
    fn what_this_machine_cannot_run_is_counted_as_skipped() {
        let why = anyhow::anyhow!("no compiler");
        let mut report = Report::default();
        report.extend(vec![Part::skipped("fuzz", Duration::ZERO, 7, &why)]);
        assert!(report.passed());
        let text = report.to_string();
        assert!(text.contains("skipped: no compiler"), "{text}");
        assert!(text.ends_with("0 passed, 0 failed, 7 skipped\n"), "{text}");
    }

    #[test]
    fn what_passes_only_when_tried_again_is_told() {
        let one = |line: &str, ok| {
            let mut counts = Counts::default();
            counts.read(line);
            Part::counted("e2e", Duration::ZERO, counts, ok)
        };
        let mut part = one("test result: FAILED. 40 passed; 2 failed; 0 ignored", false);
        part.tried_again("a::b", &one("test result: ok. 1 passed; 0 failed; 0 ignored", true));
        assert!(!part.ok);
        part.tried_again("c", &one("test result: ok. 1 passed; 0 failed; 0 ignored", true));
        assert!(part.ok);
        assert_eq!(part.counts, Counts { passed: 42, failed: 0, ignored: 0 });
        assert!(part.note.contains("UNSTEADY a::b") && part.note.contains("UNSTEADY c"));
        let mut part = one("test result: FAILED. 40 passed; 1 failed; 0 ignored", false);
        part.tried_again("c", &one("test result: FAILED. 0 passed; 1 failed; 0 ignored", false));
        assert!(!part.ok && part.note.contains("failed twice"), "{}", part.note);
    }

    #[test]
    fn a_part_without_a_single_test_has_failed() {
        let part = Part::counted("kernel", Duration::ZERO, Counts::default(), true);
        assert!(!part.ok);
    }
}
