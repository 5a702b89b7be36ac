//! Suppressions: findings that are to be expected, by where the file they blame comes from.
//!
//! A suppressed finding is kept and shown, opens no incident that anybody is told of, and counts for
//! nothing: neither for severity nor for the score, nor as a second witness. Whether a suppression is
//! over is decided by the finding's own time, so that a replay decides the same.

use std::collections::BTreeMap;
use std::fmt::Write;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::Entry;
use super::blame::{Blamed, blamed, complete, known_by};
use super::decision::{Decision, Refusal};
use super::key::key;
use crate::config::Suppress;
use crate::finding::{Family, Finding, Severity};

/// Suppressions of incidents there can be at once.
pub const MAX_KEPT: usize = 256;
/// Whoever has just made one knows that it has not matched.
const IDLE_AFTER: SignedDuration = SignedDuration::from_hours(7 * 24);
/// Label of the metric for all suppressions of incidents.
const OF_INCIDENTS: &str = "incident";

/// Where a suppression comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// A `[[suppress]]` of the configuration.
    Rule,
    /// `halfsecond incidents suppress`.
    Incident,
}

/// How a suppression stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Standing {
    /// It has matched, and goes on.
    Active,
    /// It goes on, and nothing has ever matched it.
    Unmatched,
    /// Its time is over.
    Expired,
}

/// A suppression with what it has done so far.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suppression {
    /// The rule's name, or the incident's id.
    pub name: String,
    /// Which of the two.
    pub origin: Origin,
    /// Detector id.
    #[serde(default)]
    pub detector: Option<String>,
    /// Subject: a path, or path, blank and build-id.
    #[serde(default)]
    pub subject: Option<String>,
    /// Package that has brought the blamed files as they are: its name, or name and version.
    #[serde(default)]
    pub package: Option<String>,
    /// Build-id of the blamed files, hex.
    #[serde(default)]
    pub build_id: Option<String>,
    /// SHA-256 of the blamed files, hex.
    #[serde(default)]
    pub sha256: Option<String>,
    /// Findings of an incident, each as detector, subject, object and file identity hashed to one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<String>,
    /// Who answers for it.
    pub who: String,
    /// Why.
    pub why: String,
    /// The last instant it holds.
    pub until: Timestamp,
    /// Since when it is known here.
    pub since: Timestamp,
    /// Findings it has matched.
    pub matches: u64,
    /// Time of the latest one.
    #[serde(default)]
    pub last_match: Option<Timestamp>,
}

/// All of them.
#[derive(Debug, Default)]
pub struct Suppressions {
    rules: Vec<Suppression>,
    kept: BTreeMap<String, Suppression>,
    /// By label of the metric, since it was last asked for.
    matched: BTreeMap<String, u64>,
    unsaved: bool,
}

// === impl Suppression ===

impl Suppression {
    /// A rule of the configuration that is known since `since`.
    #[must_use]
    pub fn of_rule(rule: &Suppress, since: Timestamp) -> Self {
        Self {
            name: rule.name.clone(),
            origin: Origin::Rule,
            detector: rule.detector.clone(),
            subject: rule.subject.clone(),
            package: rule.package.clone(),
            build_id: rule.build_id.clone(),
            sha256: rule.sha256.clone(),
            keys: Vec::new(),
            who: rule.who.clone(),
            why: rule.why.clone(),
            until: rule.until,
            since,
            matches: 0,
            last_match: None,
        }
    }

    /// Of everything `entry` consists of; refused where one finding could not be told apart from
    /// another attack by the file it blames.
    fn of_entry(entry: &Entry, decision: &Decision) -> Result<Self, Refusal> {
        let incident = &entry.incident;
        let Some(until) = decision.until else {
            return Err(Refusal::Malformed("a suppression needs an end in the future (--for)"));
        };
        let spoken = || incident.findings.iter().filter(|one| one.severity > Severity::Info);
        if let Some(unsafe_one) = spoken().find(|one| needs_identity(one) && !identified(one)) {
            return Err(Refusal::NotSuppressible(format!(
                "{} is critical, and the file it blames is not identified by build-id or SHA-256: \
                 it cannot be suppressed",
                unsafe_one.detector
            )));
        }
        let mut keys: Vec<String> = spoken().map(recognised_by).collect();
        if keys.is_empty() {
            return Err(Refusal::NotSuppressible("it has no finding above info".to_owned()));
        }
        keys.sort_unstable();
        keys.dedup();
        Ok(Self {
            name: incident.id.clone(),
            origin: Origin::Incident,
            detector: None,
            subject: None,
            package: None,
            build_id: None,
            sha256: None,
            keys,
            who: decision.who.clone(),
            why: decision.why.clone(),
            until,
            since: decision.time,
            matches: 0,
            last_match: None,
        })
    }

