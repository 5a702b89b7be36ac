//! The suppressions: which hide something, which are over, and which never did anything.

use std::net::SocketAddr;

use jiff::Timestamp;

use super::Check;
use crate::config::Suppress;
use crate::http::client;
use crate::incident::{Standing, Suppression};

/// Names of them that are told; the rest is counted.
const NAMED_MAX: usize = 8;

/// `known` is what the running sensor says; `None` where none could be asked.
pub(super) fn check(rules: &[Suppress], known: Option<Vec<Suppression>>, now: Timestamp) -> Check {
    let asked = known.is_some();
    let all =
        known.unwrap_or_else(|| rules.iter().map(|rule| Suppression::of_rule(rule, now)).collect());
    let of = |wanted: &dyn Fn(&Suppression) -> bool| -> Vec<String> {
        all.iter().filter(|one| wanted(one)).map(Suppression::label).collect()
    };
    // A rule that only the file knows is not idle: it is as old as this command.
    let unmatched = of(&|one| one.idle(now));
    let expired = of(&|one| one.standing(now) == Standing::Expired);
    let matches: u64 = all.iter().map(|one| one.matches).fold(0, u64::saturating_add);
    let mut found = match (all.len(), asked) {
        (0, _) => return Check::ok("suppressions", "none"),
        (count, true) => format!("{count}, which have matched {matches} findings"),
        (count, false) => {
            format!("{count} rules; what they have matched only a running sensor tells")
        }
    };
    for (what, names) in [("expired", &expired), ("never matched", &unmatched)] {
        if !names.is_empty() {
            found = format!("{found}; {what}: {}", listed(names));
        }
    }
    if expired.is_empty() && unmatched.is_empty() {
        return Check::ok("suppressions", found);
    }
    Check::degraded("suppressions", found).remedy(
        "remove what is over or hides nothing, or set another `until`; `halfsecond incidents \
         suppressions` lists them",
    )
}

/// What the sensor on `listen` says.
pub(super) fn ask(listen: Option<SocketAddr>) -> Option<Vec<Suppression>> {
    let answer = client::get(listen?, "/api/v1/suppressions").ok()?;
    let all = answer.json()?.get_mut("suppressions")?.take();
    serde_json::from_value(all).ok()
}

fn listed(names: &[String]) -> String {
    let more = names.len().saturating_sub(NAMED_MAX);
    let told = names.iter().take(NAMED_MAX).cloned().collect::<Vec<_>>().join(", ");
    if more > 0 { format!("{told} and {more} more") } else { told }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::CheckState;

    fn rule(name: &str, until: &str) -> Suppress {
        Suppress {
            name: name.to_owned(),
            detector: None,
            subject: Some("/usr/sbin/sshd".to_owned()),
            package: None,
            build_id: None,
            sha256: None,
            until: until.parse().unwrap(),
            who: "alice".to_owned(),
            why: "ticket".to_owned(),
        }
    }

    #[test]
    fn what_is_over_or_hides_nothing_is_named() {
        let now: Timestamp = "2026-11-22T00:00:00Z".parse().unwrap();
        let rules = [rule("old", "2026-11-21T00:00:00Z"), rule("idle", "2027-01-01T00:00:00Z")];
        let mut busy = Suppression::of_rule(&rule("busy", "2027-01-01T00:00:00Z"), now);
        busy.matches = 4;
        let since = "2026-11-01T00:00:00Z".parse().unwrap();
        let mut known: Vec<_> = rules.iter().map(|one| Suppression::of_rule(one, since)).collect();
        known.push(busy.clone());
        // Not for a while.
        known.push(Suppression::of_rule(&rule("new", "2027-01-01T00:00:00Z"), now));
        let told = check(&rules, Some(known), now);
        assert_eq!(told.state, CheckState::Degraded);
        assert_eq!(
            told.found,
            "4, which have matched 4 findings; expired: rule old; never matched: rule idle"
        );
        assert_eq!(check(&rules, Some(vec![busy]), now).state, CheckState::Ok);
        // Without a sensor nobody knows what matched.
        let told = check(&rules, None, now);
        assert!(told.found.ends_with("; expired: rule old"), "{}", told.found);
        assert_eq!(check(&[], None, now).found, "none");
    }
}
