//! What instruments the host: learned as a whole, told where it is new.

use super::*;
use crate::event::{FileKey, Role};
use crate::finding::ProcessRef;
use crate::host::{Body, Process, Program};
use crate::instrument::{self, Class, Instrument, Owner, Seen, Site, Uprobe, What};

const HOST: &str = "host";

fn observed(at: u64, owner: Option<&Owner>, body: Body) -> Observation {
    let module = ModuleId { path: HOST.to_owned(), build: "inode:none".to_owned() };
    let program = Program {
        file: FileKey::default(),
        subject: HOST.to_owned(),
        module,
        role: Role::default(),
        uncovered: None,
        root_unseen: false,
    };
    let shown = owner.map_or_else(ProcessRef::default, |owner| owner.shown.clone());
    let process = Process {
        id: ProcessId { tgid: shown.pid, start_ticks: 1 },
        program: Arc::new(program),
        lineage: Lineage::Program(HOST.to_owned()),
        shown,
        euid: 0,
        secure: false,
        injected: false,
        variables: Arc::default(),
    };
    let time = clock().wall(at * MS);
    Observation { ktime_ns: at * MS, time, process: Arc::new(process), connection: None, body }
}

fn owner(exe: &str, package: Option<&str>, is_tool: bool) -> Owner {
    let shown = ProcessRef { pid: 7, exe: exe.to_owned(), ..ProcessRef::default() };
    Owner { shown, package: package.map(str::to_owned), is_tool, ..Owner::default() }
}

fn program(name: &str, kind: &str) -> What {
    What::Program(instrument::Program {
        kind: kind.to_owned(),
        name: name.to_owned(),
        tag: 1,
        loaded: None,
        uid: Some(0),
        places: Vec::new(),
        functions: Vec::new(),
    })
}

fn news(at: u64, what: What, owner: Option<Owner>, site: Option<Site>) -> Observation {
    let instrument = Instrument { id: at.to_string(), what, holders: Vec::new() };
    let process = owner.clone();
    let seen = Seen { instrument, owner, site };
    observed(at, process.as_ref(), Body::Instrument(Box::new(seen)))
}

fn settle(bench: &mut Bench) {
    for at in 0..u64::from(Config::default().learning.observations) {
        bench.analysis.on_observation(observed(1000 + at, None, Body::Surveyed));
    }
}

fn found(bench: &mut Bench, seen: Observation) -> Vec<(&'static str, Severity)> {
    bench.told.extend(bench.analysis.on_observation(seen));
    bench.analysis.found()
}

#[test]
fn what_was_there_while_learning_is_usual_and_what_comes_later_is_told() {
    let mut bench = Bench::new();
    let loader = || Some(owner("/usr/sbin/agent", None, false));
    assert_eq!(found(&mut bench, news(1, program("watch", "kprobe"), loader(), None)), []);
    settle(&mut bench);
    assert_eq!(found(&mut bench, news(2001, program("watch", "kprobe"), loader(), None)), []);
    // The same by another program is something else.
    let other = Some(owner("/tmp/agent", None, false));
    let told = found(&mut bench, news(2002, program("watch", "kprobe"), other, None));
    assert_eq!(told, [("kernel_hook", Severity::Medium)]);
    let told = found(&mut bench, news(2003, program("guard", "lsm"), loader(), None));
    assert_eq!(told, [("kernel_hook", Severity::High)]);
    // It does not become usual by itself.
    let again = found(&mut bench, news(2004, program("guard", "lsm"), loader(), None));
    assert_eq!(again, [("kernel_hook", Severity::High)]);
}

#[test]
fn a_packaged_service_that_loads_what_it_always_loads_is_explained_and_learned() {
    let mut bench = Bench::new();
    settle(&mut bench);
    let systemd = || Some(owner("/usr/lib/systemd/systemd", Some("systemd 252"), true));
    let seen = || news(3000, program("sd_devices", "cgroup_device"), systemd(), None);
    assert_eq!(found(&mut bench, seen()), [("kernel_hook", Severity::Info)]);
    assert_eq!(found(&mut bench, seen()), []);
    // What comes in its shadow is not learned along with it.
    let shadow =
        news(3001, program("watch", "kprobe"), Some(owner("/tmp/agent", None, false)), None);
    assert_eq!(found(&mut bench, shadow), [("kernel_hook", Severity::Medium)]);
}

#[test]
fn a_probe_in_pam_is_told_while_learning_with_owner_file_and_function() {
    let mut bench = Bench::new();
    let path = "/lib/libpam.so.0".to_owned();
    let uprobe = What::Uprobe(Uprobe {
        file: None,
        path: path.clone().into(),
        offset: 0x3640,
        is_return: false,
        is_usdt: false,
        by: "perf",
        program: Some((9, "steal".to_owned())),
    });
    let site =
        Site { path, class: Class::Guarded, symbol: Some(("pam_authenticate".to_owned(), 0)) };
    let thief = Some(owner("/tmp/thief", None, false));
    let told = found(&mut bench, news(1, uprobe, thief, Some(site)));
    assert_eq!(told, [("foreign_probe", Severity::High)]);
    let incident = bench.incident();
    for word in ["/tmp/thief", "pam_authenticate", "libpam.so.0", "0x3640", "uprobe"] {
        assert!(incident.story.contains(word), "{word}: {}", incident.story);
    }
    assert!(incident.title.contains("pam_authenticate"), "{}", incident.title);
    assert!(incident.recommendation.contains("Passwords"), "{}", incident.recommendation);
}
