use std::fs;
use std::process::Command;

use super::harness::{Place, as_stranger, assert_plain, keys, run};

#[test]
fn doctor_writes_one_object_per_line_with_stable_keys() {
    let place = Place::new("");
    let ended = place.run(&["doctor", "--json"]);
    assert!(matches!(ended.code, Some(0 | 3)), "{ended:#?}");
    let lines = ended.lines();
    let names: Vec<_> =
        lines.iter().filter(|line| line["kind"] == "check").map(|line| &line["check"]).collect();
    assert_eq!(
        names,
        [
            "kernel",
            "btf",
            "capabilities",
            "pid_namespace",
            "lockdown",
            "ptrace_scope",
            "tracepoints",
            "uprobes",
            "kprobes",
            "cgroup",
            "configuration",
            "state_dir",
            "guarded",
            "suppressions"
        ]
    );
    for line in &lines {
        let expected: &[&str] = match line["kind"].as_str().unwrap() {
            "check" => &["check", "found", "kind", "remedy", "state", "unseen"],
            "probe" => &["kind", "mechanism", "price", "probe", "reason", "required", "unseen"],
            "limit" => &["kind", "limit", "unseen"],
            "sensor" => &["kind", "reason", "state"],
            "summary" => &["kind", "sound"],
            other => panic!("{other}"),
        };
        assert_eq!(keys(line), expected);
    }
    let sound = lines.last().unwrap()["sound"].as_bool().unwrap();
    assert_eq!(ended.code, Some(if sound { 0 } else { 3 }));
    let limits: Vec<_> =
        lines.iter().filter(|line| line["kind"] == "limit").map(|line| &line["limit"]).collect();
    let expected = [
        "transient_slots",
        "data_pointers",
        "callers_of_others",
        "forged_verdicts",
        "logins_elsewhere",
        "mapped_perf_events",
    ];
    assert_eq!(limits, expected);
    // Every probe says what is not seen without it.
    for probe in lines.iter().filter(|line| line["kind"] == "probe") {
        assert!(!probe["unseen"].as_str().unwrap().is_empty(), "{probe}");
    }
}

#[test]
fn doctor_says_what_it_cannot_list_where_something_else_lies_in_place_of_tracefs() {
    let place = Place::new("");
    let doctor = place.command(&["doctor", "--json"]);
    // In a mount namespace of its own.
    let hide = "for place in tracing debug; do mount -t tmpfs none /sys/kernel/$place; done; \
                touch /sys/kernel/tracing/README /sys/kernel/tracing/uprobe_events; exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", hide, "sh"]).arg(doctor.get_program());
    command.args(doctor.get_args());
    if !rustix::process::geteuid().is_root() {
        return println!("not tried: mounting needs root");
    }
    let ended = run(&mut command);
    let lines = ended.lines();
    let probe = lines.iter().find(|line| line["probe"] == "instrumentation").expect("listed");
    let reason = probe["reason"].as_str().unwrap_or_default();
    assert!(reason.contains("no tracefs is mounted"), "{probe:#}");
}

#[test]
fn doctor_without_root_names_what_is_missing_and_exits_3() {
    let place = Place::new("");
    place.open_to_all();
    let mut command = place.command(&["doctor"]);
    let Some(command) = as_stranger(&mut command) else { return };
    let ended = run(command).expect(3);
    assert_plain(&ended.stdout);
    for text in ["CAP_BPF", "CAP_SYS_PTRACE", "Not seen", "run as root"] {
        assert!(ended.stdout.contains(text), "no {text:?} in {ended:#?}");
    }
}

#[test]
fn doctor_names_guarded_programs_whose_linking_is_not_seen() {
    let place = Place::new("[[guarded]]\npath = \"/bin/sh\"\n");
    let guarded = |ended: &super::harness::Ended| {
        let lines = ended.lines();
        lines.into_iter().find(|line| line["check"] == "guarded").unwrap()
    };
    let check = guarded(&place.run(&["doctor", "--json"]));
    assert_eq!((&check["state"], &check["unseen"]), (&"ok".into(), &().into()), "{check}");

    let (fixed, narrow) = (place.path("fixed"), place.path("narrow"));
    place.write("main.c", "int main(void) { return 0; }\n");
    let mut cc = Command::new("cc");
    let built = cc.arg("-static").arg(place.path("main.c")).arg("-o").arg(&fixed);
    assert!(built.status().unwrap().success(), "cc -static");
    // Only its first bytes say that it is one.
    fs::write(&narrow, b"\x7fELF\x01\x01\x01").unwrap();
    let config = [&fixed, &narrow, &place.path("none")]
        .map(|path| format!("[[guarded]]\npath = \"{}\"\n", path.display()))
        .concat();
    let place = Place::new(&config);
    let check = guarded(&place.run(&["doctor", "--json"]));
    assert_eq!(check["state"], "degraded", "{check}");
    assert_eq!(check["found"], "2 of 3 programs are here");
    let unseen = check["unseen"].as_str().unwrap();
    for (path, what) in [(&fixed, "linked statically"), (&narrow, "a 32-bit program")] {
        assert!(unseen.contains(&format!("{} is {what}", path.display())), "{unseen}");
    }
    let text = place.run(&["doctor"]);
    assert!(text.stdout.contains("is linked statically: it has no loader"), "{text:#?}");
}

#[test]
fn doctor_with_a_wrong_configuration_still_tells_of_the_host_and_exits_2() {
    let place = Place::new("[detect]\nsetle = \"10ms\"\n");
    let ended = place.run(&["doctor"]).expect(2);
    for text in ["kernel", "unknown key `detect.setle`", "did you mean `settle`?"] {
        assert!(ended.stdout.contains(text), "no {text:?} in {ended:#?}");
    }
}
