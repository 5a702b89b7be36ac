//! The table, and below it whatever was found above info.

use std::collections::BTreeMap;
use std::fmt;

use jiff::{SignedDuration, Timestamp};

use super::chamber::Ended;
use super::found::Found;
use super::journal::{Journal, Phase, Plan, Run};
use super::watch::Counts;
use super::workload::{CONTROL, Workload};

const SEVERITIES: [&str; 4] = ["low", "medium", "high", "critical"];
/// The sensor's clock and ours are read at different moments.
const SLACK: SignedDuration = SignedDuration::from_millis(50);
/// How long after a workload the sensor may still find something in what it left behind.
const LATE: SignedDuration = SignedDuration::from_secs(2);

pub(super) struct Report {
    plan: Plan,
    rows: Vec<Row>,
    after: Vec<Group>,
    learning: Vec<Group>,
    elsewhere: Vec<Group>,
    control: Control,
    /// After the last run.
    baselines: BTreeMap<String, u64>,
}

/// Whether the sensor finds what it must.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Control {
    NotRun,
    /// Why it could not be.
    Failed(String),
    Missed,
    /// By what.
    Found(String),
}

/// A workload over its rounds.
struct Row {
    name: &'static str,
    learned: u32,
    counted: u32,
    wanted: u32,
    /// Over the counting rounds, of the whole machine.
    counts: Counts,
    /// Findings of its processes in the counting rounds, as [`SEVERITIES`].
    found: [u64; SEVERITIES.len()],
    /// Those above info while learning.
    early: u64,
    /// The last run that was none.
    trouble: Option<Ended>,
}

/// Findings that say the same of one workload.
struct Group {
    workload: String,
    first: Found,
    count: u64,
}

// === impl Report ===

impl Report {
    /// Joins what was run with what was found, by time.
    pub(super) fn new(journal: &Journal, workloads: &[Workload], found: &[Found]) -> Self {
        let plan = journal.plan().clone();
        let (mut after, mut learning, mut elsewhere) = (Vec::new(), Vec::new(), Vec::new());
        let mut rows: Vec<_> =
            workloads.iter().map(|workload| Row::new(workload, journal, &plan)).collect();
        let baselines =
            journal.runs().last().map(|run| run.counts.baselines.clone()).unwrap_or_default();
        let mut control = Control::of(journal.runs());
        for found in found.iter().filter(|found| found.severity != "info") {
            let Some(run) = at(journal.runs(), found.time) else { continue };
            if run.phase == Phase::Control && found.ours {
                control = Control::Found(format!("{}, {}", found.detector, found.severity));
            }
            let Some(row) = rows.iter_mut().find(|row| row.name == run.workload) else { continue };
            let list = match run.phase {
                Phase::Control => continue,
                _ if !found.ours => &mut elsewhere,
                Phase::Learn => {
                    row.early += found.count;
                    &mut learning
                }
                Phase::Detect => {
                    row.add(found);
                    &mut after
                }
            };
            group(list, if found.ours { &run.workload } else { "elsewhere" }, found);
        }
        Self { plan, rows, after, learning, elsewhere, control, baselines }
    }

    /// Every workload ran, or told why it cannot, and nothing was found above info but what must be.
    pub(super) fn passed(&self) -> bool {
        matches!(self.control, Control::Found(_))
            && self.after.is_empty()
            && self.rows.iter().all(Row::passed)
    }
}

/// The run that `time` lies in. What comes soon after one, before the next begins, belongs to it;
/// in longer gaps lie runs whose results were given up.
fn at(runs: &[Run], time: Timestamp) -> Option<&Run> {
    let after = |began: Timestamp, by| began.saturating_add(by).unwrap_or(began);
    let time = after(time, SLACK);
    let run = runs.iter().filter(|run| run.began <= time).max_by_key(|run| run.began)?;
    (time <= after(run.until, LATE)).then_some(run)
}

fn group(groups: &mut Vec<Group>, workload: &str, found: &Found) {
    let same = |group: &&mut Group| {
        let Group { workload: of, first, .. } = group;
        of == workload
            && (&first.detector, &first.severity) == (&found.detector, &found.severity)
            // What is none of ours is told once of each kind.
            && (!found.ours || first.title == found.title)
    };
    match groups.iter_mut().find(same) {
        Some(group) => group.count += found.count,
        None => groups.push(Group {
            workload: workload.to_owned(),
            first: found.clone(),
            count: found.count,
        }),
    }
}

// === impl Control ===

impl Control {
    /// As far as the run tells; what was found is not looked at.
    fn of(runs: &[Run]) -> Self {
        match runs.iter().rev().find(|run| run.workload == CONTROL.name).map(|run| &run.ended) {
            None => Self::NotRun,
            Some(Ended::Done) => Self::Missed,
            Some(Ended::Skipped(why) | Ended::Failed(why)) => Self::Failed(why.clone()),
        }
    }
}

impl fmt::Display for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotRun => f.write_str("not run"),
            Self::Failed(why) => write!(f, "FAILED:\n{why}"),
            Self::Missed => f.write_str("MISSED: the sensor's silence says nothing"),
            Self::Found(what) => write!(f, "found by {what}"),
        }
    }
}

// === impl Row ===

