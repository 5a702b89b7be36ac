//! Whatever is written into a slot is found: slots of own children are overwritten one group after
//! the other, and each must be reported.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use sensor::verify::{Category, Limits, Report, SlotKind, Verifier, VerifyError};

use crate::fixture::{Child, Workshop, command, have, have_32_bit, wait_for};
use crate::patience::repetitions;
use crate::servers;
use crate::slots::{self, FileSlots};

/// Slots overwritten together.
const GROUP: usize = 64;
/// Slots of each kind overwritten per process at most, and where a check takes its time.
const SAMPLE: (usize, usize) = (320, 64);

/// A stopped child and how to write into it.
pub(crate) struct Target {
    pub(crate) pid: u32,
    memory: File,
    modules: Vec<Module>,
    /// An address of writable memory without a file.
    heap: u64,
    pub(crate) slots: BTreeMap<u64, SlotKind>,
    wide: bool,
}

/// One mapped file.
pub(crate) struct Module {
    path: String,
    base: u64,
    file: FileSlots,
}

impl Target {
    pub(crate) fn new(pid: u32) -> Self {
        kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), Signal::STOP).unwrap();
        let status = format!("/proc/{pid}/stat");
        wait_for("stop", || fs::read_to_string(&status).ok()?.contains(") T ").then_some(()));
        let memory = OpenOptions::new().read(true).write(true).open(format!("/proc/{pid}/mem"));
        let (mut bases, mut text, mut heap) = (BTreeMap::new(), BTreeSet::new(), None);
        for line in fs::read_to_string(format!("/proc/{pid}/maps")).unwrap().lines() {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let start = u64::from_str_radix(line.split('-').next().unwrap(), 16).unwrap();
            if fields[1].starts_with("rw") && fields[4] == "0" {
                heap.get_or_insert(start + 0x100);
            }
            let [_, perms, offset, _, _, path] = fields[..] else { continue };
            if offset == "00000000" {
                bases.entry(path.to_owned()).or_insert(start);
            }
            if perms.contains('x') {
                text.insert(path.to_owned());
            }
        }
        let mapped = bases.into_iter().filter(|(path, _)| text.contains(path));
        let modules = mapped.filter(|(path, _)| path.starts_with('/')).map(|(path, base)| {
            let file = slots::of(&path);
            let base = if file.fixed { 0 } else { base };
            Module { path, base, file }
        });
        let modules: Vec<Module> = modules.collect();
        let wide = modules[0].file.wide;
        let slots = all_slots(&modules);
        Self { pid, memory: memory.unwrap(), modules, heap: heap.unwrap(), slots, wide }
    }

    pub(crate) fn read(&self, addr: u64) -> u64 {
        let mut word = [0; 8];
        let word_bytes = if self.wide { 8 } else { 4 };
        self.memory.read_exact_at(&mut word[..word_bytes], addr).unwrap();
        u64::from_le_bytes(word)
    }

    pub(crate) fn write(&self, addr: u64, value: u64) {
        let bytes = if self.wide { 8 } else { 4 };
        self.memory.write_all_at(&value.to_le_bytes()[..bytes], addr).unwrap();
        assert_eq!(self.read(addr), value, "slot {addr:#x} was not written");
    }

    /// Of each kind, evenly spread over all slots of the kind.
    fn sample(&self) -> Vec<(u64, SlotKind)> {
        let mut sample = Vec::new();
        let most = repetitions(SAMPLE.0, SAMPLE.1);
        for kind in SlotKind::ALL {
            let all = self.slots.iter().filter(|(_, one)| **one == kind);
            let all: Vec<u64> = all.map(|(slot, _)| *slot).collect();
            let step = (all.len() / most).max(1);
            sample.extend(all.into_iter().step_by(step).map(|slot| (slot, kind)));
        }
        sample
    }

    fn module(&self, name: &str) -> &Module {
        self.modules.iter().find(|module| module.path.contains(name)).expect(name)
    }

    /// Address of an exported function.
    pub(crate) fn function(&self, module: &str, name: &str) -> u64 {
        let module = self.module(module);
        module.base + module.file.symbols[name.as_bytes()].0
    }

    fn module_of(&self, addr: u64) -> Option<&Module> {
        let below = self.modules.iter().filter(|module| module.base <= addr);
        below.max_by_key(|module| module.base)
    }

    fn is_function(&self, addr: u64) -> bool {
        self.module_of(addr)
            .is_some_and(|module| module.file.functions.contains(&(addr - module.base)))
    }

    /// `module+offset`.
    fn place(&self, addr: u64) -> String {
        self.module_of(addr).map_or_else(
            || format!("{addr:#x}"),
            |module| format!("{}+{:#x}", module.path, addr - module.base),
        )
    }

    /// A function of the module that `addr` is in, but another one.
    fn neighbour(&self, addr: u64) -> u64 {
        let module = self.module_of(addr).unwrap_or(&self.modules[0]);
        let functions = module.file.functions.iter().map(|vaddr| module.base + vaddr);
        let mut others = functions.filter(|function| *function != addr);
        others.next().unwrap_or(addr + 1)
    }
}

