//! Changes of packages for people: a table.

use std::io::{self, Write};

use crate::cli::term::{Style, Tone};
use crate::package::history::{Action, History, PackageChange};

const HEADING: [&str; 5] = ["TIME", "PACKAGE", "ACTION", "BEFORE", "AFTER"];

pub(super) fn list(out: &mut impl Write, history: &History, style: Style) -> io::Result<()> {
    if history.changes.is_empty() {
        return writeln!(out, "No changes of packages.");
    }
    let mut rows = vec![HEADING.map(|text| (Tone::Bold, text.to_owned())).to_vec()];
    rows.extend(history.changes.iter().map(row));
    style.table(out, &rows)?;
    if history.more {
        writeln!(out, "There are older ones: see --limit and --since.")?;
    }
    Ok(())
}

fn row(change: &PackageChange) -> Vec<(Tone, String)> {
    let arch = change.arch.as_ref().map(|arch| format!(":{arch}")).unwrap_or_default();
    let version = |version: &Option<String>| version.clone().unwrap_or_else(|| "-".to_owned());
    // The same version again is no upgrade, and unusual.
    let tone = if change.action == Action::Reinstalled { Tone::Warn } else { Tone::Plain };
    vec![
        (Tone::Plain, format!("{:.0}", change.time)),
        (Tone::Plain, format!("{}{arch}", change.package)),
        (tone, change.action.to_string()),
        (Tone::Plain, version(&change.old)),
        (Tone::Plain, version(&change.new)),
    ]
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

    fn listed(changes: Vec<PackageChange>, more: bool) -> String {
        let mut text = Vec::new();
        let history = History { changes, more, gaps: Vec::new() };
        list(&mut text, &history, Style::default()).unwrap();
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn a_row_has_both_versions_and_a_dash_for_none() {
        let text = listed(
            vec![
                change(Action::Replaced, Some("1:9.2p1-2+deb12u5"), Some("1:9.2p1-2+deb12u6")),
                change(Action::Removed, Some("1"), None),
            ],
            true,
        );
        let rows: Vec<Vec<&str>> =
            text.lines().map(|line| line.split_ascii_whitespace().collect()).collect();
        let (time, name) = ("2026-11-20T06:10:02Z", "openssh-server:amd64");
        assert_eq!(rows[1], [time, name, "replaced", "1:9.2p1-2+deb12u5", "1:9.2p1-2+deb12u6"]);
        assert_eq!(rows[2], [time, name, "removed", "1", "-"]);
        assert!(text.ends_with("There are older ones: see --limit and --since.\n"), "{text}");
        assert_eq!(listed(Vec::new(), false), "No changes of packages.\n");
    }
}
