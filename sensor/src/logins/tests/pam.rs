//! Logins through libpam: of each program, as it should be, broken off, and in orders of no program.

use super::*;
use crate::event::Role;
use crate::host::testing::CALL_CPU_NS;
use crate::host::{PamCall, PamStep, seconds};

const SUDO: &str = "/usr/bin/sudo";
const SU: &str = "/usr/bin/su";
const LOGIN: &str = "/usr/bin/login";
const CRON: &str = "/usr/sbin/cron";
const DROPBEAR: &str = "/usr/sbin/dropbear";
const HELPER: &str = "/usr/lib/polkit-1/polkit-agent-helper-1";
const STEPS: [PamStep; 6] = [
    PamStep::Authenticate,
    PamStep::Account,
    PamStep::Credentials,
    PamStep::Session,
    PamStep::End,
    PamStep::Unnamed,
];

impl Bench {
    fn pam(&mut self, path: &str, calls: &str) -> Login {
        self.world.pam(path, 1000, calls);
        let events = self.world.take();
        self.one(events)
    }
}

fn verdicts(login: &Login) -> Vec<&'static str> {
    login.attempts.iter().map(|attempt| attempt.verdict.name()).collect()
}

#[test]
fn each_program_tells_its_attempts_and_its_outcome_by_what_it_calls() {
    let (yes, no, open) = ("accepted", "refused", "undecided");
    let expired = Some("PAM_ACCT_EXPIRED");
    let no_session = Some("no session was opened");
    for (path, calls, outcome, reason, attempts) in [
        (SUDO, "authenticate acct_mgmt setcred open_session setcred end:0", yes, None, vec![yes]),
        (
            SUDO,
            "authenticate authenticate acct_mgmt setcred open_session end:0",
            yes,
            None,
            vec![no, yes],
        ),
        (
            SUDO,
            "authenticate authenticate authenticate end:7",
            no,
            Some("PAM_AUTH_ERR"),
            vec![no; 3],
        ),
        (SUDO, "authenticate acct_mgmt end:0", yes, no_session, vec![yes]),
        (SUDO, "acct_mgmt setcred open_session setcred end:0", yes, None, vec![]),
        (
            SU,
            "authenticate get_authtok acct_mgmt setcred open_session setcred end:0",
            yes,
            None,
            vec![yes],
        ),
        (SU, "authenticate get_authtok end:7", no, Some("PAM_AUTH_ERR"), vec![no]),
        (SU, "authenticate end:19", "aborted", Some("PAM_CONV_ERR"), vec![open]),
        (SU, "authenticate acct_mgmt end:13", no, expired, vec![yes]),
        (SU, "authenticate acct_mgmt setcred end:17", no, Some("PAM_CRED_ERR"), vec![yes]),
        (
            SU,
            "authenticate acct_mgmt setcred open_session end:14",
            yes,
            Some("PAM_SESSION_ERR"),
            vec![yes],
        ),
        (
            LOGIN,
            "authenticate authenticate authenticate end:11",
            no,
            Some("PAM_MAXTRIES"),
            vec![no; 3],
        ),
        (LOGIN, "authenticate authenticate end:26", no, Some("PAM_ABORT"), vec![no, open]),
        (LOGIN, "authenticate acct_mgmt setcred open_session setcred end:0", yes, None, vec![yes]),
        (HELPER, "authenticate acct_mgmt end:0", yes, no_session, vec![yes]),
        (
            HELPER,
            "authenticate end:0",
            "unknown",
            Some("it never asked about the account"),
            vec![open],
        ),
        (
            DROPBEAR,
            "authenticate end:0",
            "unknown",
            Some("what it ended with was not seen"),
            vec![open],
        ),
        (DROPBEAR, "authenticate acct_mgmt setcred end:0", yes, None, vec![yes]),
        (CRON, "acct_mgmt setcred open_session end:0", yes, None, vec![]),
        (CRON, "acct_mgmt end:13", no, expired, vec![]),
    ] {
        let login = Bench::new(false).pam(path, calls);
        let told = (login.outcome.name(), login.reason.as_deref(), verdicts(&login));
        assert_eq!(told, (outcome, reason, attempts), "{path}: {calls}");
        assert_eq!(login.session, calls.contains("open_session"), "{path}: {calls}");
        assert!(path.ends_with(&*login.program) && login.is_pams(), "{login:?}");
        assert!(!login.partial && login.end.is_some(), "{login:?}");
        assert_eq!(login.is_routine(), login.attempts.is_empty() && outcome == yes, "{calls}");
    }
}

