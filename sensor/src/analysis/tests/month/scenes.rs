//! What the kept recordings hold, cut into scenes: a login, a start of `su`. Each is what was recorded,
//! step by step, and can be played again by other processes at another time.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Value, json};

use crate::detect::CheckReport;
use crate::host::{Body, ConnectionId, Observation, ProcessId};
use crate::record::{Reader, Step};

/// Steps that belong together.
#[derive(Clone, Debug)]
pub(super) struct Scene {
    /// `CLOCK_MONOTONIC` of its first step, ns.
    pub(super) begun_ns: u64,
    /// Observations as recorded, JSON.
    pub(super) steps: Vec<Value>,
    /// What a check of its processes found.
    pub(super) report: CheckReport,
}

/// All of them.
#[derive(Debug)]
pub(super) struct Scenes {
    /// Logins by key.
    pub(super) keys: Vec<Scene>,
    /// Logins by password.
    pub(super) passwords: Vec<Scene>,
    /// Passwords that are refused. No kept recording has one: logins by password up to the answer,
    /// which is no, and without what follows a yes.
    pub(super) refused: Vec<Scene>,
    /// Logins by key to an sshd that the fixture has hooked.
    pub(super) hooked: Vec<Scene>,
    /// Starts of `su`.
    pub(super) su: Vec<Scene>,
    /// The start of a login's shell: what any other program's start is made of.
    pub(super) start: Scene,
    /// A library that a program maps.
    pub(super) library: Value,
}

/// A library as one scene of a program mapped it.
struct Part {
    exe: String,
    path: String,
    after_ns: u64,
    body: Value,
}

// === impl Scenes ===

impl Scenes {
    pub(super) fn read() -> Self {
        let (clean, attacked) = (steps("clean"), steps("attacked"));
        let (logins, late) = (logins(&clean), logins(&attacked));
        let su = programs(&attacked, "/usr/bin/su");
        let parts = parts(logins.iter().chain(&late).chain(&su));
        let whole = |scene: &Scene| scene.with_libraries(&parts);
        let by = |method: &str| -> Vec<Scene> {
            logins.iter().filter(|scene| scene.method() == method).map(whole).collect()
        };
        let (keys, passwords) = (by("publickey"), by("password"));
        let hooked = late.iter().filter(|scene| !scene.report.mismatches.is_empty());
        let first = keys.first().expect("a login by key");
        let shell = first.steps.iter().find(|seen| text(seen, EXE).ends_with("bash"));
        let shell = shell.expect("a shell").clone();
        let start = Scene { begun_ns: ktime(&shell), steps: vec![shell], ..first.clone() };
        let library = parts.first().expect("a library").body.clone();
        let refused = passwords.iter().map(Scene::refused).collect();
        // Those with a variable in their environment are another story.
        let su = su.iter().filter(|scene| !scene.has("Environment")).map(whole).collect();
        let hooked = hooked.map(whole).collect();
        Self { keys, passwords, refused, hooked, su, start, library }
    }
}

// === impl Scene ===

impl Scene {
    fn new(steps: &[Step], belongs: impl Fn(&Observation) -> bool) -> Self {
        let mut all = Vec::new();
        let mut processes: BTreeSet<ProcessId> = BTreeSet::new();
        let mut report = CheckReport::default();
        for step in steps {
            match step {
                Step::Seen(seen) if belongs(seen) => {
                    processes.insert(seen.process.id);
                    all.push(serde_json::to_value(seen).unwrap());
                }
                Step::Answer(answer) if processes.contains(&answer.process) => {
                    report = answer.outcome.clone().expect("it could be checked");
                }
                _ => {}
            }
        }
        Self { begun_ns: ktime(all.first().expect("a step")), steps: all, report }
    }

    fn has(&self, body: &str) -> bool {
        self.steps.iter().any(|seen| kind(seen) == body)
    }

    /// The method by which it let somebody in.
    fn method(&self) -> &str {
        self.steps.last().map_or("", |seen| text(seen, "/connection/method"))
    }

    /// Files that it maps, its programs left out.
    fn maps(&self, exe: &str) -> BTreeSet<String> {
        let mine = self.steps.iter().filter(|seen| text(seen, EXE) == exe);
        let of = |seen: &Value| -> Vec<String> {
            let shares = seen.pointer("/body/Linked/shares").and_then(Value::as_array);
            let linked = shares.into_iter().flatten().map(|share| text(share, "/module/path"));
            let opened = text(seen, "/body/Opened/module/path");
            linked.chain([opened]).map(str::to_owned).collect()
        };
        let all = mine.flat_map(of);
        // The last one to be linked is the program, which the imitated machine calls sshd whoever it is.
        let own = |path: &String| path == exe || path.ends_with("/sshd");
        all.filter(|path| !path.is_empty() && !own(path)).collect()
    }

    /// The same with every library told, as when no start of the program was seen before. The kernel side
    /// tells each only once, so that most scenes were recorded without.
    fn with_libraries(&self, parts: &[Part]) -> Self {
        let mut steps = self.steps.clone();
        steps.retain(|seen| kind(seen) != "Library");
        let exe = text(steps.first().expect("a step"), EXE).to_owned();
        let wanted = self.maps(&exe);
        let mine = parts.iter().filter(|part| part.exe == exe && wanted.contains(&part.path));
        let mut found = BTreeSet::new();
        for part in mine.filter(|part| found.insert(&part.path)) {
            let at_ns = self.begun_ns + part.after_ns;
            let later = |seen: &Value| match kind(seen) {
                "Linked" => links(&part.body),
                "Called" | "Verdict" => true,
                _ => ktime(seen) > at_ns && links(&part.body),
            };
            let at = steps.iter().position(later).unwrap_or(steps.len());
            let mut seen = steps[at - 1].clone();
            seen["ktime_ns"] = json!(at_ns);
            seen["body"] = part.body.clone();
            steps.insert(at, seen);
        }
        assert_eq!(found.len(), wanted.len(), "each was told once");
        Self { steps, ..self.clone() }
    }

