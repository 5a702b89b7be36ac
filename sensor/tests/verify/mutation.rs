//! Whatever is written into a slot is found: slots of own children are overwritten one group after
//! the other, and each must be reported.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::time::Duration;

use object::elf;
use object::read::elf::ElfFile64;
use object::{LittleEndian, Object, ObjectSymbol, RelocationFlags};
use rustix::process::{Pid, Signal, kill_process};
use sensor::verify::{Category, Limits, Report, Verifier, VerifyError};

use crate::fixture::{Child, Workshop, command, wait_for};
use crate::servers;

/// Slots overwritten together.
const GROUP: usize = 16;
/// Slots overwritten per process at least.
const SAMPLE: usize = 320;

/// A stopped child and how to write into it.
struct Target {
    pid: u32,
    memory: File,
    /// Start of the executable mapping by path.
    text: BTreeMap<String, u64>,
    slots: Vec<u64>,
}

impl Target {
    fn new(pid: u32) -> Self {
        kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), Signal::STOP).unwrap();
        let status = format!("/proc/{pid}/stat");
        wait_for("stop", || fs::read_to_string(&status).ok()?.contains(") T ").then_some(()));
        let memory = OpenOptions::new().read(true).write(true).open(format!("/proc/{pid}/mem"));
        let (mut bases, mut text) = (BTreeMap::new(), BTreeMap::new());
        for line in fs::read_to_string(format!("/proc/{pid}/maps")).unwrap().lines() {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let [range, perms, offset, _, _, path] = fields[..] else { continue };
            let start = u64::from_str_radix(range.split('-').next().unwrap(), 16).unwrap();
            if offset == "00000000" {
                bases.entry(path.to_owned()).or_insert(start);
            }
            if perms.contains('x') {
                text.entry(path.to_owned()).or_insert(start);
            }
        }
        let modules = bases.iter().filter(|(path, _)| text.contains_key(*path));
        let slots = modules.filter(|(path, _)| path.starts_with('/'));
        let slots = slots.flat_map(|(path, base)| slots_of(path, *base)).collect();
        Self { pid, memory: memory.unwrap(), text, slots }
    }

    fn read(&self, addr: u64) -> u64 {
        let mut word = [0; 8];
        self.memory.read_exact_at(&mut word, addr).unwrap();
        u64::from_le_bytes(word)
    }

    fn write(&self, addr: u64, value: u64) {
        self.memory.write_all_at(&value.to_le_bytes(), addr).unwrap();
        assert_eq!(self.read(addr), value, "slot {addr:#x} was not written");
    }

    /// Evenly spread over all slots.
    fn sample(&self) -> Vec<u64> {
        let step = (self.slots.len() / SAMPLE).max(1);
        self.slots.iter().copied().step_by(step).collect()
    }

    fn text_of(&self, name: &str) -> u64 {
        *self.text.iter().find(|(path, _)| path.contains(name)).expect(name).1
    }
}

/// Slot addresses of one file, listed by the `object` crate from the section headers: independent
/// of the reader under test.
fn slots_of(path: &str, base: u64) -> Vec<u64> {
    let data = fs::read(path).unwrap();
    let file = ElfFile64::<LittleEndian>::parse(&*data).unwrap();
    let base = if file.kind() == object::ObjectKind::Executable { 0 } else { base };
    let relocations = file.dynamic_relocations().into_iter().flatten();
    let wanted = relocations.filter(|(_, relocation)| {
        let RelocationFlags::Elf { r_type } = relocation.flags() else { return false };
        [elf::R_X86_64_JUMP_SLOT, elf::R_X86_64_GLOB_DAT, elf::R_X86_64_IRELATIVE].contains(&r_type)
    });
    wanted.map(|(addr, _)| base + addr).collect()
}

fn verifier() -> Verifier {
    Verifier::new(Limits { recheck_after: Duration::ZERO, ..Limits::default() })
}

/// What an attacker might write: code of two other modules, next to the original, nothing mapped.
fn attack_values(target: &Target) -> [Box<dyn Fn(u64) -> u64>; 4] {
    let (libc, ld) = (target.text_of("/libc.so.6"), target.text_of("/ld-linux"));
    [
        Box::new(move |_| libc + 0x1234),
        Box::new(move |_| ld + 0x1000),
        Box::new(|original| original.wrapping_add(1)),
        Box::new(|_| 0x1000_dead_b000),
    ]
}