#[test]
fn who_is_killed_before_pam_end_is_told_by_how_far_it_came() {
    let during = Some("it ended during an attempt");
    let unsaid = Some("it ended before PAM's word on the account was seen");
    for (calls, outcome, reason, attempts) in [
        ("authenticate", Outcome::Aborted, during, vec!["undecided"]),
        ("authenticate authenticate", Outcome::Refused, None, vec!["refused", "undecided"]),
        ("authenticate acct_mgmt", Outcome::Unknown, unsaid, vec!["accepted"]),
        ("authenticate acct_mgmt setcred", Outcome::Accepted, None, vec!["accepted"]),
        ("authenticate acct_mgmt setcred open_session", Outcome::Accepted, None, vec!["accepted"]),
    ] {
        let login = Bench::new(false).pam(SUDO, calls);
        let told = (login.outcome, login.reason.as_deref(), verdicts(&login));
        assert_eq!(told, (outcome, reason, attempts), "{calls}");
    }
}

#[test]
fn where_pam_end_is_not_watched_its_lack_says_nothing() {
    let mut config = Config::default();
    config.functions.retain(|function| function.symbol != "pam_end");
    let mut bench = Bench::configured(World::new(), false, &config);
    let login = bench.pam(SU, "authenticate");
    assert_eq!(login.outcome, Outcome::Unknown, "{login:#?}");
    assert_eq!(login.reason.as_deref(), Some("what it ended with was not seen"));
}

#[test]
fn a_login_has_who_started_it_and_what_each_part_took() {
    let login = Bench::new(true)
        .pam(SUDO, "authenticate authenticate acct_mgmt setcred open_session end:0");
    assert_eq!((login.uid, login.user.as_deref(), login.peer), (Some(1000), None, None));
    assert!(login.subject.starts_with(SUDO), "{}", login.subject);
    let cpu = |phase: Option<Phase>| phase.and_then(|phase| phase.cpu_seconds);
    let one = seconds(CALL_CPU_NS);
    for attempt in &login.attempts {
        assert_eq!((attempt.seconds, attempt.cpu_seconds), (Some(0.01), Some(one)), "{login:#?}");
    }
    assert_eq!(cpu(login.phases.auth), Some(seconds(2 * CALL_CPU_NS)), "{login:#?}");
    assert_eq!(login.phases.pam.map(|phase| phase.wall_seconds), Some(0.01), "{login:#?}");
    assert_eq!(login.duration_seconds, Some(0.05), "{login:#?}");
    let text = serde_json::to_string(&login).unwrap();
    assert_eq!(serde_json::from_str::<Login>(&text).unwrap(), login);
}

#[test]
fn without_a_wait_cpu_time_is_wall_time_less_the_run_queues() {
    let mut bench = Bench::new(false);
    bench.world.pam(SU, 0, "authenticate acct_mgmt setcred open_session end:0");
    let mut events = bench.world.take();
    let mut delay = 0;
    for event in &mut events {
        if let EventBody::Caller(caller) = &mut event.body {
            (caller.usage.voluntary_switches, caller.usage.run_delay_ns) = (7, delay);
            delay += 4 * MS;
        }
    }
    let login = bench.one(events);
    assert_eq!(login.attempts[0].cpu_seconds, Some(0.006), "{login:#?}");
}

#[test]
fn a_session_is_told_when_it_begins_and_routine_ones_are_not() {
    let mut bench = Bench::new(false);
    bench.world.pam(CRON, 0, "acct_mgmt setcred open_session end:0");
    let sudo = bench.world.pam(SUDO, 1000, "authenticate acct_mgmt setcred open_session end:0");
    let events = bench.world.take();
    let told = bench.feed(events);
    let [
        Told::Ended { begun: false, .. },
        Told::Begun(id, open),
        Told::Ended { id: ended, begun: true, .. },
    ] = &told[..]
    else {
        panic!("{told:#?}")
    };
    assert_eq!((id, open.pid), (ended, sudo));
    assert_eq!((open.outcome, open.end, open.reason.as_deref()), (Outcome::Accepted, None, None));
    assert_eq!(bench.recorder.open(), 0);
}

