//! The story of an incident: one paragraph of plain sentences in the order of events.

use std::time::Duration;

use jiff::Timestamp;

use super::limit::repeated;
use super::sentence::{Modules, Who, peer, sentences};
use super::text::{base, clause, clock, date, moment, name, path, sentence};
use crate::finding::{Finding, ProcessRef};

/// Findings that are told; the worst are chosen.
const MAX_TOLD: usize = 12;
/// Characters of a story.
const MAX_STORY: usize = 6000;
/// A finding this soon after its process' start is told from the start on.
const RECENT: Duration = Duration::from_secs(10);

/// What was told last, so that the next sentence can refer to it.
struct Teller {
    day: String,
    told: String,
    second: i64,
    pid: u32,
    exe: String,
    text: String,
}

/// What the findings themselves do not tell.
pub(super) struct Rest {
    /// How many more there were.
    pub(super) omitted: u64,
    /// Connections they are of.
    pub(super) connections: u64,
}

/// Tells `findings`, and the rest.
pub(super) fn story(findings: &[Finding], rest: &Rest, partial: bool) -> String {
    let chosen = chosen(findings);
    let Some(first) = chosen.first() else { return String::new() };
    let mut modules = Modules::of(findings);
    let mut teller = Teller::begin(first, chosen.iter().find_map(|finding| peer(finding)));
    for finding in &chosen {
        teller.tell(finding, &mut modules);
    }
    teller.end(findings.len() - chosen.len(), rest, partial)
}

/// The worst, in time order.
fn chosen(findings: &[Finding]) -> Vec<&Finding> {
    let mut chosen: Vec<&Finding> = findings.iter().collect();
    chosen.sort_by_key(|finding| (std::cmp::Reverse(finding.severity), finding.time));
    chosen.truncate(MAX_TOLD);
    chosen.sort_by_key(|finding| finding.time);
    chosen
}

// === impl Teller ===

impl Teller {
    /// Introduces the process of the first finding.
    fn begin(first: &Finding, peer: Option<&str>) -> Self {
        let process = &first.process;
        let start = process.start.filter(|start| is_recent(*start, first.time));
        let from = start.unwrap_or(first.time);
        let connection = peer.map(|peer| format!("a connection from {}", name(peer)));
        let what = match (start, connection) {
            (Some(_), Some(connection)) => format!("was started for {connection}"),
            (Some(_), None) => format!("was started{}", by(process)),
            (None, Some(connection)) => format!("drew attention on {connection}"),
            (None, None) => "drew attention".to_owned(),
        };
        let text = format!("At {} {}{} {what}.", moment(from), introduced(process), place(first));
        Self {
            day: date(from),
            told: String::new(),
            second: from.as_second(),
            pid: process.pid,
            exe: process.exe.clone(),
            text,
        }
    }

    fn tell(&mut self, finding: &Finding, modules: &mut Modules) {
        let who = self.refer(&finding.process);
        let mut at = String::new();
        if finding.time.as_second() != self.second {
            self.second = finding.time.as_second();
            at = format!("At {} ", clock(finding.time, &self.day));
        }
        for text in sentences(finding, &who, modules) {
            let text = if at.is_empty() { sentence(&text) } else { format!("{at}{text}.") };
            self.say(&text);
            at.clear();
        }
        if let Some((count, first, last)) = repeated(finding) {
            let between = if first == finding.time {
                format!("last at {}", clock(last, &self.day))
            } else {
                format!("from {} to {}", clock(first, &self.day), clock(last, &self.day))
            };
            self.say(&format!("This was seen {count} times, {between}."));
        }
        if let Some(reason) = &finding.explained_by {
            self.say(&format!("This is explained by {}.", path(reason)));
        }
        if let Some(by) = &finding.suppressed_by {
            self.say(&format!("This is suppressed by {} and counts for nothing.", clause(by)));
        }
    }

    fn end(mut self, untold: usize, rest: &Rest, partial: bool) -> String {
        let Rest { omitted, connections } = *rest;
        if connections > 1 {
            self.say(&format!("In all, {connections} connections are concerned."));
        }
        if untold > 0 {
            self.say(&format!("{untold} milder findings stand in the evidence."));
        }
        if omitted > 0 {
            self.say(&format!("{omitted} further findings found no room."));
        }
        if partial {
            self.say("Records were lost meanwhile, so something may be missing.");
        }
        self.text.push_str(&self.told);
        super::text::cut(&self.text, MAX_STORY)
    }

    fn say(&mut self, sentence: &str) {
        self.told.push(' ');
        self.told.push_str(sentence);
    }

    /// The program's name; with the pid where it is not the process spoken of last.
    fn refer(&mut self, process: &ProcessRef) -> Who {
        let exe = base(&process.exe).to_owned();
        if (self.pid, &self.exe) == (process.pid, &process.exe) {
            return Who { subject: name(&exe), linking: "linking".to_owned(), exe };
        }
        self.pid = process.pid;
        self.exe.clone_from(&process.exe);
        let subject = format!("{} (pid {})", name(&exe), process.pid);
        Who { linking: format!("linking of {subject}"), subject, exe }
    }
}

fn introduced(process: &ProcessRef) -> String {
    if process.pid == 0 {
        return "somebody who was not seen".to_owned();
    }
    format!("{} ({}, pid {})", name(base(&process.exe)), path(&process.exe), process.pid)
}

fn place(finding: &Finding) -> String {
    let process = &finding.process;
    let mut text = String::new();
    if let Some(pod) = &process.pod {
        text = format!(" in pod {}", name(pod));
    } else if let Some(container) = &process.container {
        text = format!(" in container {}", name(&super::text::cut(container, 12)));
    }
    if finding.host.is_empty() { text } else { format!("{text} on {}", name(&finding.host)) }
}

fn by(process: &ProcessRef) -> String {
    let parent = process.ancestors.first().map(|parent| format!(" by {}", path(parent)));
    format!("{} with uid {}", parent.unwrap_or_default(), process.uid)
}

fn is_recent(start: Timestamp, time: Timestamp) -> bool {
    let after = time.duration_since(start);
    // The start is known to 10 ms only and may seem to lie behind.
    after.as_millis() >= -20 && after.unsigned_abs() <= RECENT
}