/// Overwrites a sample of slots with four values each. Slots that hold 0 are left alone: nobody
/// calls through them (undefined weak symbols, glibc's pseudo-IFUNC).
fn assert_all_found(name: &str, pid: u32) {
    let target = Target::new(pid);
    let mut verifier = verifier();
    let clean = verifier.check(pid).unwrap();
    assert!(clean.mismatches.is_empty(), "{name}: {:?}", clean.mismatches);
    assert_eq!(clean.slots_checked, target.slots.len() as u64, "{name}: another count of slots");
    let sample: Vec<(u64, u64)> =
        target.sample().into_iter().map(|slot| (slot, target.read(slot))).collect();
    let used: Vec<(u64, u64)> = sample.into_iter().filter(|(_, word)| *word != 0).collect();
    for group in used.chunks(GROUP) {
        for (number, value) in attack_values(&target).iter().enumerate() {
            for (slot, word) in group {
                target.write(*slot, value(*word));
            }
            let report = verifier.check(pid).unwrap();
            for (slot, word) in group {
                target.write(*slot, *word);
            }
            assert_found(&format!("{name}, attack {number}"), group, &report);
        }
    }
    assert!(verifier.check(pid).unwrap().mismatches.is_empty(), "{name}: not restored");
    println!("{name}: {} slots overwritten four times each, all found", used.len());
}

/// Every attacked slot is reported, and nothing else but slots that share an IFUNC with one: two
/// that disagree accuse each other.
fn assert_found(what: &str, attacked: &[(u64, u64)], report: &Report) {
    let attacked: BTreeSet<u64> = attacked.iter().map(|(slot, _)| *slot).collect();
    let found: BTreeSet<u64> =
        report.mismatches.iter().map(|mismatch| mismatch.slot_addr).collect();
    let missed: Vec<_> = attacked.difference(&found).collect();
    assert!(missed.is_empty(), "{what}: missed {missed:x?}");
    let wrong = report.mismatches.iter().find(|mismatch| {
        !attacked.contains(&mismatch.slot_addr) && mismatch.category != Category::IfuncRedirected
    });
    assert!(wrong.is_none(), "{what}: {}", wrong.unwrap());
}

#[test]
fn every_overwritten_slot_of_sshd_is_found() {
    if !cfg!(target_arch = "x86_64") {
        println!("the independent list of slots knows x86_64 only");
        return;
    }
    let Some(server) = servers::sshd() else { return };
    assert_all_found("sshd", server.pid());
}

#[test]
fn every_overwritten_slot_of_python_is_found() {
    if !cfg!(target_arch = "x86_64") {
        println!("the independent list of slots knows x86_64 only");
        return;
    }
    let Some(python) = servers::python() else { return };
    assert_all_found("python3", python.pid());
}

#[test]
fn a_process_whose_link_map_is_broken_is_an_error_and_not_clean() {
    let shop = Workshop::new();
    let victim = shop.cc("victim.c", "victim", &["-pie"]);
    let child = Child::ready(&mut command(victim));
    let target = Target::new(child.pid());
    let debug = r_debug(&target);
    let (state, head) = (target.read(debug + 24), target.read(debug + 8));
    let mut verifier = verifier();
    target.write(debug + 24, 1);
    let error = verifier.check(target.pid).unwrap_err();
    assert!(matches!(error, VerifyError::NotSettled { .. }), "{error:?}");
    target.write(debug + 24, state);
    let next = target.read(head + 24);
    for broken in [head, head + 16, 0x10] {
        target.write(head + 24, broken);
        let error = verifier.check(target.pid).unwrap_err();
        assert!(matches!(error, VerifyError::Malformed { .. }), "{broken:#x}: {error:?}");
    }
    target.write(head + 24, next);
    assert!(verifier.check(target.pid).unwrap().mismatches.is_empty());
}

/// Address of `_r_debug` in a target.
fn r_debug(target: &Target) -> u64 {
    let maps = fs::read_to_string(format!("/proc/{}/maps", target.pid)).unwrap();
    let line = maps.lines().find(|line| line.contains("/ld-linux")).unwrap();
    let base = u64::from_str_radix(line.split('-').next().unwrap(), 16).unwrap();
    let data = fs::read(line.split_whitespace().last().unwrap()).unwrap();
    let file = ElfFile64::<LittleEndian>::parse(&*data).unwrap();
    let mut symbols = file.dynamic_symbols();
    let symbol = symbols.find(|symbol| symbol.name() == Ok("_r_debug")).unwrap();
    base + symbol.address()
}
