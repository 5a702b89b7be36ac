//! A guest's serial console: what PID 1 reports, and what a kernel in trouble prints.

/// PID 1 starts its own lines with this; see xtask/init.
const MARK: &str = "HALFSECOND-VM ";

/// What a kernel prints, after the time stamp, when something is wrong with it.
const TROUBLE: [&str; 11] = [
    "BUG:",
    "INFO: task",
    "Internal error:",
    "Kernel panic",
    "Oops:",
    "Unable to handle kernel",
    "WARNING:",
    "general protection fault",
    "rcu: INFO: rcu_",
    "unregister_netdevice: waiting",
    "watchdog: BUG:",
];

/// What has been read so far.
#[derive(Debug, Default)]
pub(super) struct Console {
    /// `uname -r` of the guest and the features PID 1 found, once it runs.
    facts: Option<String>,
    /// The `test result:` lines of the test programs.
    results: Vec<String>,
    /// Programs that ended with something else than 0.
    failed: Vec<String>,
    /// Single tests that failed, of programs that may not have ended.
    failed_tests: Vec<String>,
    /// The number of failed programs by PID 1's count; its last words.
    done: Option<u32>,
    /// The first line of a kernel in trouble.
    trouble: Option<String>,
}

// === impl Console ===

impl Console {
    /// Takes in one line; returns whether it is worth showing while the guest runs.
    pub(super) fn read(&mut self, line: &str) -> bool {
        if self.trouble.is_none() && is_trouble(line) {
            self.trouble = Some(line.trim().to_owned());
            return true;
        }
        // A kernel message may have got in front of PID 1's line.
        if let Some((_, report)) = line.split_once(MARK) {
            self.report(report.trim());
            return true;
        }
        if line.contains("test result: ") {
            self.results.push(line.trim().to_owned());
        } else if let Some(name) = failed_test(line) {
            self.failed_tests.push(name.to_owned());
        }
        self.facts.is_some()
    }

    /// What has gone wrong by now, whether or not the guest has come to its end.
    pub(super) fn wrong(&self) -> Option<String> {
        if let Some(trouble) = &self.trouble {
            return Some(format!("the kernel reports: {trouble}"));
        }
        let failed: Vec<&str> =
            self.failed_tests.iter().chain(&self.failed).map(String::as_str).collect();
        (!failed.is_empty()).then(|| format!("failed: {}", failed.join(", ")))
    }

    /// Everything passed, or the first reason why not.
    pub(super) fn verdict(&self) -> Result<(), String> {
        if let Some(trouble) = &self.trouble {
            return Err(format!("the kernel reports: {trouble}"));
        }
        match (&self.facts, self.done) {
            (None, _) => Err("the guest did not reach its PID 1".to_owned()),
            (Some(_), None) => Err("its tests did not end".to_owned()),
            (Some(_), Some(0)) if self.results.is_empty() => Err("no test ran".to_owned()),
            (Some(_), Some(0)) => Ok(()),
            (Some(_), Some(_)) => Err(format!("failed: {}", self.failed.join(", "))),
        }
    }

    pub(super) fn facts(&self) -> &str {
        self.facts.as_deref().unwrap_or("did not start")
    }

    pub(super) fn into_results(self) -> Vec<String> {
        self.results
    }

    fn report(&mut self, report: &str) {
        if let Some(facts) = report.strip_prefix("ready ") {
            self.facts = Some(facts.to_owned());
        } else if let Some(failures) = report.strip_prefix("done failures=") {
            self.done = failures.parse().ok();
        } else if let Some((name, status)) = report.split_once(" exit=")
            && status != "0"
        {
            self.failed.push(format!("{name} ({status})"));
        }
    }
}

/// The name in libtest's line of a test that failed.
fn failed_test(line: &str) -> Option<&str> {
    line.trim().strip_prefix("test ")?.strip_suffix(" ... FAILED")
}

/// Whether the kernel itself, not a program, wrote one of the texts above.
fn is_trouble(line: &str) -> bool {
    TROUBLE
        .iter()
        .any(|text| line.split_once(text).is_some_and(|(before, _)| before.ends_with("] ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(lines: &[&str]) -> Console {
        let mut console = Console::default();
        for line in lines {
            console.read(line);
        }
        console
    }

    const READY: &str = "HALFSECOND-VM ready release=6.1.0 btf=yes";
    const RESULT: &str = "test result: ok. 3 passed; 0 failed; 0 ignored";

    #[test]
    fn a_guest_that_ran_its_tests_passes() {
        let console = after(&[
            READY,
            RESULT,
            "HALFSECOND-VM 0-guest exit=0",
            "HALFSECOND-VM done failures=0",
        ]);
        assert_eq!(console.verdict(), Ok(()));
    }

    #[test]
    fn a_failed_program_is_named() {
        let console = after(&[
            READY,
            RESULT,
            "HALFSECOND-VM 1-kernel exit=101",
            "HALFSECOND-VM done failures=1",
        ]);
        assert_eq!(console.verdict(), Err("failed: 1-kernel (101)".to_owned()));
    }

    #[test]
    fn what_went_wrong_is_known_before_the_guest_ends() {
        assert_eq!(after(&[READY, RESULT, "test rung::one ... ok"]).wrong(), None);
        let one = after(&[READY, "test rung::one ... FAILED"]);
        assert_eq!(one.wrong(), Some("failed: rung::one".to_owned()));
        let crashed = after(&[READY, "HALFSECOND-VM 1-kernel exit=139"]);
        assert_eq!(crashed.wrong(), Some("failed: 1-kernel (139)".to_owned()));
        assert!(after(&[READY, "[    1.0] WARNING: CPU: 0 PID: 1"]).wrong().is_some());
    }

    #[test]
    fn a_guest_that_stops_half_way_fails() {
        assert!(after(&[READY, RESULT]).verdict().is_err());
        assert!(after(&["[    0.1] Linux version 6.1"]).verdict().is_err());
        assert!(after(&[READY, "HALFSECOND-VM done failures=0"]).verdict().is_err());
    }

    #[test]
    fn a_kernel_in_trouble_fails_even_when_its_tests_pass() {
        let stall = "[   61.0] rcu: INFO: rcu_sched self-detected stall on CPU";
        let console = after(&[READY, RESULT, stall, "HALFSECOND-VM done failures=0"]);
        assert!(console.verdict().unwrap_err().contains("rcu_sched"));
    }

    #[test]
    fn a_test_may_print_what_a_kernel_would() {
        let console =
            after(&[READY, "the text \"BUG:\" is not", RESULT, "HALFSECOND-VM done failures=0"]);
        assert_eq!(console.verdict(), Ok(()));
    }

    #[test]
    fn a_kernel_message_before_a_report_does_not_hide_it() {
        let console = after(&[READY, RESULT, "[   3.1] random: HALFSECOND-VM done failures=0"]);
        assert_eq!(console.verdict(), Ok(()));
    }
}
