//! Logins for people: a table with phases.

use std::io::{self, Write};

use super::ask::Found;
use crate::cli::term::{Style, Tone};
use crate::host::Method;
use crate::logins::{Guessing, Login, Outcome, Phase, Phases};

const HEADING: [&str; 14] = [
    "START", "PROGRAM", "USER", "FROM", "METHOD", "OUTCOME", "LINK", "KEYS", "AUTH", "PAM",
    "FAULTS", "VERDICT", "LASTED", "NOTE",
];

pub(super) fn list(out: &mut impl Write, found: &Found, style: Style) -> io::Result<()> {
    if found.logins.is_empty() {
        return writeln!(out, "No logins.");
    }
    let mut rows = vec![HEADING.map(|text| (Tone::Bold, text.to_owned())).to_vec()];
    rows.extend(found.logins.iter().map(row));
    style.table(out, &rows)?;
    let guessing = found.logins.iter().filter(|login| login.guessing.is_some()).count();
    if guessing > 0 {
        let text = format!("{guessing} of them from peers that guess passwords or names.");
        writeln!(out, "{}", style.paint(Tone::Warn, &text))?;
    }
    if found.more {
        writeln!(out, "There are older ones: see --limit, --since and --user.")?;
    }
    Ok(())
}

fn row(login: &Login) -> Vec<(Tone, String)> {
    let tone = match (login.outcome, login.guessing) {
        // Whoever guessed has guessed right.
        (Outcome::Accepted, Some(_)) => Tone::Bad,
        (Outcome::Accepted, None) => Tone::Good,
        (_, Some(_)) | (Outcome::Unknown, None) => Tone::Warn,
        _ => Tone::Plain,
    };
    let plain = |text: String| (Tone::Plain, text);
    let or_none = |text: Option<String>| plain(text.unwrap_or_else(|| "-".to_owned()));
    let phases = &login.phases;
    let verdict = login.attempts.iter().filter_map(|attempt| attempt.seconds).next_back();
    let mut cells = vec![
        plain(format!("{:.0}", login.start)),
        plain(login.program.to_string()),
        or_none(login.user.as_deref().map(str::to_owned)),
        or_none(from(login)),
        or_none(method(login)),
        (tone, login.outcome.name().to_owned()),
    ];
    cells.extend(
        [phases.link, phases.key_exchange, phases.auth, phases.pam]
            .map(|phase| or_none(phase.and_then(|phase: Phase| phase.cpu_seconds).map(time))),
    );
    cells.push(or_none(page_faults(phases)));
    cells.push(or_none(verdict.map(time)));
    cells.push(plain(login.duration_seconds.map_or_else(|| "-".to_owned(), time)));
    let note = note(login);
    // The last cell is not padded.
    if !note.is_empty() {
        cells.push((if login.guessing.is_some() { Tone::Warn } else { Tone::Plain }, note));
    }
    cells
}

/// With the type of the key, if it was one.
fn method(login: &Login) -> Option<String> {
    let method = login.method?;
    let of_it = login.attempts.iter().rev().find(|attempt| attempt.method == method);
    let key = of_it.and_then(|attempt| attempt.key_type.as_deref());
    // What is the usual part of every such name says nothing here.
    let short = |key: &str| key.trim_end_matches("@openssh.com").to_owned();
    let key = key.map(|key| format!(" {}", short(key))).unwrap_or_default();
    Some(format!("{}{key}", Method::name(method)))
}

/// Minor page faults up to the verdict, as far as they were measured.
fn page_faults(phases: &Phases) -> Option<String> {
    let parts = [phases.link, phases.key_exchange, phases.auth];
    let counts = || parts.iter().flatten().filter_map(|phase| phase.page_faults);
    let sum = counts().fold(0, u32::saturating_add);
    counts().next().map(|_| sum.to_string())
}

/// A client's address, or who started the program.
fn from(login: &Login) -> Option<String> {
    let peer = login.peer.map(|peer| peer.to_string());
    peer.or_else(|| login.uid.map(|uid| format!("uid {uid}")))
}

fn note(login: &Login) -> String {
    let guessing = login.guessing.map(|guessing| match guessing {
        Guessing::BruteForce => "guesses passwords or keys",
        Guessing::UserEnumeration => "guesses names",
    });
    // One that is not followed any more has a reason.
    let open = login.end.is_none() && login.outcome == Outcome::Accepted && login.reason.is_none();
    let lost = "records about it were lost";
    let partial = login.partial && login.reason.as_deref() != Some(lost);
    let parts =
        [guessing, open.then_some("still open"), login.reason.as_deref(), partial.then_some(lost)];
    parts.into_iter().flatten().collect::<Vec<_>>().join("; ")
}

