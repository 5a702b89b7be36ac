//! Changes of packages for people: a table, and below each change what it changed in behaviour.

use std::io::{self, Write};

use super::Upgrade;
use super::behaviour::{Behaviour, Times};
use crate::cli::term::{Style, Tone};
use crate::package::history::{Action, History, PackageChange};

const HEADING: [&str; 6] = ["TIME", "PACKAGE", "ACTION", "BEFORE", "AFTER", "BEHAVIOUR"];
/// Programs and names told of one change; `--json` has all.
const PROGRAMS_MAX: usize = 3;
const NAMES_MAX: usize = 3;

pub(super) fn list(
    out: &mut impl Write,
    upgrades: &[Upgrade],
    history: &History,
    style: Style,
) -> io::Result<()> {
    if upgrades.is_empty() {
        let known =
            if history.gaps.is_empty() { "" } else { " are known; not everything was read" };
        return writeln!(out, "No changes of packages{known}.");
    }
    let mut rows = vec![HEADING.map(|text| (Tone::Bold, text.to_owned())).to_vec()];
    rows.extend(upgrades.iter().map(row));
    style.table(out, &rows)?;
    if history.more {
        writeln!(out, "There are older ones: see --limit and --since.")?;
    }
    Ok(())
}

fn row(upgrade: &Upgrade) -> Vec<(Tone, String)> {
    let PackageChange { time, package, arch, action, old, new, .. } = &upgrade.change;
    let arch = arch.as_ref().map(|arch| format!(":{arch}")).unwrap_or_default();
    let version = |version: &Option<String>| version.clone().unwrap_or_else(|| "-".to_owned());
    // The same version again is no upgrade, and unusual.
    let tone = if *action == Action::Reinstalled { Tone::Warn } else { Tone::Plain };
    let told = upgrade.behaviour.as_deref().unwrap_or_default();
    let is_new = |names: &Option<Vec<String>>| names.as_ref().is_some_and(|all| !all.is_empty());
    let strange = told.iter().any(|one| is_new(&one.new_callers) || is_new(&one.new_libraries));
    vec![
        (Tone::Plain, format!("{time:.0}")),
        (Tone::Plain, format!("{package}{arch}")),
        (tone, action.to_string()),
        (Tone::Plain, version(old)),
        (Tone::Plain, version(new)),
        (if strange { Tone::Warn } else { Tone::Plain }, behaviour(told)),
    ]
}

/// `sshd: link +0.1 ms, no new callers, no new libraries`.
fn behaviour(told: &[Behaviour]) -> String {
    if told.is_empty() {
        return "-".to_owned();
    }
    let mut programs: Vec<String> = told.iter().take(PROGRAMS_MAX).map(program).collect();
    if told.len() > PROGRAMS_MAX {
        programs.push(format!("and {} more", told.len() - PROGRAMS_MAX));
    }
    programs.join("; ")
}

fn program(one: &Behaviour) -> String {
    let name = one.program.rsplit('/').next().unwrap_or(&one.program);
    let mut parts: Vec<String> = one.times.iter().map(time).collect();
    parts.extend(one.new_callers.as_ref().map(|new| names(new, "callers")));
    parts.extend(one.new_libraries.as_ref().map(|new| names(new, "libraries")));
    if !one.not_recorded.is_empty() {
        parts.push(format!("not recorded: {}", one.not_recorded.join(", ")));
    }
    format!("{name}: {}", parts.join(", "))
}

fn time(times: &Times) -> String {
    let Times { what, seconds_before, seconds_after, .. } = times;
    format!("{what} {:+.1} ms", (seconds_after - seconds_before) * 1e3)
}

