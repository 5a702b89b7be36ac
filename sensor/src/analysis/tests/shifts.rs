//! Shifts too small for one login: told for a run of them, whoever they are of, and never learned.

use super::*;
use crate::baseline::{LINK, check_stream};
use crate::host::Method;

/// A login in which this library takes longer.
fn burnt(ms: u64) -> Login {
    let mut login = Login::new("publickey");
    for (path, cpu) in &mut login.libraries {
        if path == Path::new(LZMA) {
            *cpu += ms * MS;
        }
    }
    login
}

fn subject() -> String {
    format!("{SSHD_PATH} {}", build(1))
}

/// Settled with so many more logins than it takes.
fn learned(config: &Config, store: Store, more: u32) -> Bench {
    let mut bench = Bench::with(config, store);
    bench.learn(Tree::V9);
    for _ in 0..more {
        bench.login(&Login::new("publickey"));
    }
    assert_eq!(bench.fired(), Vec::<&str>::new());
    bench
}

/// Logins until something is told.
fn delay(bench: &mut Bench, login: &Login) -> Option<u32> {
    (1..=50).find(|_| {
        bench.login(login);
        !bench.fired().is_empty()
    })
}

#[test]
fn twenty_milliseconds_take_five_logins_and_five_take_at_most_twenty() {
    for (ms, most) in [(20, 5), (5, 20)] {
        let mut bench = learned(&Config::default(), Store::off(), 15);
        let took = delay(&mut bench, &burnt(ms)).unwrap();
        assert!(took <= most, "{ms} ms: {took} logins");
        let mut findings = bench.incident().findings.iter();
        let finding = findings.find(|finding| finding.detector == "link_time_shift").unwrap();
        assert_eq!(finding.severity, Severity::Medium);
        let mut evidence = finding.evidence.iter();
        let module = evidence.find_map(|one| match one {
            Evidence::Timing { module, .. } => module.clone(),
            _ => None,
        });
        assert_eq!(module.as_deref(), Some(LZMA), "{ms} ms");
    }
}

#[test]
fn what_is_evidence_for_a_shift_is_never_learned() {
    let mut bench = learned(&Config::default(), Store::off(), 15);
    let reference = |bench: &mut Bench| {
        let baseline = bench.analysis.baseline(&subject()).clone();
        (baseline.shifts[LINK].reference().clone(), baseline.link.total())
    };
    let before = reference(&mut bench);
    for _ in 0..40 {
        bench.login(&burnt(20));
    }
    assert_eq!(reference(&mut bench), before);
    // It ends, and learning goes on.
    for _ in 0..40 {
        bench.login(&Login::new("publickey"));
    }
    assert!(reference(&mut bench).0.count() > before.0.count());
}

#[test]
fn a_shift_that_lasts_is_told_for_each_run_of_logins_not_for_each_login() {
    let mut bench = learned(&Config::default(), Store::off(), 15);
    let times = |bench: &Bench| {
        let findings = bench.analysis.tally().findings;
        findings.iter().find(|(id, _)| *id == "link_time_shift").unwrap().1
    };
    for run in 1..=6 {
        for _ in 0..4 {
            bench.login(&burnt(20));
            assert_eq!(times(&bench), run - 1);
        }
        bench.login(&burnt(20));
        assert_eq!(times(&bench), run);
    }
    // A single one that is gross is told each time, whatever was told before.
    let before = times(&bench);
    for more in 1..=3 {
        bench.login(&burnt(300));
        assert_eq!(times(&bench), before + more);
    }
}

#[test]
fn evidence_outlives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config::default();
    let mut bench = learned(&config, Store::open(dir.path()).0, 15);
    for _ in 0..3 {
        bench.login(&burnt(20));
    }
    assert_eq!(bench.fired(), Vec::<&str>::new());
    bench.analysis.flush();
    drop(bench);
    let mut bench = Bench::with(&config, Store::open(dir.path()).0);
    assert_eq!(delay(&mut bench, &burnt(20)), Some(2));
}

