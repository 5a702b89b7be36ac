use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::thread;

use serde_json::{Value, json};

use super::harness::{Place, assert_plain, keys};

pub(super) fn incident(id: &str, opened: &str, title: &str) -> Value {
    json!({
        "id": id, "opened": opened, "updated": opened, "state": "open", "severity": "critical",
        "score": 97, "title": title, "hosts": ["bastion"], "partial": true,
        "story": "liblzma.so.5.6.1 spent 480 ms in an IFUNC resolver.",
        "recommendation": "Take the host off the network.",
        "findings": [{
            "time": opened, "ktime_ns": 5, "id": "f1", "detector": "got_redirected",
            "family": "hook", "severity": "critical", "confidence": 0.99,
            "title": "RSA_public_decrypt leads into liblzma", "host": "bastion",
            "process": {
                "pid": 4711, "exe": "/usr/sbin/sshd", "cmdline": ["sshd", "-D\u{1b}[2J"],
                "uid": 0, "start": opened, "ancestors": ["/usr/lib/systemd/systemd"],
                "container": null, "pod": null,
            },
            "subject": "/usr/sbin/sshd", "attack": ["T1574"], "explained_by": null,
            "evidence": [{
                "kind": "slot", "module": "/usr/sbin/sshd", "slot": "0x134218",
                "slot_kind": "JUMP_SLOT", "symbol": "RSA_public_decrypt",
                "expected": "libcrypto.so.3+0x277490", "actual": "liblzma.so.5+0x120f",
                "actual_module": "/lib/liblzma.so.5", "actual_build_id": "ab12",
            }],
        }],
    })
}

fn with_two() -> Place {
    let place = Place::new("");
    let older = incident("aaa1", "2026-11-20T10:00:00Z", "older");
    let newer = incident("bbb2", "2026-11-21T10:00:00Z", "newer");
    place.write("state/incidents.jsonl", &format!("{older}\n{newer}\n"));
    place
}

/// Answers one request with `body`, on the address returned.
fn answer_once(body: String) -> (SocketAddr, thread::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let answering = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = [0; 1024];
        let read = stream.read(&mut request).unwrap();
        stream.write_all(body.as_bytes()).unwrap();
        String::from_utf8_lossy(&request[..read]).into_owned()
    });
    (address, answering)
}

#[test]
fn a_sensor_that_never_ran_has_no_incidents() {
    let place = Place::new("");
    assert_eq!(place.run(&["incidents"]).expect(0).stdout, "No incidents.\n");
    assert_eq!(place.run(&["incidents", "--json"]).expect(0).stdout, "");
}

#[test]
fn incidents_are_listed_newest_first() {
    let ended = with_two().run(&["incidents"]).expect(1);
    assert_plain(&ended.stdout);
    let first: Vec<_> =
        ended.stdout.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(first, ["ID", "bbb2", "aaa1"], "{}", ended.stdout);
}

#[test]
fn incidents_as_json_have_the_keys_of_the_interface() {
    let lines = with_two().run(&["incidents", "--json"]).expect(1).lines();
    assert_eq!(lines.len(), 2);
    assert_eq!(
        keys(&lines[0]),
        [
            "findings",
            "hosts",
            "id",
            "opened",
            "partial",
            "recommendation",
            "score",
            "severity",
            "state",
            "story",
            "title",
            "updated"
        ]
    );
    assert_eq!(lines[0]["id"], "bbb2");
}

#[test]
fn an_incident_is_shown_with_story_evidence_and_advice_and_steers_no_terminal() {
    let ended = with_two().run(&["incidents", "aaa"]).expect(1);
    assert_plain(&ended.stdout);
    for text in [
        "CRITICAL  older",
        "Records were lost",
        "480 ms in an IFUNC resolver",
        "got_redirected",
        "4711 /usr/sbin/sshd (uid 0)",
        "T1574",
        "liblzma.so.5+0x120f",
        "JUMP_SLOT",
        "Take the host off the network.",
    ] {
        assert!(ended.stdout.contains(text), "no {text:?} in {}", ended.stdout);
    }
}

#[test]
fn an_id_of_nothing_exits_2() {
    let ended = with_two().run(&["incidents", "zzz"]).expect(2);
    assert_eq!(
        ended.stderr,
        "error: no incident has the id \"zzz\"; `halfsecond incidents` lists them\n"
    );
}

#[test]
fn the_running_sensor_is_asked_first() {
    let body = json!({"incidents": [incident("live", "2026-11-21T10:00:00Z", "from the sensor")]});
    let body = body.to_string();
    let (address, answering) =
        answer_once(format!("HTTP/1.0 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()));
    let place = Place::new(&format!("[http]\nlisten = \"{address}\"\n"));
    let ended = place.run(&["incidents"]).expect(1);
    assert!(ended.stdout.contains("from the sensor"), "{ended:#?}");
    assert!(answering.join().unwrap().starts_with("GET /api/v1/incidents HTTP/1.0\r\n"));
}

#[test]
fn another_program_on_the_port_is_told_and_the_files_are_read() {
    let (address, answering) = answer_once("SSH-2.0-OpenSSH_9.2\r\n".to_owned());
    let place = Place::new(&format!("[http]\nlisten = \"{address}\"\n"));
    let older = incident("aaa1", "2026-11-20T10:00:00Z", "from the file");
    place.write("state/incidents.jsonl", &format!("{older}\n"));
    let ended = place.run(&["incidents"]).expect(1);
    assert!(ended.stdout.contains("from the file"), "{ended:#?}");
    assert!(ended.stderr.contains("does not answer as a halfsecond does"), "{ended:#?}");
    answering.join().unwrap();
}
