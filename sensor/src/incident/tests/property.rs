//! What must hold for any findings in any order.

use std::collections::BTreeMap;

use jiff::Timestamp;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::{
    Just, ProptestConfig, Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest,
};

use super::super::limit::count;
use super::{WINDOW, incidents};
use crate::config::Suppress;
use crate::finding::{Evidence, Exposure, Family, Finding, ProcessRef, Severity};
use crate::host::{Lineage, ProcessId};
use crate::incident::{Decision, Entry, Incident, Incidents, State, Suppressions, Verb};

/// A finding, whose it is, and the event clock.
type Step = (Finding, Lineage, u64);

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => prop_oneof![Just("/usr/sbin/sshd"), Just("/lib/a.so.1"), Just("f@V"), Just("")]
            .prop_map(str::to_owned),
        1 => "\\PC{0,12}",
        1 => vec(any::<char>(), 0..120).prop_map(String::from_iter),
    ]
}

fn code() -> impl Strategy<Value = Evidence> {
    prop_oneof![
        (text(), text(), vec(text(), 0..40)).prop_map(|(module, place, code)| Evidence::Code {
            module: module.clone(),
            build_id: Some(place.clone()),
            place: place.clone(),
            function: place.clone(),
            length: 5,
            expected: module.clone(),
            actual: place.clone(),
            expected_code: code.clone(),
            actual_code: code,
            leads_to: place.clone(),
            leads_to_module: module,
            leads_to_build_id: Some(place.clone()),
            explained_by: Some(place),
        }),
        (text(), text(), option::of(text())).prop_map(|(module, problem, build_id)| {
            Evidence::Mapping {
                module,
                build_id,
                address: problem.clone(),
                memory: problem.clone(),
                problem,
                size: 4096,
                differing: None,
            }
        }),
        (text(), vec(text(), 0..40), text()).prop_map(|(exe, list, place)| Evidence::Writer {
            pid: 7,
            exe,
            cmdline: list.clone(),
            uid: 0,
            ancestors: list.clone(),
            ways: list,
            times: 3,
            place,
        }),
        (text(), text()).prop_map(|(module, place)| Evidence::Protection {
            module,
            access: place.clone(),
            place,
            length: 4096,
            relro: true,
        }),
    ]
}

fn opened() -> impl Strategy<Value = Evidence> {
    (text(), text(), option::of(any::<f64>()), vec(text(), 0..6)).prop_map(
        |(library, caller_module, seconds, known)| Evidence::Opened {
            library,
            caller: caller_module.clone(),
            caller_module,
            caller_build_id: None,
            unwound: known.len() > 2,
            through_libc: known.is_empty(),
            namespace: seconds.map(|_| 1),
            known,
            seconds,
        },
    )
}

