//! Writes into another process's memory, by every way, and sealed memory made writable.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use sensor::event::{Event, EventBody, Role, Write};
use sensor::loader::probes::{Hook, Mechanism};
use sensor_common::Ring;
use sensor_common::record::{WRITE_MEM, WRITE_PTRACE, WRITE_VM};

use crate::harness::{Bench, same, skip};
use crate::rung::only;

const PROT_WRITE: u32 = 2;

/// The compiled fixture, as two files: to guard the target is not to guard the writer.
struct Workshop {
    _dir: tempfile::TempDir,
    writer: PathBuf,
    target: PathBuf,
}

/// A process that offers a spare buffer; killed and reaped when dropped.
struct Target {
    child: Child,
    address: String,
}

impl Workshop {
    /// `None`, with the reason printed, where there is no compiler.
    fn open() -> Option<Self> {
        let dir = tempfile::tempdir().expect("a directory");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kernel/c/writes.c");
        let (writer, target) = (dir.path().join("writer"), dir.path().join("target"));
        let flags = ["-O1", "-Wall", "-Wextra", "-Werror", "-fPIE", "-pie", "-Wl,-z,relro,-z,now"];
        match Command::new("cc").args(flags).arg("-o").arg(&writer).arg(&source).status() {
            Ok(status) => assert!(status.success(), "cc: {status}"),
            Err(error) => {
                skip(&format!("no cc: {error}"));
                return None;
            }
        }
        std::fs::copy(&writer, &target).expect("copy");
        Some(Self { _dir: dir, writer, target })
    }

    fn target(&self) -> Target {
        let mut command = Command::new(&self.target);
        command.arg("target").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("spawn");
        let mut line = String::new();
        let mut said = BufReader::new(child.stdout.take().expect("piped"));
        said.read_line(&mut line).expect("a line");
        let (_, address) = line.trim().split_once(' ').expect("an address");
        Target { address: address.to_owned(), child }
    }

    /// Gives the writer's tgid, once it has ended.
    fn write(&self, way: &str, target: &Target, times: u32) -> u32 {
        let mut command = Command::new(&self.writer);
        command.args([way, &target.child.id().to_string(), &target.address, &times.to_string()]);
        let mut child = command.spawn().expect("spawn");
        let status = child.wait().expect("wait");
        assert!(status.success(), "{way}: {status}");
        child.id()
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        self.child.kill().expect("kill");
        self.child.wait().expect("wait");
    }
}

fn writes(events: &[Event]) -> Vec<(Write, Ring)> {
    let of = |event: &Event| match event.body {
        EventBody::Write(write) => Some((write, event.ring)),
        _ => None,
    };
    events.iter().filter_map(of).collect()
}

/// Every way is told at once, and once more after a second of silence, with how often it was.
fn every_way_is_told(bench: &mut Bench) {
    let Some(workshop) = Workshop::open() else { return };
    let target = workshop.target();
    let address = u64::from_str_radix(target.address.trim_start_matches("0x"), 16).expect("hex");
    for (way, bit) in [
        ("ptrace", WRITE_PTRACE),
        ("vm", WRITE_VM),
        ("write", WRITE_MEM),
        ("writev", WRITE_MEM),
        ("pwrite", WRITE_MEM),
        ("pwritev", WRITE_MEM),
    ] {
        let writer = workshop.write(way, &target, 50);
        let events = bench.until_exit(writer);
        let told = writes(&events);
        println!("{way}: {told:?}");
        same("records", told.len(), 2);
        for (write, _) in &told {
            same("ways", write.ways, bit);
            match write.target_tgid {
                Some(tgid) => same("target", tgid, target.child.id()),
                None => skip("this kernel does not tell whose address space it is"),
            }
            // Functions of the kernel are asked for whole pages by process_vm_writev.
            let page = (bit == WRITE_VM).then_some(address & !0xfff);
            let told = |addr| addr == address || Some(addr) == page;
            assert!(write.addr.is_none_or(told), "{write:?}");
        }
        same("writes at first", told[0].0.count, 1);
        assert!(told[1].0.count > 50, "{told:?}");
    }
}

#[test]
fn every_way_to_write_is_told_at_once_and_then_once_a_second() {
    let Some(mut bench) = Bench::start() else { return };
    if bench.serves(Hook::Writes) {
        every_way_is_told(&mut bench);
    }
}

