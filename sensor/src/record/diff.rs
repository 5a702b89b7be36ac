//! What two replays, or a replay and what was told once, have in common and not.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::finding::Finding;
use crate::incident::Incident;

/// One incident that is not the same on both sides.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "change", rename_all = "snake_case")]
pub enum Change {
    /// Only the second side has it.
    Added {
        /// The incident.
        after: Box<Incident>,
    },
    /// Only the first side has it.
    Removed {
        /// The incident.
        before: Box<Incident>,
    },
    /// Both have it, and it differs.
    Changed {
        /// The first side's.
        before: Box<Incident>,
        /// The second side's.
        after: Box<Incident>,
        /// What differs, one clause each.
        differs: Vec<String>,
    },
}

/// Compares incidents, in the order in which they opened. Two are the same incident if their ids
/// are, or else if their first findings are about one subject and they overlap in time.
#[must_use]
pub fn diff(before: &[Incident], after: &[Incident]) -> Vec<Change> {
    let mut left: Vec<&Incident> = after.iter().collect();
    let mut pairs: Vec<(&Incident, Option<&Incident>)> = Vec::new();
    for old in before {
        pairs.push((old, take(&mut left, |new| new.id == old.id)));
    }
    for (old, new) in pairs.iter_mut().filter(|(_, new)| new.is_none()) {
        *new = take(&mut left, |new| subject(new) == subject(old) && overlap(new, old));
    }
    let added = left.into_iter().map(|new| Change::Added { after: Box::new(new.clone()) });
    let mut changes: Vec<Change> =
        pairs.into_iter().filter_map(|(old, new)| compare(old, new)).chain(added).collect();
    changes.sort_by(|a, b| {
        let (a, b) = (a.incident(), b.incident());
        a.opened.cmp(&b.opened).then_with(|| a.id.cmp(&b.id))
    });
    changes
}

// === impl Change ===

impl Change {
    /// The incident, as it is now if there still is one.
    #[must_use]
    pub fn incident(&self) -> &Incident {
        match self {
            Self::Added { after } | Self::Changed { after, .. } => after,
            Self::Removed { before } => before,
        }
    }
}

fn take<'a>(
    left: &mut Vec<&'a Incident>,
    wanted: impl Fn(&Incident) -> bool,
) -> Option<&'a Incident> {
    let at = left.iter().position(|incident| wanted(incident))?;
    Some(left.remove(at))
}

fn compare(before: &Incident, after: Option<&Incident>) -> Option<Change> {
    let Some(after) = after else {
        return Some(Change::Removed { before: Box::new(before.clone()) });
    };
    let differs = differences(before, after);
    let (before, after) = (Box::new(before.clone()), Box::new(after.clone()));
    (!differs.is_empty()).then_some(Change::Changed { before, after, differs })
}

fn subject(incident: &Incident) -> Option<&str> {
    incident.findings.first().map(|finding| finding.subject.as_str())
}

fn overlap(a: &Incident, b: &Incident) -> bool {
    a.opened <= b.updated && b.opened <= a.updated
}

/// Nothing only where both are the same to the last byte.
fn differences(before: &Incident, after: &Incident) -> Vec<String> {
    let mut all = Vec::new();
    let mut turned = |what: &str, old: String, new: String| {
        if old != new {
            all.push(format!("{what} {old} -> {new}"));
        }
    };
    let word = |severity| crate::metrics::severity_label(severity).to_owned();
    turned("severity", word(before.severity), word(after.severity));
    turned("score", before.score.to_string(), after.score.to_string());
    turned("title", quoted(&before.title), quoted(&after.title));
    turned("state", json(&before.state), json(&after.state));
    turned("decisions", decided(before), decided(after));
    turned("partial", before.partial.to_string(), after.partial.to_string());
    turned("opened", before.opened.to_string(), after.opened.to_string());
    turned("updated", before.updated.to_string(), after.updated.to_string());
    turned("hosts", before.hosts.join(", "), after.hosts.join(", "));
    turned("id", before.id.clone(), after.id.clone());
    all.extend(findings(before, after));
    let texts = [
        ("the story", &before.story, &after.story),
        ("the recommendation", &before.recommendation, &after.recommendation),
    ];
    let other = texts.into_iter().filter(|(_, old, new)| old != new);
    all.extend(other.map(|(what, ..)| format!("{what} is told otherwise")));
    if all.is_empty() && json(before) != json(after) {
        all.push("something that is not shown".to_owned());
    }
    all
}

/// Which findings came and went, by detector and title, and which are worded or weighed otherwise.
fn findings(before: &Incident, after: &Incident) -> Vec<String> {
    let named = |finding: &Finding| format!("{}: {}", finding.detector, quoted(&finding.title));
    let told =
        |incident: &Incident| -> BTreeSet<String> { incident.findings.iter().map(named).collect() };
    let (old, new) = (told(before), told(after));
    let mut all: Vec<String> = new.difference(&old).map(|name| format!("+ {name}")).collect();
    all.extend(old.difference(&new).map(|name| format!("- {name}")));
    for name in old.intersection(&new) {
        let of = |incident: &Incident| -> Vec<String> {
            incident.findings.iter().filter(|one| named(one) == *name).map(json).collect()
        };
        if of(before) == of(after) {
            continue;
        }
        let (was, is) = (suppressed_by(before, name, named), suppressed_by(after, name, named));
        let turned = match is {
            _ if was == is => String::new(),
            Some(by) => format!(", suppressed by {by}"),
            None => ", not suppressed".to_owned(),
        };
        all.push(format!("~ {name}{turned}"));
    }
    if all.is_empty() && before.findings.len() != after.findings.len() {
        let (old, new) = (before.findings.len(), after.findings.len());
        all.push(format!("findings {old} -> {new}"));
    }
    all
}

