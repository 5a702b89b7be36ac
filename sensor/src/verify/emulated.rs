//! The verifier against a 64-bit ARM process. On another machine an emulator runs it: QEMU maps
//! the program's files at the program's own addresses, so its memory reads like the real thing;
//! only the auxiliary vector is the emulator's.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use tempfile::TempDir;

use super::auxv::Auxv;
use super::budget::Budget;
use super::elf::SlotKind;
use super::process::Process;
use super::{Depth, Gap, Limits, Report, Verifier};

const CC: &str = "aarch64-linux-gnu-gcc";
const ROOT: &str = "/usr/aarch64-linux-gnu";
/// Slots overwritten together.
const GROUP: usize = 64;

/// A running program with its files; killed when dropped.
struct Emulated {
    child: Child,
    _files: TempDir,
}

impl Emulated {
    /// The library of every kind of slot and its program, built with these flags for both.
    fn start(library: &[&str], program: &[&str]) -> Option<Self> {
        let files = tempfile::Builder::new().prefix("halfsecond-arm-").tempdir().unwrap();
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/verify/c");
        let dir = files.path();
        let cc = |source: &str, output: &str, flags: &[&str]| {
            let mut cc = Command::new(CC);
            cc.args(["-O1", "-Wl,--build-id", "-o"]).arg(dir.join(output));
            cc.arg(sources.join(source)).args(flags);
            cc.status().is_ok_and(|status| status.success())
        };
        let library = [&["-shared", "-fPIC", "-Wl,-soname,libkinds.so"], library].concat();
        if !cc("kinds.c", "libkinds.so", &library) {
            println!("{CC} does not work here: 64-bit ARM is not tested");
            return None;
        }
        let (path, search) =
            (format!("-Wl,-rpath,{}", dir.display()), format!("-L{}", dir.display()));
        let program = [program, &["-l:libkinds.so", &path, &search]].concat();
        assert!(cc("kinds_main.c", "kinds", &program));
        let mut emulator = Command::new("qemu-aarch64");
        emulator.args(["-L", ROOT]).arg(dir.join("kinds"));
        emulator.env("HALFSECOND_FIXTURE", "emulated");
        let Ok(mut child) = emulator.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn() else {
            println!("qemu-aarch64 is not installed (qemu-user): 64-bit ARM is not tested");
            return None;
        };
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        let pid = Pid::from_raw(child.id().cast_signed()).unwrap();
        // It must not run into what is written below.
        kill_process(pid, Signal::STOP).unwrap();
        waitpid(Some(pid), WaitOptions::UNTRACED).unwrap();
        Some(Self { child, _files: files })
    }

    /// The process as the kernel would describe it, were it not emulated.
    fn process(&self) -> Process {
        let mut process = Process::open(self.child.id()).unwrap();
        let first = |name: &str| process.maps.iter().find(|vma| vma.path.contains(name)).unwrap();
        let (loader, program) = (first("/ld-linux-aarch64"), first("/kinds"));
        let (base, phdr) = (loader.start, program.start + 0x40);
        let auxv = Auxv { base, phdr, ..Auxv::default() };
        process.auxv = Ok(auxv);
        process
    }

    fn look(&self, verifier: &mut Verifier) -> Report {
        let process = self.process();
        let budget = Budget::new(process.pid, verifier.limits.time);
        verifier.look_at(&process, Depth::Full, budget, false).unwrap()
    }

    /// Addresses of all slots, from the files of its modules.
    fn slots(&self, verifier: &mut Verifier) -> Vec<(u64, SlotKind)> {
        let process = self.process();
        let mut all = Vec::new();
        for name in ["/kinds", "/libkinds", "/libc.so", "/ld-linux-aarch64"] {
            let vma = process.maps.iter().find(|vma| vma.path.contains(name)).unwrap();
            let file = verifier.files.load(&process, vma).unwrap();
            let base = if file.elf.headers.fixed { 0 } else { vma.start };
            let found = &file.elf.relocations;
            let slots = found.slots.iter().filter(|slot| slot.kind != SlotKind::Copy);
            all.extend(slots.map(|slot| (base + slot.vaddr, slot.kind)));
            let own = found.relative.iter().map(|word| (word, SlotKind::Relative));
            let own = own.chain(found.relr.iter().map(|word| (word, SlotKind::Relr)));
            all.extend(own.map(|(word, kind)| (base + u64::from(word.vaddr), kind)));
        }
        all
    }

