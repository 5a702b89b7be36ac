use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::thread;

use serde_json::{Value, json};

use super::harness::{Ended, Place, as_stranger, assert_plain, keys, run};
use super::incidents::incident;

fn login(start: &str, user: Option<&str>, outcome: &str, cpu_seconds: f64) -> Value {
    let phase = json!({"wall_seconds": 0.08, "cpu_seconds": 0.012, "page_faults": null});
    let verdict = if outcome == "accepted" { "accepted" } else { "refused" };
    json!({
        "start": start, "end": start, "duration_seconds": 9.0, "pid": 4711, "program": "sshd",
        "uid": null, "peer": "192.0.2.7",
        "peer_port": 50022, "subject": "/usr/sbin/sshd ab12", "container": null, "user": user,
        "method": "publickey", "outcome": outcome, "reason": null, "attempts_left_out": 0,
        "attempts": [{"method": "publickey", "key_type": "ssh-rsa", "verdict": verdict,
            "seconds": 0.164, "cpu_seconds": cpu_seconds}],
        "phases": {
            "link": {"wall_seconds": 0.005, "cpu_seconds": 0.0034, "page_faults": 295},
            "key_exchange": phase, "auth": phase, "pam": null, "session": null,
        },
        "session": true, "exit_status": 0, "exit_signal": null, "guessing": null, "partial": false,
    })
}

/// Two that were let in, before and after 10:30, and one that was not.
fn three() -> Vec<Value> {
    let mut refused = login("2026-11-21T11:00:00Z", None, "refused", 0.02);
    refused["guessing"] = json!("user_enumeration");
    vec![
        login("2026-11-21T10:00:00Z", Some("alice"), "accepted", 0.031),
        refused,
        login("2026-11-21T12:00:00Z", Some("bob\u{1b}[2J\u{202e}\n"), "accepted", 0.044),
    ]
}

/// What no sensor is needed for: the file that one has written.
fn with(logins: &[Value]) -> Place {
    let place = Place::new("");
    let lines = logins.iter().fold(String::new(), |lines, login| lines + &format!("{login}\n"));
    place.write("state/logins.jsonl", &lines);
    place
}

/// Answers one request with `body`, on the address returned.
fn answer_once(status: &str, body: &str) -> (SocketAddr, thread::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let status = status.to_owned();
    let body = body.to_owned();
    (address, thread::spawn(move || answer(&listener, &status, &body)))
}

/// Answers one request; gives what was asked.
fn answer(listener: &TcpListener, status: &str, body: &str) -> String {
    let (mut stream, _) = listener.accept().unwrap();
    let mut request = [0; 1024];
    let read = stream.read(&mut request).unwrap();
    let head = format!("HTTP/1.0 {status}\r\ncontent-length: {}\r\n\r\n", body.len());
    stream.write_all((head + body).as_bytes()).unwrap();
    String::from_utf8_lossy(&request[..read]).into_owned()
}

fn starts(ended: &Ended) -> Vec<String> {
    let lines = ended.stdout.lines().skip(1);
    let starts = lines.filter_map(|line| Some(line.get(11..13)?.to_owned()));
    starts.take_while(|hour| hour.parse::<u8>().is_ok()).collect()
}

#[test]
fn a_sensor_that_never_ran_is_said_with_the_remedy() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let place = Place::new(&format!("[http]\nlisten = \"{free}\"\n"));
    let ended = place.run(&["logins"]).expect(2);
    assert_eq!(ended.stdout, "");
    assert!(ended.stderr.contains(&format!("no sensor answers on {free}")), "{ended:#?}");
    assert!(ended.stderr.contains("systemctl start halfsecond"), "{ended:#?}");
    let ended = Place::new("").run(&["logins"]).expect(2);
    assert!(ended.stderr.contains("`http.listen` = \"off\""), "{ended:#?}");
}