    /// How it stands at `now`.
    #[must_use]
    pub fn standing(&self, now: Timestamp) -> Standing {
        if now > self.until {
            Standing::Expired
        } else if self.matches == 0 {
            Standing::Unmatched
        } else {
            Standing::Active
        }
    }

    /// Whether it has matched nothing for so long that it is worth a word.
    #[must_use]
    pub fn idle(&self, now: Timestamp) -> bool {
        self.standing(now) == Standing::Unmatched && now.duration_since(self.since) > IDLE_AFTER
    }

    /// Whether it is the same rule, whatever it has matched and whoever has signed it.
    #[must_use]
    pub fn asks_the_same(&self, other: &Self) -> bool {
        let asked = |one: &Self| {
            let Self { detector, subject, package, build_id, sha256, .. } = one.clone();
            (detector, subject, package, build_id, sha256)
        };
        self.name == other.name && self.origin == other.origin && asked(self) == asked(other)
    }

    /// What it is called in findings and in the store.
    #[must_use]
    pub fn label(&self) -> String {
        match self.origin {
            Origin::Rule => format!("rule {}", self.name),
            Origin::Incident => format!("incident {}", self.name),
        }
    }

    fn matches(&self, finding: &Finding, recognised: &str) -> bool {
        if finding.time > self.until {
            return false;
        }
        match self.origin {
            Origin::Incident => self.keys.iter().any(|key| key == recognised),
            Origin::Rule => self.rule_matches(finding),
        }
    }

    fn rule_matches(&self, finding: &Finding) -> bool {
        let by_file = self.package.is_some() || self.build_id.is_some() || self.sha256.is_some();
        let by_identity = self.build_id.is_some() || self.sha256.is_some();
        if needs_identity(finding) && !by_identity {
            return false;
        }
        // A rule about a file as a culprit says nothing of changes to its own code, unless it says so.
        let files = match &self.detector {
            Some(_) if by_identity => known_by(finding),
            _ => blamed(finding),
        };
        if by_file && (files.is_empty() || !complete(finding)) {
            return false;
        }
        self.detector.as_ref().is_none_or(|detector| *detector == finding.detector)
            && self.subject.as_ref().is_none_or(|subject| is_subject(&finding.subject, subject))
            && files.iter().all(|file| self.is_of(file))
    }

    /// Whether every key of identity that there is holds for the file.
    fn is_of(&self, file: &Blamed<'_>) -> bool {
        let same = |wanted: &Option<String>, found: Option<&str>| {
            wanted
                .as_ref()
                .is_none_or(|wanted| found.is_some_and(|found| wanted.eq_ignore_ascii_case(found)))
        };
        let package = self
            .package
            .as_ref()
            .is_none_or(|wanted| file.package.is_some_and(|found| is_package(found, wanted)));
        package && same(&self.build_id, file.build_id) && same(&self.sha256, file.sha256)
    }
}

// === impl Suppressions ===

impl Suppressions {
    /// Those of the configuration, and what a store kept of them and of others.
    #[must_use]
    pub fn new(rules: &[Suppress], kept: Vec<Suppression>, now: Timestamp) -> Self {
        // Ends, authors and reasons may have changed, and rules gone.
        let unsaved = !rules.is_empty() || kept.iter().any(|one| one.origin == Origin::Rule);
        let mut suppressions = Self { unsaved, ..Self::default() };
        for rule in rules {
            let mut rule = Suppression::of_rule(rule, now);
            // A rule that asks for something else under the same name begins anew.
            if let Some(known) = kept.iter().find(|known| known.asks_the_same(&rule)) {
                rule.since = known.since;
                rule.matches = known.matches;
                rule.last_match = known.last_match;
            }
            suppressions.rules.push(rule);
        }
        for one in kept.into_iter().filter(|one| one.origin == Origin::Incident).take(MAX_KEPT) {
            suppressions.kept.insert(one.name.clone(), one);
        }
        suppressions
    }

