use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use sensor_common::counters::{COUNTERS, Counter};

use super::*;
use crate::loader::ProgramStats;

#[test]
fn every_metric_has_a_sentence_of_help_and_a_unit_free_of_doubt() {
    let mut names = BTreeSet::new();
    for definition in Metrics::definitions() {
        let Definition { name, labels, .. } = definition;
        assert!(names.insert(*name), "{name} is defined twice");
        assert!(definition.help().ends_with('.'), "{name}: help is no sentence");
        assert!(name.starts_with("halfsecond_") || name.starts_with("process_"), "{name}");
        for bounded in *labels {
            assert!(!["pid", "tgid", "path", "exe", "subject", "user"].contains(bounded), "{name}");
        }
    }
}

#[test]
fn every_metric_is_set_somewhere() {
    let mut text = String::new();
    read_sources(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src")), &mut text);
    // The helpers of this module count as use only where they are called.
    for (helper, field) in [
        (".tell_host(", "processes"),
        (".tell_host(", "files_unprobed"),
        (".tell_host(", "reads_given_up"),
        (".tell_host(", "verify_sweeps"),
        (".tell_host(", "sessions_not_known"),
        (".tell_host(", "verdicts_compared"),
        (".tell_probes(", "probed_files"),
        (".tell_probes(", "function_probes"),
        (".tell_probes(", "function_probes_attached"),
        (".tell_probes(", "function_probes_released"),
        (".count_finding(", "findings"),
        (".count_event(", "events"),
        (".count_incident(", "incidents"),
        (".observe_auth(", "auth_cpu"),
        (".observe_link(", "link_cpu"),
        (".observe_login(", "logins"),
        (".observe_login(", "login_phase"),
        (".observe_login(", "login_phase_cpu"),
        (".observe_login(", "login_guessing"),
        (".observe_login(", "pam_logins"),
        (".observe_login(", "pam_auth_cpu"),
        (".tell_provenance(", "libraries_traced"),
    ] {
        if text.contains(helper) {
            text.push_str("metrics.");
            text.push_str(field);
            text.push('.');
        }
    }
    let unset: Vec<_> = Metrics::FIELDS
        .iter()
        .filter(|field| !["build_info", "render_failures"].contains(field))
        .filter(|field| !text.contains(&format!("metrics.{field}.")))
        .collect();
    assert!(unset.is_empty(), "registered but never set: {unset:?}");
}

/// Sources outside this module, without blanks and line ends.
fn read_sources(folder: &Path, text: &mut String) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let own = path.ends_with("src/metrics") || path.ends_with("src/metrics.rs");
        if own || path.ends_with("tests.rs") {
            continue;
        }
        if path.is_dir() {
            read_sources(&path, text);
        } else {
            text.extend(fs::read_to_string(&path).unwrap().split_whitespace());
        }
    }
}

#[test]
fn kernel_counters_are_read_at_every_scrape() {
    let metrics = Metrics::new().unwrap();
    let mut counters = [0; COUNTERS as usize];
    counters[Counter::PriorityEmitted as usize] = 7;
    counters[Counter::PriorityLost as usize] = 2;
    counters[Counter::MapFiltered as usize] = 5;
    counters[Counter::StateFull as usize] = 3;
    metrics
        .set_kernel_source(move || {
            let program = ProgramStats {
                name: "process_exec".to_owned(),
                runs: 4,
                run_ns: 2_500_000_000,
                missed: 1,
                verified_instructions: None,
                memory: 0,
            };
            Some(KernelReading { counters, memory_bytes: 4096, programs: vec![program] })
        })
        .unwrap();
    for _ in 0..2 {
        let page = metrics.render().unwrap();
        for line in [
            "halfsecond_records_emitted_total{ring=\"priority\"} 7",
            "halfsecond_records_lost_total{ring=\"priority\"} 2",
            "halfsecond_records_lost_total{ring=\"bulk\"} 0",
            "halfsecond_records_filtered_total{kind=\"map\"} 5",
            "halfsecond_kernel_failures_total{reason=\"state_full\"} 3",
            "halfsecond_bpf_memory_bytes 4096",
            "halfsecond_program_runs_total{program=\"process_exec\"} 4",
            "halfsecond_program_seconds_total{program=\"process_exec\"} 2.5",
            "halfsecond_program_missed_total{program=\"process_exec\"} 1",
        ] {
            assert!(page.lines().any(|found| found == line), "no {line:?} in\n{page}");
        }
    }
}

