//! What may be approved, and what never.

use super::*;
use crate::host::Method;

fn module(path: &str, build: &str) -> ModuleId {
    ModuleId { path: path.to_owned(), build: build.to_owned() }
}

fn approval(object: Object) -> Approval {
    let (who, why) = ("alice".to_owned(), "planned change 42".to_owned());
    Approval { time: "2026-11-21T10:00:00Z".parse().unwrap(), who, why, object }
}

fn library(path: &str, build: &str) -> Object {
    Object::Library { module: module(path, build) }
}

fn sshd() -> Baseline {
    let mut baseline = Baseline::default();
    for path in ["/usr/sbin/sshd", "/lib/libcrypto.so.3"] {
        baseline.add_library(&module(path, "aa"), Timestamp::UNIX_EPOCH, false);
    }
    for _ in 0..50 {
        baseline.add_start(Timestamp::UNIX_EPOCH, Some(Method::Publickey));
    }
    baseline
}

#[test]
fn what_is_approved_is_known_from_then_on_with_who_and_why() {
    let mut baseline = sshd();
    let before = baseline.since_new;
    let all = [
        library("/lib/new.so", "bb"),
        Object::Caller {
            function: "RSA_public_decrypt".to_owned(),
            module: module("/lib/new.so", "bb"),
        },
        Object::Asker {
            library: "/lib/libcrypto.so.3".to_owned(),
            module: module("/lib/new.so", "bb"),
        },
        Object::Variable { name: "LD_PRELOAD=/lib/new.so".to_owned() },
        Object::Variable { name: "LD_LIBRARY_PATH".to_owned() },
        Object::Helper { path: "/usr/lib/openssh/fetch-keys".to_owned() },
        Object::Instrument { key: "kprobe of x".to_owned() },
    ];
    for object in &all {
        baseline.approve(&approval(object.clone())).unwrap();
    }
    assert!(baseline.has_library(&module("/lib/new.so", "bb")));
    assert!(!baseline.has_library(&module("/lib/new.so", "cc")), "this build, no other");
    let callers = &baseline.callers["RSA_public_decrypt"].modules;
    assert_eq!(callers.iter().collect::<Vec<_>>(), [&module("/lib/new.so", "bb")]);
    assert!(baseline.openings.knows("/lib/libcrypto.so.3", &module("/lib/new.so", "bb")));
    assert!(baseline.environment.contains("LD_PRELOAD=/lib/new.so"));
    assert!(baseline.helpers.contains("/usr/lib/openssh/fetch-keys"));
    assert_eq!(baseline.since_new, before, "it stays settled");
    let told: Vec<&Object> = baseline.approvals.iter().map(|one| &one.object).collect();
    assert_eq!(told, all.iter().collect::<Vec<_>>());
    assert_eq!((&*baseline.approvals[0].who, baseline.approvals[0].why.len()), ("alice", 17));
    // It survives the store, and a second time is no second approval.
    let json = serde_json::to_string(&baseline).unwrap();
    let mut read: Baseline = serde_json::from_str(&json).unwrap();
    read.approve(&approval(all[0].clone())).unwrap();
    assert_eq!(read, baseline);
}

#[test]
fn code_that_nobody_can_look_at_is_never_approved() {
    for (path, build) in [
        ("/memfd:x (deleted)", "aa"),
        ("/memfd:x", "aa"),
        ("/lib/gone.so (deleted)", "aa"),
        ("[anon]", "aa"),
        ("/dev/shm/x.so", "aa"),
        ("/lib/x.so", "unread:1:2:3"),
    ] {
        let mut baseline = sshd();
        let before = baseline.clone();
        let error = baseline.approve(&approval(library(path, build))).unwrap_err();
        assert!(matches!(error, NotApproved::Homeless(_)), "{path}: {error}");
        assert_eq!(baseline, before);
    }
}

#[test]
fn a_foreign_caller_is_approved_only_as_a_library_of_the_program() {
    let mut baseline = sshd();
    let caller = |build: &str| Object::Caller {
        function: "RSA_public_decrypt".to_owned(),
        module: module("/lib/liblzma.so.5", build),
    };
    let error = baseline.approve(&approval(caller("bb"))).unwrap_err();
    assert!(error.to_string().contains("approve the library first"), "{error}");
    baseline.approve(&approval(library("/lib/liblzma.so.5", "bb"))).unwrap();
    assert!(baseline.approve(&approval(caller("cc"))).is_err(), "another build");
    baseline.approve(&approval(caller("bb"))).unwrap();
    assert_eq!(baseline.callers.len(), 1, "no other function");
}

#[test]
fn nothing_is_approved_that_stands_for_more_than_it_names() {
    let mut baseline = sshd();
    let before = baseline.clone();
    for path in ["/bin/sh", "/usr/bin/python3.11", "/usr/bin/env", "/usr/bin/perl5.36.0"] {
        let error = baseline.approve(&approval(Object::Helper { path: path.to_owned() }));
        assert_eq!(error, Err(NotApproved::Interpreter(path.to_owned())));
    }
    for path in ["sh", "../x", "/usr/../bin/x", ""] {
        assert!(baseline.approve(&approval(Object::Helper { path: path.to_owned() })).is_err());
    }
    for (name, blanket) in
        [("LD_PRELOAD", true), ("LD_AUDIT", true), ("LD_PRELOAD=x.so", false), ("A=b", false)]
    {
        let error = baseline.approve(&approval(Object::Variable { name: name.to_owned() }));
        assert_eq!(matches!(error, Err(NotApproved::Blanket(_))), blanket, "{error:?}");
        assert!(error.is_err(), "{name}");
    }
    assert_eq!(baseline, before);
}

#[test]
fn somebody_has_to_stand_for_it() {
    for (who, why) in [("", "x"), ("x", " "), ("a\nb", "x"), (&*"x".repeat(129), "x")] {
        let (who, why) = (who.to_owned(), why.to_owned());
        let one = Approval { who, why, ..approval(library("/lib/a.so", "aa")) };
        assert!(matches!(one.check(), Err(NotApproved::Words(_))), "{one:?}");
    }
}

#[test]
fn a_stream_that_is_reset_learns_anew_and_does_not_come_back_from_its_samples() {
    let mut baseline = sshd();
    for _ in 0..60 {
        baseline.add_constructors(300_000);
        baseline.add_auth(Method::Publickey, 30_000_000, Some(8_000_000), Some(100));
    }
    let stream = check(Method::Publickey);
    assert!(baseline.shifts[&stream].yardstick().is_some());
    baseline.approve(&approval(Object::Times { stream: stream.clone() })).unwrap();
    assert!(baseline.shifts[&stream].yardstick().is_none());
    assert!(!baseline.auth.contains_key(&Method::Publickey));
    assert!(baseline.shifts[CONSTRUCTOR].yardstick().is_some(), "the other one stays");
    baseline.approve(&approval(Object::Times { stream: CONSTRUCTOR.to_owned() })).unwrap();
    baseline.adopt();
    assert!(baseline.shifts[CONSTRUCTOR].yardstick().is_none());
    let none = baseline.approve(&approval(Object::Times { stream: "x".to_owned() }));
    assert_eq!(none, Err(NotApproved::NoStream("x".to_owned())));
}

#[test]
fn approvals_are_bounded() {
    let mut baseline = Baseline::default();
    for at in 0..1000 {
        let _ = baseline.approve(&approval(library(&format!("/lib/{at}.so"), "aa")));
    }
    assert_eq!(baseline.approvals.len(), APPROVALS_MAX);
    assert_eq!(baseline.libraries.len(), APPROVALS_MAX);
}