#[test]
fn connections_of_strangers_are_evidence_and_teach_nothing() {
    let mut bench = learned(&Config::default(), Store::off(), 15);
    let before = bench.analysis.baseline(&subject()).shifts[LINK].reference().clone();
    let stranger = Login { succeeds: false, ..burnt(20) };
    assert_eq!(delay(&mut bench, &stranger), Some(5));
    assert_eq!(bench.fired(), ["link_time_shift"]);
    assert_eq!(*bench.analysis.baseline(&subject()).shifts[LINK].reference(), before);
}

#[test]
fn wall_time_of_the_peer_the_network_and_the_run_queue_never_alarms() {
    let mut bench = learned(&Config::default(), Store::off(), 15);
    for _ in 0..40 {
        bench.login(&Login { idle_ns: 5_000 * MS, ..Login::new("publickey") });
    }
    assert_eq!(bench.fired(), Vec::<&str>::new());
}

#[test]
fn a_login_that_costs_more_is_told_after_some_and_by_method() {
    let mut bench = learned(&Config::default(), Store::off(), 15);
    let costly = Login { verdict_ns: 30 * MS, ..Login::new("publickey") };
    let took = delay(&mut bench, &costly).unwrap();
    assert_eq!(bench.fired(), ["auth_cpu_shift"]);
    assert!((5..=8).contains(&took), "{took}");
    let baseline = bench.analysis.baseline(&subject());
    let calm = |method| baseline.shifts[&check_stream(method)].wealth().is_calm(1_000_000);
    assert!(calm(Method::Password) && !calm(Method::Publickey));
}

/// What the latest finding about a login's CPU time measured.
fn measured(bench: &Bench) -> String {
    let mut findings = bench.incident().findings.iter().rev();
    let finding = findings.find(|finding| finding.detector == "auth_cpu_shift").unwrap();
    let mut metrics = finding.evidence.iter().filter_map(|one| match one {
        Evidence::Timing { metric, .. } => Some(metric.clone()),
        _ => None,
    });
    metrics.next().unwrap()
}

#[test]
fn twenty_milliseconds_more_for_a_check_take_five_logins() {
    let mut bench = learned(&Config::default(), Store::off(), 15);
    let costly = Login { verdict_ns: 20 * MS, ..Login::new("publickey") };
    assert_eq!(delay(&mut bench, &costly), Some(5));
    assert_eq!(measured(&bench), "check_cpu");
}

#[test]
fn one_gross_excess_is_told_at_once_and_by_where_it_lies() {
    let more =
        |exchange_ns, verdict_ns| Login { exchange_ns, verdict_ns, ..Login::new("publickey") };
    for (login, metric) in [(more(300 * MS, 0), "auth_cpu"), (more(0, 300 * MS), "check_cpu")] {
        let mut bench = learned(&Config::default(), Store::off(), 15);
        bench.login(&login);
        assert_eq!(bench.fired(), ["auth_cpu_shift"], "{metric}");
        assert_eq!(measured(&bench), metric);
    }
}

#[test]
fn what_the_client_chooses_is_no_evidence_for_a_shift() {
    let exchange = Login { exchange_ns: 30 * MS, ..Login::new("publickey") };
    // A check that is not comparable: it would be told otherwise.
    let keys = Login { keys_refused: 1, verdict_ns: 30 * MS, ..Login::new("publickey") };
    for login in [exchange, keys] {
        let mut bench = learned(&Config::default(), Store::off(), 15);
        for _ in 0..40 {
            bench.login(&login);
        }
        assert_eq!(bench.fired(), Vec::<&str>::new(), "{login:?}");
    }
}

#[test]
fn during_a_shift_logins_that_cannot_be_compared_teach_nothing() {
    let mut bench = learned(&Config::default(), Store::off(), 15);
    for _ in 0..3 {
        bench.login(&Login { verdict_ns: 30 * MS, ..Login::new("publickey") });
    }
    let total =
        |bench: &mut Bench| bench.analysis.baseline(&subject()).auth[&Method::Publickey].total();
    let before = total(&mut bench);
    bench.login(&Login { keys_refused: 2, ..Login::new("publickey") });
    assert_eq!(total(&mut bench), before);
    // As long as there is none they do.
    let mut other = learned(&Config::default(), Store::off(), 15);
    let before = total(&mut other);
    other.login(&Login { keys_refused: 2, ..Login::new("publickey") });
    assert_eq!(total(&mut other), before + 1);
}

