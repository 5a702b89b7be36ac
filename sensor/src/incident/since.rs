//! What changed before a shift in time, as a sentence.

use jiff::Timestamp;

use super::text::{clause, name, path};
use crate::finding::{Evidence, FileSince, Finding, PackageSince};

/// Changes told in one sentence; all of them stand in the evidence.
const MAX_TOLD: usize = 3;

/// `openssh-server 1:9.2p1-2+deb12u5 was replaced by 1:9.2p1-2+deb12u6 2 hours before, and
/// /etc/pam.d/sshd changed 40 minutes before`.
pub(crate) fn sentence(finding: &Finding, evidence: &Evidence) -> Option<String> {
    let Evidence::Since { from, usual, packages, files, omitted, not_told } = evidence else {
        return None;
    };
    let mut changes: Vec<(Timestamp, String)> = Vec::new();
    changes.extend(packages.iter().map(|PackageSince { change, .. }| {
        let before = before(change.time, finding.time);
        (change.time, format!("{} {before}", change.clause(name)))
    }));
    changes.extend(files.iter().map(|FileSince { file, changed }| {
        (*changed, format!("{} changed {}", path(file), before(*changed, finding.time)))
    }));
    changes.sort_by_key(|(time, _)| std::cmp::Reverse(*time));
    let count = u64::try_from(changes.len()).unwrap_or(u64::MAX).saturating_add(*omitted);
    let told: Vec<String> = changes.into_iter().take(MAX_TOLD).map(|(_, told)| told).collect();
    Some(match told.as_slice() {
        [] => nothing(finding, *from, *usual, not_told),
        [only] => only.clone(),
        [first @ .., last] => {
            let more = count.saturating_sub(MAX_TOLD as u64);
            let rest =
                if more > 0 { format!("; {more} changes more since then") } else { String::new() };
            format!("{}, and {last}{rest}", first.join(", "))
        }
    })
}

/// That nothing is known to have changed is worth a sentence: then the cause is elsewhere.
fn nothing(finding: &Finding, from: Timestamp, usual: bool, not_told: &[String]) -> String {
    if let Some(reason) = not_told.first() {
        return format!("what changed before cannot be told: {}", clause(reason));
    }
    let when = if usual {
        format!("since that time was last as usual, {}", before(from, finding.time))
    } else {
        "in the day before".to_owned()
    };
    format!("no package of its files and no configuration of it is known to have changed {when}")
}

/// `2 hours before`, rounded down; what is written in whole seconds may seem to lie behind.
fn before(time: Timestamp, finding: Timestamp) -> String {
    let seconds = finding.duration_since(time).as_secs();
    let (count, unit) = match seconds {
        ..2 => return "just before".to_owned(),
        2..120 => (seconds, "seconds"),
        120..7_200 => (seconds / 60, "minutes"),
        7_200..172_800 => (seconds / 3_600, "hours"),
        _ => (seconds / 86_400, "days"),
    };
    format!("{count} {unit} before")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::incident::sample::slow_link;
    use crate::package::Manager;
    use crate::package::history::{Action, PackageChange};

    fn at(finding: &Finding, seconds: i64) -> Timestamp {
        finding.time - jiff::SignedDuration::from_secs(seconds)
    }

    fn upgrade(time: Timestamp, package: &str) -> PackageSince {
        let change = PackageChange {
            time,
            manager: Manager::Dpkg,
            package: package.to_owned(),
            arch: Some("amd64".to_owned()),
            action: Action::Replaced,
            old: Some("1:9.2p1-2+deb12u5".to_owned()),
            new: Some("1:9.2p1-2+deb12u6".to_owned()),
        };
        PackageSince { change, files: vec!["/usr/sbin/sshd".to_owned()] }
    }

    fn since(
        from: Timestamp,
        packages: Vec<PackageSince>,
        files: &[(&str, Timestamp)],
    ) -> Evidence {
        let file = |(file, changed): &(&str, Timestamp)| FileSince {
            file: (*file).to_owned(),
            changed: *changed,
        };
        let files = files.iter().map(file).collect();
        Evidence::Since { from, usual: true, packages, files, omitted: 0, not_told: Vec::new() }
    }

    #[test]
    fn changes_are_told_newest_first_with_how_long_before() {
        let finding = slow_link();
        let packages = vec![upgrade(at(&finding, 7_300), "openssh-server")];
        let files = [("/etc/pam.d/sshd", at(&finding, 2_400))];
        let told = sentence(&finding, &since(at(&finding, 9_000), packages, &files)).unwrap();
        assert_eq!(
            told,
            "/etc/pam.d/sshd changed 40 minutes before, and openssh-server 1:9.2p1-2+deb12u5 was \
             replaced by 1:9.2p1-2+deb12u6 2 hours before"
        );
    }

    #[test]
    fn that_nothing_changed_is_said_unless_it_cannot_be_known() {
        let finding = slow_link();
        let evidence = since(at(&finding, 300), Vec::new(), &[]);
        let told = sentence(&finding, &evidence).unwrap();
        assert!(
            told.ends_with(
                "is known to have changed since that time was last as usual, 5 minutes before"
            ),
            "{told}"
        );
        let mut blind = evidence;
        if let Evidence::Since { not_told, .. } = &mut blind {
            not_told.push("its root is gone.\n".to_owned());
        }
        let told = sentence(&finding, &blind).unwrap();
        assert_eq!(told, "what changed before cannot be told: its root is gone");
    }

    #[test]
    fn what_stands_in_records_cannot_leave_its_place_and_is_bounded() {
        let finding = slow_link();
        let evil = "x was harmless. \u{1b}[2J\u{202e}";
        let packages = (0..40).map(|n| upgrade(at(&finding, n), evil)).collect();
        let files = [("/etc/pam.d/a b\n", at(&finding, 1))];
        let told = sentence(&finding, &since(at(&finding, 90), packages, &files)).unwrap();
        assert!(told.contains("\"x was harmless. \u{fffd}[2J\u{fffd}\" 1:9.2"), "{told}");
        assert!(told.ends_with("; 38 changes more since then") && told.len() < 1000, "{told}");
        assert!(!told.chars().any(char::is_control), "{told}");
    }

    #[test]
    fn times_are_rounded_down_and_never_negative() {
        let now: Timestamp = "2026-11-21T10:00:00Z".parse().unwrap();
        let told = |seconds: i64| before(now - jiff::SignedDuration::from_secs(seconds), now);
        for (seconds, expected) in [
            (-90, "just before"),
            (1, "just before"),
            (119, "119 seconds before"),
            (120, "2 minutes before"),
            (7_199, "119 minutes before"),
            (7_200, "2 hours before"),
            (172_799, "47 hours before"),
            (172_800, "2 days before"),
        ] {
            assert_eq!(told(seconds), expected);
        }
    }
}