#[expect(clippy::too_many_lines, reason = "one arm for each kind of evidence")]
fn evidence() -> impl Strategy<Value = Evidence> {
    let slot = (text(), text(), text(), text(), option::of(text()));
    prop_oneof![
        slot.prop_map(|(module, symbol, place, actual_module, id)| Evidence::Slot {
            module,
            slot: "0x10".to_owned(),
            slot_kind: "JUMP_SLOT".to_owned(),
            symbol,
            expected: place.clone(),
            expected_module: place.clone(),
            actual: place,
            actual_module,
            actual_build_id: id,
        }),
        (text(), text(), text(), vec(text(), 0..6), vec(text(), 0..40)).prop_map(
            |(function, module, caller, known, stack)| {
                Evidence::Caller { function, caller_module: module, caller, known, stack }
            }
        ),
        opened(),
        (text(), option::of(text())).prop_map(|(path, build_id)| Evidence::Library {
            path,
            build_id,
            inode: String::new()
        }),
        (text(), option::of(text()), text()).prop_map(|(package, previous, content)| {
            Evidence::Package {
                path: content.clone(),
                package,
                purl: previous.clone(),
                installed: None,
                previous,
                content,
                digest: None,
            }
        }),
        (text(), option::of(text()), text(), vec(text(), 0..4)).prop_map(
            |(found_by, asked_by, path, odd)| Evidence::Search {
                found_by,
                asked_by: asked_by.clone(),
                seen_as: path.clone(),
                on_host: path,
                not_told: asked_by,
                odd,
            }
        ),
        (text(), text(), option::of(text())).prop_map(|(callback, callback_module, id)| {
            Evidence::Audit { count: 1, callback, callback_module, callback_build_id: id }
        }),
        code(),
        (text(), option::of(any::<u32>())).prop_map(|(mode, owner)| Evidence::File {
            exposure: Exposure::Memory,
            mode,
            owner,
            links: owner,
            modified: None
        }),
        (text(), any::<f64>(), any::<f64>(), option::of(text()), option::of(any::<f64>()))
            .prop_map(|(metric, seconds, baseline_seconds, module, module_seconds)| {
                Evidence::Timing {
                    metric,
                    seconds,
                    baseline_seconds,
                    limit_seconds: 0.0,
                    samples: 1,
                    module,
                    module_seconds,
                }
            }),
        (text(), text()).prop_map(|(name, value)| Evidence::Environment { name, value }),
        (vec(text(), 5), vec(vec(text(), 0..4), 4)).prop_map(|(texts, mut lists)| {
            let text = |at: usize| texts[at].clone();
            let mut list = || lists.pop().unwrap();
            Evidence::LoaderConfig {
                file: text(0),
                what: text(1),
                root: text(2),
                actions: list(),
                before: text(3),
                after: text(4),
                added: list(),
                removed: list(),
                meanwhile: list(),
            }
        }),
        (text(), text(), option::of(text()), vec(text(), 0..4)).prop_map(
            |(what, name, other, details)| Evidence::Instrument {
                what,
                name,
                file: other.clone(),
                offset: other.clone(),
                symbol: other.clone(),
                owner: other.clone(),
                package: other,
                details,
            }
        ),
        pam(),
        (text(), vec(text(), 0..4)).prop_map(|(path, cmdline)| Evidence::Exec { path, cmdline }),
        (text(), text(), option::of(text()), any::<u32>())
            .prop_map(|(sign, missing, user, uid)| Evidence::Session { sign, missing, user, uid }),
        (text(), text(), option::of(text())).prop_map(|(verdict, libpam, user)| Evidence::Libpam {
            verdict,
            libpam,
            user
        }),
        (option::of(text()), option::of(text()), any::<bool>(), any::<f64>()).prop_map(
            |(peer, method, authenticated, since_accept_seconds)| Evidence::Connection {
                peer,
                method,
                authenticated,
                since_accept_seconds,
            }
        ),
        text().prop_map(|text| Evidence::Note { text }),
        any::<u64>().prop_map(|count| Evidence::Repeated {
            count,
            first: Timestamp::MIN,
            last: Timestamp::MAX
        }),
    ]
}

fn pam() -> impl Strategy<Value = Evidence> {
    (vec(text(), 5), vec(vec(text(), 0..4), 6)).prop_map(|(texts, mut lists)| {
        let text = |at: usize| texts[at].clone();
        let mut list = || lists.pop().unwrap();
        Evidence::PamStack {
            file: text(0),
            what: text(1),
            root: text(2),
            actions: list(),
            before: text(3),
            after: text(4),
            added: list(),
            removed: list(),
            meanwhile: list(),
            services: list(),
            opened: list(),
        }
    })
}

fn detector() -> impl Strategy<Value = (String, Family)> {
    prop_oneof![
        Just(("link_time_shift", Family::Linker)),
        Just(("got_redirected", Family::Hook)),
        Just(("auth_cpu_shift", Family::Sshd)),
        Just(("preauth_exec", Family::Sshd)),
        Just(("auth_without_method", Family::Sshd)),
        Just(("blinded", Family::Sensor)),
    ]
    .prop_map(|(id, family)| (id.to_owned(), family))
}

