//! What is normal, what is odd, and what strangers may teach.

use super::*;

#[test]
fn strangers_teach_nothing() {
    let mut bench = Bench::new();
    for _ in 0..200 {
        bench.login(&Login { succeeds: false, ..Login::new("password") });
    }
    let subject = format!("{SSHD_PATH} {}", build(1));
    let learned = bench.analysis.baseline(&subject).clone();
    assert_eq!(learned, Baseline::default());
    assert_eq!(bench.fired(), Vec::<&str>::new());
    // The first who are let in teach, and are not suspected for what only they bring.
    bench.learn(Tree::V9);
    assert!(bench.analysis.baseline(&subject).settled(20, true));
}

#[test]
fn a_first_password_after_keys_alone_may_bring_its_own_libraries() {
    let mut bench = Bench::new();
    for _ in 0..60 {
        bench.login(&Login { opened: Vec::new(), ..Login::new("publickey") });
    }
    let mut login = Login::new("password");
    login.opened.push(PathBuf::from("/usr/lib/security/pam_krb5.so"));
    for _ in 0..30 {
        bench.login(&login);
    }
    assert_eq!(bench.fired(), Vec::<&str>::new());
    // Once passwords are known too, one more library is one too many.
    login.opened.push(PathBuf::from("/usr/lib/security/pam_evil.so"));
    bench.login(&login);
    assert_eq!(bench.fired(), ["library_unexpected", "dlopen_unexpected"]);
    assert_eq!(bench.incident().severity, Severity::High);
}

#[test]
fn a_stranger_who_tries_an_unused_method_alarms_nobody() {
    let mut bench = Bench::new();
    for _ in 0..60 {
        bench.login(&Login { opened: Vec::new(), ..Login::new("publickey") });
    }
    for _ in 0..5 {
        bench.login(&Login { succeeds: false, ..Login::new("password") });
    }
    assert_eq!(bench.fired(), Vec::<&str>::new());
}

#[test]
fn a_new_link_time_library_alarms_whatever_the_method() {
    let mut bench = Bench::new();
    bench.learn(Tree::V9);
    let mut login = Login::new("publickey").with_evil(0);
    login.caller = PathBuf::from(SSHD_PATH);
    bench.login(&login);
    bench.login(&login);
    assert_eq!(bench.fired(), ["library_unexpected"]);
    let incident = bench.incident();
    assert_eq!((incident.severity, incident.findings.len()), (Severity::High, 1));
    let count = bench.findings.iter().find(|(id, _)| *id == "library_unexpected").unwrap().1;
    assert_eq!(count, 2, "asked for again, so told again");
}

#[test]
fn a_burn_alone_is_medium_for_the_linker_and_named() {
    let mut bench = Bench::new();
    bench.learn(Tree::V9);
    let mut login = Login::new("publickey");
    for (path, cpu) in &mut login.libraries {
        if path == Path::new(LZMA) {
            *cpu += 300 * MS;
        }
    }
    bench.login(&login);
    let incident = bench.incident();
    assert_eq!(detectors(incident), ["auth_cpu_shift", "link_time_shift"]);
    let link = incident.findings.iter().find(|f| f.detector == "link_time_shift").unwrap();
    assert_eq!(link.severity, Severity::Medium);
    let named = link.evidence.iter().any(|evidence| {
        matches!(evidence, Evidence::Timing { module: Some(module), .. } if module == LZMA)
    });
    assert!(named, "{:?}", link.evidence);
    assert_eq!(incident.severity, Severity::High, "two families agree");
}

#[test]
fn a_small_burn_shows_in_a_run_of_logins_and_drift_does_not() {
    let mut bench = Bench::new();
    bench.learn(Tree::V9);
    for _ in 0..12 {
        bench.login(&Login { slow_percent: 176, ..Login::new("publickey") });
    }
    assert_eq!(bench.fired(), Vec::<&str>::new());
    let mut login = Login::new("publickey");
    for (path, cpu) in &mut login.libraries {
        if path == Path::new(LZMA) {
            *cpu += 8 * MS;
        }
    }
    for _ in 0..4 {
        bench.login(&login);
    }
    assert_eq!(bench.fired(), Vec::<&str>::new(), "four are no run of five");
    bench.login(&login);
    assert_eq!(bench.fired(), ["link_time_shift"]);
}

#[test]
fn a_program_run_by_the_monitor_before_the_verdict_is_critical() {
    let mut bench = Bench::new();
    bench.learn(Tree::V9);
    let helper = Some(PathBuf::from("/usr/bin/bash"));
    bench.login(&Login { helper, ..Login::new("publickey") });
    let incident = bench.incident();
    assert_eq!(detectors(incident), ["preauth_exec"]);
    assert_eq!(incident.severity, Severity::Critical);
    assert!(incident.story.contains("/usr/bin/bash"), "{}", incident.story);
}

#[test]
fn helpers_of_pam_are_normal() {
    let mut bench = Bench::new();
    bench.learn(Tree::V9);
    let chkpwd = Some(PathBuf::from("/usr/sbin/unix_chkpwd"));
    bench.login(&Login { helper: chkpwd, ..Login::new("publickey") });
    assert_eq!(bench.fired(), Vec::<&str>::new());
}

