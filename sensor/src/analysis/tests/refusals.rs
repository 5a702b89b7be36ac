//! Processes that refuse to be checked: told when it has lasted, with what is found all the same.

use super::code::stray;
use super::*;
use crate::detect::{CodeChange, Nature, WhyChanged};
use crate::event::Role;

const SU: &str = "/usr/bin/su";
const GUARDED: Role = Role::GUARDED;

fn at_work() -> Refusal {
    let why = "its loader says that it is at work".to_owned();
    Refusal { why, nature: Nature::Passing, ..Refusal::default() }
}

fn patched() -> CodeChange {
    let module = ModuleId { path: CRYPTO.to_owned(), build: "cd".to_owned() };
    CodeChange {
        place: Place { module: Some(module), offset: Some(16), ..Place::default() },
        length: 5,
        expected: "55".to_owned(),
        actual: "e9".to_owned(),
        expected_code: Vec::new(),
        actual_code: Vec::new(),
        leads_to: None,
        why: WhyChanged::Unknown,
    }
}

impl Bench {
    fn refuse(&mut self, tgids: &[u32], refusal: Option<Refusal>) {
        let mut state = self.slots.0.lock().unwrap();
        (state.0, state.5) = (tgids.to_vec(), refusal);
    }

    /// Of these, the kernel gives nothing.
    fn unread(&mut self, tgids: &[u32]) {
        let mut state = self.slots.0.lock().unwrap();
        let why = "its map_files cannot be read: No such device or address".to_owned();
        (state.0, state.6) = (tgids.to_vec(), Some(why));
    }

    /// A guarded program that stays.
    fn guarded(&mut self, tgid: u32, path: &str) {
        self.world.fork(1, tgid, GUARDED);
        self.world.exec(tgid, 1, path, GUARDED, 0);
        self.world.link(tgid, path, &Login::new("password"));
    }

    /// Time passes, rounds are made.
    fn wait(&mut self, seconds: u64) {
        for _ in 0..seconds * 5 {
            self.world.now += 200 * MS;
            self.run();
        }
    }

    /// A short life of `su`.
    fn su(&mut self, refusal: Option<Refusal>) {
        let tgid = self.world.fresh();
        self.refuse(&[tgid], refusal);
        self.world.fork(1, tgid, GUARDED);
        self.world.exec(tgid, 1, SU, GUARDED, 0);
        self.world.link(tgid, SU, &Login::new("password"));
        self.wait(2);
        self.world.exit(tgid, GUARDED, MS);
        self.run();
    }
}

#[test]
fn a_listener_that_refuses_for_two_rounds_is_told_with_since_when_and_why() {
    let mut bench = Bench::new();
    bench.refuse(&[LISTENER], Some(at_work()));
    // Visited when it is first seen, and in each round.
    bench.wait(110);
    assert_eq!(bench.fired(), Vec::<&str>::new(), "two checks may be chance");
    bench.wait(20);
    assert_eq!(bench.fired(), ["blinded"]);
    let incident = bench.incident();
    assert_eq!((incident.severity, families(incident)), (Severity::High, vec![Family::Sensor]));
    println!("{}\n{}\n{}", incident.title, incident.story, incident.recommendation);
    assert!(incident.title.contains("could not be checked for 2 min"), "{}", incident.title);
    for part in ["3 checks in a row", "says that it is at work", "the first at 20", "472 slots"] {
        assert!(incident.story.contains(part), "{part}: {}", incident.story);
    }
}

#[test]
fn one_check_that_succeeds_ends_a_row() {
    let mut bench = Bench::new();
    for _ in 0..4 {
        bench.refuse(&[LISTENER], Some(at_work()));
        bench.wait(110);
        bench.refuse(&[], None);
        bench.wait(70);
    }
    assert_eq!(bench.fired(), Vec::<&str>::new());
}

#[test]
fn who_stands_still_is_not_told_and_who_is_held_in_part_weighs_less() {
    let mut bench = Bench::new();
    bench.refuse(&[LISTENER], Some(Refusal { still: true, ..at_work() }));
    bench.wait(400);
    assert_eq!(bench.fired(), Vec::<&str>::new(), "stopped in its loader by a debugger");
    let held = "of its 2 threads 1 stopped; gdb (7) traces it".to_owned();
    bench.refuse(&[LISTENER], Some(Refusal { held: held.clone(), ..at_work() }));
    bench.wait(200);
    let finding = &bench.incident().findings[0];
    assert_eq!((finding.detector.as_str(), finding.severity), ("blinded", Severity::Medium));
    assert!(format!("{:?}", finding.evidence).contains(&held), "{finding:?}");
}

