//! The laboratory's own helpers can be believed.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, TcpListener},
    path::Path,
    thread,
    time::Duration,
};

use anyhow::Result;

use crate::lab::{Agent, Prometheus, get};

/// Serves one metric to whoever asks, for as long as the test runs.
fn exposition(text: &'static str) -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let port = listener.local_addr()?.port();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut request = [0; 4096];
            let _ = stream.read(&mut request);
            let head = "HTTP/1.0 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\n\r\n";
            let _ = stream.write_all(head.as_bytes());
            let _ = stream.write_all(text.as_bytes());
        }
    });
    Ok(port)
}

#[test]
fn prometheus_scrapes_what_a_port_of_loopback_exposes() {
    let port = exposition("halfsecond_lab_answer{kind=\"a b\"} 42\n").unwrap();
    let (status, body) = get(port, "/metrics", Duration::from_secs(5)).unwrap();
    assert_eq!((status, body.lines().count()), (200, 1));

    let prometheus = Prometheus::scraping(port).unwrap();
    let timeout = Duration::from_secs(30);
    let answer = prometheus
        .query_until("halfsecond_lab_answer{kind=\"a b\"} + 1", timeout, |found| !found.is_empty())
        .unwrap();
    assert_eq!(answer.len(), 1);
    assert_eq!(answer[0].labels["kind"], "a b");
    assert!((answer[0].value - 43.0).abs() < f64::EPSILON);
    assert!(prometheus.query("no_such_metric").unwrap().is_empty());
    assert!(prometheus.query("not a query").is_err());
}

/// A stand-in that talks as the agent does: JSON on stdout, a log on stderr.
fn stand_in(script: &str) -> Result<Agent> {
    Agent::spawn_program(Path::new("/bin/sh"), &["-c", script], "key = 1\n")
}

#[test]
fn agent_lines_are_found_whether_they_came_before_or_come_later() {
    let agent =
        stand_in(r#"echo '{"n":1}'; echo '{"n":2}'; read -r line; echo '{"n":3}'"#).unwrap();
    let timeout = Duration::from_secs(10);
    let numbered = |wanted: u64| move |line: &serde_json::Value| line["n"] == wanted;
    agent.wait_for("line 2", 0, timeout, numbered(2)).unwrap();
    agent.wait_for("line 1", 0, timeout, numbered(1)).unwrap();
    assert_eq!(agent.position(), 2);
    let soon = Duration::from_millis(50);
    let missed = agent.wait_for("line 3", agent.position(), soon, numbered(3)).unwrap_err();
    assert!(missed.to_string().contains(r#"{"n":2}"#), "the error shows the output: {missed}");
    assert!(agent.kill().unwrap().code().is_none());
}

#[test]
fn agent_end_is_told_with_its_exit_code_and_all_its_lines() {
    let agent = stand_in(r#"cat "$1" >&2; echo '{"n":1}'; echo '{"n":2}'; exit 3"#).unwrap();
    agent.wait_for_log("key = 1", Duration::from_secs(10)).unwrap();
    let (status, lines) = agent.wait(Duration::from_secs(10)).unwrap();
    assert_eq!(status.code(), Some(3));
    assert_eq!(lines.len(), 2);

    let agent = stand_in("trap 'exit 4' TERM; echo '{}'; while :; do sleep 0.05; done").unwrap();
    agent.wait_for("a line", 0, Duration::from_secs(10), |_| true).unwrap();
    let (status, _) = agent.terminate(Duration::from_secs(10)).unwrap();
    assert_eq!(status.code(), Some(4));
}