#[test]
fn logins_for_others_exit_3() {
    let place = with(&three());
    place.open_to_all();
    fs::set_permissions(place.path("state"), fs::Permissions::from_mode(0o700)).unwrap();
    let mut command = place.command(&["logins"]);
    let Some(command) = as_stranger(&mut command) else { return };
    let ended = run(command).expect(3);
    assert!(ended.stderr.contains("run as root"), "{ended:#?}");
}

#[test]
fn logins_are_listed_newest_first_and_steer_no_terminal() {
    let ended = with(&three()).run(&["logins"]).expect(0);
    assert_plain(&ended.stdout);
    assert_eq!(starts(&ended), ["12", "11", "10"], "{}", ended.stdout);
    let key = "publickey ssh-rsa";
    for text in ["START", "alice", "192.0.2.7", key, "3.4ms", "12.0ms", "164ms", "guesses names"] {
        assert!(ended.stdout.contains(text), "no {text:?} in {}", ended.stdout);
    }
    assert!(!ended.stdout.contains('\u{202e}'), "{}", ended.stdout);
    assert!(ended.stderr.contains("telling what was written"), "{ended:#?}");
}

#[test]
fn since_user_and_limit_choose() {
    let place = with(&three());
    let since = place.run(&["logins", "--since", "2026-11-21T11:00:00Z"]).expect(0);
    assert_eq!(starts(&since), ["12", "11"], "{}", since.stdout);
    let user = place.run(&["logins", "--user", "alice"]).expect(0);
    assert_eq!(starts(&user), ["10"], "{}", user.stdout);
    let one = place.run(&["logins", "--limit", "1"]).expect(0);
    assert_eq!(starts(&one), ["12"], "{}", one.stdout);
    assert!(one.stdout.contains("There are older ones"), "{}", one.stdout);
    let both = place.run(&["logins", "--user", "alice", "--limit", "1"]).expect(0);
    assert!(!both.stdout.contains("There are older ones"), "{}", both.stdout);
    assert_eq!(place.run(&["logins", "--user", "nobody"]).expect(0).stdout, "No logins.\n");
}

#[test]
fn logins_as_json_have_the_keys_of_the_interface_and_are_plain() {
    let ended = with(&three()).run(&["logins", "--json"]).expect(0);
    assert_plain(&ended.stdout);
    let lines = ended.lines();
    let expected = three();
    assert_eq!(lines.len(), expected.len());
    assert_eq!(lines[0], expected[2], "what is escaped means what it did");
    let [mut found, mut wanted] = [keys(&lines[1]), keys(&expected[1])];
    found.sort_unstable();
    wanted.sort_unstable();
    assert_eq!(found, wanted);
}

#[test]
fn the_running_sensor_is_asked_for_what_is_wanted() {
    let body = json!({"logins": [login("2026-11-21T10:00:00Z", Some("a b"), "accepted", 0.03)],
        "more": true});
    let (address, answering) = answer_once("200 OK", &body.to_string());
    let place = Place::new(&format!("[http]\nlisten = \"{address}\"\n"));
    let ended = place
        .run(&["logins", "--user", "a b&limit=1", "--since", "2026-11-21T10:00:00Z"])
        .expect(0);
    assert!(ended.stdout.contains("a b"), "{ended:#?}");
    assert!(ended.stdout.contains("There are older ones"), "{ended:#?}");
    let request = answering.join().unwrap();
    let expected = "GET /api/v1/logins?limit=100&since=2026%2D11%2D21T10%3A00%3A00Z\
                    &user=a%20b%26limit%3D1 HTTP/1.0\r\n";
    assert!(request.starts_with(expected), "{request}");
}

#[test]
fn a_sensor_without_logins_is_said_to_be_older() {
    let (address, answering) = answer_once("404 Not Found", "{\"error\": \"no such page\"}");
    let place = Place::new(&format!("[http]\nlisten = \"{address}\"\n"));
    let ended = place.run(&["logins"]).expect(4);
    assert!(ended.stderr.contains("is it an older one?: no such page"), "{ended:#?}");
    answering.join().unwrap();
}