#[test]
fn who_may_have_inherited_its_state_weighs_less_unless_something_is_odd() {
    for odd in [false, true] {
        let mut bench = Bench::new();
        bench.refuse(&[LISTENER], Some(Refusal { forked: true, ..at_work() }));
        if odd {
            bench.slots.0.lock().unwrap().4.changes = vec![patched()];
        }
        bench.wait(130);
        let finding = bench.incident().findings.iter().find(|one| one.detector == "blinded");
        let finding = finding.unwrap();
        let expected = if odd { Severity::High } else { Severity::Medium };
        assert_eq!(finding.severity, expected);
        let evidence = format!("{:?}", finding.evidence);
        assert_eq!(evidence.contains("has inherited that state"), !odd, "{evidence}");
    }
}

#[test]
fn a_check_that_never_settles_is_no_check() {
    let mut bench = Bench::new();
    bench.slots.0.lock().unwrap().2 = true;
    bench.wait(200);
    assert_eq!(bench.fired(), ["blinded"]);
    assert!(bench.incident().title.contains("change at each look"), "{}", bench.incident().title);
}

#[test]
fn changed_code_is_told_at_the_first_refusal_and_slots_once_it_has_lasted() {
    let mut bench = Bench::new();
    bench.redirect(LISTENER);
    {
        let mut state = bench.slots.0.lock().unwrap();
        state.4.changes = vec![patched()];
        state.5 = Some(at_work());
    }
    bench.wait(64);
    assert_eq!(bench.fired(), ["text_patched"]);
    bench.wait(140);
    assert_eq!(bench.fired(), ["got_redirected", "text_patched", "blinded"]);
    let worst = bench.told.iter().map(|update| update.incident.severity).max();
    assert_eq!(worst, Some(Severity::Critical));
}

#[test]
fn a_sealed_slot_that_leads_elsewhere_is_told_at_the_first_refusal() {
    for sealed in [false, true] {
        let mut bench = Bench::new();
        // A login that is over long before there is a row, and a listener that refuses nothing.
        let next = bench.world.fresh() + 1;
        bench.redirect(next);
        {
            let mut state = bench.slots.0.lock().unwrap();
            state.1[0].sealed = sealed;
            state.5 = Some(at_work());
        }
        assert_eq!(bench.login(&Login::new("publickey")), next);
        bench.wait(2);
        let expected: &[&str] = if sealed { &["got_redirected"] } else { &[] };
        assert_eq!(bench.fired(), expected);
    }
}

#[test]
fn what_a_change_of_the_list_may_account_for_waits_for_a_row() {
    let module = ModuleId { path: CRYPTO.to_owned(), build: "cd".to_owned() };
    let known = Place { module: Some(module), ..Place::default() };
    let mut bench = Bench::new();
    bench.redirect(LISTENER);
    let sealed = {
        let state = bench.slots.0.lock().unwrap();
        Mismatch { sealed: true, expected: known, ..state.1[0].clone() }
    };
    let mismatches = vec![
        Mismatch { sealed: false, ..sealed.clone() },
        Mismatch { expected: Place::default(), ..sealed.clone() },
        Mismatch { category: Category::FileChanged, ..sealed.clone() },
        sealed.clone(),
    ];
    let changes = vec![patched()];
    let report = CheckReport { mismatches, changes: changes.clone(), ..CheckReport::default() };
    let firm = report.firm();
    assert_eq!((firm.mismatches, firm.changes), (vec![sealed], changes));
}

#[test]
fn who_refuses_to_the_last_teaches_nothing() {
    let starts = |refusal: Option<Refusal>| {
        let mut bench = Bench::new();
        for _ in 0..3 {
            bench.su(refusal.clone());
        }
        let inode = bench.world.fake.0.lock().unwrap().inode(Path::new(SU));
        bench.analysis.baseline(&format!("{SU} {}", build(inode))).starts
    };
    assert_eq!(starts(None), 3);
    assert_eq!(starts(Some(at_work())), 0);
    assert_eq!(starts(Some(Refusal { nature: Nature::Lasting, ..at_work() })), 0);
}