impl Row {
    fn new(workload: &Workload, journal: &Journal, plan: &Plan) -> Self {
        let mut row = Self {
            name: workload.name,
            learned: 0,
            counted: 0,
            wanted: plan.rounds,
            counts: Counts::default(),
            found: [0; SEVERITIES.len()],
            early: 0,
            trouble: None,
        };
        for run in journal.runs().iter().filter(|run| run.workload == workload.name) {
            match (&run.ended, run.phase) {
                (Ended::Done, Phase::Learn) => row.learned += 1,
                (Ended::Done, Phase::Detect) => {
                    row.counted += 1;
                    row.counts.add(&run.counts);
                }
                _ => {}
            }
            row.trouble = (run.ended != Ended::Done).then(|| run.ended.clone());
        }
        row
    }

    fn add(&mut self, found: &Found) {
        for (severity, count) in SEVERITIES.iter().zip(&mut self.found) {
            *count += if found.severity == *severity { found.count } else { 0 };
        }
    }

    fn passed(&self) -> bool {
        match &self.trouble {
            Some(Ended::Skipped(_)) => true,
            Some(_) => false,
            None => self.counted >= self.wanted && self.found.iter().all(|count| *count == 0),
        }
    }

    fn verdict(&self) -> String {
        let above: u64 = self.found.iter().sum();
        match &self.trouble {
            Some(Ended::Skipped(why)) => format!("skipped: {why}"),
            Some(_) => "FAILED".to_owned(),
            None if above > 0 => format!("{above} ABOVE INFO"),
            None if self.counted < self.wanted => "not run".to_owned(),
            None if self.counts.lost + self.counts.dropped > 0 => "clean, records lost".to_owned(),
            None => "clean".to_owned(),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Plan { learn, rounds, observations, agent } = &self.plan;
        writeln!(
            f,
            "\nagent {agent}, {observations} observations; {learn} learning rounds, {rounds} \
             counting rounds.\nexecs to info: of the whole machine in the counting rounds; low to \
             critical: of the workload's processes.\n\n{:<10} {:>6} {:>7} {:>8} {:>5} {:>5} {:>5} \
             {:>5} {:>5} {:>6} {:>5} {:>8} {:>6}  verdict",
            "workload",
            "rounds",
            "execs",
            "records",
            "/exec",
            "lost",
            "drop",
            "info",
            "low",
            "medium",
            "high",
            "critical",
            "early"
        )?;
        for row in &self.rows {
            writeln!(f, "{row}")?;
        }
        for (state, count) in &self.baselines {
            write!(f, "{count} programs {state}, ")?;
        }
        writeln!(f, "on the whole machine")?;
        writeln!(f, "control (a preload that must be found): {}", self.control)?;
        for row in &self.rows {
            if let Some(Ended::Failed(why)) = &row.trouble {
                writeln!(f, "\n{} failed:\n{why}", row.name)?;
            }
        }
        list(f, "above info after learning", &self.after, true)?;
        list(f, "above info while learning (column early)", &self.learning, true)?;
        list(f, "above info, of processes that are none of the corpus'", &self.elsewhere, false)
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, learned, counted, counts, found, early, .. } = self;
        let Counts { execs, records, lost, dropped, findings, .. } = counts;
        // In tenths, without a float.
        let each = (records * 10).checked_div(*execs).unwrap_or(0);
        let rounds = format!("{learned}+{counted}");
        let each = format!("{}.{}", each / 10, each % 10);
        let info = findings.get("info").copied().unwrap_or(0);
        let [low, medium, high, critical] = found;
        write!(f, "{name:<10} {rounds:>6} {execs:>7} {records:>8} {each:>5} {lost:>5} ")?;
        write!(
            f,
            "{dropped:>5} {info:>5} {low:>5} {medium:>6} {high:>5} {critical:>8} {early:>6}"
        )?;
        write!(f, "  {}", self.verdict())
    }
}

fn list(
    f: &mut fmt::Formatter<'_>,
    heading: &str,
    groups: &[Group],
    evidence: bool,
) -> fmt::Result {
    if groups.is_empty() {
        return Ok(());
    }
    writeln!(f, "\n{heading}:")?;
    for Group { workload, first, count } in groups {
        let Found { detector, severity, title, process, .. } = first;
        writeln!(f, "  {workload}: {detector}, {severity}, {count} times: {title}")?;
        writeln!(f, "      {process}")?;
        for line in first.evidence.iter().filter(|_| evidence) {
            writeln!(f, "      {line}")?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(workload: &str, second: i64) -> Run {
        Run {
            workload: workload.to_owned(),
            round: 1,
            phase: Phase::Detect,
            began: Timestamp::from_second(second).unwrap(),
            until: Timestamp::from_second(second + 8).unwrap(),
            seconds: 1.0,
            ended: Ended::Done,
            counts: Counts::default(),
        }
    }

    #[test]
    fn a_finding_belongs_to_the_workload_that_began_last_before_it() {
        let runs = [run("git", 10), run("perl", 20)];
        let name = |second| {
            at(&runs, Timestamp::from_second(second).unwrap()).map(|run| run.workload.as_str())
        };
        assert_eq!(name(5), None);
        assert_eq!(name(10), Some("git"));
        assert_eq!(name(19), Some("git"));
        assert_eq!(name(25), Some("perl"));
        assert_eq!(name(40), None);
    }
}
