//! What the sensor tells of a connection, against what has to be told of it.

use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::cell::{Expected, USER};
use super::client::Made;
use crate::sh;

/// Until a connection that has ended is told as ended.
const PATIENCE: Duration = Duration::from_mins(1);
const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// As many as one answer holds.
const LIMIT: &str = "20000";
const PHASES: [&str; 5] = ["link", "key_exchange", "auth", "pam", "session"];

/// How to ask the sensor, by its command line.
pub(super) struct Asked<'a> {
    pub(super) agent: &'a Path,
    pub(super) config: &'a Path,
}

// === impl Asked ===

impl Asked<'_> {
    /// Connections that began at `since` or later.
    fn logins(&self, since: Timestamp) -> Result<Vec<Value>> {
        let mut command = Command::new(self.agent);
        command.args(["logins", "--json", "--limit", LIMIT, "--since", &since.to_string()]);
        let lines = sh::output(command.arg("--config").arg(self.config))?;
        let parsed = lines.lines().map(serde_json::from_str).collect::<Result<_, _>>();
        parsed.context("`logins --json` writes lines that are no JSON")
    }

    /// The same once there are so many and none is open, or time is over: what is missing then is for
    /// the caller to see.
    pub(super) fn ended(&self, since: Timestamp, wanted: usize) -> Result<Vec<Value>> {
        let asked = Instant::now();
        loop {
            let told = self.logins(since)?;
            let all_ended = told.iter().all(|login| login["end"].is_string());
            if (told.len() >= wanted && all_ended) || asked.elapsed() > PATIENCE {
                return Ok(told);
            }
            thread::sleep(LOOK_AGAIN);
        }
    }
}

/// What is told of this connection: of those from its port the one that began when it was made.
pub(super) fn of(told: &[Value], made: Made) -> Option<&Value> {
    let apart = |login: &&Value| {
        let start = login["start"].as_str().and_then(|text| text.parse::<Timestamp>().ok());
        start.map_or(SignedDuration::MAX, |start| start.duration_since(made.at).abs())
    };
    told.iter().filter(|login| login["peer_port"] == made.port).min_by_key(apart)
}

/// What a line of the table says of it.
pub(super) fn shown(login: &Value) -> String {
    let word = |key: &str| login[key].as_str().unwrap_or("-").to_owned();
    let phases = phases(login).join(" ");
    format!("{:<9} {:<20} {:<6} {phases}", word("outcome"), word("method"), word("user"))
}

/// The phases that were measured.
fn phases(login: &Value) -> Vec<&'static str> {
    let told = |name: &&str| login["phases"][*name]["wall_seconds"].is_f64();
    PHASES.into_iter().filter(told).collect()
}

/// Everything that is told otherwise than expected of a client on loopback; nothing where all is right.
pub(super) fn differences(login: &Value, expected: &Expected) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut same = |what: &str, told: &Value, wanted: Value| {
        if *told != wanted {
            wrong.push(format!("{what} {told}, not {wanted}"));
        }
    };
    same("peer", &login["peer"], "127.0.0.1".into());
    same("outcome", &login["outcome"], expected.outcome.into());
    same("method", &login["method"], expected.method.into());
    same("user", &login["user"], expected.user.into());
    same("session", &login["session"], expected.session.into());
    same("partial", &login["partial"], false.into());
    let attempts = login["attempts"].as_array().map(Vec::as_slice).unwrap_or_default();
    let attempts: Vec<Value> = attempts
        .iter()
        .map(|attempt| {
            Value::from(["method", "verdict", "key_type"].map(|key| attempt[key].clone()))
        })
        .collect();
    let wanted = expected.attempts.iter().map(|(method, verdict)| {
        Value::from([Value::from(*method), Value::from(*verdict), expected.key.into()])
    });
    same("attempts", &attempts.into(), wanted.collect());
    same("phases", &phases(login).into(), expected.phases.clone().into());
    if !login["end"].is_string() {
        wrong.push("still open".to_owned());
    }
    if expected.user.is_none() && login.to_string().contains(USER) {
        wrong.push("the name is told somewhere".to_owned());
    }
    wrong
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::cell::{Cell, End, Point, Way};
    use super::*;

    fn accepted() -> Value {
        let phase = json!({"wall_seconds": 0.1, "cpu_seconds": null, "page_faults": null});
        json!({
            "end": "2026-11-21T10:00:00Z", "peer": "127.0.0.1", "peer_port": 50022, "user": USER,
            "method": "publickey", "outcome": "accepted", "session": true, "partial": false,
            "attempts": [{"method": "publickey", "verdict": "accepted", "key_type": "ssh-rsa",
                "seconds": 0.1}],
            "phases": {"link": phase, "key_exchange": phase, "auth": phase, "pam": null,
                "session": phase},
        })
    }

    #[test]
    fn what_is_right_has_no_difference_and_each_error_is_one() {
        let expected = Cell { way: Way::Rsa, end: End::Accepted }.expected(false);
        assert_eq!(differences(&accepted(), &expected), Vec::<String>::new());
        for (pointer, value) in [
            ("/peer", json!("192.0.2.1")),
            ("/outcome", json!("refused")),
            ("/method", json!("password")),
            ("/user", json!(null)),
            ("/session", json!(false)),
            ("/partial", json!(true)),
            ("/end", json!(null)),
            ("/attempts/0/verdict", json!("undecided")),
            ("/attempts/0/key_type", json!(null)),
            ("/attempts", json!([])),
            ("/phases/auth", json!(null)),
            ("/phases/pam", json!({"wall_seconds": 0.1})),
        ] {
            let mut login = accepted();
            *login.pointer_mut(pointer).unwrap() = value;
            assert_eq!(differences(&login, &expected).len(), 1, "{pointer}");
        }
    }

    #[test]
    fn the_name_of_one_who_failed_is_found_wherever_it_is() {
        let expected = Cell { way: Way::Rsa, end: End::Aborted(Point::Connect) }.expected(true);
        let mut login = accepted();
        login["reason"] = json!("no such user: hs-lab");
        login["user"] = json!(null);
        let wrong = differences(&login, &expected);
        assert!(wrong.iter().any(|line| line.contains("name is told")), "{wrong:?}");
    }

    #[test]
    fn a_row_tells_the_phases_in_their_order() {
        let row = shown(&accepted());
        assert!(row.ends_with("link key_exchange auth session"), "{row}");
    }

    #[test]
    fn a_connection_is_found_by_its_port_and_of_two_by_its_time() {
        let from = |port: u16, start: &str| {
            let mut login = accepted();
            login["peer_port"] = port.into();
            login["start"] = start.into();
            login
        };
        let told = [
            from(50022, "2026-11-21T10:00:30Z"),
            from(50023, "2026-11-21T10:00:01Z"),
            from(50022, "2026-11-21T10:00:01Z"),
        ];
        let made = |port| Made { port, at: "2026-11-21T10:00:00Z".parse().unwrap() };
        assert_eq!(of(&told, made(50022)), Some(&told[2]));
        assert_eq!(of(&told, made(50023)), Some(&told[1]));
        assert_eq!(of(&told, made(50024)), None);
    }
}