#[test]
fn a_login_whose_monitor_refused_is_not_learned_from_though_others_were_checked() {
    let subject = format!("{SSHD_PATH} {}", build(1));
    let starts = |refuses: bool| {
        let mut bench = Bench::new();
        let next = bench.world.fresh() + 1;
        let refusal = Refusal { nature: Nature::Lasting, ..at_work() };
        bench.refuse(&[next], refuses.then_some(refusal));
        assert_eq!(bench.login(&Login::new("publickey")), next);
        bench.wait(2);
        bench.analysis.baseline(&subject).starts
    };
    assert_eq!((starts(false), starts(true)), (1, 0));
}

#[test]
fn who_is_checked_after_it_refused_teaches() {
    let mut bench = Bench::new();
    let tgid = bench.world.fresh();
    bench.refuse(&[tgid], Some(at_work()));
    bench.world.fork(1, tgid, GUARDED);
    bench.world.exec(tgid, 1, SU, GUARDED, 0);
    bench.world.link(tgid, SU, &Login::new("password"));
    bench.wait(2);
    let inode = bench.world.fake.0.lock().unwrap().inode(Path::new(SU));
    let subject = format!("{SU} {}", build(inode));
    assert_eq!(bench.analysis.baseline(&subject).starts, 0);
    bench.refuse(&[], None);
    bench.wait(130);
    assert_eq!(bench.analysis.baseline(&subject).starts, 1);
    bench.world.exit(tgid, GUARDED, MS);
    bench.run();
    assert_eq!(bench.analysis.baseline(&subject).starts, 1);
}

#[test]
fn who_had_a_loader_and_has_none_any_more_is_told() {
    let linked = |bench: &Bench, linked| bench.slots.0.lock().unwrap().4.linked = linked;
    let mut bench = Bench::new();
    linked(&bench, false);
    bench.wait(300);
    assert_eq!(bench.fired(), Vec::<&str>::new(), "it never had one that is known");
    let mut bench = Bench::new();
    linked(&bench, true);
    bench.wait(100);
    linked(&bench, false);
    bench.wait(200);
    assert_eq!(bench.fired(), ["blinded"]);
    let finding = &bench.incident().findings[0];
    assert_eq!(finding.severity, Severity::Medium);
    assert!(finding.title.contains("its loader was known before"), "{}", finding.title);
}

#[test]
fn who_executes_a_static_program_hides_nothing() {
    let mut bench = Bench::new();
    bench.slots.0.lock().unwrap().4.linked = true;
    let tgid = bench.world.fresh();
    bench.world.fork(1, tgid, GUARDED);
    bench.world.exec(tgid, 1, SU, GUARDED, 0);
    bench.world.link(tgid, SU, &Login::new("password"));
    bench.wait(70);
    bench.world.exec(tgid, 1, "/usr/bin/sudo", GUARDED, 0);
    // Only of this one: the listener is linked.
    bench.world.exit(LISTENER, GUARDED, MS);
    bench.slots.0.lock().unwrap().4.linked = false;
    bench.wait(300);
    assert_eq!(bench.fired(), Vec::<&str>::new());
}

#[test]
fn who_could_be_read_and_cannot_be_any_more_is_told() {
    for known in [true, false] {
        let mut bench = Bench::new();
        let sudo = bench.world.fresh();
        bench.guarded(sudo, "/usr/bin/sudo");
        bench.unread(if known { &[] } else { &[LISTENER] });
        bench.wait(65);
        // The other one still can.
        bench.unread(&[LISTENER]);
        bench.wait(200);
        let expected: &[&str] = if known { &["blinded"] } else { &[] };
        assert_eq!(bench.fired(), expected);
        if known {
            let finding = &bench.incident().findings[0];
            assert_eq!(finding.severity, Severity::Medium);
            assert!(finding.title.contains("sshd: could not be checked for 2 min: its map_files"));
        }
    }
}

