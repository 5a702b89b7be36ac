//! Libraries opened after the start: for whom, and what of it is learned.

use super::*;

const PAM: &str = "/usr/lib/x86_64-linux-gnu/security/pam_unix.so";

fn login() -> Login {
    Login { opened: vec![PathBuf::from(PAM)], ..Login::new("publickey") }
}

fn learned() -> Bench {
    let mut bench = Bench::new();
    for _ in 0..40 {
        bench.login(&login());
    }
    assert_eq!(bench.fired(), Vec::<&str>::new());
    bench
}

fn opened(incident: &Incident) -> &Evidence {
    let all = incident.findings.iter().filter(|one| one.detector == "dlopen_unexpected");
    let evidence = all.flat_map(|one| &one.evidence);
    evidence.into_iter().find(|one| matches!(one, Evidence::Opened { .. })).unwrap()
}

#[test]
fn a_known_library_for_another_module_is_told_with_both() {
    let mut bench = learned();
    bench.login(&Login { asker: PathBuf::from(CRYPTO), ..login() });
    assert_eq!(bench.fired(), ["dlopen_unexpected"]);
    let incident = bench.incident();
    assert_eq!(incident.severity, Severity::Medium);
    let Evidence::Opened { library, caller_module, known, namespace, .. } = opened(incident) else {
        panic!("{incident:#?}")
    };
    assert_eq!((library.as_str(), caller_module.as_str()), (PAM, CRYPTO));
    assert_eq!((known.as_slice(), *namespace), (&[SSHD_PATH.to_owned()][..], None));
    assert!(incident.story.contains("asked for by libcrypto.so.3"), "{}", incident.story);
    assert!(incident.story.contains("while learning only sshd asked"), "{}", incident.story);
    // It is not learned by being repeated.
    for _ in 0..5 {
        bench.login(&Login { asker: PathBuf::from(CRYPTO), ..login() });
    }
    assert!(bench.findings.contains(&("dlopen_unexpected", 6)), "{:?}", bench.findings);
}

#[test]
fn a_module_nobody_knows_that_opens_a_known_library_is_worse() {
    let mut bench = learned();
    bench.login(&Login { asker: PathBuf::from(EVIL), ..login() });
    assert_eq!(bench.fired(), ["dlopen_unexpected"]);
    assert_eq!(bench.incident().severity, Severity::High);
}

#[test]
fn a_new_library_for_a_known_module_is_one_incident_with_its_asker() {
    let mut bench = learned();
    let evil = PathBuf::from("/usr/lib/security/pam_evil.so");
    bench.login(&Login { opened: vec![PathBuf::from(PAM), evil], ..login() });
    assert_eq!(bench.fired(), ["library_unexpected", "dlopen_unexpected"]);
    let incident = bench.incident();
    assert_eq!(incident.severity, Severity::High);
    let Evidence::Opened { library, caller, .. } = opened(incident) else { unreachable!() };
    assert!(library.ends_with("pam_evil.so") && caller.starts_with("sshd+0x"), "{caller}");
}

#[test]
fn code_in_no_file_is_told_while_learning_and_before_the_login_ends() {
    let mut bench = Bench::new();
    bench.login(&login());
    let asker = PathBuf::from(NOWHERE);
    bench.login(&Login { asker, succeeds: false, ..login() });
    assert_eq!(bench.fired(), ["dlopen_unexpected"]);
    let incident = bench.incident();
    assert_eq!(incident.severity, Severity::Critical);
    let connection = incident.findings[0]
        .evidence
        .iter()
        .any(|one| matches!(one, Evidence::Connection { authenticated: false, .. }));
    assert!(connection, "{incident:#?}");
}

#[test]
fn another_build_of_the_asker_is_a_remark_beside_what_is_said_of_the_build() {
    let mut bench = learned();
    let subject = format!("{SSHD_PATH} {}", build(1));
    let known = bench.analysis.baseline(&subject).openings.clone();
    assert_eq!(known.askers(PAM).map(ModuleId::name).collect::<Vec<_>>(), ["sshd"]);
    let other = ModuleId { path: SSHD_PATH.to_owned(), build: "02".to_owned() };
    assert!(known.other_build(PAM, &other).is_some() && !known.knows(PAM, &other));
}

#[test]
fn strangers_teach_no_opening() {
    let mut bench = Bench::new();
    for _ in 0..100 {
        bench.login(&Login { succeeds: false, ..login() });
    }
    let subject = format!("{SSHD_PATH} {}", build(1));
    assert!(bench.analysis.baseline(&subject).openings.askers.is_empty());
}