fn finding() -> impl Strategy<Value = Finding> {
    let severity = prop_oneof![
        Just(Severity::Info),
        Just(Severity::Low),
        Just(Severity::Medium),
        Just(Severity::High),
        Just(Severity::Critical)
    ];
    let time = prop_oneof![
        8 => 0..10_000_i64,
        1 => Just(Timestamp::MIN.as_second()),
        1 => Just(Timestamp::MAX.as_second())
    ];
    let process = (0..3_u32, text(), option::of(0..10_000_i64), vec(text(), 0..3));
    (detector(), severity, any::<f64>(), time, process, vec(evidence(), 0..4), option::of(text()))
        .prop_map(
            |((detector, family), severity, confidence, time, process, evidence, explained)| {
                let (pid, exe, start, ancestors) = process;
                Finding {
                    time: Timestamp::from_second(time).unwrap(),
                    ktime_ns: 0,
                    id: String::new(),
                    detector,
                    family,
                    severity,
                    confidence,
                    title: exe.clone(),
                    host: "web1".to_owned(),
                    process: ProcessRef {
                        pid,
                        exe,
                        start: start.map(|start| Timestamp::from_second(start).unwrap()),
                        ancestors,
                        ..ProcessRef::default()
                    },
                    subject: "s".to_owned(),
                    evidence,
                    attack: Vec::new(),
                    explained_by: explained,
                    suppressed_by: None,
                }
            },
        )
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let lineage = prop_oneof![
        Just(Lineage::Sshd(ProcessId { tgid: 1, start_ticks: 2 })),
        text().prop_map(Lineage::Program)
    ];
    let window = u64::try_from(WINDOW.as_nanos()).unwrap();
    let ktime = prop_oneof![0..window * 3, any::<u64>()];
    vec((finding(), lineage, ktime), 0..90)
}

/// All incidents after `steps`, by id; the ticks come where the clock says so.
fn run(steps: &[Step]) -> (Incidents, BTreeMap<String, Incident>) {
    let mut incidents = incidents();
    let mut latest = BTreeMap::new();
    for (number, (finding, lineage, ktime_ns)) in steps.iter().enumerate() {
        incidents.join(finding.clone(), lineage, *ktime_ns);
        if number % 7 == 0 {
            incidents.tick(*ktime_ns);
            incidents.mark_partial();
        }
    }
    incidents
        .save(|entries| {
            for entry in entries {
                let json = serde_json::to_string(entry).unwrap();
                let back: Entry = serde_json::from_str(&json).unwrap();
                assert_eq!(serde_json::to_string(&back).unwrap(), json);
                let joined: u64 =
                    entry.incident.findings.iter().map(count).sum::<u64>() + entry.omitted;
                assert!(joined > 0);
                latest.insert(format!("{}{joined:>20}", entry.incident.id), entry.incident.clone());
            }
            Ok::<_, ()>(())
        })
        .unwrap();
    (incidents, latest)
}

/// A decision about the first open incident, after so many findings.
fn decisions() -> impl Strategy<Value = Vec<(usize, Verb)>> {
    let verb = prop_oneof![
        Just(Verb::Acknowledge),
        Just(Verb::Close),
        Just(Verb::Reopen),
        Just(Verb::Suppress)
    ];
    vec((0..90_usize, verb), 0..25)
}

/// Everything after findings and decisions, by id, with what the store was given of each last.
fn decided(steps: &[Step], decisions: &[(usize, Verb)]) -> (Incidents, BTreeMap<String, Entry>) {
    let mut incidents = incidents();
    let mut stored = BTreeMap::new();
    let mut last = None;
    for (number, (finding, lineage, ktime_ns)) in steps.iter().enumerate() {
        incidents.join(finding.clone(), lineage, *ktime_ns);
        last = incidents.open().next().map(|one| one.id.clone()).or(last);
        for (_, verb) in decisions.iter().filter(|(at, _)| *at == number) {
            let Some(id) = &last else { continue };
            let time = Timestamp::from_second(i64::try_from(number).unwrap()).unwrap();
            let until = Some(time + jiff::SignedDuration::from_secs(5_000));
            let (who, why) = ("alice".to_owned(), "so".to_owned());
            let decision = Decision { verb: *verb, time, who, why, uid: 0, until };
            let before = incidents.decide(id, stored.get(id).cloned(), &decision, *ktime_ns);
            let again = incidents.decide(id, stored.get(id).cloned(), &decision, *ktime_ns);
            // A second time it is either known, or as impossible as before.
            assert_eq!(before.is_ok(), again.is_ok(), "{before:?} {again:?}");
        }
        assert!(incidents.is_sound(), "after {number}");
        let keep = |entries: &[&Entry]| {
            stored.extend(entries.iter().map(|one| (one.incident.id.clone(), (*one).clone())));
            Ok::<_, ()>(())
        };
        incidents.save(keep).unwrap();
    }
    (incidents, stored)
}