#[test]
fn a_plot_shows_before_and_after_and_is_ascii_where_the_locale_is() {
    let place = with(&three());
    let since = ["logins", "--plot", "--since", "2026-11-21T10:30:00Z"];
    let plain = run(place.command(&since).env("LC_ALL", "C")).expect(0);
    assert!(plain.stdout.is_ascii() && plain.stdout.contains("###"), "{}", plain.stdout);
    let blocks = run(place.command(&since).env("LC_ALL", "C.UTF-8")).expect(0);
    assert_plain(&blocks.stdout);
    for text in
        ["Split at 2026-11-21T10:30:00Z.", "before  1 login (few)", "after   1 login (few)", "███"]
    {
        assert!(blocks.stdout.contains(text), "no {text:?} in {}", blocks.stdout);
    }
    let all = run(place.command(&["logins", "--plot"]).env("LC_ALL", "C")).expect(0);
    assert!(all.stdout.contains("all     2 logins (few)"), "{}", all.stdout);
    assert!(all.stderr.contains("is not known"), "{}", all.stderr);
}

#[test]
fn a_plot_is_split_at_the_latest_incident_about_times() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let place = Place::new(&format!("[http]\nlisten = \"{address}\"\n"));
    let about = |id: &str, time: &str, detector: &str| {
        let mut incident = incident(id, time, "x");
        incident["findings"][0]["detector"] = json!(detector);
        incident["findings"][0]["subject"] = json!("/usr/sbin/sshd ab12");
        incident
    };
    let mut of_sudo = about("sudo", "2026-11-21T11:50:00Z", "link_time_shift");
    of_sudo["findings"][0]["subject"] = json!("/usr/bin/sudo cd34");
    let incidents = [
        of_sudo,
        about("later", "2026-11-21T11:45:00Z", "preload_env"),
        about("right", "2026-11-21T11:30:00Z", "link_time_shift"),
        about("earlier", "2026-11-21T09:00:00Z", "auth_cpu_shift"),
    ];
    let bodies = [json!({"logins": three(), "more": false}), json!({"incidents": incidents})];
    let answering = thread::spawn(move || {
        bodies.map(|body| answer(&listener, "200 OK", &body.to_string())).concat()
    });
    let ended = run(place.command(&["logins", "--plot"]).env("LC_ALL", "C")).expect(0);
    for text in
        ["Split at 2026-11-21T11:30:00Z (incident right).", "before  1 login", "after   1 login"]
    {
        assert!(ended.stdout.contains(text), "no {text:?} in {ended:#?}");
    }
    assert!(answering.join().unwrap().contains("GET /api/v1/incidents "));
}

/// An incident about login times at 11:30, and the logins around it.
fn with_incident() -> Place {
    with_incident_of("/usr/sbin/sshd ab12")
}

fn with_incident_of(subject: &str) -> Place {
    let place = with(&three());
    let mut incident = incident("aaa1", "2026-11-21T11:30:00Z", "a login cost too much\u{1b}");
    let finding = &mut incident["findings"][0];
    finding["detector"] = json!("auth_cpu_shift");
    finding["subject"] = json!(subject);
    finding["evidence"] = json!([{
        "kind": "timing", "metric": "auth_cpu", "seconds": 0.331, "baseline_seconds": 0.0312,
        "limit_seconds": 0.181, "samples": 120, "module": "/lib/liblzma.so.5",
        "module_seconds": 0.3,
    }]);
    place.write("state/incidents.jsonl", &format!("{incident}\n"));
    place
}