fn names(new: &[String], what: &str) -> String {
    if new.is_empty() {
        return format!("no new {what}");
    }
    let more = new.len().saturating_sub(NAMES_MAX);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let named: Vec<&str> = new.iter().take(NAMES_MAX).map(String::as_str).collect();
    format!("new {what}: {}{more}", named.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::package::Manager;

    fn change(action: Action, old: Option<&str>, new: Option<&str>) -> PackageChange {
        PackageChange {
            time: "2026-11-20T06:10:02Z".parse().unwrap(),
            manager: Manager::Dpkg,
            package: "openssh-server".to_owned(),
            arch: Some("amd64".to_owned()),
            action,
            old: old.map(str::to_owned),
            new: new.map(str::to_owned),
        }
    }

    fn listed(changes: Vec<PackageChange>, told: Option<&[Behaviour]>, more: bool) -> String {
        let mut text = Vec::new();
        let upgrade = |change| Upgrade { change, behaviour: told.map(<[Behaviour]>::to_vec) };
        let upgrades: Vec<Upgrade> = changes.into_iter().map(upgrade).collect();
        let history = History { more, ..History::default() };
        list(&mut text, &upgrades, &history, Style::default()).unwrap();
        String::from_utf8(text).unwrap()
    }

    fn sshd() -> Behaviour {
        Behaviour {
            program: "/usr/sbin/sshd".to_owned(),
            own: true,
            times: vec![Times {
                what: "link".to_owned(),
                seconds_before: 0.0034,
                seconds_after: 0.0035,
                samples_before: 50,
                samples_after: 12,
            }],
            new_callers: Some(Vec::new()),
            new_libraries: Some(Vec::new()),
            not_recorded: Vec::new(),
        }
    }

    #[test]
    fn what_changed_in_behaviour_is_told_and_what_is_not_recorded() {
        let upgrade = || vec![change(Action::Replaced, Some("1"), Some("2"))];
        let told = |told: &[Behaviour]| listed(upgrade(), Some(told), false);
        let text = told(&[sshd()]);
        let expected = "  sshd: link +0.1 ms, no new callers, no new libraries\n";
        assert!(text.ends_with(expected), "{text}");
        let evil = Behaviour {
            new_libraries: Some((0..5).map(|at| format!("/lib/x{at}.so")).collect()),
            new_callers: None,
            not_recorded: vec!["no callers \u{1b}[2J".to_owned()],
            ..sshd()
        };
        let text = told(&[evil]);
        let expected = "new libraries: /lib/x0.so /lib/x1.so /lib/x2.so and 2 more, not recorded: \
            no callers \u{fffd}[2J\n";
        assert!(text.ends_with(expected), "{text}");
        assert!(told(&[sshd(), sshd(), sshd(), sshd()]).ends_with("; and 1 more\n"));
        assert!(told(&[]).ends_with(" -\n") && listed(upgrade(), None, false).ends_with(" -\n"));
    }

    #[test]
    fn a_row_has_both_versions_and_a_dash_for_none() {
        let text = listed(
            vec![
                change(Action::Replaced, Some("1:9.2p1-2+deb12u5"), Some("1:9.2p1-2+deb12u6")),
                change(Action::Removed, Some("1"), None),
            ],
            None,
            true,
        );
        let rows: Vec<Vec<&str>> =
            text.lines().map(|line| line.split_ascii_whitespace().collect()).collect();
        let (time, name) = ("2026-11-20T06:10:02Z", "openssh-server:amd64");
        assert_eq!(
            rows[1],
            [time, name, "replaced", "1:9.2p1-2+deb12u5", "1:9.2p1-2+deb12u6", "-"]
        );
        assert_eq!(rows[2], [time, name, "removed", "1", "-", "-"]);
        assert!(text.ends_with("There are older ones: see --limit and --since.\n"), "{text}");
        assert_eq!(listed(Vec::new(), None, false), "No changes of packages.\n");
    }

    #[test]
    fn that_there_are_no_changes_is_not_said_where_something_is_missing() {
        let history = History { gaps: vec!["x".to_owned()], ..History::default() };
        let mut text = Vec::new();
        list(&mut text, &[], &history, Style::default()).unwrap();
        let expected = "No changes of packages are known; not everything was read.\n";
        assert_eq!(String::from_utf8(text).unwrap(), expected);
    }
}