#[test]
fn the_last_call_of_a_program_that_is_gone_is_known_once_one_was_seen() {
    let mut bench = Bench::new(false);
    // Nobody has seen where pam_end lies.
    let calls = "authenticate end:7";
    for (known, outcome) in [(false, Outcome::Unknown), (true, Outcome::Refused)] {
        let tgid = bench.world.pam(SU, 1000, calls);
        let mut events = bench.world.take();
        let last = events.split_off(events.len() - 2);
        assert!(bench.feed(events).is_empty());
        bench.world.fake.0.lock().unwrap().gone.push(tgid);
        let login = bench.one(last);
        assert_eq!((login.outcome, login.partial), (outcome, !known), "{login:#?}");
        assert_eq!(bench.station.tally().callers_unknown, 1, "the first only");
        bench.pam(SUDO, calls);
    }
}

#[test]
fn a_program_that_was_gone_before_its_first_call_is_known_by_where_it_was_linked() {
    let mut bench = Bench::new(false);
    let calls = "authenticate authenticate acct_mgmt setcred open_session end:0";
    let wanted = (Outcome::Accepted, vec!["refused", "accepted"]);
    for known in [false, true] {
        let tgid = bench.world.pam(SU, 1000, calls);
        bench.world.fake.0.lock().unwrap().gone.push(tgid);
        let events = bench.world.take();
        let told = bench.feed(events);
        assert_eq!(told.len(), if known { 2 } else { 0 }, "{told:#?}");
        if let Some(Told::Ended { login, .. }) = told.last() {
            assert_eq!((login.outcome, verdicts(login)), wanted, "{login:#?}");
        }
        assert_eq!(bench.station.tally().callers_unknown, 6, "the first time only");
        bench.pam(SUDO, calls);
    }
}

#[test]
fn another_program_in_its_place_ends_a_login() {
    let mut bench = Bench::new(false);
    let tgid = bench.world.start_pam(SUDO, 1000);
    bench.world.call_pam(tgid, Role::GUARDED, "authenticate acct_mgmt setcred");
    bench.world.exec(tgid, 1, "/usr/bin/bash", Role::NONE, 0);
    bench.world.exit(tgid, Role::NONE, MS);
    let events = bench.world.take();
    let login = bench.one(events);
    assert_eq!((login.outcome, &*login.program), (Outcome::Accepted, "sudo"));
}

#[test]
fn a_service_lets_in_one_after_the_other_and_threads_at_once() {
    let mut bench = Bench::new(false);
    let calls = "authenticate acct_mgmt setcred";
    let tgid = bench.world.start_pam("/usr/sbin/openvpn", 0);
    bench.world.call_pam(tgid, Role::GUARDED, &[calls; 2].join(" "));
    let mut events = bench.world.take();
    // A second thread does the same at the same time.
    let is_call = |event: &Event| matches!(event.body, EventBody::Caller(_));
    let of_other: Vec<Event> = events
        .iter()
        .filter(|event| is_call(event))
        .map(|event| Event { tid: tgid + 1, ..event.clone() })
        .collect();
    let at = events.iter().position(is_call).unwrap();
    for (number, event) in of_other.into_iter().enumerate() {
        events.insert(at + 2 * number + 1, event);
    }
    bench.world.exit(tgid, Role::GUARDED, MS);
    events.extend(bench.world.take());
    let told = bench.feed(events);
    assert_eq!(told.len(), 4, "{told:#?}");
    for told in told {
        let Told::Ended { login, begun: false, .. } = told else { panic!("{told:?}") };
        assert_eq!((login.outcome, verdicts(&login)), (Outcome::Accepted, vec!["accepted"]));
    }
}

#[test]
fn sshd_and_programs_that_are_not_guarded_are_left_to_others() {
    let mut bench = Bench::new(false);
    let calls = "authenticate acct_mgmt setcred open_session end:0";
    for (path, role) in [(SSHD_PATH, SSHD), ("/usr/bin/vlock", Role::BELOW_SSHD)] {
        let tgid = bench.world.fresh();
        bench.world.fork(1, tgid, Role::NONE);
        bench.world.exec(tgid, 1, path, role, 0);
        bench.world.call_pam(tgid, role, calls);
        bench.world.exit(tgid, role, MS);
    }
    // Who closes a session that began before the sensor was there logs nobody in.
    bench.world.pam(SU, 0, "setcred end:0");
    let events = bench.world.take();
    assert!(bench.feed(events).iter().all(|told| match told {
        Told::Begun(_, login) | Told::Ended { login, .. } => !login.is_pams(),
    }));
}

