use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::json;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

use super::client::{Answer, AskError};
use super::*;
use crate::logins::{Kept, Login};

/// A sensor in the state a test wants.
#[derive(Clone, Default)]
struct Told {
    stopped: Option<&'static str>,
    not_ready: Option<&'static str>,
    incidents: Vec<Value>,
    broken_store: bool,
    logins: Vec<Login>,
    /// How often logins were asked for.
    asked: Arc<AtomicUsize>,
}

impl Backend for Told {
    fn alive(&self) -> Result<(), String> {
        self.stopped.map_or(Ok(()), |reason| Err(reason.to_owned()))
    }

    fn ready(&self) -> Result<(), String> {
        self.not_ready.map_or(Ok(()), |reason| Err(reason.to_owned()))
    }

    fn probes(&self) -> Vec<ProbeReport> {
        vec![ProbeReport {
            probe: "exec".to_owned(),
            mechanism: None,
            price: None,
            reason: Some("<no BTF>".to_owned()),
            unseen: "programs that start".to_owned(),
            required: true,
        }]
    }

    fn incidents(&self, most: usize) -> Result<Vec<Value>, String> {
        if self.broken_store {
            return Err("the store is closed".to_owned());
        }
        Ok(self.incidents.iter().take(most).cloned().collect())
    }

    fn incident(&self, id: &str) -> Result<Option<Value>, String> {
        Ok(self.incidents.iter().find(|incident| incident["id"] == id).cloned())
    }

    fn suppressions(&self) -> Result<Vec<Value>, String> {
        if self.broken_store {
            return Err("the store is closed".to_owned());
        }
        Ok(vec![json!({"name": "edr", "matches": 3})])
    }

    fn logins(&self, query: &Query) -> Page {
        self.asked.fetch_add(1, Ordering::SeqCst);
        Kept::new(self.logins.len(), self.logins.clone()).find(query)
    }
}

struct Running {
    _runtime: Runtime,
    _stop: oneshot::Sender<()>,
    address: SocketAddr,
    metrics: Metrics,
}

impl Running {
    fn start(told: Told) -> Self {
        let runtime = Runtime::new().unwrap();
        let metrics = Metrics::new().unwrap();
        let server =
            runtime.block_on(Server::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))).unwrap();
        let address = server.local_addr();
        let (stop, stopped) = oneshot::channel();
        runtime.spawn(server.run(Arc::new(told), metrics.clone(), async {
            let _ = stopped.await;
        }));
        Self { _runtime: runtime, _stop: stop, address, metrics }
    }

    fn get(&self, path: &str) -> Answer {
        client::get(self.address, path).unwrap()
    }

    /// What comes back for raw bytes until the connection ends.
    fn raw(&self, request: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        // The server may close before it has read all of it.
        let _ = stream.write_all(request);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    }
}

#[test]
fn a_sensor_that_is_armed_is_alive_and_ready() {
    let running = Running::start(Told::default());
    for path in ["/healthz", "/readyz"] {
        let answer = running.get(path);
        assert_eq!((answer.status, answer.text().as_str()), (200, "ok\n"), "{path}");
    }
}

#[test]
fn a_sensor_that_is_not_armed_says_why() {
    let running = Running::start(Told { not_ready: Some("probe exec: no BTF"), ..Told::default() });
    assert_eq!(running.get("/healthz").status, 200);
    let answer = running.get("/readyz");
    assert_eq!((answer.status, answer.text().as_str()), (503, "probe exec: no BTF\n"));
    let probes = running.get("/api/v1/probes").json().unwrap();
    assert_eq!(probes["ready"], json!(false));
    assert_eq!(probes["reason"], json!("probe exec: no BTF"));
    assert_eq!(probes["probes"][0]["probe"], json!("exec"));
}

#[test]
fn a_sensor_whose_station_stopped_is_not_alive() {
    let running = Running::start(Told { stopped: Some("source stopped"), ..Told::default() });
    assert_eq!(running.get("/healthz").status, 503);
}