/// Seconds in the unit that fits, with three digits or so.
fn time(seconds: f64) -> String {
    match seconds {
        s if s < 0.001 => format!("{:.2}ms", s * 1e3),
        s if s < 0.1 => format!("{:.1}ms", s * 1e3),
        s if s < 1.0 => format!("{:.0}ms", s * 1e3),
        s if s < 60.0 => format!("{s:.1}s"),
        s if s < 3600.0 => format!("{:.0}min", s / 60.0),
        s if s < 172_800.0 => format!("{:.1}h", s / 3600.0),
        s => format!("{:.1}d", s / 86_400.0),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn login() -> Login {
        serde_json::from_value(crate::logins::sample()).unwrap()
    }

    fn listed(logins: Vec<Login>) -> String {
        let mut text = Vec::new();
        list(&mut text, &Found { logins, more: false }, Style::default()).unwrap();
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn times_have_the_unit_that_fits() {
        let told: Vec<_> = [0.000_02, 0.003_71, 0.0312, 0.164, 2.06, 75.0, 7200.0, 2e6]
            .map(time)
            .into_iter()
            .collect();
        assert_eq!(told, ["0.02ms", "3.7ms", "31.2ms", "164ms", "2.1s", "1min", "2.0h", "23.1d"]);
    }

    #[test]
    fn a_row_has_every_phase_and_what_is_to_be_said() {
        let text = listed(vec![login()]);
        let cells: Vec<_> = text.lines().nth(1).unwrap().split("  ").collect();
        let cells: Vec<_> =
            cells.iter().map(|cell| cell.trim()).filter(|c| !c.is_empty()).collect();
        assert_eq!(
            cells,
            [
                "2026-11-21T10:00:00Z",
                "sshd",
                "alice",
                "192.0.2.7",
                "publickey ssh-ed25519",
                "accepted",
                "4.0ms",
                "12.0ms",
                "15.0ms",
                "1.0ms",
                "295",
                "200ms",
                "9.0s",
                "guesses passwords or keys",
            ],
            "{text}"
        );
        assert!(text.ends_with("1 of them from peers that guess passwords or names.\n"), "{text}");
    }

    #[test]
    fn what_is_not_known_is_a_dash_and_what_goes_on_is_said() {
        let mut open = login();
        (open.end, open.duration_seconds, open.guessing) = (None, None, None);
        (open.user, open.phases.pam) = (None, None);
        let text = listed(vec![open]);
        assert!(text.contains("  -  "), "{text}");
        assert!(text.trim_end().ends_with("still open"), "{text}");
        let mut given_up = login();
        (given_up.end, given_up.guessing) = (None, None);
        given_up.reason = Some("there were too many at once to follow it".into());
        assert!(!listed(vec![given_up]).contains("still open"));
        assert_eq!(listed(Vec::new()), "No logins.\n");
    }

    #[test]
    fn a_login_through_libpam_is_told_with_its_program_and_who_started_it() {
        let mut sudo = login();
        (sudo.program, sudo.method) = ("sudo".into(), Some(Method::Pam));
        (sudo.peer, sudo.uid, sudo.user) = (None, Some(1000), None);
        let text = listed(vec![sudo]);
        let row = text.lines().nth(1).unwrap();
        let cells: Vec<_> = row.split("  ").map(str::trim).filter(|c| !c.is_empty()).collect();
        assert_eq!(cells[1..5], ["sudo", "-", "uid 1000", "pam"], "{text}");
    }

    proptest! {
        #[test]
        fn no_name_steers_the_terminal_or_makes_a_line(name in any::<String>(), reason in any::<String>()) {
            let mut hostile = login();
            hostile.user = Some(name.into());
            hostile.attempts[0].key_type = Some(reason.as_str().into());
            hostile.reason = Some(reason.into());
            hostile.subject = "\u{1b}[2J".into();
            hostile.program = "\u{202e}\n\u{1b}[2J".into();
            let text = listed(vec![hostile]);
            prop_assert_eq!(text.lines().count(), 3, "{:?}", text);
            prop_assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{:?}", text);
            let turns = |c: char| matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
            prop_assert!(!text.chars().any(turns), "{:?}", text);
        }
    }
}