/// What suppresses the findings of this name; `None` where one of them is not.
fn suppressed_by<'a>(
    incident: &'a Incident,
    name: &str,
    named: impl Fn(&Finding) -> String,
) -> Option<&'a str> {
    let mut same = incident.findings.iter().filter(|one| named(one) == name);
    let first = same.next()?.suppressed_by.as_deref()?;
    same.all(|one| one.suppressed_by.is_some()).then_some(first)
}

/// What people have decided, in their order.
fn decided(incident: &Incident) -> String {
    let verbs: Vec<String> = incident.decisions.iter().map(|one| one.verb.to_string()).collect();
    if verbs.is_empty() { "none".to_owned() } else { verbs.join(", ") }
}

fn quoted(text: &str) -> String {
    format!("{text:?}")
}

fn json<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::incident::{State, Verb};
    use crate::record::testing::incident;

    fn told(changes: &[Change]) -> Vec<(&'static str, &str)> {
        let told = changes.iter().map(|change| match change {
            Change::Added { after } => ("added", after.id.as_str()),
            Change::Removed { before } => ("removed", before.id.as_str()),
            Change::Changed { after, .. } => ("changed", after.id.as_str()),
        });
        told.collect()
    }

    #[test]
    fn the_same_incidents_in_another_order_differ_in_nothing() {
        let (a, b) = (incident("a", "/usr/sbin/sshd ab", 0), incident("b", "/usr/bin/su cd", 9));
        assert!(diff(&[a.clone(), b.clone()], &[b, a]).is_empty());
    }

    #[test]
    fn what_came_went_and_changed_is_told_in_the_order_of_time() {
        let kept = incident("kept", "/usr/bin/su cd", 50);
        let mut worse = kept.clone();
        worse.score += 1;
        let gone = incident("gone", "/usr/sbin/sshd ab", 60);
        let new = incident("new", "/usr/sbin/cron ef", 10);
        let changes = diff(&[gone, kept], &[worse, new]);
        assert_eq!(told(&changes), [("added", "new"), ("changed", "kept"), ("removed", "gone")]);
        let Change::Changed { before, differs, .. } = &changes[1] else { panic!() };
        assert_eq!(*differs, [format!("score {} -> {}", before.score, before.score + 1)]);
    }

    #[test]
    fn an_incident_that_another_finding_opens_is_still_the_same() {
        let old = incident("a", "/usr/sbin/sshd ab", 10);
        let mut new = incident("b", "/usr/sbin/sshd ab", 11);
        new.state = State::Closed;
        let changes = diff(std::slice::from_ref(&old), std::slice::from_ref(&new));
        assert_eq!(told(&changes), [("changed", "b")]);
        let later = incident("c", "/usr/sbin/sshd ab", 100_000);
        assert_eq!(told(&diff(&[old], &[later])), [("removed", "a"), ("added", "c")]);
    }

    #[test]
    fn what_a_rule_or_a_decision_changes_is_told() {
        let old = incident("a", "/usr/sbin/sshd ab", 10);
        let mut new = old.clone();
        new.state = State::Suppressed;
        new.findings[0].suppressed_by = Some("rule edr".to_owned());
        new.decisions.push(crate::record::testing::decision(Verb::Acknowledge, 20));
        let told = |before: &Incident, after: &Incident| {
            let changes = diff(std::slice::from_ref(before), std::slice::from_ref(after));
            let [Change::Changed { differs, .. }] = &changes[..] else { panic!() };
            differs.clone()
        };
        let finding = "~ got_redirected: \"a slot leads elsewhere\"";
        assert_eq!(
            told(&old, &new),
            [
                "state \"open\" -> \"suppressed\"",
                "decisions none -> acknowledged",
                &format!("{finding}, suppressed by rule edr"),
            ]
        );
        assert_eq!(told(&new, &old)[2], format!("{finding}, not suppressed"));
    }

    #[test]
    fn a_finding_worded_otherwise_is_told() {
        let old = incident("a", "/usr/sbin/sshd ab", 10);
        let mut new = old.clone();
        new.findings[0].confidence /= 2.0;
        let changes = diff(std::slice::from_ref(&old), std::slice::from_ref(&new));
        let Change::Changed { differs, .. } = &changes[0] else { panic!() };
        assert_eq!(differs.len(), 1, "{differs:?}");
        assert!(differs[0].starts_with("~ "), "{differs:?}");
        new.findings.clear();
        let changes = diff(&[old], &[new]);
        assert_eq!(told(&changes), [("changed", "a")], "by its id");
    }
}