/// Every slot of every module with its address in the process.
fn all_slots(modules: &[Module]) -> BTreeMap<u64, SlotKind> {
    let mut all = BTreeMap::new();
    for module in modules {
        all.extend(module.file.slots.iter().map(|(vaddr, kind)| (module.base + vaddr, *kind)));
        for (to, name, size) in &module.file.copies {
            let definers = modules.iter().filter(|other| other.path != module.path);
            let found = definers.filter_map(|other| Some((other, other.file.symbols.get(name)?)));
            let Some((definer, (from, _))) = found.into_iter().next() else { continue };
            let words = definer.file.slots.range(*from..from + size);
            all.extend(words.map(|(vaddr, _)| (module.base + to + vaddr - from, SlotKind::Copy)));
        }
    }
    all
}

fn verifier() -> Verifier {
    Verifier::new(Limits { recheck_after: Duration::ZERO, text: false, ..Limits::default() })
}

/// What an attacker might write: a function that runs commands, a function of another module,
/// another function of the same module, memory without a file.
fn attack_values(target: &Target) -> [Box<dyn Fn(u64) -> u64 + '_>; 4] {
    let libc = ["/libc.so", "/libc-"]
        .into_iter()
        .find(|name| target.modules.iter().any(|module| module.path.contains(name)));
    let libc = libc.unwrap_or("/ld-musl");
    let system = target.function(libc, "system");
    // Not the loader's: libc defines some of the same names, and either is right for their slots.
    let other = target.modules.iter().find(|module| {
        let is_either = module.path.contains(libc) || module.path.contains("/ld-");
        !is_either && !module.file.functions.is_empty()
    });
    let other = other.map_or(system + 8, |module| module.base + module.file.functions[0]);
    [
        Box::new(move |_| system),
        Box::new(move |original| if original == other { other + 1 } else { other }),
        Box::new(|original| target.neighbour(original)),
        Box::new(|_| target.heap),
    ]
}

/// Overwrites a sample of every kind with four values each; tells how many of each kind.
fn assert_all_found(name: &str, pid: u32) -> BTreeMap<SlotKind, usize> {
    let target = Target::new(pid);
    let mut verifier = verifier();
    let clean = verifier.check(pid).unwrap();
    let texts: Vec<String> = clean.mismatches.iter().map(ToString::to_string).collect();
    assert!(texts.is_empty(), "{name}: {texts:#?}");
    assert!(clean.gaps.is_empty(), "{name}: {:?}", clean.gaps);
    for kind in SlotKind::ALL {
        let listed = target.slots.values().filter(|one| **one == kind).count() as u64;
        assert_eq!(clean.slots.of(kind), listed, "{name}: another count of {kind} slots");
    }
    let mut counts = BTreeMap::new();
    let sample = target.sample();
    for group in sample.chunks(GROUP) {
        let words: Vec<u64> = group.iter().map(|(slot, _)| target.read(*slot)).collect();
        for (number, value) in attack_values(&target).iter().enumerate() {
            let written = |word: u64| {
                // A slot that is bound on demand tells by nothing which function is right for it:
                // the one chosen may be that.
                if target.is_function(word) { value(word) } else { value(word) + 1 }
            };
            for ((slot, _), word) in group.iter().zip(&words) {
                target.write(*slot, written(*word));
            }
            let report = verifier.check(pid).unwrap();
            for ((slot, _), word) in group.iter().zip(&words) {
                target.write(*slot, *word);
            }
            let places: Vec<String> = group
                .iter()
                .zip(&words)
                .map(|((slot, _), word)| {
                    let shown = [*slot, *word, written(*word)].map(|addr| target.place(addr));
                    shown.join(" ")
                })
                .collect();
            assert_found(&format!("{name}, attack {number}"), group, &places, &report);
        }
        for (_, kind) in group {
            *counts.entry(*kind).or_insert(0) += 1;
        }
    }
    assert!(verifier.check(pid).unwrap().mismatches.is_empty(), "{name}: not restored");
    println!("{name}: {} slots overwritten four times each, all found: {counts:?}", sample.len());
    counts
}

