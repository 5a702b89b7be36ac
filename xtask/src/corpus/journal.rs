//! The results so far, one JSON object per line, so that an interrupted corpus goes on.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::chamber::Ended;
use super::watch::Counts;
use super::workload::{CONTROL, Workload};

/// In the corpus' folder.
pub(super) const FILE: &str = "results.jsonl";

/// What results of one file have in common.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Plan {
    pub(super) learn: u32,
    pub(super) rounds: u32,
    pub(super) observations: u32,
    /// Start of the agent's SHA-256.
    pub(super) agent: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Phase {
    /// Teaches the sensor.
    Learn,
    /// Findings are false ones.
    Detect,
    /// After everything else: there must be a finding.
    Control,
}

/// A workload in a round that is to be run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    pub(super) workload: Workload,
    /// From 1, the learning rounds first.
    pub(super) round: u32,
    pub(super) phase: Phase,
}

/// A workload in a round that was run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Run {
    pub(super) workload: String,
    pub(super) round: u32,
    pub(super) phase: Phase,
    pub(super) began: Timestamp,
    /// When the sensor had judged it.
    pub(super) until: Timestamp,
    /// Without the wait for the sensor.
    pub(super) seconds: f64,
    pub(super) ended: Ended,
    pub(super) counts: Counts,
}

/// The file and what it holds.
pub(super) struct Journal {
    path: PathBuf,
    plan: Plan,
    runs: Vec<Run>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Plan(Plan),
    Run(Run),
}

// === impl Journal ===

impl Journal {
    /// The results in `folder` made by the same plan; with `again` those of learning only, whatever
    /// agent made them.
    ///
    /// # Errors
    /// When there are results of another plan, which must not be mixed with this one's.
    pub(super) fn open(folder: &Path, plan: Plan, again: bool) -> Result<Self> {
        let path = folder.join(FILE);
        let mut journal = Self { path, plan, runs: Vec::new() };
        if journal.path.exists() {
            let text = std::fs::read_to_string(&journal.path)?;
            journal.take(&text, again)?;
        }
        journal.write()?;
        Ok(journal)
    }

    fn take(&mut self, text: &str, again: bool) -> Result<()> {
        let mut lines = text.lines();
        let first = lines.next().unwrap_or_default();
        let Ok(Line::Plan(mut before)) = serde_json::from_str(first) else {
            bail!("{} holds no results: use --fresh", self.path.display());
        };
        if again {
            before.agent.clone_from(&self.plan.agent);
            before.rounds = self.plan.rounds;
        }
        ensure!(
            before.agent == self.plan.agent,
            "the agent is not the one of the results so far: --again keeps what was learned and \
             repeats the rounds that count, --fresh starts anew"
        );
        ensure!(
            before.learn == self.plan.learn && before.observations == self.plan.observations,
            "the results so far learned in {} rounds with {} observations: give the same, or --fresh",
            before.learn,
            before.observations
        );
        for line in lines {
            // The last one may be torn where the machine went down.
            let Ok(Line::Run(run)) = serde_json::from_str(line) else { continue };
            if !again || run.phase == Phase::Learn {
                self.runs.push(run);
            }
        }
        Ok(())
    }

    /// The file anew: replaced as a whole, so that no crash leaves half of it.
    fn write(&self) -> Result<()> {
        let part = self.path.with_extension("part");
        let mut file = File::create(&part)?;
        writeln!(file, "{}", serde_json::to_string(&Line::Plan(self.plan.clone()))?)?;
        for run in &self.runs {
            writeln!(file, "{}", serde_json::to_string(&Line::Run(run.clone()))?)?;
        }
        std::fs::rename(part, &self.path).context("cannot write the results")
    }

    pub(super) fn add(&mut self, run: Run) -> Result<()> {
        let mut line = serde_json::to_string(&Line::Run(run.clone()))?;
        line.push('\n');
        let mut file = OpenOptions::new().append(true).open(&self.path)?;
        file.write_all(line.as_bytes()).context("cannot write the results")?;
        self.runs.push(run);
        Ok(())
    }

    pub(super) fn plan(&self) -> &Plan {
        &self.plan
    }

    /// In the order in which they were run; a workload that failed may be there again.
    pub(super) fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// Whether a round after the learning ones has begun.
    pub(super) fn counts_already(&self) -> bool {
        self.runs.iter().any(|run| run.phase != Phase::Learn)
    }

    /// What is still to be run, failures included, round by round.
    pub(super) fn missing(&self, workloads: &[Workload]) -> Vec<Step> {
        let mut steps = Vec::new();
        for round in 1..=self.plan.learn + self.plan.rounds {
            let phase = if round <= self.plan.learn { Phase::Learn } else { Phase::Detect };
            for workload in workloads {
                steps.push(Step { workload: *workload, round, phase });
            }
        }
        let round = self.plan.learn + self.plan.rounds + 1;
        steps.push(Step { workload: CONTROL, round, phase: Phase::Control });
        steps.retain(|step| !self.has(step));
        steps
    }

    fn has(&self, step: &Step) -> bool {
        self.runs.iter().any(|run| {
            run.workload == step.workload.name
                && run.round == step.round
                && !matches!(run.ended, Ended::Failed(_))
        })
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Learn => "learning",
            Self::Detect => "counting",
            Self::Control => "control",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corpus::workload::chosen;

    fn plan(agent: &str) -> Plan {
        Plan { learn: 1, rounds: 1, observations: 4, agent: agent.to_owned() }
    }

    fn run(round: u32, ended: Ended) -> Run {
        Run {
            workload: "git".to_owned(),
            round,
            phase: if round == 1 { Phase::Learn } else { Phase::Detect },
            began: Timestamp::UNIX_EPOCH,
            until: Timestamp::UNIX_EPOCH,
            seconds: 1.0,
            ended,
            counts: Counts::default(),
        }
    }

    fn taken(runs: &[Run], agent: &str, again: bool) -> Result<Journal> {
        let mut text = serde_json::to_string(&Line::Plan(plan("a"))).unwrap();
        for run in runs {
            text.push('\n');
            text.push_str(&serde_json::to_string(&Line::Run(run.clone())).unwrap());
        }
        text.push_str("\n{\"run\":{\"workl");
        let mut journal = Journal { path: PathBuf::new(), plan: plan(agent), runs: Vec::new() };
        journal.take(&text, again)?;
        Ok(journal)
    }

    fn missing(journal: &Journal) -> Vec<u32> {
        let git = chosen(&["git".to_owned()]).unwrap();
        journal.missing(&git).iter().map(|step| step.round).collect()
    }

    #[test]
    fn what_is_done_or_skipped_is_not_run_again_and_what_failed_is() {
        let failed = run(2, Ended::Failed("no".to_owned()));
        let journal = taken(&[run(1, Ended::Done), failed], "a", false).unwrap();
        assert_eq!(missing(&journal), [2, 3]);
        let skipped = run(2, Ended::Skipped("why".to_owned()));
        let journal = taken(&[run(1, Ended::Done), skipped], "a", false).unwrap();
        assert_eq!(missing(&journal), [3], "only the control");
    }

    #[test]
    fn another_agent_keeps_only_what_was_learned_and_only_when_told() {
        let runs = [run(1, Ended::Done), run(2, Ended::Done)];
        assert!(taken(&runs, "b", false).is_err());
        assert_eq!(missing(&taken(&runs, "b", true).unwrap()), [2, 3]);
    }
}