#[test]
fn metrics_are_served_in_prometheus_format_and_count_their_own_requests() {
    let running = Running::start(Told::default());
    assert_eq!(running.get("/nowhere").status, 404);
    let answer = running.raw(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").to_lowercase();
    assert!(answer.contains("content-type: text/plain; version=0.0.4"), "{answer}");
    assert!(answer.contains("halfsecond_http_requests_total{code=\"404\"} 1"), "{answer}");
    assert_eq!(running.metrics.http_requests.with_label_values(&["200"]).get(), 1);
}

#[test]
fn incidents_are_listed_and_shown() {
    let incidents = vec![json!({"id": "b", "title": "two"}), json!({"id": "a", "title": "one"})];
    let running = Running::start(Told { incidents, ..Told::default() });
    let listed = running.get("/api/v1/incidents").json().unwrap();
    assert_eq!(listed["incidents"][0]["id"], json!("b"));
    assert_eq!(running.get("/api/v1/incidents/a").json().unwrap()["title"], json!("one"));
    assert_eq!(running.get("/api/v1/incidents/c").status, 404);
    assert_eq!(running.get(&format!("/api/v1/incidents/{}", "x".repeat(500))).status, 404);
}

#[test]
fn logins_are_chosen_by_since_user_and_limit() {
    let login = |hour: u32, user: &str| -> Login {
        let mut value = crate::logins::sample();
        value["start"] = json!(format!("2026-11-21T{hour}:00:00Z"));
        value["user"] = json!(user);
        serde_json::from_value(value).unwrap()
    };
    let logins = vec![login(10, "alice"), login(11, "bob"), login(12, "alice")];
    let running = Running::start(Told { logins, ..Told::default() });
    let starts = |query: &str| -> Vec<String> {
        let answer = running.get(&format!("/api/v1/logins{query}")).json().unwrap();
        let each = |login: &Value| login["start"].as_str().unwrap()[11..13].to_owned();
        answer["logins"].as_array().unwrap().iter().map(each).collect()
    };
    assert_eq!(starts(""), ["12", "11", "10"]);
    assert_eq!(starts("?user=alice&limit=1"), ["12"]);
    assert_eq!(starts("?since=2026-11-21T11:00:00Z"), ["12", "11"]);
    let answer = running.get("/api/v1/logins?limit=1").json().unwrap();
    assert_eq!(
        (&answer["more"], &answer["logins"][0]["outcome"]),
        (&json!(true), &json!("accepted"))
    );
    let wrong = running.get("/api/v1/logins?since=yesterday");
    assert_eq!(wrong.status, 400);
    assert!(wrong.json().unwrap()["error"].as_str().unwrap().contains("RFC 3339"));
}

#[test]
fn one_answer_with_logins_is_made_at_a_time_and_holds_up_nothing_else() {
    // More than the kernel buffers for a client that does not read.
    let login: Login = serde_json::from_value(crate::logins::sample()).unwrap();
    let told = Told { logins: vec![login; 8000], ..Told::default() };
    let asked = Arc::clone(&told.asked);
    let running = Running::start(told);
    let ask = || {
        let mut stream = TcpStream::connect(running.address).unwrap();
        let request = b"GET /api/v1/logins?limit=20000 HTTP/1.1\r\nHost: localhost\r\n\r\n";
        stream.write_all(request).unwrap();
        stream
    };
    let mut idle = ask();
    idle.read_exact(&mut [0; 12]).unwrap();
    let mut next = ask();
    next.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let waited = next.read(&mut [0; 1]).unwrap_err();
    assert_eq!(waited.kind(), io::ErrorKind::WouldBlock, "it has no answer yet");
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    assert_eq!(running.get("/healthz").status, 200);
    drop(idle);
    next.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut answer = Vec::new();
    next.read_to_end(&mut answer).unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200") && answer.ends_with(b"\"more\":false}"));
    assert_eq!(asked.load(Ordering::SeqCst), 2);
}