/// Every attacked slot is reported, and nothing else but slots that share an IFUNC with one: two
/// that disagree accuse each other.
fn assert_found(what: &str, attacked: &[(u64, SlotKind)], places: &[String], report: &Report) {
    let found: BTreeSet<u64> =
        report.mismatches.iter().map(|mismatch| mismatch.slot_addr).collect();
    let missed: Vec<_> =
        attacked.iter().zip(places).filter(|((slot, _), _)| !found.contains(slot)).collect();
    assert!(missed.is_empty(), "{what}: missed (slot, right, written) {missed:x?}");
    let wrong = report.mismatches.iter().find(|mismatch| {
        attacked.iter().all(|(slot, _)| *slot != mismatch.slot_addr)
            && mismatch.category != Category::IfuncRedirected
    });
    assert!(wrong.is_none(), "{what}: {}", wrong.unwrap());
}

#[test]
fn every_overwritten_slot_of_sshd_is_found() {
    let Some(server) = servers::sshd() else { return };
    assert_all_found("sshd", server.pid());
}

#[test]
fn every_overwritten_slot_of_python_is_found() {
    let Some(python) = servers::python() else { return };
    assert_all_found("python3", python.pid());
}

/// A library with every kind of slot and a program that uses it.
pub(crate) fn kinds(shop: &Workshop, cc: &str, library: &[&str], program: &[&str]) -> Child {
    let library = [&["-shared", "-fPIC", "-Wl,-soname,libkinds.so"], library].concat();
    shop.compile(cc, "kinds.c", "libkinds.so", &library);
    let program = [program, &["-l:libkinds.so"]].concat();
    Child::ready(&mut command(shop.compile(cc, "kinds_main.c", "kinds", &program)))
}

/// Flags of library and program that together give every kind.
pub(crate) const WAYS: [Way<'_>; 3] = [
    (&["-Wl,-z,lazy"], &["-no-pie", "-fno-pie", "-Wl,-z,lazy"]),
    (&["-Wl,-z,now"], &["-pie", "-Wl,-z,now"]),
    (&["-Wl,-z,pack-relative-relocs"], &["-pie", "-Wl,-z,pack-relative-relocs"]),
];

pub(crate) type Way<'a> = (&'a [&'a str], &'a [&'a str]);

fn assert_every_kind_is_found(cc: &str, machine: &[&str], ways: &[Way<'_>], without: &[SlotKind]) {
    let mut counts: BTreeMap<SlotKind, usize> = BTreeMap::new();
    for &(library, program) in ways {
        let shop = Workshop::new();
        let child = kinds(&shop, cc, &[machine, library].concat(), &[machine, program].concat());
        let name = format!("{cc} {machine:?} {program:?}");
        for (kind, count) in assert_all_found(&name, child.pid()) {
            *counts.entry(kind).or_insert(0) += count;
        }
    }
    let missing = SlotKind::ALL.into_iter().filter(|kind| !counts.contains_key(kind));
    assert!(missing.eq(without.iter().copied()), "{cc} {machine:?}: {counts:?}");
}

/// Makes x86 compilers use descriptors, as those for ARM do by themselves.
pub(crate) const DESCRIPTORS: &[&str] =
    if cfg!(target_arch = "x86_64") { &["-mtls-dialect=gnu2"] } else { &[] };

#[test]
fn every_kind_of_slot_is_found() {
    assert_every_kind_is_found("cc", DESCRIPTORS, &WAYS, &[]);
}

#[test]
fn every_kind_of_slot_of_a_32_bit_process_is_found() {
    if !have_32_bit() {
        return;
    }
    assert_every_kind_is_found("cc", &["-m32", "-mtls-dialect=gnu2"], &WAYS, &[]);
}

#[test]
fn every_kind_of_slot_of_a_musl_process_is_found() {
    if !have("musl-gcc") {
        return;
    }
    // musl has no IFUNCs, and before 1.2.4 no packed relocations.
    let (ways, _) = WAYS.split_at(2);
    let without = [SlotKind::Irelative, SlotKind::Relr];
    assert_every_kind_is_found("musl-gcc", DESCRIPTORS, ways, &without);
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
pub(crate) fn r_debug(target: &Target) -> u64 {
    let maps = fs::read_to_string(format!("/proc/{}/maps", target.pid)).unwrap();
    let line = maps.lines().find(|line| line.contains("/ld-linux")).unwrap();
    let base = u64::from_str_radix(line.split('-').next().unwrap(), 16).unwrap();
    base + slots::of(line.split_whitespace().last().unwrap()).symbols[&b"_r_debug"[..]].0
}