    /// A function that runs commands, another module's, another of the C library, the heap.
    fn attack_values(&self, verifier: &mut Verifier) -> [u64; 4] {
        let process = self.process();
        let mut function = |module: &str, name: &str| {
            let vma = process.maps.iter().find(|vma| vma.path.contains(module)).unwrap();
            let elf = &verifier.files.load(&process, vma).unwrap().elf;
            vma.start + elf.symbols.default_definition(&elf.dynamic, name).unwrap().value
        };
        let writable = process.maps.iter().find(|vma| vma.write && !vma.is_file()).unwrap();
        [
            function("/libc.so", "system"),
            // Not at its start: some slots rightly lead there.
            function("/ld-linux-aarch64", "__tls_get_addr") + 16,
            function("/libc.so", "qsort"),
            writable.start + 0x100,
        ]
    }
}

impl Drop for Emulated {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn word(memory: &File, addr: u64) -> u64 {
    let mut word = [0; 8];
    memory.read_exact_at(&mut word, addr).unwrap();
    u64::from_le_bytes(word)
}

/// The emulator itself is no module of what it runs.
fn assert_clean(report: &Report) {
    let texts: Vec<String> = report.mismatches.iter().map(ToString::to_string).collect();
    assert!(texts.is_empty() && report.slots_checked > 1000, "{report:?} {texts:#?}");
    let unlisted = |gap: &Gap| matches!(gap, Gap::Unlisted { .. });
    assert!(report.gaps.iter().all(unlisted), "{:?}", report.gaps);
}

/// Overwrites every slot four times.
fn assert_all_found(process: &Emulated) -> BTreeMap<SlotKind, usize> {
    // The code that runs is the emulator's translation.
    let mut verifier = Verifier::new(Limits { text: false, ..Limits::default() });
    assert_clean(&process.look(&mut verifier));
    let values = process.attack_values(&mut verifier);
    let path = format!("/proc/{}/mem", process.child.id());
    let memory = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let slots = process.slots(&mut verifier);
    let mut counts = BTreeMap::new();
    for group in slots.chunks(GROUP) {
        let words: Vec<u64> = group.iter().map(|(slot, _)| word(&memory, *slot)).collect();
        for value in values {
            let attacked = || group.iter().zip(&words).filter(|(_, word)| **word != value);
            for ((slot, _), _) in attacked() {
                memory.write_all_at(&value.to_le_bytes(), *slot).unwrap();
            }
            let report = process.look(&mut verifier);
            for ((slot, _), word) in attacked() {
                memory.write_all_at(&word.to_le_bytes(), *slot).unwrap();
            }
            for ((slot, kind), word) in attacked() {
                let found = report.mismatches.iter().any(|one| one.slot_addr == *slot);
                let what = format!("{kind} slot {slot:#x}, {word:#x} -> {value:#x}: missed");
                assert!(found, "{what}; {:?} {}", report.gaps, report.mismatches.len());
            }
        }
        for (_, kind) in group {
            *counts.entry(*kind).or_insert(0) += 1;
        }
    }
    assert_clean(&process.look(&mut verifier));
    counts
}

#[test]
fn every_overwritten_slot_of_an_arm_process_is_found() {
    let ways: [(&[&str], &[&str]); 2] = [
        (&["-Wl,-z,lazy"], &["-no-pie", "-fno-pie", "-Wl,-z,lazy"]),
        (&["-Wl,-z,now"], &["-pie", "-Wl,-z,now"]),
    ];
    let mut counts: BTreeMap<SlotKind, usize> = BTreeMap::new();
    for (library, program) in ways {
        let Some(process) = Emulated::start(library, program) else { return };
        let found = assert_all_found(&process);
        println!("64-bit ARM {program:?}: overwritten four times each, all found: {found:?}");
        for (kind, count) in found {
            *counts.entry(kind).or_insert(0) += count;
        }
    }
    let missing: Vec<SlotKind> =
        SlotKind::ALL.into_iter().filter(|kind| !counts.contains_key(kind)).collect();
    // Debian's linker for ARM packs no relocations yet; copies are tested on x86.
    assert_eq!(missing, [SlotKind::Relr, SlotKind::Copy], "{counts:?}");
}