#[test]
fn a_loader_variable_at_a_guarded_program_is_told_at_once() {
    let mut bench = Bench::new();
    let tgid = bench.world.fresh();
    bench.world.fork(1, tgid, crate::event::Role::NONE);
    bench.world.exec(tgid, 1, SSHD_PATH, SSHD, 0);
    bench.world.env(tgid, SSHD, "LD_AUDIT=/tmp/lab/audit.so");
    bench.run();
    let incident = bench.incident();
    assert_eq!((detectors(incident), incident.severity), (vec!["preload_env"], Severity::High));
    assert!(incident.story.contains("LD_AUDIT was set to /tmp/lab/audit.so"), "{}", incident.story);
}

#[test]
fn a_variable_that_children_inherit_is_told_once() {
    let mut bench = Bench::new();
    let role = crate::event::Role::NONE;
    for _ in 0..130 {
        let tgid = bench.world.fresh();
        bench.world.fork(1, tgid, role);
        bench.world.exec(tgid, 1, "/usr/bin/dash", role, 0);
        bench.world.map(tgid, "/usr/bin/dash", Path::new(CRYPTO), role);
        bench.world.exec(tgid, 1, "/usr/bin/env", role, 0);
        bench.world.exit(tgid, role, MS);
    }
    bench.run();
    let (sshd, shell) = (bench.world.fresh(), bench.world.fresh());
    bench.world.fork(1, sshd, role);
    bench.world.exec(sshd, 1, SSHD_PATH, SSHD, 0);
    bench.world.env(sshd, SSHD, "LD_AUDIT=/tmp/lab/audit.so");
    bench.world.fork(sshd, shell, SSHD);
    bench.world.exec(shell, sshd, "/usr/bin/dash", role, 0);
    bench.world.env(shell, role, "LD_AUDIT=/tmp/lab/audit.so");
    bench.world.map(shell, "/usr/bin/dash", Path::new("/tmp/lab/audit.so"), role);
    bench.run();
    assert_eq!(bench.incident().findings.len(), 1);
    // A shell that sets it itself is another matter.
    let other = bench.world.fresh();
    bench.world.fork(1, other, role);
    bench.world.exec(other, 1, "/usr/bin/dash", role, 0);
    bench.world.exec(other, 1, "/usr/bin/env", role, 0);
    bench.world.env(other, role, "LD_PRELOAD=/tmp/lab/other.so");
    bench.run();
    assert_eq!(bench.told.last().unwrap().incident.severity, Severity::Medium);
}

#[test]
fn a_search_path_at_a_start_of_sshd_that_serves_nobody_is_a_remark() {
    let mut bench = Bench::new();
    bench.learn(Tree::V9);
    let tgid = bench.world.fresh();
    bench.world.fork(1, tgid, crate::event::Role::NONE);
    bench.world.exec(tgid, 1, SSHD_PATH, SSHD, 0);
    bench.world.env(tgid, SSHD, "LD_LIBRARY_PATH=/opt/lib");
    bench.run();
    assert_eq!(bench.fired(), ["preload_env"]);
    assert!(bench.told.is_empty());
}

#[test]
fn a_check_of_a_process_in_motion_is_repeated_and_a_firm_finding_is_not_put_off() {
    for (settled, leads_somewhere) in [(false, true), (true, false), (false, false)] {
        let mut bench = Bench::new();
        let next = bench.world.fresh() + 1;
        bench.redirect(next);
        {
            let mut state = bench.slots.0.lock().unwrap();
            state.2 = !settled;
            if !leads_somewhere {
                // A loader may yet fill the slot. In the end it is told.
                state.1[0].actual = Place::default();
            }
        }
        bench.login(&Login::new("publickey"));
        let told = bench.fired() == ["got_redirected"];
        assert_eq!(told, leads_somewhere, "settled {settled}");
        for _ in 0..20 {
            bench.world.now += 400 * MS;
            bench.run();
        }
        assert_eq!(bench.fired(), ["got_redirected"], "settled {settled}");
    }
}

#[test]
fn an_inherited_loader_variable_is_no_incident_of_its_own() {
    let role = crate::event::Role::NONE;
    let mut bench = Bench::new();
    let start = |bench: &mut Bench, parent: u32, shell: &str, variable: Option<&str>| {
        let tgid = bench.world.fresh();
        bench.world.fork(parent, tgid, role);
        bench.world.exec(tgid, parent, shell, role, 0);
        if let Some(variable) = variable {
            bench.world.env(tgid, role, variable);
        }
        bench.world.exit(tgid, role, MS);
        bench.run();
    };
    for _ in 0..50 {
        start(&mut bench, LISTENER, "/usr/bin/dash", None);
        start(&mut bench, LISTENER, "/usr/bin/bash", None);
    }
    let tgid = bench.world.fresh();
    bench.world.fork(1, tgid, crate::event::Role::NONE);
    bench.world.exec(tgid, 1, SSHD_PATH, SSHD, 0);
    bench.world.env(tgid, SSHD, "LD_AUDIT=/tmp/lab/audit.so");
    bench.run();
    start(&mut bench, tgid, "/usr/bin/dash", Some("LD_AUDIT=/tmp/lab/audit.so"));
    assert_eq!(bench.incident().severity, Severity::High);
    // Another value came from somewhere else.
    start(&mut bench, tgid, "/usr/bin/bash", Some("LD_AUDIT=/tmp/lab/other.so"));
    assert_eq!(bench.told.len(), 2, "{:#?}", bench.told);
    assert_eq!(bench.told[1].incident.severity, Severity::Medium);
}

