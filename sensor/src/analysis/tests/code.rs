//! Changed code and stray mappings as incidents.

use super::*;
use crate::detect::{CodeChange, StrayCode, WhyChanged};

const LIBC: &str = "/usr/lib/x86_64-linux-gnu/libc.so.6";

fn place(path: &str, offset: u64, symbol: &str) -> Place {
    let module = ModuleId { path: path.to_owned(), build: "cd".to_owned() };
    let symbol = Some((symbol.to_owned(), 0));
    Place { address: offset, module: Some(module), offset: Some(offset), symbol, memory: None }
}

fn change(why: WhyChanged) -> CodeChange {
    CodeChange {
        place: place(LIBC, 0xd_8410, "getppid"),
        length: 5,
        expected: "b8 6e 00 00 00".to_owned(),
        actual: "e9 1b 3c 00 00".to_owned(),
        expected_code: vec!["0xd8410: mov eax, 0x6e".to_owned()],
        actual_code: vec!["0xd8410: jmp 0xdc030".to_owned()],
        leads_to: Some(place(EVIL, 0x1139, "own_getppid")),
        why,
    }
}

pub(super) fn stray(module: Option<&str>, differing: Option<u64>, usual: bool) -> StrayCode {
    StrayCode {
        module: module.map(|path| ModuleId { path: path.to_owned(), build: "inode:1".to_owned() }),
        problem: "is mapped as code and in no list of the loader",
        address: 0x7f00_0000_0000,
        size: 8192,
        memory: "anonymous rwx".to_owned(),
        differing,
        usual,
    }
}

/// One login while every process looks like `report`.
fn login(report: CheckReport) -> Bench {
    let mut bench = Bench::new();
    bench.slots.0.lock().unwrap().4 = report;
    bench.login(&Login::new("publickey"));
    bench
}

#[test]
fn a_patched_function_is_a_critical_incident_that_names_both_sides() {
    let changes = vec![change(WhyChanged::Unknown)];
    let bench = login(CheckReport { changes, ..CheckReport::default() });
    let incident = bench.incident();
    assert_eq!(
        (incident.severity, detectors(incident)),
        (Severity::Critical, vec!["text_patched"])
    );
    println!("{}\n{}\n{}", incident.title, incident.story, incident.recommendation);
    for word in ["getppid", "libc.so.6", EVIL] {
        assert!(incident.story.contains(word), "{word}: {}", incident.story);
    }
    assert!(incident.title.contains("getppid") && incident.title.contains("liblzma.so.5.4.1"));
    let finding = &incident.findings[0];
    let code = finding.evidence.iter().find(|one| matches!(one, Evidence::Code { .. })).unwrap();
    let json = serde_json::to_value(code).unwrap();
    assert_eq!((&json["kind"], &json["function"]), (&"code".into(), &"getppid".into()));
    assert_eq!(json["build_id"], "cd", "whose code it is: {json}");
    assert!(json["leads_to_build_id"].is_string(), "who is blamed: {json}");
}

#[test]
fn a_known_tool_and_a_restored_page_are_worth_knowing_and_no_more() {
    let changes = vec![change(WhyChanged::Tool("a breakpoint of gdb, 7".to_owned()))];
    let restored = vec![place(LIBC, 0x1000, "")];
    let bench = login(CheckReport { changes, restored, ..CheckReport::default() });
    assert_eq!(bench.fired(), ["text_patched"]);
    let severe = |incident: &Incident| incident.severity > Severity::Info;
    assert!(!bench.told.iter().any(|update| severe(&update.incident)), "{:?}", bench.told);
}

#[test]
fn a_file_that_changed_proves_nothing() {
    let changes = vec![change(WhyChanged::FileChanged)];
    let bench = login(CheckReport { changes, ..CheckReport::default() });
    let severe = |incident: &Incident| incident.severity > Severity::Low;
    assert!(!bench.told.iter().any(|update| severe(&update.incident)), "{:?}", bench.told);
}

#[test]
fn a_module_in_no_list_is_critical_and_memory_of_no_module_is_not() {
    let strays = vec![stray(None, None, true), stray(Some(EVIL), None, false)];
    let bench = login(CheckReport { strays, ..CheckReport::default() });
    let incident = bench.incident();
    assert_eq!(incident.severity, Severity::Critical);
    assert_eq!(detectors(incident), ["module_unlinked"]);
    assert!(incident.title.contains("liblzma.so.5.4.1"), "{}", incident.title);
    println!("{}\n{}", incident.title, incident.story);
    for strays in [vec![stray(None, None, true)], vec![stray(Some(LIBC), Some(0), false)]] {
        let bench = login(CheckReport { strays, ..CheckReport::default() });
        assert_eq!(bench.incident().severity, Severity::Medium);
    }
}