#[test]
fn a_slow_machine_makes_no_login_costly() {
    let mut bench = learned(&Config::default(), Store::off(), 15);
    for at in 0..120_u64 {
        let slow_percent = 100 + at / 20 * 40;
        bench.login(&Login { slow_percent, ..Login::new("publickey") });
    }
    assert_eq!(bench.fired(), Vec::<&str>::new());
}

/// Answers what is asked: these are the times at which a question says it was last as usual.
fn answer(bench: &mut Bench, text: &str) -> Vec<Option<Timestamp>> {
    let mut usual = Vec::new();
    for mut question in bench.analysis.questions() {
        if let Body::Dated(dated) = &mut question.body {
            assert!(dated.modules.iter().any(|module| module == LZMA), "{dated:?}");
            usual.push(dated.usual);
            dated.answer = Some(Evidence::Note { text: text.to_owned() });
        }
        bench.told.extend(bench.analysis.on_observation(question));
    }
    bench.run();
    usual
}

/// The evidence right behind the time itself.
fn behind_the_time(bench: &Bench) -> Option<&Evidence> {
    let mut findings = bench.incident().findings.iter();
    let finding = findings.find(|finding| finding.detector == "link_time_shift")?;
    let is_timing = |one: &Evidence| matches!(one, Evidence::Timing { .. });
    finding.evidence.get(finding.evidence.iter().position(is_timing)? + 1)
}

#[test]
fn a_shift_waits_until_it_is_known_what_changed_since_the_time_was_usual() {
    let mut bench = learned(&Config::default(), Store::off(), 15);
    bench.analysis.ask_dates(true);
    let before = bench.analysis.baseline(&subject()).usual_at[LINK];
    bench.login(&burnt(300));
    assert!(!bench.fired().contains(&"link_time_shift"), "{:?}", bench.fired());
    let usual = answer(&mut bench, "openssh-server was replaced");
    assert!(usual.contains(&Some(before)), "{before}: {usual:?}");
    assert!(bench.fired().contains(&"link_time_shift"), "{:?}", bench.fired());
    let expected = Evidence::Note { text: "openssh-server was replaced".to_owned() };
    assert_eq!(behind_the_time(&bench), Some(&expected));
    assert_eq!(bench.analysis.baseline(&subject()).usual_at[LINK], before, "it was not usual");
    bench.login(&Login::new("publickey"));
    bench.login(&Login::new("publickey"));
    assert!(bench.analysis.baseline(&subject()).usual_at[LINK] > before);
}

#[test]
fn a_shift_whose_question_comes_back_unanswered_is_told_at_once() {
    let mut bench = learned(&Config::default(), Store::off(), 15);
    bench.analysis.ask_dates(true);
    bench.login(&burnt(300));
    assert!(!bench.fired().contains(&"link_time_shift"), "{:?}", bench.fired());
    for question in bench.analysis.questions() {
        bench.told.extend(bench.analysis.on_observation(question));
    }
    bench.run();
    assert!(bench.fired().contains(&"link_time_shift"), "{:?}", bench.fired());
}

#[test]
fn a_shift_that_nobody_dates_is_told_without_and_a_late_answer_changes_nothing() {
    let mut bench = learned(&Config::default(), Store::off(), 15);
    bench.analysis.ask_dates(true);
    bench.login(&burnt(300));
    let late = bench.analysis.questions();
    assert!(!late.is_empty());
    bench.world.now += 2_100 * MS;
    bench.run();
    assert!(bench.fired().contains(&"link_time_shift"), "{:?}", bench.fired());
    let told = bench.told.len();
    for question in late {
        bench.told.extend(bench.analysis.on_observation(question));
    }
    assert_eq!(bench.told.len(), told);
    bench.login(&burnt(300));
    let count = |bench: &Bench| {
        let findings = bench.analysis.tally().findings;
        findings.into_iter().find(|(id, _)| *id == "link_time_shift").unwrap().1
    };
    let before = count(&bench);
    bench.analysis.finish();
    assert_eq!(count(&bench), before + 1, "what waits is told at the end");
}
