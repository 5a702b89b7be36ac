//! What people have said, told to an analysis again: what is to be expected, and decisions.

use jiff::Timestamp;

use super::Player;
use crate::config::{RULES_MAX, Suppress};
use crate::incident::{
    Entry, IncidentUpdate, MAX_FINDINGS, MAX_KEPT, Reason, Suppression, Suppressions,
};
use crate::record::step::Decided;

/// Rules and suppressions of incidents at once.
const SUPPRESSIONS_MAX: usize = RULES_MAX + MAX_KEPT;
/// Bytes of text that one may have: several times what a configuration or a command takes.
const TEXT_MAX: usize = 64 << 10;
/// Bytes, as JSON, of incidents that were there before; twice what a store keeps.
const BEFORE_MAX: usize = 128 << 20;

/// What is to be expected.
#[derive(Debug, Default)]
pub(super) struct Expected {
    /// Rules instead of those of the recording.
    rules: Option<Vec<Suppress>>,
    /// Told, and not in effect yet.
    told: Vec<Suppression>,
}

// === impl Expected ===

impl Expected {
    pub(super) fn new(rules: Option<&[Suppress]>) -> Self {
        Self { rules: rules.map(<[_]>::to_vec), told: Vec::new() }
    }

    pub(super) fn tell(&mut self, one: Suppression) -> Result<(), &'static str> {
        if self.told.len() >= SUPPRESSIONS_MAX {
            return Err("it has more suppressions than any host");
        }
        if one.keys.len() > MAX_FINDINGS || text(&one) > TEXT_MAX {
            return Err("it has a suppression that is larger than any is");
        }
        self.told.push(one);
        Ok(())
    }

    /// In effect from now on.
    pub(super) fn take(&mut self) -> Suppressions {
        let told = std::mem::take(&mut self.told);
        match &self.rules {
            // A rule that asks for the same as a recorded one has matched what that one had.
            Some(rules) => Suppressions::new(rules, told, Timestamp::UNIX_EPOCH),
            None => Suppressions::known(told),
        }
    }
}

// === impl Player ===

impl Player {
    /// An incident that was there before, of which no more are taken in than a host can have.
    pub(super) fn admit(&mut self, entry: &Entry) -> Result<(), &'static str> {
        let bytes = serde_json::to_vec(entry).map_or(usize::MAX, |json| json.len());
        self.before = self.before.saturating_add(bytes);
        if self.before > BEFORE_MAX {
            return Err("it has larger incidents than any store");
        }
        Ok(())
    }

    /// Follows a decision as the sensor did, about the incident as it is told here. The recorded one
    /// is only taken where it is older than the recording, which cannot tell it.
    pub(super) fn decide(&mut self, decided: Decided) -> Result<Vec<IncidentUpdate>, &'static str> {
        let Decided { id, decision, ktime_ns, past } = decided;
        let older = past.filter(|past| past.incident.opened < self.begun);
        let stored = match (self.entries.get(&id).cloned(), older) {
            (None, Some(older)) => {
                self.admit(&older)?;
                Some(older)
            }
            (own, _) => own,
        };
        let followed = self.analysis.incidents().decide(&id, stored, &decision, ktime_ns);
        let Ok(incident) = followed else {
            self.counts.unfollowed += 1;
            return Ok(Vec::new());
        };
        self.counts.decisions += 1;
        Ok(vec![IncidentUpdate { reason: Reason::Decided, incident }])
    }
}

fn text(one: &Suppression) -> usize {
    let Suppression { name, detector, subject, package, build_id, sha256, keys, who, why, .. } =
        one;
    let asked = [detector, subject, package, build_id, sha256].into_iter().flatten();
    asked.chain(keys).chain([name, who, why]).map(String::len).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::incident::Verb;
    use crate::record::testing::{decision, header, incident, over};

    fn decided(id: &str) -> Decided {
        let incident = incident(id, "/usr/sbin/sshd ab", -60);
        let entry = over(incident);
        let decision = decision(Verb::Acknowledge, 60);
        Decided { id: id.to_owned(), decision, ktime_ns: 9, past: Some(entry) }
    }

    #[test]
    fn incidents_that_were_there_before_take_no_more_room_than_on_a_host() {
        let header = header(&Config::default());
        let mut player = Player::new(&header, &header.settings, Expected::default());
        let room = serde_json::to_vec(&decided("aa").past).unwrap().len();
        player.before = BEFORE_MAX - room;
        player.decide(decided("aa")).unwrap();
        player.collect();
        player.decide(decided("aa")).expect("it is known");
        let told = player.decide(decided("bb")).unwrap_err();
        assert!(told.contains("larger incidents than any store"), "{told}");
        let entry = decided("cc").past.unwrap();
        assert!(player.take_in(crate::record::Step::Restored(Box::new(entry))).is_err());
        assert_eq!(player.counts.decisions, 2);
    }
}
