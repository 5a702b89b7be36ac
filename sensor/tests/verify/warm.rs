//! What happens to a process after it was found clean is found as well as if nobody had looked
//! before: the second look goes another way than the first.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::time::{Duration, SystemTime};

use rustix::process::{Pid, Signal, kill_process};
use sensor::verify::{Depth, Limits, Report, SlotKind, Stray, StrayKind, Verifier, VerifyError};

use crate::fixture::{Child, Workshop, command, wait_for};
use crate::mutation::{DESCRIPTORS, Target, WAYS, kinds, r_debug};
use crate::servers;

/// Slots of each kind overwritten, one after the other.
const SAMPLE: usize = 12;

fn limits() -> Limits {
    Limits { recheck_after: Duration::ZERO, ..Limits::default() }
}

/// Checks a process that was found clean before; it must be known again.
fn assert_known(verifier: &mut Verifier, pid: u32, what: &str) {
    let before = verifier.known_again();
    let report = verifier.check(pid).unwrap();
    assert!(report.is_clean() && report.gaps.is_empty(), "{what}: {report:?}");
    assert_eq!(verifier.known_again(), before + 1, "{what}: looked at anew");
}

/// Checks a process that was found clean and is not as it was: it must be looked at anew, and the
/// answer must be that of a verifier that has never seen it.
fn assert_as_if_new(
    verifier: &mut Verifier,
    limits: Limits,
    pid: u32,
    what: &str,
) -> Result<Report, VerifyError> {
    let before = verifier.known_again();
    let (seen, new) = (verifier.check(pid), Verifier::new(limits).check(pid));
    assert_eq!(verifier.known_again(), before, "{what}: taken for what it was");
    let told = |outcome: &Result<Report, VerifyError>| match outcome {
        Ok(report) => serde_json::to_string(report).unwrap(),
        Err(error) => error.to_string(),
    };
    assert_eq!(told(&seen), told(&new), "{what}");
    seen
}

/// Overwrites one slot after the other, each after the process was known again.
fn assert_each_slot_is_found(name: &str, pid: u32, limits: Limits, depth: Depth) {
    let target = Target::new(pid);
    let mut verifier = Verifier::new(Limits { depth, ..limits });
    verifier.check(pid).unwrap();
    let mut counts = BTreeMap::new();
    for kind in SlotKind::ALL {
        let all: Vec<u64> =
            target.slots.iter().filter(|(_, one)| **one == kind).map(|(slot, _)| *slot).collect();
        if verifier.check(pid).unwrap().slots.of(kind) == 0 {
            continue;
        }
        for slot in all.iter().step_by((all.len() / SAMPLE).max(1)) {
            assert_known(&mut verifier, pid, name);
            let word = target.read(*slot);
            // A function's second byte: nowhere for anybody to lead to.
            target.write(*slot, word.wrapping_add(1));
            let report = verifier.check(pid).unwrap();
            target.write(*slot, word);
            let found = report.mismatches.iter().any(|mismatch| mismatch.slot_addr == *slot);
            assert!(found, "{name}: {kind} at {slot:#x} is not found");
            // What it is now is remembered anew.
            verifier.check(pid).unwrap();
            *counts.entry(kind).or_insert(0) += 1;
        }
    }
    println!("{name}: overwritten after it was known again, all found: {counts:?}");
}

#[test]
fn a_slot_overwritten_after_a_clean_look_is_found_whatever_its_kind() {
    for (library, program) in WAYS {
        let shop = Workshop::new();
        let (library, program) = ([DESCRIPTORS, library].concat(), [DESCRIPTORS, program].concat());
        let child = kinds(&shop, "cc", &library, &program);
        assert_each_slot_is_found(&format!("{program:?}"), child.pid(), limits(), Depth::Full);
    }
}

#[test]
fn a_slot_of_sshd_overwritten_after_a_clean_look_is_found() {
    let Some(server) = servers::sshd() else { return };
    // Other programs' probes may sit in its code just now.
    let limits = Limits { text: false, ..limits() };
    for depth in [Depth::Got, Depth::Full] {
        assert_each_slot_is_found(&format!("sshd, {depth:?}"), server.pid(), limits, depth);
    }
}