#[test]
fn every_definition_appears_on_the_page_once_it_has_a_value() {
    let metrics = Metrics::new().unwrap();
    metrics.set_kernel_source(|| Some(KernelReading::default())).unwrap();
    metrics.observe_auth("publickey", true, 0.01);
    metrics.observe_link(true, 0.002);
    let page = metrics.render().unwrap();
    for definition in Metrics::definitions() {
        let named = format!("# HELP {} ", definition.name);
        let empty_family = !definition.labels.is_empty() && !page.contains(definition.name);
        assert!(page.contains(&named) || empty_family, "{} is not exported", definition.name);
    }
    assert!(page.contains("# TYPE process_cpu_seconds_total counter"), "{page}");
    assert!(page.contains("halfsecond_build_info{version="), "{page}");
    let resident =
        page.lines().find_map(|line| line.strip_prefix("process_resident_memory_bytes "));
    assert!(resident.unwrap().parse::<f64>().unwrap() > 1e6, "{resident:?}");
}

#[test]
fn a_login_is_counted_with_its_phases_in_buckets_of_powers_of_two() {
    let metrics = Metrics::new().unwrap();
    let login: Login = serde_json::from_value(crate::logins::sample()).unwrap();
    metrics.observe_login(&login);
    let page = metrics.render().unwrap();
    let labels = "method=\"publickey\",outcome=\"accepted\",phase=\"link\"";
    for line in [
        "halfsecond_logins_total{method=\"publickey\",outcome=\"accepted\"} 1".to_owned(),
        "halfsecond_logins_total{method=\"password\",outcome=\"refused\"} 0".to_owned(),
        "halfsecond_login_guessing_total{kind=\"brute_force\",outcome=\"accepted\"} 1".to_owned(),
        format!("halfsecond_login_phase_seconds_sum{{{labels}}} 0.005"),
        format!("halfsecond_login_phase_seconds_bucket{{{labels},le=\"0.00390625\"}} 0"),
        format!("halfsecond_login_phase_seconds_bucket{{{labels},le=\"0.0078125\"}} 1"),
        format!("halfsecond_login_phase_cpu_seconds_sum{{{labels}}} 0.004"),
    ] {
        assert!(page.lines().any(|found| found == line), "no {line:?} in\n{page}");
    }
    assert!(!page.contains("alice"), "no user is in a metric");
    metrics.observe_login(&Login { partial: true, ..login });
    let page = metrics.render().unwrap();
    let counts = [
        "halfsecond_logins_total{method=\"publickey\",outcome=\"accepted\"} 2".to_owned(),
        format!("halfsecond_login_phase_seconds_count{{{labels}}} 1"),
    ];
    for line in counts {
        assert!(page.lines().any(|found| found == line), "no {line:?} in\n{page}");
    }
    for (below, above) in LOGIN_BUCKETS.iter().zip(&LOGIN_BUCKETS[1..]) {
        assert!((above / below - 2.0).abs() < f64::EPSILON, "{below} {above}");
    }
}

#[test]
fn labels_stay_bounded_whatever_is_fed_in() {
    let metrics = Metrics::new().unwrap();
    for index in 0..100 {
        metrics.observe_auth(&format!("method-{index}"), false, 0.01);
    }
    let page = metrics.render().unwrap();
    let series = page.lines().filter(|line| line.starts_with("halfsecond_auth_cpu_seconds_count"));
    assert_eq!(series.count(), 1, "{page}");
}
