use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::harness::{Place, as_stranger, assert_plain, keys, run};
use crate::patience::patient;

const SUMMARY: [&str; 29] = [
    "anonymous_code_bytes",
    "audit_unrequested",
    "checked",
    "code_explained",
    "code_file_changed",
    "code_notes",
    "code_pages_compared",
    "code_patched",
    "code_restored_pages",
    "code_unlinked",
    "denied",
    "failed",
    "failures",
    "file_changed",
    "gaps",
    "gone",
    "kind",
    "mismatches",
    "needed_capabilities",
    "not_covered",
    "processes",
    "slots_by_kind",
    "slots_checked",
    "slots_skipped",
    "with_anonymous_code",
    "with_findings",
    "with_gaps",
    "with_preloads",
    "without_loader",
];

/// A dynamically linked program that waits, killed at the end of the test.
struct Sleeper(Child);

impl Sleeper {
    fn start() -> Self {
        let child = Command::new("sleep").arg("600").stdout(Stdio::null()).spawn().unwrap();
        let sleeper = Self(child);
        let deadline = Instant::now() + patient(Duration::from_secs(20));
        // Linked once it sleeps: its standard system call is then clock_nanosleep.
        loop {
            let state = fs::read_to_string(format!("/proc/{}/wchan", sleeper.pid()));
            if state.is_ok_and(|wchan| wchan.contains("nanosleep")) {
                return sleeper;
            }
            assert!(Instant::now() < deadline, "sleep does not sleep");
            std::thread::yield_now();
        }
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Makes one slot of the sleeper lead where another one leads, and tells its symbol. Imitates what
/// a library does that patches the GOT; the sleeper never calls the function again.
fn redirect_a_slot(sleeper: &Sleeper) -> Option<String> {
    let exe = fs::read_link(format!("/proc/{}/exe", sleeper.pid())).unwrap();
    let listed = Command::new("readelf").args(["--relocs", "--wide"]).arg(&exe).output();
    let Ok(listed) = listed else {
        println!("skipped: readelf (package binutils) is not installed");
        return None;
    };
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    let slots: Vec<(u64, String)> = listed
        .lines()
        .filter(|line| line.contains("JUMP_SLO"))
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let offset = u64::from_str_radix(words.next()?, 16).ok()?;
            let symbol = words.nth(3)?.split('@').next()?.to_owned();
            Some((offset, symbol))
        })
        .collect();
    let maps = fs::read_to_string(format!("/proc/{}/maps", sleeper.pid())).unwrap();
    let first = maps.lines().find(|line| line.ends_with(exe.to_str().unwrap())).unwrap();
    let base = u64::from_str_radix(first.split('-').next().unwrap(), 16).unwrap();
    let memory = File::options()
        .read(true)
        .write(true)
        .open(format!("/proc/{}/mem", sleeper.pid()))
        .unwrap();
    let [(from, symbol), .., (to, _)] = slots.as_slice() else { panic!("no slots in {listed}") };
    let mut elsewhere = [0; 8];
    memory.read_exact_at(&mut elsewhere, base + to).unwrap();
    memory.write_all_at(&elsewhere, base + from).unwrap();
    Some(symbol.clone())
}

#[test]
fn a_clean_process_exits_0_with_one_summary() {
    let sleeper = Sleeper::start();
    let place = Place::new("");
    let ended = place.run(&["scan", "--json", "--pid", &sleeper.pid().to_string()]).expect(0);
    let lines = ended.lines();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert_eq!(keys(&lines[0]), SUMMARY);
    assert_eq!(lines[0]["kind"], "summary");
    assert_eq!(lines[0]["checked"], 1);
    assert!(lines[0]["slots_checked"].as_u64().unwrap() > 10, "{lines:?}");
    let text = place.run(&["scan", "--pid", &sleeper.pid().to_string()]).expect(0);
    assert_plain(&text.stdout);
    assert!(
        text.stdout.starts_with("No slot leads elsewhere, no code was changed.\n"),
        "{text:#?}"
    );
}

#[test]
fn a_redirected_slot_exits_1_and_names_the_symbol() {
    let sleeper = Sleeper::start();
    let Some(symbol) = redirect_a_slot(&sleeper) else { return };
    let place = Place::new("");
    let pid = sleeper.pid().to_string();
    let ended = place.run(&["scan", "--json", "--pid", &pid]).expect(1);
    let lines = ended.lines();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert_eq!(
        keys(&lines[0]),
        [
            "cmdline",
            "detector",
            "evidence",
            "exe",
            "gaps",
            "kind",
            "pid",
            "preloads",
            "settled",
            "slots_by_kind",
            "slots_checked",
            "tools",
            "uid"
        ]
    );
    assert_eq!(lines[0]["pid"], sleeper.pid());
    assert_eq!(lines[0]["cmdline"], serde_json::json!(["sleep", "600"]));
    assert_eq!(lines[0]["detector"], "got_redirected");
    let evidence = &lines[0]["evidence"][0];
    assert!(evidence["symbol"].as_str().unwrap().starts_with(&symbol), "{evidence} {symbol}");
    assert_eq!((&lines[1]["kind"], &lines[1]["mismatches"]), (&"summary".into(), &1.into()));
    let text = place.run(&["scan", "--pid", &pid]).expect(1);
    assert_plain(&text.stdout);
    for part in [&symbol, "expected", "leads to", "1 slot leads elsewhere."] {
        assert!(text.stdout.contains(part), "no {part:?} in {text:#?}");
    }
}