#[test]
fn a_link_map_changed_after_a_clean_look_is_noticed() {
    let shop = Workshop::new();
    let victim = shop.cc("victim.c", "victim", &["-pie"]);
    let child = Child::ready(&mut command(victim));
    let (target, mut verifier) = (Target::new(child.pid()), Verifier::new(limits()));
    verifier.check(target.pid).unwrap();
    let debug = r_debug(&target);
    let head = target.read(debug + 8);
    let library = target.read(target.read(head + 24) + 24);
    let after = target.read(library + 24);
    let places = [
        ("l_addr", library, 0x1000),
        ("l_name", library + 8, 1),
        ("l_ld", library + 16, 8),
        ("l_next", library + 24, 8),
        ("l_prev", library + 32, 8),
        ("r_version", debug, 1),
        ("r_map", debug + 8, 8),
        ("r_state", debug + 24, 1),
    ];
    for (name, place, by) in places {
        assert_known(&mut verifier, target.pid, name);
        let word = target.read(place);
        target.write(place, word.wrapping_add(by));
        let outcome = assert_as_if_new(&mut verifier, limits(), target.pid, name);
        target.write(place, word);
        // A name only matters to who looks for it.
        let quiet = outcome.is_ok_and(|report| report.is_clean() && report.gaps.is_empty());
        assert!(!quiet || name == "l_name" || name == "r_version", "{name} is not noticed");
        verifier.check(target.pid).unwrap();
    }
    assert_known(&mut verifier, target.pid, "before it is unlinked");
    let before = target.read(library + 32);
    target.write(before + 24, after);
    target.write(after + 32, before);
    // While it is stopped it may be between two steps of the loader.
    kill_process(Pid::from_raw(target.pid.cast_signed()).unwrap(), Signal::CONT).unwrap();
    let status = format!("/proc/{}/stat", target.pid);
    wait_for("rest", || fs::read_to_string(&status).ok()?.contains(") S ").then_some(()));
    let report = assert_as_if_new(&mut verifier, limits(), target.pid, "unlinked").unwrap();
    let unlisted = |stray: &Stray| stray.kind == StrayKind::Unlisted;
    assert!(report.text.strays.iter().any(unlisted), "{report:?}");
}

#[test]
fn code_changed_after_a_clean_look_is_found_in_private_pages_too() {
    let shop = Workshop::new();
    let victim = shop.cc("victim.c", "victim", &["-pie"]);
    let child = Child::ready(&mut command(victim));
    let (target, mut verifier) = (Target::new(child.pid()), Verifier::new(limits()));
    verifier.check(target.pid).unwrap();
    let place = target.function("/libc.so", "getppid");
    let memory = OpenOptions::new().write(true).open(format!("/proc/{}/mem", target.pid)).unwrap();
    let word = target.read(place);
    // The first time the page becomes private; then it is, and only its content tells.
    for round in ["shared", "private"] {
        assert_known(&mut verifier, target.pid, round);
        memory.write_all_at(&[0xcc], place).unwrap();
        let report = assert_as_if_new(&mut verifier, limits(), target.pid, round).unwrap();
        let patch = report.text.unexplained().next().unwrap();
        assert_eq!(patch.addr, place, "{round}");
        target.write(place, word);
        let known = verifier.known_again();
        let report = verifier.check(target.pid).unwrap();
        assert!(report.is_clean() && report.text.restored.len() == 1, "{round}: {report:?}");
        // The second time it is what it was after the first.
        assert_eq!(verifier.known_again() - known, u64::from(round == "private"));
    }
}