    /// The proof was wrong.
    fn refused(&self) -> Self {
        let mut steps = self.steps.clone();
        steps.retain(|seen| kind(seen) != "Session" && text(seen, EXE).ends_with("/sshd"));
        for seen in &mut steps {
            let connection = &mut seen["connection"];
            connection["authenticated"] = json!(false);
            connection["session"] = json!(false);
            connection["method"] = Value::Null;
            connection["marks"]["account"] = Value::Null;
            if let Some(verdict) = seen.pointer_mut("/body/Verdict") {
                verdict["accepted"] = json!(false);
            }
        }
        Self { steps, ..self.clone() }
    }

    /// On a machine that is so busy that everything takes longer, percent of the time it took.
    pub(super) fn slow(&self, percent: u64) -> Self {
        let mut slow = self.clone();
        slow.steps.iter_mut().for_each(|seen| stretch(seen, percent));
        slow
    }

    /// Of its own accord: not on behalf of a connection.
    pub(super) fn without_connection(&self, bodies: &[&str]) -> Self {
        let mut steps = self.steps.clone();
        let exe = text(steps.first().expect("a step"), EXE).to_owned();
        steps.retain(|seen| bodies.contains(&kind(seen)) && text(seen, EXE) == exe);
        steps.retain(|seen| kind(seen) != "Library" || links(&seen["body"]));
        let first = steps.first().map(|seen| seen["process"]["id"].clone());
        steps.retain(|seen| Some(&seen["process"]["id"]) == first.as_ref());
        for seen in &mut steps {
            seen["connection"] = Value::Null;
        }
        Self { steps, ..self.clone() }
    }
}

/// Where an observation has the path of its program.
pub(super) const EXE: &str = "/process/program/module/path";

/// A text in JSON; empty where there is none.
pub(super) fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or("")
}

/// What an observation is about.
pub(super) fn kind(seen: &Value) -> &str {
    let body = &seen["body"];
    body.as_str().or_else(|| body.as_object()?.keys().next().map(String::as_str)).unwrap_or("")
}

/// When, ns.
pub(super) fn ktime(seen: &Value) -> u64 {
    seen["ktime_ns"].as_u64().expect("a time")
}

/// A library that is mapped before the program runs.
fn links(body: &Value) -> bool {
    body.pointer("/Library/during_link") == Some(&json!(true))
}

fn stretch(value: &mut Value, percent: u64) {
    match value {
        Value::Array(all) => all.iter_mut().for_each(|one| stretch(one, percent)),
        Value::Object(map) => {
            for (key, one) in map {
                let times = ["cpu_ns", "wall_ns", "check_ns"].contains(&key.as_str());
                match one.as_u64().filter(|_| times) {
                    Some(ns) => *one = json!(ns * percent / 100),
                    None => stretch(one, percent),
                }
            }
        }
        _ => {}
    }
}

fn steps(name: &str) -> Vec<Step> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recordings");
    let bytes = std::fs::read(folder.join(format!("{name}.rec"))).unwrap();
    let mut reader = Reader::open(&bytes[..]).unwrap();
    std::iter::from_fn(|| reader.step().unwrap()).collect()
}

/// Each connection that was seen to its end.
fn logins(steps: &[Step]) -> Vec<Scene> {
    let mut ids: Vec<ConnectionId> = Vec::new();
    let mut sessions: BTreeSet<(ConnectionId, ProcessId)> = BTreeSet::new();
    for (seen, connection) in steps.iter().filter_map(connected) {
        if matches!(seen.body, Body::Session) {
            sessions.insert((connection, seen.process.id));
        }
        if matches!(seen.body, Body::Closed) {
            ids.push(connection);
        }
    }
    let scene = |id: &ConnectionId| {
        Scene::new(steps, |seen| match &seen.connection {
            Some(connection) => connection.id == *id,
            None => sessions.contains(&(*id, seen.process.id)),
        })
    };
    ids.iter().map(scene).collect()
}

fn connected(step: &Step) -> Option<(&Observation, ConnectionId)> {
    match step {
        Step::Seen(seen) => Some((&**seen, seen.connection.as_ref()?.id)),
        _ => None,
    }
}

/// Each start of a program.
fn programs(steps: &[Step], path: &str) -> Vec<Scene> {
    let started = |step: &Step| match step {
        Step::Seen(seen) if matches!(seen.body, Body::Started) => {
            (seen.process.program.module.path == path).then_some(seen.process.id)
        }
        _ => None,
    };
    let ids: Vec<ProcessId> = steps.iter().filter_map(started).collect();
    ids.iter().map(|id| Scene::new(steps, |seen| seen.process.id == *id)).collect()
}

fn parts<'a>(scenes: impl Iterator<Item = &'a Scene>) -> Vec<Part> {
    let mut parts = Vec::new();
    for scene in scenes {
        for seen in scene.steps.iter().filter(|seen| kind(seen) == "Library") {
            parts.push(Part {
                exe: text(seen, EXE).to_owned(),
                path: text(seen, "/body/Library/module/path").to_owned(),
                after_ns: ktime(seen) - scene.begun_ns,
                body: seen["body"].clone(),
            });
        }
    }
    parts
}