#[test]
fn a_store_that_cannot_be_read_is_an_error_not_an_empty_list() {
    let running = Running::start(Told { broken_store: true, ..Told::default() });
    let answer = running.get("/api/v1/incidents");
    assert_eq!(answer.status, 500);
    assert_eq!(answer.json().unwrap()["error"], json!("the store is closed"));
    assert!(running.get("/").text().contains("Cannot be read: the store is closed"));
    assert_eq!(running.get("/api/v1/suppressions").status, 500);
}

#[test]
fn suppressions_are_listed_with_what_they_have_matched() {
    let running = Running::start(Told::default());
    let answer = running.get("/api/v1/suppressions");
    assert_eq!(answer.status, 200);
    let expected = json!({"suppressions": [{"name": "edr", "matches": 3}]});
    assert_eq!(answer.json().unwrap(), expected);
}

#[test]
fn the_console_escapes_what_processes_chose() {
    let incidents = vec![json!({
        "id": "\"><script>", "title": "<script>alert(1)</script>", "severity": "critical",
    })];
    let running = Running::start(Told { incidents, ..Told::default() });
    let page = running.get("/").text();
    assert!(!page.contains("<script>"), "{page}");
    assert!(page.contains("&lt;script&gt;alert(1)"), "{page}");
    assert!(page.contains("&lt;no BTF&gt;; not seen: programs that start"), "{page}");
}

#[test]
fn nothing_but_get_is_answered() {
    let running = Running::start(Told::default());
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"] {
        let answer = running.raw(
            format!("{method} /api/v1/incidents HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes(),
        );
        assert!(answer.starts_with("HTTP/1.1 405"), "{method}: {answer}");
    }
}

#[test]
fn a_foreign_host_name_is_refused_on_loopback() {
    let running = Running::start(Told::default());
    for (host, code) in [
        ("evil.example", "421"),
        ("evil.example:9477", "421"),
        ("localhost:9477", "200"),
        ("127.0.0.1", "200"),
        ("[::1]:9477", "200"),
    ] {
        let answer =
            running.raw(format!("GET /healthz HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes());
        assert!(answer.starts_with(&format!("HTTP/1.1 {code}")), "{host}: {answer}");
    }
}

#[test]
fn a_request_too_large_ends_the_connection_and_the_next_is_answered() {
    let running = Running::start(Told::default());
    let mut request = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: ".to_vec();
    request.extend(vec![b'x'; 1024 * 1024]);
    let answer = running.raw(&request);
    assert!(!answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(running.get("/healthz").status, 200);
}

#[test]
fn one_connection_carries_one_request() {
    let running = Running::start(Told::default());
    let request = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(3);
    let answer = running.raw(&request);
    assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{answer}");
}

#[test]
fn a_port_in_use_names_the_key() {
    let running = Running::start(Told::default());
    let error = Runtime::new().unwrap().block_on(Server::bind(running.address)).unwrap_err();
    assert!(matches!(error, BindError::InUse { .. }), "{error:?}");
    assert!(error.to_string().starts_with("`http.listen` = \"127.0.0.1:"), "{error}");
}

#[test]
fn an_address_of_nobody_names_the_key() {
    let address = "192.0.2.1:9477".parse().unwrap();
    let error = Runtime::new().unwrap().block_on(Server::bind(address)).unwrap_err();
    assert!(matches!(error, BindError::NoSuchAddress { .. }), "{error:?}");
}

#[test]
fn a_sensor_that_does_not_run_is_told_from_one_that_answers_nonsense() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    let nonsense = std::thread::spawn(move || {
        let (mut stream, _) = free.accept().unwrap();
        stream.write_all(b"SSH-2.0-OpenSSH_9.2\r\n").unwrap();
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let _ = stream.read_to_end(&mut Vec::new());
    });
    assert!(matches!(client::get(address, "/"), Err(AskError::Foreign { .. })));
    nonsense.join().unwrap();
    assert!(matches!(client::get(address, "/"), Err(AskError::NotRunning { .. })));
}