#[test]
fn areas_changed_after_a_clean_look_are_looked_at() {
    let shop = Workshop::new();
    shop.library("plugin.c", "libplugin.so", &["-DNUMBER=1"]);
    let later = shop.cc("later.c", "later", &["-pie"]);
    let open = format!("o {}", shop.path("libplugin.so").display());
    for (request, answer) in [(open.as_str(), "opened"), ("w", "writable"), ("a", "mapped")] {
        let mut child = Child::ready(&mut command(&later));
        let mut verifier = Verifier::new(limits());
        verifier.check(child.pid()).unwrap();
        assert_known(&mut verifier, child.pid(), request);
        assert_eq!(child.ask(request), answer);
        let report = assert_as_if_new(&mut verifier, limits(), child.pid(), request).unwrap();
        match answer {
            "opened" => assert_eq!(report.modules, 4, "{report:?}"),
            "mapped" => assert_eq!(report.text.loose.len(), 1, "{report:?}"),
            _ => assert!(report.is_clean(), "{report:?}"),
        }
    }
}

#[test]
fn a_fork_is_known_by_its_parent_until_it_changes() {
    let shop = Workshop::new();
    // What is bound on first call would differ between the two.
    let later = shop.cc("later.c", "later", &["-pie", "-Wl,-z,now"]);
    let mut child = Child::ready(&mut command(later));
    let mut verifier = Verifier::new(limits());
    verifier.check(child.pid()).unwrap();
    let fork: u32 = child.ask("f").parse().unwrap();
    // Its last own system call is behind it when it waits.
    let waits = format!("/proc/{fork}/wchan");
    wait_for("the fork", || fs::read_to_string(&waits).ok()?.contains("pause").then_some(()));
    assert_known(&mut verifier, fork, "fork");
    let report = verifier.check(fork).unwrap();
    let stat = fs::read_to_string(format!("/proc/{fork}/stat")).unwrap();
    let started = stat.rsplit_once(") ").unwrap().1.split(' ').nth(19).unwrap();
    assert_eq!((report.pid, report.start_ticks.to_string().as_str()), (fork, started));
    assert_eq!(verifier.held().images, 1);
    let target = Target::new(fork);
    let (slot, _) = target.slots.iter().find(|(_, kind)| **kind == SlotKind::GlobDat).unwrap();
    target.write(*slot, target.function("/libc.so", "system"));
    let report = assert_as_if_new(&mut verifier, limits(), fork, "its own slot").unwrap();
    assert_eq!(report.mismatches.len(), 1);
    assert_known(&mut verifier, child.pid(), "the parent");
}

#[test]
fn a_file_written_to_after_a_clean_look_is_read_again() {
    let shop = Workshop::new();
    let victim = shop.cc("victim.c", "victim", &["-pie"]);
    let child = Child::ready(&mut command(&victim));
    let mut verifier = Verifier::new(limits());
    verifier.check(child.pid()).unwrap();
    assert_known(&mut verifier, child.pid(), "before");
    let later = SystemTime::now() + Duration::from_mins(1);
    fs::File::open(victim).unwrap().set_modified(later).unwrap();
    // Within a second or so: files are not asked for at every look.
    wait_for("a look at the file", || {
        let before = verifier.known_again();
        verifier.check(child.pid()).unwrap();
        (verifier.known_again() == before).then_some(())
    });
}

#[test]
fn what_is_remembered_stays_within_its_bounds() {
    let shop = Workshop::new();
    let victim = shop.cc("victim.c", "victim", &["-pie"]);
    let children: Vec<Child> = (0..3).map(|_| Child::ready(&mut command(&victim))).collect();
    let mut verifier = Verifier::new(Limits { image_entries: 2, ..limits() });
    for child in children.iter().chain(&children) {
        verifier.check(child.pid()).unwrap();
    }
    let held = verifier.held();
    assert_eq!((held.images, verifier.known_again()), (2, 0), "the oldest has left: {held:?}");
    assert!(held.image_bytes < 256 << 10, "{held:?}");
    let mut none = Verifier::new(Limits { image_bytes: 0, ..limits() });
    none.check(children[0].pid()).unwrap();
    none.check(children[0].pid()).unwrap();
    assert_eq!((none.held().images, none.known_again()), (0, 0));
}
