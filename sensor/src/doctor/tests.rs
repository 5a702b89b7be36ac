use std::os::unix::fs::symlink;

use tempfile::TempDir;

use super::*;
use crate::config::GuardedProgram;

/// A host made of files.
struct Fake {
    folder: TempDir,
    host: Host,
}

impl Fake {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let host = Host {
            root: folder.path().to_owned(),
            release: "6.1.0-18-amd64".to_owned(),
            machine: "x86_64".to_owned(),
        };
        let fake = Self { folder, host };
        fake.write("sys/kernel/btf/vmlinux", b"\x9f\xeb\x01\x00");
        fake.write("proc/self/status", b"Name:\tx\nCapEff:\t000001ffffffffff\n");
        fake.write("proc/sys/kernel/yama/ptrace_scope", b"1\n");
        fake.write("sys/kernel/security/lockdown", b"[none] integrity confidentiality\n");
        fake.write("sys/kernel/tracing/events/sched/sched_process_exec/id", b"300\n");
        fake.write("sys/bus/event_source/devices/uprobe/type", b"9\n");
        fake.write("sys/bus/event_source/devices/kprobe/type", b"8\n");
        fake.write("proc/self/cgroup", b"0::/user.slice\n");
        fs::create_dir_all(fake.folder.path().join("proc/self/ns")).unwrap();
        symlink("pid:[4026531836]", fake.folder.path().join("proc/self/ns/pid")).unwrap();
        fake
    }

    fn write(&self, path: &str, bytes: &[u8]) {
        let path = self.folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    fn remove(&self, path: &str) {
        fs::remove_file(self.folder.path().join(path)).unwrap();
    }

    fn diagnose(&self) -> Diagnosis {
        let mut config = Config { state_dir: self.folder.path().to_owned(), ..Config::default() };
        config.http.listen = None;
        Diagnosis::make(&self.host, Path::new("/nowhere.toml"), &Ok(config), |_| Vec::new())
    }
}

fn state(diagnosis: &Diagnosis, name: &str) -> CheckState {
    let check = diagnosis.checks.iter().find(|check| check.check == name);
    check.unwrap_or_else(|| panic!("no check {name} in {:?}", diagnosis.checks)).state
}

#[test]
fn a_host_with_everything_is_sound() {
    let diagnosis = Fake::new().diagnose();
    let bad: Vec<_> =
        diagnosis.checks.iter().filter(|check| check.state != CheckState::Ok).collect();
    assert!(bad.is_empty(), "{bad:#?}");
    assert!(diagnosis.is_sound());
}

#[test]
fn a_kernel_without_btf_is_named_and_not_sound() {
    let fake = Fake::new();
    fake.remove("sys/kernel/btf/vmlinux");
    let diagnosis = fake.diagnose();
    assert_eq!(state(&diagnosis, "btf"), CheckState::Missing);
    assert!(!diagnosis.is_sound());
    fake.write("sys/kernel/btf/vmlinux", b"\0\0\0\0");
    assert_eq!(state(&fake.diagnose(), "btf"), CheckState::Missing);
}

#[test]
fn a_kernel_without_uprobes_says_what_is_not_seen_and_runs() {
    let fake = Fake::new();
    fake.remove("sys/bus/event_source/devices/uprobe/type");
    let diagnosis = fake.diagnose();
    let check = diagnosis.checks.iter().find(|check| check.check == "uprobes").unwrap();
    assert_eq!(check.state, CheckState::Degraded);
    assert!(check.unseen.as_deref().unwrap().contains("foreign_caller"), "{check:?}");
    assert!(diagnosis.is_sound());
}

#[test]
fn missing_capabilities_are_named() {
    let fake = Fake::new();
    // CAP_SYS_ADMIN alone stands in for the three newer ones only.
    fake.write("proc/self/status", b"CapEff:\t0000000000200000\n");
    let diagnosis = fake.diagnose();
    let check = diagnosis.checks.iter().find(|check| check.check == "capabilities").unwrap();
    assert_eq!(check.found, "this user lacks CAP_SYS_PTRACE, CAP_DAC_READ_SEARCH");
    assert!(!diagnosis.is_sound());
}