#[test]
fn where_nobody_can_be_read_any_more_it_is_told_once() {
    let mut bench = Bench::new();
    for _ in 0..5 {
        let tgid = bench.world.fresh();
        bench.guarded(tgid, SU);
    }
    // The service manager included, which is visited now and then.
    let all: Vec<u32> = (1..2000).collect();
    bench.wait(65);
    bench.unread(&all);
    bench.wait(100);
    assert_eq!(bench.fired(), Vec::<&str>::new(), "it may be over soon");
    bench.wait(400);
    let told: Vec<_> = bench.findings.iter().filter(|(_, times)| *times > 0).collect();
    assert_eq!(told, [&("blinded", 1)]);
    let finding = &bench.incident().findings[0];
    assert_eq!(finding.severity, Severity::High);
    assert!(finding.title.starts_with("no process could be read for"), "{}", finding.title);
    // It is over, and begins again.
    bench.unread(&[]);
    bench.wait(70);
    bench.unread(&all);
    bench.wait(300);
    assert_eq!(bench.findings.iter().find(|(id, _)| *id == "blinded").unwrap().1, 2);
}

#[test]
fn a_process_that_takes_too_long_is_asked_for_its_code_alone_and_once() {
    let mut bench = Bench::new();
    bench.refuse(&[LISTENER], Some(Refusal { nature: Nature::Costly, ..at_work() }));
    bench.wait(50);
    let asked = bench.slots.0.lock().unwrap().7.clone();
    let guarded = |one: &Anyway| one.guarded && one.costly;
    assert!(asked.len() == 1 && asked.iter().all(guarded), "{asked:?}");
}

#[test]
fn code_of_no_list_that_a_loader_may_account_for_is_told_once_it_has_lasted() {
    let mut bench = Bench::new();
    bench.slots.0.lock().unwrap().4.doubtful = vec![stray(Some(EVIL), None, false)];
    bench.wait(110);
    assert_eq!(bench.fired(), Vec::<&str>::new(), "two checks may be chance");
    bench.wait(30);
    assert_eq!(bench.fired(), ["module_unlinked"], "and no list that changes at each look");
}

#[test]
fn code_of_no_list_that_comes_and_goes_is_a_library_in_motion() {
    let mut bench = Bench::new();
    for number in 0..6 {
        let mut odd = stray(Some(EVIL), None, false);
        // Elsewhere each time, or not there at every third visit.
        odd.address = 0x1000 * number;
        let doubtful = if number % 3 == 2 { Vec::new() } else { vec![odd] };
        bench.slots.0.lock().unwrap().4.doubtful = doubtful;
        bench.wait(60);
    }
    assert_eq!(bench.fired(), Vec::<&str>::new());
}

#[test]
fn processes_of_one_program_make_a_row_together() {
    let mut bench = Bench::new();
    for _ in 0..2 {
        bench.su(Some(at_work()));
        bench.wait(70);
    }
    bench.su(None);
    bench.su(Some(at_work()));
    assert_eq!(bench.fired(), Vec::<&str>::new(), "one of them was checked");
    for _ in 0..2 {
        bench.wait(70);
        bench.su(Some(at_work()));
    }
    assert_eq!(bench.fired(), ["blinded"]);
    let title = &bench.incident().title;
    assert!(title.contains("su: none of 3 processes in 2 min could be checked"), "{title}");
}

#[test]
fn programs_that_are_not_guarded_and_no_daemons_are_left_alone() {
    let mut bench = Bench::new();
    let tgid = bench.world.fresh();
    bench.refuse(&[tgid], Some(at_work()));
    bench.world.fork(LISTENER, tgid, Role::NONE);
    bench.world.exec_as(tgid, LISTENER, "/usr/bin/bash", Role::NONE, 0, 1000, None);
    bench.wait(3700 * 4);
    assert_eq!(bench.fired(), Vec::<&str>::new());
}

#[test]
fn questions_without_end_do_not_put_the_last_try_off() {
    let mut bench = Bench::new();
    bench.refuse(&[LISTENER], Some(at_work()));
    let failed = |bench: &Bench| bench.analysis.tally().checks_failed;
    for _ in 0..300 {
        bench.world.reopen(LISTENER, Some(CRYPTO), 0x1000, 3);
        bench.world.now += 15 * MS;
        bench.run();
    }
    assert!(failed(&bench) >= 3, "{}", failed(&bench));
}
