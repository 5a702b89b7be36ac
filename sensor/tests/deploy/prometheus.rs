use std::collections::BTreeSet;
use std::process::Command;

use sensor::metrics::Metrics;

use super::{deployed, has, said, text};

const RULES: &str = "prometheus/halfsecond.rules.yml";

/// Every word of the rules that looks like a metric of ours.
fn named_metrics() -> BTreeSet<String> {
    let text = text(RULES);
    let expressions = text.lines().filter_map(|line| line.trim().strip_prefix("expr:"));
    expressions
        .flat_map(|line| line.split(|c: char| !c.is_ascii_alphanumeric() && c != '_'))
        .filter(|word| word.starts_with("halfsecond_"))
        .map(str::to_owned)
        .collect()
}

#[test]
fn the_rules_ask_for_metrics_that_exist() {
    let known: BTreeSet<_> = Metrics::definitions().map(|one| one.name.to_owned()).collect();
    let named = named_metrics();
    assert!(named.len() > 5, "{named:?}");
    let unknown: Vec<_> = named.difference(&known).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
}

#[test]
fn every_alert_fires_as_its_test_says() {
    if !has("promtool", "prometheus") {
        return;
    }
    let (content, said_of_rules) =
        said(Command::new("promtool").args(["check", "rules"]).arg(deployed(RULES)));
    assert!(content, "{said_of_rules}");
    let tests = deployed("prometheus/halfsecond.rules.test.yml");
    let (content, said_of_tests) =
        said(Command::new("promtool").args(["test", "rules"]).arg(&tests));
    assert!(content, "{said_of_tests}");
}

#[test]
fn every_alert_has_a_test() {
    let (rules, tests) = (text(RULES), text("prometheus/halfsecond.rules.test.yml"));
    let alerts: Vec<_> =
        rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(alerts.len() >= 8, "{alerts:?}");
    for alert in alerts {
        let named = format!("alertname: {alert}\n");
        assert!(tests.contains(&named), "{alert} has no test in which it fires");
    }
}

#[test]
fn the_page_of_metrics_satisfies_promtool() {
    if !has("promtool", "prometheus") {
        return;
    }
    let metrics = Metrics::new().unwrap();
    metrics.observe_auth("publickey", true, 0.02);
    metrics.observe_link(true, 0.002);
    metrics.set_kernel_source(|| Some(sensor::metrics::KernelReading::default())).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("page");
    std::fs::write(&page, metrics.render().unwrap()).unwrap();
    let (content, said) = said(
        Command::new("promtool")
            .args(["check", "metrics"])
            .stdin(std::fs::File::open(&page).unwrap()),
    );
    assert!(content && said.trim().is_empty(), "{said}");
}