#[test]
fn old_kernels_and_other_machines_are_refused() {
    for (release, machine, expected) in [
        ("5.10.0-28-amd64", "x86_64", CheckState::Ok),
        ("5.4.0", "x86_64", CheckState::Missing),
        ("4.19.0", "aarch64", CheckState::Missing),
        ("7.0.0-rc1", "aarch64", CheckState::Ok),
        ("6.1.0", "riscv64", CheckState::Missing),
        ("strange", "x86_64", CheckState::Unknown),
    ] {
        let mut fake = Fake::new();
        release.clone_into(&mut fake.host.release);
        machine.clone_into(&mut fake.host.machine);
        assert_eq!(fake.host.kernel().state, expected, "{release} {machine}");
    }
}

#[test]
fn lockdown_yama_and_namespaces_that_blind_are_named() {
    let fake = Fake::new();
    fake.write("sys/kernel/security/lockdown", b"none integrity [confidentiality]\n");
    fake.write("proc/sys/kernel/yama/ptrace_scope", b"3\n");
    fake.remove("proc/self/ns/pid");
    symlink("pid:[4026532000]", fake.folder.path().join("proc/self/ns/pid")).unwrap();
    let diagnosis = fake.diagnose();
    assert_eq!(state(&diagnosis, "lockdown"), CheckState::Missing);
    assert_eq!(state(&diagnosis, "ptrace_scope"), CheckState::Degraded);
    assert_eq!(state(&diagnosis, "pid_namespace"), CheckState::Degraded);
}

#[test]
fn a_required_probe_that_is_not_attached_is_not_sound() {
    let fake = Fake::new();
    let mut diagnosis = fake.diagnose();
    diagnosis.probes.push(ProbeReport {
        probe: "exec".to_owned(),
        mechanism: None,
        price: None,
        reason: Some("refused".to_owned()),
        unseen: "programs that start".to_owned(),
        required: true,
    });
    assert!(!diagnosis.is_sound());
}

#[test]
fn a_state_directory_that_is_no_directory_is_missing() {
    let fake = Fake::new();
    fake.write("file", b"");
    let check = place::state_dir(&fake.folder.path().join("file"));
    assert_eq!(check.state, CheckState::Missing, "{check:?}");
    let check = place::state_dir(&fake.folder.path().join("new"));
    assert_eq!(check.state, CheckState::Ok, "{check:?}");
    let check = place::state_dir(&fake.folder.path().join("a/b/c"));
    assert_eq!(check.state, CheckState::Degraded, "{check:?}");
}

#[test]
fn guarded_programs_whose_linking_is_not_seen_are_named_and_others_counted() {
    let fake = Fake::new();
    let mut config = Config { state_dir: fake.folder.path().to_owned(), ..Config::default() };
    config.http.listen = None;
    config.guarded = ["/bin/narrow", "/bin/script", "/bin/none"]
        .map(|path| GuardedProgram { path: path.into(), sshd: false })
        .into();
    fake.write("bin/narrow", b"\x7fELF\x01\x01\x01");
    fake.write("bin/script", b"#!/bin/sh\n");
    let diagnosis =
        Diagnosis::make(&fake.host, Path::new("/nowhere.toml"), &Ok(config), |_| Vec::new());
    let check = diagnosis.checks.iter().find(|check| check.check == "guarded").unwrap();
    assert_eq!(
        (check.state, check.found.as_str()),
        (CheckState::Degraded, "2 of 3 programs are here")
    );
    let unseen = check.unseen.as_deref().unwrap();
    assert!(unseen.starts_with("/bin/narrow is a 32-bit program"), "{unseen}");
    assert!(diagnosis.is_sound(), "less is seen, but the sensor runs");
}
