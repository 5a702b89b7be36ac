//! What the verifier costs: CPU time of checks of sshd and of the whole machine, first and again,
//! and what it remembers.

use std::fmt;
use std::process::Command;

use anyhow::{Result, ensure};

use crate::sh;
use crate::test::build_test;

/// The test that prints the figures.
const TEST: &str = "cost::warm_and_cold_checks";

/// Figures with a limit, as the test calls them.
const LIMITS: [(&str, f64); 4] = [
    ("sshd warm", 0.5),
    ("sshd cold", 10.0),
    ("machine warm, per 100 processes", 50.0),
    ("memory", 25.0),
];

/// One figure.
pub(super) struct Figure {
    name: String,
    value: f64,
    unit: String,
}

/// Builds the verifier's tests as it ships and runs the one that measures.
pub(super) fn measure() -> Result<Vec<Figure>> {
    let test = build_test("verify", true)?;
    let mut command = Command::new(test);
    command.args(["--ignored", "--exact", TEST, "--nocapture"]);
    let output = sh::output(&mut command)?;
    let figures: Vec<Figure> = output.lines().filter_map(Figure::read).collect();
    for (name, _) in LIMITS {
        let told = figures.iter().any(|figure| figure.name == name);
        ensure!(told || name.starts_with("sshd"), "the verifier's test tells no {name}");
    }
    Ok(figures)
}

// === impl Figure ===

impl Figure {
    /// `cost: NAME: VALUE UNIT`; libtest may have written its own text before it.
    fn read(line: &str) -> Option<Self> {
        let (_, line) = line.split_once("cost: ")?;
        let (name, value) = line.rsplit_once(": ")?;
        let (value, unit) = value.split_once(' ').unwrap_or((value, ""));
        let value = value.parse().ok()?;
        Some(Self { name: name.to_owned(), value, unit: unit.to_owned() })
    }

    fn limit(&self) -> Option<f64> {
        LIMITS.iter().find(|(name, _)| *name == self.name).map(|(_, limit)| *limit)
    }

    pub(super) fn within_limit(&self) -> bool {
        self.limit().is_none_or(|limit| self.value <= limit)
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, value, unit } = self;
        write!(f, "verify          {name}: {value:.3} {unit}")?;
        if let Some(limit) = self.limit() {
            let verdict = if self.within_limit() { "met" } else { "MISSED" };
            write!(f, "  (limit {limit} {unit}: {verdict})")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_told_from_other_lines() {
        let figure = Figure::read("test cost::x ... cost: sshd warm: 0.612 ms").unwrap();
        assert_eq!((figure.name.as_str(), figure.unit.as_str()), ("sshd warm", "ms"));
        assert!(!figure.within_limit());
        assert_eq!(
            figure.to_string(),
            "verify          sshd warm: 0.612 ms  (limit 0.5 ms: MISSED)"
        );
        let figure = Figure::read("cost: machine warm, per 100 processes: 41.000 ms").unwrap();
        assert!(figure.limit().is_some() && figure.within_limit());
        assert!(Figure::read("cost: processes: 101.000 ").unwrap().within_limit());
        assert!(Figure::read("running 1 test").is_none());
        assert!(Figure::read("cost: sshd warm: much").is_none());
    }
}