#[test]
fn fentry_tells_every_way_to_write() {
    let Some(mut bench) = only(Hook::Writes, Mechanism::Fentry) else { return };
    every_way_is_told(&mut bench);
}

#[test]
fn kprobes_tell_every_way_to_write() {
    let Some(mut bench) = only(Hook::Writes, Mechanism::Kprobe) else { return };
    every_way_is_told(&mut bench);
}

#[test]
fn the_mmap_lock_tracepoint_tells_every_way_to_write() {
    let Some(mut bench) = only(Hook::Writes, Mechanism::RawTracepoint) else { return };
    every_way_is_told(&mut bench);
}

#[test]
fn who_only_reads_and_who_writes_to_itself_is_not_told() {
    let Some(mut bench) = Bench::start() else { return };
    let (Some(workshop), true) = (Workshop::open(), bench.serves(Hook::Writes)) else { return };
    let target = workshop.target();
    for way in ["peek", "vm-read", "pread"] {
        let reader = workshop.write(way, &target, 1);
        let events = bench.until_exit(reader);
        assert!(writes(&events).is_empty(), "{way}: {events:#?}");
    }
    // Readers of /proc lock other address spaces, and exec that of the new program.
    let mut command = Command::new("/bin/cat");
    command.arg(format!("/proc/{}/maps", target.child.id())).stdout(Stdio::null());
    let mut child = command.spawn().expect("spawn");
    child.wait().expect("wait");
    assert!(writes(&bench.until_exit(child.id())).is_empty());
}

#[test]
fn a_write_into_a_guarded_program_travels_in_the_priority_ring() {
    let Some(mut bench) = Bench::start() else { return };
    let (Some(workshop), true) = (Workshop::open(), bench.serves(Hook::Writes)) else { return };
    let other = workshop.target();
    bench.guard(&workshop.target, Role::GUARDED);
    let target = workshop.target();
    for (target, ring) in [(&other, Ring::Bulk), (&target, Ring::Priority)] {
        let writer = workshop.write("vm", target, 1);
        let event = bench.expect("a write", writer, |event| {
            event.tgid == writer && matches!(event.body, EventBody::Write(_))
        });
        let EventBody::Write(write) = event.body else { unreachable!() };
        if write.target_tgid.is_none() {
            skip("this kernel does not tell whose address space it is");
            return;
        }
        same("ring", event.ring, ring);
        same("role of the target", write.target_role.is_none(), ring == Ring::Bulk);
    }
}

#[test]
fn sealed_memory_that_a_guarded_program_makes_writable_is_told_after_linking() {
    let Some(mut bench) = Bench::start() else { return };
    let (Some(workshop), true) = (Workshop::open(), bench.serves(Hook::Memory)) else { return };
    let reopen = |workshop: &Workshop| {
        let mut child = Command::new(&workshop.target).arg("reopen").spawn().expect("spawn");
        assert!(child.wait().expect("wait").success());
        child.id()
    };
    let seals = |events: &[Event]| -> Vec<sensor::event::Seal> {
        let of = |event: &Event| match event.body {
            EventBody::Seal(seal) => Some(seal),
            _ => None,
        };
        events.iter().filter_map(of).collect()
    };
    let tgid = reopen(&workshop);
    assert!(seals(&bench.until_exit(tgid)).is_empty(), "nobody's business while unguarded");
    bench.guard(&workshop.target, Role::GUARDED);
    let tgid = reopen(&workshop);
    let all = seals(&bench.until_exit(tgid));
    let (linking, after): (Vec<sensor::event::Seal>, Vec<sensor::event::Seal>) =
        all.iter().partition(|seal| !seal.after_link);
    assert!(linking.iter().all(|seal| seal.prot & PROT_WRITE == 0), "{all:#?}");
    let opened = after.iter().find(|seal| seal.prot & PROT_WRITE != 0).expect("made writable");
    let (start, end) = (opened.at.addr, opened.at.addr + opened.len);
    let was_sealed = linking.iter().any(|seal| {
        let sealed = seal.at.addr..seal.at.addr + seal.len;
        sealed.start < end && start < sealed.end
    });
    assert!(was_sealed, "{all:#?}");
    let again = after.iter().any(|seal| seal.prot & PROT_WRITE == 0 && seal.at.addr == start);
    assert!(again, "sealed again: {all:#?}");
}