#[test]
fn changed_code_exits_1_and_is_shown_with_what_the_file_has() {
    let sleeper = Sleeper::start();
    let pid = sleeper.pid().to_string();
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let code = maps.lines().find(|line| line.contains(" r-xp ")).unwrap();
    let end = u64::from_str_radix(code.split(['-', ' ']).nth(1).unwrap(), 16).unwrap();
    let memory = File::options().write(true).open(format!("/proc/{pid}/mem")).unwrap();
    // Behind the last instruction, where a hook would keep its own.
    memory.write_all_at(&[0x5a], end - 1).unwrap();
    let place = Place::new("");
    let lines = place.run(&["scan", "--json", "--pid", &pid]).expect(1).lines();
    assert_eq!((&lines[0]["detector"], lines.len()), (&"text_patched".into(), 2), "{lines:?}");
    let evidence = &lines[0]["evidence"][0];
    assert_eq!((&evidence["kind"], &evidence["actual"]), (&"code".into(), &"5a".into()));
    assert_eq!(lines[1]["code_patched"], 1);
    let text = place.run(&["scan", "--pid", &pid]).expect(1);
    assert_plain(&text.stdout);
    for part in ["file has", "memory has", "Code was changed in 1 place."] {
        assert!(text.stdout.contains(part), "no {part:?} in {text:#?}");
    }
}

#[test]
fn a_process_that_is_not_there_exits_2() {
    let mut child = Command::new("true").spawn().unwrap();
    child.wait().unwrap();
    let pid = child.id().to_string();
    let ended = Place::new("").run(&["scan", "--pid", &pid]).expect(2);
    assert_eq!(ended.stderr, format!("error: there is no process {pid}\n"));
}

#[test]
fn a_scan_without_any_privilege_exits_3_and_names_the_capability() {
    let place = Place::new("");
    place.open_to_all();
    let sleeper = Sleeper::start();
    for arguments in [&["scan", "--json"][..], &["scan", "--pid", &sleeper.pid().to_string()]] {
        let mut command = place.command(arguments);
        let Some(command) = as_stranger(&mut command) else { return };
        let ended = run(command).expect(3);
        assert!(ended.stderr.contains("CAP_SYS_PTRACE"), "{ended:#?}");
        assert!(ended.stderr.contains("run as root"), "{ended:#?}");
        for line in ended.lines() {
            assert!(line["denied"].as_u64().unwrap() > 0, "{line}");
        }
    }
}

/// Kinds of change that every Linux host can try; the others depend on how its `cat` was linked.
const ALWAYS_TRIED: [&str; 6] =
    ["glob_dat", "dynamic", "code", "vdso", "unlinked_module", "false_address"];

#[test]
fn the_self_test_finds_every_change_and_tries_the_kinds_every_program_has() {
    let place = Place::new("");
    let lines = place.run(&["scan", "--self-test", "--json"]).expect(0).lines();
    let (summary, rows) = lines.split_last().unwrap();
    assert_eq!(keys(summary), ["found", "kind", "programs", "tried"]);
    assert_eq!((&summary["kind"], &summary["found"]), (&"summary".into(), &summary["tried"]));
    assert_eq!(summary["programs"].as_array().unwrap().len(), 2, "{summary}");
    assert!(summary["programs"][0].as_str().unwrap().ends_with("/halfsecond"), "{summary}");
    for row in rows {
        assert_eq!(keys(row), ["found", "kind", "missed", "skipped", "tried", "what"]);
        assert_eq!(row["tried"] == 0, !row["skipped"].is_null(), "{row}");
        println!("{row}");
    }
    let tried = |what: &str| rows.iter().find(|row| row["what"] == what).unwrap()["tried"].clone();
    for what in ALWAYS_TRIED {
        assert!(tried(what).as_u64().unwrap() > 0, "{what}: {lines:?}");
    }
    assert_eq!(tried("anonymous_code").as_u64() > Some(0), cfg!(target_arch = "x86_64"));
}

#[test]
fn the_self_test_for_people_is_a_table() {
    let text = Place::new("").run(&["scan", "--self-test"]).expect(0);
    assert_plain(&text.stdout);
    assert!(text.stdout.starts_with("All "), "{text:#?}");
    for part in [" were found.\n", "  kind", "glob_dat", "anonymous_code"] {
        assert!(text.stdout.contains(part), "no {part:?} in {text:#?}");
    }
}

#[test]
fn the_self_test_is_of_its_own_child_only() {
    let ended = Place::new("").run(&["scan", "--self-test", "--pid", "1"]).expect(2);
    assert!(ended.stderr.contains("cannot be used with"), "{ended:#?}");
}