    /// Those that another sensor, or this one before, had in effect, with what they had matched.
    #[must_use]
    pub fn known(all: Vec<Suppression>) -> Self {
        let (rules, kept): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|one| one.origin == Origin::Rule);
        let kept = kept.into_iter().take(MAX_KEPT).map(|one| (one.name.clone(), one)).collect();
        Self { rules, kept, ..Self::default() }
    }

    /// Every one: rules in the configuration's order, then those of incidents by id.
    pub fn iter(&self) -> impl Iterator<Item = &Suppression> {
        self.rules.iter().chain(self.kept.values())
    }

    /// Counts `finding` with every suppression that it matches; the first one's label.
    pub(super) fn matching(&mut self, finding: &Finding) -> Option<String> {
        if finding.severity == Severity::Info || (self.rules.is_empty() && self.kept.is_empty()) {
            return None;
        }
        // Rules do without.
        let recognised = (!self.kept.is_empty()).then(|| recognised_by(finding));
        let recognised = recognised.unwrap_or_default();
        let mut first = None;
        let matching = self
            .rules
            .iter_mut()
            .chain(self.kept.values_mut())
            .filter(|one| one.matches(finding, &recognised));
        for one in matching {
            one.matches = one.matches.saturating_add(1);
            one.last_match = one.last_match.max(Some(finding.time));
            first.get_or_insert_with(|| one.label());
            let label = match one.origin {
                Origin::Rule => one.name.as_str(),
                Origin::Incident => OF_INCIDENTS,
            };
            *self.matched.entry(label.to_owned()).or_default() += 1;
            self.unsaved = true;
        }
        first
    }

    /// Suppresses what `entry` consists of, as decided; what that is recognised by from now on.
    pub(super) fn suppress(
        &mut self,
        entry: &Entry,
        decision: &Decision,
    ) -> Result<String, Refusal> {
        let made = Suppression::of_entry(entry, decision)?;
        if let Some(same) = self.kept.get(&made.name)
            && (same.since, &same.keys) == (made.since, &made.keys)
        {
            return Ok(same.label());
        }
        if !self.kept.contains_key(&made.name) && self.kept.len() >= MAX_KEPT {
            let expired = self.kept.values().filter(|one| one.until < decision.time);
            let oldest = expired.min_by_key(|one| one.until).map(|one| one.name.clone());
            let Some(oldest) = oldest else { return Err(Refusal::TooMany(MAX_KEPT)) };
            self.kept.remove(&oldest);
        }
        let label = made.label();
        self.kept.insert(made.name.clone(), made);
        self.unsaved = true;
        Ok(label)
    }

    /// Ends the suppression of an incident.
    pub(super) fn lift(&mut self, id: &str) {
        self.unsaved |= self.kept.remove(id).is_some();
    }

    /// Matches by label of the metric since the last call.
    pub fn matched(&mut self) -> BTreeMap<String, u64> {
        std::mem::take(&mut self.matched)
    }

    /// Gives all of them to `save` where one has changed since; stays to be saved where that fails.
    pub fn save<E>(
        &mut self,
        save: impl FnOnce(&[&Suppression]) -> Result<(), E>,
    ) -> Result<(), E> {
        if self.unsaved {
            save(&self.iter().collect::<Vec<_>>())?;
            self.unsaved = false;
        }
        Ok(())
    }
}

/// What proves that a guarded program is redirected is not waved through by a name, a package or a
/// place: only by the very file.
fn needs_identity(finding: &Finding) -> bool {
    finding.severity == Severity::Critical && finding.family == Family::Hook
}

fn identified(finding: &Finding) -> bool {
    let files = known_by(finding);
    let known = |file: &Blamed<'_>| file.build_id.is_some() || file.sha256.is_some();
    complete(finding) && !files.is_empty() && files.iter().all(known)
}

/// One name for a finding that comes again: detector, subject, objects, and the identity of every file
/// it is known by.
fn recognised_by(finding: &Finding) -> String {
    let (detector, objects) = key(finding);
    let mut parts = vec![detector, finding.subject.clone()];
    parts.extend(objects);
    for Blamed { path, build_id, sha256, .. } in known_by(finding) {
        parts.push(path.to_owned());
        parts.extend([build_id, sha256].map(|id| id.unwrap_or_default().to_owned()));
    }
    // Not the hash of incident ids: whoever names files must not be able to make another the same.
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_le_bytes());
        hash.update(part.as_bytes());
    }
    hash.finalize().iter().fold(String::new(), |mut hex, byte| {
        // A String takes every write.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// A subject is a path, with its build-id behind a blank and in a container the image behind another
/// one. A path may hold blanks, too: nobody is to pass for another by one.
fn is_subject(found: &str, wanted: &str) -> bool {
    let host = found.rsplit_once(' ').map(|(path, _)| path);
    found == wanted || host == Some(wanted)
}

/// `name version (architecture)`, by the name or by name and version.
fn is_package(found: &str, wanted: &str) -> bool {
    let mut words = found.split(' ');
    let (name, version) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    match wanted.split_once(' ') {
        Some((wanted, exact)) => wanted == name && exact == version,
        None => wanted == name,
    }
}

#[cfg(test)]
mod tests;