#[test]
fn an_ordinary_program_that_gains_a_plugin_is_at_most_a_remark() {
    let mut bench = Bench::new();
    let role = crate::event::Role::NONE;
    for at in 0..60 {
        let tgid = bench.world.fresh();
        bench.world.fork(LISTENER, tgid, role);
        bench.world.exec(tgid, 1, "/usr/bin/python3", role, 0);
        if at == 50 {
            bench.world.map(tgid, "/usr/bin/python3", Path::new("/home/a/plugin.so"), role);
        }
        bench.world.exit(tgid, role, MS);
        bench.run();
    }
    assert_eq!(bench.fired(), ["library_unexpected"]);
    assert!(bench.told.is_empty(), "a remark opens no incident: {:?}", bench.told);
}

#[test]
fn an_ordinary_program_that_never_grew_and_loads_from_tmp_is_odd() {
    let mut bench = Bench::new();
    let role = crate::event::Role::NONE;
    for at in 0..260 {
        let tgid = bench.world.fresh();
        bench.world.fork(1, tgid, role);
        bench.world.exec(tgid, 1, "/usr/bin/cat", role, 0);
        bench.world.map(tgid, "/usr/bin/cat", Path::new(CRYPTO), role);
        if at == 250 {
            bench.world.map(tgid, "/usr/bin/cat", Path::new("/tmp/x.so"), role);
        }
        bench.world.exit(tgid, role, MS);
        bench.run();
    }
    assert_eq!(bench.incident().severity, Severity::Low);
}

/// Puts another file at the path of a library that every login loads.
fn replace(bench: &mut Bench, ino: u64) {
    bench.world.fake.0.lock().unwrap().files.insert(PathBuf::from(LZMA), ino);
}

#[test]
fn a_build_that_could_not_be_read_neither_teaches_nor_accuses_and_is_judged_once_it_can() {
    let mut bench = Bench::new();
    bench.learn(Tree::V9);
    let subject = format!("{SSHD_PATH} {}", build(1));
    let libraries = bench.analysis.baseline(&subject).libraries.clone();
    replace(&mut bench, 4711);
    bench.world.fake.0.lock().unwrap().unread.push(4711);
    for _ in 0..3 {
        bench.login(&Login::new("publickey"));
    }
    assert_eq!(bench.fired(), Vec::<&str>::new());
    let now: Vec<_> = bench.analysis.baseline(&subject).libraries.clone();
    assert_eq!(
        now.iter().map(|(module, _)| module).collect::<Vec<_>>(),
        libraries.iter().map(|(module, _)| module).collect::<Vec<_>>()
    );
    bench.world.fake.0.lock().unwrap().unread.clear();
    bench.login(&Login::new("publickey"));
    assert_eq!(bench.fired(), ["library_unexpected"], "it was told again");
}

#[test]
fn a_library_that_could_not_be_read_while_learning_is_known_by_its_file_until_it_is_read() {
    let mut bench = Bench::new();
    let ino = bench.world.fake.0.lock().unwrap().inode(Path::new(LZMA));
    bench.world.fake.0.lock().unwrap().unread.push(ino);
    bench.learn(Tree::V9);
    let subject = format!("{SSHD_PATH} {}", build(1));
    assert!(bench.analysis.baseline(&subject).settled(20, true));
    bench.world.fake.0.lock().unwrap().unread.clear();
    for _ in 0..3 {
        bench.login(&Login::new("publickey"));
    }
    assert_eq!(bench.fired(), Vec::<&str>::new());
    let libraries = bench.analysis.baseline(&subject).libraries.clone();
    let found: Vec<_> =
        libraries.iter().filter(|(module, _)| module.path == LZMA).map(|(m, _)| &m.build).collect();
    assert_eq!(found, [&build(ino)]);
    replace(&mut bench, 4711);
    bench.login(&Login::new("publickey"));
    assert_eq!(bench.fired(), ["library_unexpected"]);
}

#[test]
fn a_library_of_a_new_path_is_told_though_it_could_not_be_read() {
    let mut bench = Bench::new();
    bench.learn(Tree::V9);
    let ino = bench.world.fake.0.lock().unwrap().inode(Path::new(EVIL));
    bench.world.fake.0.lock().unwrap().unread.push(ino);
    let mut login = Login::new("publickey").with_evil(0);
    login.caller = PathBuf::from(SSHD_PATH);
    bench.login(&login);
    assert_eq!(bench.fired(), ["library_unexpected"]);
}