#[test]
fn an_explanation_tells_the_limit_that_was_crossed_and_draws_the_logins_around_it() {
    let place = with_incident();
    let ended = run(place.command(&["explain", "aaa"]).env("LC_ALL", "C")).expect(1);
    assert_plain(&ended.stdout);
    for text in [
        "CRITICAL  a login cost too much",
        "auth_cpu: 331.00 ms against a median of 31.20 ms in 120 samples; the limit was 181.00 ms",
        "most of the excess in /lib/liblzma.so.5 (300.00 ms)",
        "Split at 2026-11-21T11:30:00Z (incident aaa1).",
        "before  1 login (few), median 31.00 ms",
        "after   1 login (few), median 44.00 ms",
    ] {
        assert!(ended.stdout.contains(text), "no {text:?} in {}", ended.stdout);
    }
    let file = place.path("a.svg");
    place.run(&["explain", "aaa1", "--svg", file.to_str().unwrap()]).expect(1);
    roxmltree::Document::parse(&fs::read_to_string(file).unwrap()).unwrap();
}

#[test]
fn an_explanation_as_json_has_every_sample() {
    let ended = with_incident().run(&["explain", "aaa1", "--json"]).expect(1);
    assert_plain(&ended.stdout);
    let object = ended.lines().remove(0);
    assert_eq!(object["findings"][0]["timing"][0]["metric"], "auth_cpu");
    let expected = json!({
        "method": "publickey", "metric": "auth_cpu", "before_ms": [31.0], "after_ms": [44.0],
    });
    assert_eq!(object["samples"][0], expected);
}

#[test]
fn what_has_no_times_is_explained_without_a_picture() {
    let place = Place::new("");
    let incident = incident("bbb2", "2026-11-21T11:30:00Z", "x");
    place.write("state/incidents.jsonl", &format!("{incident}\n"));
    let ended = place.run(&["explain", "bbb2"]).expect(1);
    assert!(ended.stdout.contains("No login times to draw"), "{}", ended.stdout);
    let object = place.run(&["explain", "bbb2", "--json"]).expect(1).lines().remove(0);
    assert_eq!(object["samples"], json!(null));
    let ended = place.run(&["explain", "bbb2", "--svg", "/dev/null"]).expect(2);
    assert!(ended.stderr.contains("there is nothing to draw"), "{ended:#?}");
    let ended = place.run(&["explain", "zzz"]).expect(2);
    assert!(ended.stderr.contains("no incident has the id"), "{ended:#?}");
}

#[test]
fn times_of_a_program_that_served_no_login_are_not_drawn_with_those_of_logins() {
    let place = with_incident_of("/usr/bin/sudo cd34");
    let ended = place.run(&["explain", "aaa1"]).expect(1);
    assert!(ended.stdout.contains("the limit was 181.00 ms"), "{}", ended.stdout);
    assert!(ended.stdout.contains("No login times to draw"), "{}", ended.stdout);
    let object = place.run(&["explain", "aaa1", "--json"]).expect(1).lines().remove(0);
    assert_eq!(object["samples"], json!(null));
}

#[test]
fn a_picture_is_well_formed_and_says_whose_logins_it_shows() {
    let place = with(&three());
    let file = place.path("logins.svg");
    let name = file.to_str().unwrap();
    let hostile = "<script>&\u{1b}";
    let ended = place.run(&["logins", "--svg", name, "--user", hostile]).expect(0);
    assert_eq!(ended.stdout, "");
    let text = fs::read_to_string(&file).unwrap();
    assert_plain(&text);
    let document = roxmltree::Document::parse(&text).unwrap();
    let title = document.descendants().find(|node| node.has_tag_name("title")).unwrap();
    assert!(title.text().unwrap().starts_with("ssh logins of <script>&\u{fffd} on "), "{title:?}");
    assert!(document.descendants().all(|node| !node.has_tag_name("script")));
    let ended = place.run(&["logins", "--svg", "/nowhere/x.svg"]).expect(4);
    assert!(ended.stderr.contains("cannot write /nowhere/x.svg"), "{ended:#?}");
}