#[test]
fn what_was_lost_of_a_login_through_libpam_is_not_guessed() {
    for (calls, outcome) in
        [("authenticate", Outcome::Unknown), ("authenticate authenticate", Outcome::Refused)]
    {
        let mut bench = Bench::new(false);
        let tgid = bench.world.start_pam(SU, 1000);
        bench.world.call_pam(tgid, Role::GUARDED, calls);
        let events = bench.world.take();
        assert!(bench.feed(events).is_empty());
        bench.recorder.on_loss();
        bench.world.exit(tgid, Role::GUARDED, MS);
        let events = bench.world.take();
        let login = bench.one(events);
        assert_eq!((login.outcome, login.partial), (outcome, true), "{login:#?}");
    }
}

/// Whoever was asked before something was missed is not taken for one whom nobody asks.
#[test]
fn a_login_whose_first_call_was_missed_is_no_routine() {
    const CALLS: &str = "acct_mgmt setcred open_session end:0";
    let mut bench = Bench::new(false);
    assert!(bench.pam(SUDO, CALLS).is_routine());
    bench.recorder.on_loss();
    let login = bench.pam(SUDO, CALLS);
    assert_eq!(
        (login.outcome, login.partial, login.is_routine()),
        (Outcome::Accepted, true, false)
    );
}

#[test]
fn a_flood_of_attempts_and_of_programs_is_bounded_and_accounted_for() {
    let mut bench = Bench::new(false);
    let login = bench.pam(SU, &("authenticate ".repeat(5000) + "end:7"));
    assert_eq!((login.attempts.len(), login.attempts_left_out), (16, 4984));
    let (programs, most) = (4200, 4096);
    for _ in 0..programs {
        let tgid = bench.world.start_pam(SUDO, 1000);
        bench.world.call_pam(tgid, Role::GUARDED, "authenticate");
    }
    let events = bench.world.take();
    let told = bench.feed(events);
    assert_eq!((bench.recorder.open(), told.len()), (most, programs - most));
    for told in told {
        let Told::Ended { login, .. } = told else { panic!("{told:?}") };
        assert_eq!((login.outcome, login.end, login.partial), (Outcome::Unknown, None, true));
        assert!(login.reason.unwrap().contains("too many at once"));
    }
}

#[test]
fn what_an_older_sensor_wrote_is_sshds() {
    let mut older = sample();
    for key in ["program", "uid"] {
        older.as_object_mut().unwrap().remove(key).unwrap();
    }
    let login: Login = serde_json::from_value(older).unwrap();
    assert_eq!((&*login.program, login.uid, login.is_pams()), ("sshd", None, false));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    #[test]
    fn any_order_of_calls_is_survived_and_lets_in_only_who_was_asked_about(
        calls in prop::collection::vec((0..STEPS.len(), prop::option::of(0_u8..40), 0_u32..3, any::<u64>()), 0..60)
    ) {
        let mut bench = Bench::new(false);
        let tgid = bench.world.start_pam(SUDO, 1000);
        let mut seen = Vec::new();
        for event in bench.world.take() {
            bench.station.on_event(event, &mut |one| seen.push(one));
        }
        let start = seen.iter().rfind(|one| one.process.id.tgid == tgid).unwrap().clone();
        let mut last = [None; 3];
        for (step, status, tid, ktime_ns) in calls {
            let step = STEPS[step];
            let usage = crate::event::Usage { sum_exec_ns: ktime_ns.rotate_left(7), ..Default::default() };
            let call = PamCall { step, tid, usage, status, end_told: true };
            let one = crate::host::Observation { body: Body::Pam(call), ktime_ns, ..start.clone() };
            for told in bench.recorder.note(&one) {
                let (Told::Begun(_, login) | Told::Ended { login, .. }) = told;
                let text = serde_json::to_string(&login).unwrap();
                prop_assert_eq!(serde_json::from_str::<Login>(&text).unwrap(), login.clone());
                prop_assert!(login.attempts.len() <= 17);
                if login.outcome == Outcome::Accepted {
                    let asked = |step| step != Some(PamStep::Authenticate);
                    prop_assert!(asked(last[tid as usize]) || step == PamStep::Session, "{:?}", login);
                }
            }
            if step != PamStep::Unnamed {
                last[tid as usize] = Some(step);
            }
            prop_assert!(bench.recorder.open() <= 3);
        }
    }
}