#[test]
fn who_asks_and_was_not_seen_while_learning_is_learned_once_he_is() {
    let mut bench = Bench::new();
    let late = |bench: &Bench, late| bench.world.fake.0.lock().unwrap().late = late;
    // A machine under load, until long after the program is settled.
    late(&bench, true);
    for _ in 0..60 {
        bench.login(&login());
    }
    let subject = format!("{SSHD_PATH} {}", build(1));
    let known = |bench: &mut Bench| bench.analysis.baseline(&subject).clone();
    assert!(known(&mut bench).settled(20, true) && known(&mut bench).openings.askers.is_empty());
    late(&bench, false);
    for _ in 0..3 {
        bench.login(&login());
    }
    assert_eq!(bench.fired(), Vec::<&str>::new());
    let askers = known(&mut bench).openings.askers;
    assert_eq!(askers[PAM].iter().map(ModuleId::name).collect::<Vec<_>>(), ["sshd"]);
    // Whoever is no part of the program is told all the same.
    bench.login(&Login { asker: PathBuf::from(EVIL), ..login() });
    assert_eq!(bench.fired(), ["dlopen_unexpected"]);
    assert_eq!(bench.incident().severity, Severity::High);
}

#[test]
fn who_was_seen_often_enough_since_is_known_to_be_the_only_one() {
    let mut bench = Bench::new();
    bench.world.fake.0.lock().unwrap().late = true;
    for _ in 0..30 {
        bench.login(&login());
    }
    bench.world.fake.0.lock().unwrap().late = false;
    for _ in 0..25 {
        bench.login(&login());
    }
    // Once it is settled, one that is not seen opens nothing again.
    bench.world.fake.0.lock().unwrap().late = true;
    bench.login(&login());
    bench.world.fake.0.lock().unwrap().late = false;
    assert_eq!(bench.fired(), Vec::<&str>::new());
    bench.login(&Login { asker: PathBuf::from(CRYPTO), ..login() });
    assert_eq!(bench.fired(), ["dlopen_unexpected"]);
}

#[test]
fn a_library_that_is_read_for_the_first_time_is_no_new_opening() {
    let mut bench = Bench::new();
    let ino = bench.world.fake.0.lock().unwrap().inode(Path::new(PAM));
    bench.world.fake.0.lock().unwrap().unread.push(ino);
    for _ in 0..40 {
        bench.login(&login());
    }
    bench.world.fake.0.lock().unwrap().unread.clear();
    for _ in 0..3 {
        bench.login(&login());
    }
    assert_eq!(bench.fired(), Vec::<&str>::new());
    // Another file in its place is.
    bench.world.fake.0.lock().unwrap().files.insert(PathBuf::from(PAM), 4711);
    bench.login(&login());
    assert_eq!(bench.fired(), ["library_unexpected", "dlopen_unexpected"]);
}

#[test]
fn a_module_that_is_read_for_the_first_time_asks_and_calls_as_before() {
    let mut bench = Bench::new();
    let lzma = PathBuf::from(LZMA);
    let usual = Login { asker: lzma.clone(), caller: lzma, ..login() };
    let ino = bench.world.fake.0.lock().unwrap().inode(Path::new(LZMA));
    bench.world.fake.0.lock().unwrap().unread.push(ino);
    for _ in 0..40 {
        bench.login(&usual);
    }
    bench.world.fake.0.lock().unwrap().unread.clear();
    for _ in 0..3 {
        bench.login(&usual);
    }
    assert_eq!(bench.fired(), Vec::<&str>::new());
    let subject = format!("{SSHD_PATH} {}", build(1));
    let known = bench.analysis.baseline(&subject).openings.clone();
    let builds: Vec<_> = known.askers(PAM).map(|asker| asker.build.as_str()).collect();
    assert_eq!(builds, [build(ino)], "what could not be read has given way");
}

#[test]
fn how_long_it_took_to_link_is_told() {
    let mut bench = learned();
    let world = &mut bench.world;
    let tgid = world.fresh();
    world.fork(LISTENER, tgid, SSHD);
    world.exec(tgid, LISTENER, SSHD_PATH, BELOW, 0);
    world.open(tgid, SSHD_PATH, Path::new(PAM), Path::new(EVIL));
    world.now += 30 * MS;
    world.seal(tgid, Path::new(PAM));
    world.exit(tgid, BELOW, MS);
    bench.run();
    let Evidence::Opened { seconds: Some(took), .. } = opened(bench.incident()) else {
        panic!("{:#?}", bench.incident())
    };
    assert!((0.030..0.031).contains(took), "{took}");
}

#[test]
fn a_namespace_of_its_own_is_low_at_first_and_medium_once_settled() {
    for (logins, severity) in [(0, Severity::Low), (40, Severity::Medium)] {
        let mut bench = Bench::new();
        for _ in 0..logins {
            bench.login(&login());
        }
        let module = ModuleId { path: PAM.to_owned(), build: "ab".to_owned() };
        let apart = Namespace { number: 1, modules: vec![module] };
        bench.slots.0.lock().unwrap().4.namespaces = vec![apart];
        bench.login(&login());
        bench.world.now += 1_000 * MS;
        bench.run();
        assert_eq!(bench.fired(), ["dlopen_unexpected"]);
        let incident = bench.incident();
        assert_eq!((incident.severity, incident.findings.len()), (severity, 1), "{incident:#?}");
        let Evidence::Opened { namespace, .. } = opened(incident) else { unreachable!() };
        assert_eq!(*namespace, Some(1));
        assert!(incident.title.contains("in a namespace of its own"), "{}", incident.title);
    }
}