proptest! {
    // A case is up to 90 findings.
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn any_findings_are_counted_and_told_within_bounds(steps in steps()) {
        let (mut incidents, _) = run(&steps);
        let counters = incidents.counters();
        let joined = counters.kept + counters.repeated + counters.omitted + counters.passed;
        prop_assert_eq!(joined, u64::try_from(steps.len()).unwrap());
        for incident in incidents.open() {
            prop_assert!(incident.score <= 100);
            prop_assert!(!incident.story.is_empty() && incident.story.chars().count() <= 6001);
            prop_assert!(incident.title.chars().count() <= 280);
            prop_assert!(incident.recommendation.len() < 8000);
            for text in [&incident.title, &incident.story, &incident.recommendation] {
                prop_assert!(!text.contains(char::is_control), "{text:?}");
            }
        }
    }

    #[test]
    fn each_incident_accounts_for_every_finding_it_took(
        findings in vec(finding(), 1..150)
    ) {
        let mut incidents = incidents();
        let lineage = Lineage::Program("p".to_owned());
        let total = findings.len();
        for finding in findings {
            incidents.join(finding, &lineage, 1);
        }
        let passed = incidents.counters().passed;
        let mut accounted = passed;
        incidents.save(|entries| {
            for entry in entries {
                accounted += entry.incident.findings.iter().map(count).sum::<u64>();
                accounted += entry.omitted;
            }
            Ok::<_, ()>(())
        }).unwrap();
        prop_assert_eq!(accounted, u64::try_from(total).unwrap());
    }

    #[test]
    fn whatever_people_decide_the_books_hold(steps in steps(), decisions in decisions()) {
        let (mut incidents, stored) = decided(&steps, &decisions);
        let counters = incidents.counters();
        let joined = counters.kept + counters.repeated + counters.omitted + counters.passed;
        prop_assert_eq!(joined, u64::try_from(steps.len()).unwrap());
        let open: Vec<String> = incidents.open().map(|one| one.id.clone()).collect();
        for (id, entry) in &stored {
            prop_assert_eq!(entry.joins(), open.contains(id), "{:?}", entry);
            let closed = entry.incident.state == State::Closed;
            prop_assert!(!closed || !open.contains(id));
            prop_assert!(entry.incident.decisions.len() <= 32);
        }
    }

    #[test]
    fn what_is_suppressed_never_makes_an_incident_worse(findings in vec(finding(), 1..40)) {
        let rules = [Suppress {
            name: "all".to_owned(),
            detector: None,
            subject: Some("s".to_owned()),
            package: None,
            build_id: None,
            sha256: None,
            until: Timestamp::MAX,
            who: "alice".to_owned(),
            why: "so".to_owned(),
        }];
        let lineage = Lineage::Program("p".to_owned());
        let mut incidents = incidents();
        incidents.set_suppressions(Suppressions::new(&rules, Vec::new(), Timestamp::UNIX_EPOCH));
        let mut told = 0;
        for finding in &findings {
            told += usize::from(incidents.join(finding.clone(), &lineage, 1).is_some());
        }
        // What proves a redirection is not waved through by a program's name.
        let proof = |one: &&Finding| one.severity == Severity::Critical && one.family == Family::Hook;
        let proven = findings.iter().filter(proof).count();
        prop_assert_eq!(told > 0, proven > 0);
        for incident in incidents.open() {
            let expected = if proven > 0 { Severity::Critical } else { Severity::Info };
            prop_assert_eq!(incident.severity, expected);
            prop_assert!(proven > 0 || incident.score == 0);
        }
    }

    #[test]
    fn the_same_findings_give_the_same_bytes(steps in steps()) {
        let bytes = |steps: &[Step]| {
            run(steps).1.values().map(|one| serde_json::to_vec(one).unwrap()).collect::<Vec<_>>()
        };
        prop_assert_eq!(bytes(&steps), bytes(&steps));
    }
}
