//! The environment of a new program: what the loader obeys is told, whatever stands around it.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::StatVfsMountFlags;
use sensor::event::{Env, Event, EventBody};
use sensor_common::Counter;
use sensor_common::record::{
    ENV_GCONV_PATH, ENV_GLIBC_TUNABLES, ENV_LD_AUDIT, ENV_LD_LIBRARY_PATH, ENV_LD_OTHER,
    ENV_LD_PRELOAD, ENV_MAX, ENV_TRUNCATED,
};

use crate::harness::{Bench, same, skip};

/// Nowhere, so that nothing is loaded.
const MARK: &str = "LD_PRELOAD=/nowhere/mark.so";

fn program() -> PathBuf {
    std::fs::canonicalize("/bin/true").expect("/bin/true")
}

/// Starts a program and returns everything it sent, its exec included.
fn run(bench: &mut Bench, command: &mut Command) -> Vec<Event> {
    let mut child = command.stderr(Stdio::null()).spawn().expect("spawn");
    child.wait().expect("wait");
    let events = bench.until_exit(child.id());
    // A launcher that becomes the program sends its own before.
    let last = events.iter().rposition(|event| matches!(event.body, EventBody::Exec(_)));
    events.get(last.expect("an exec")..).unwrap_or_default().to_vec()
}

fn variables(events: &[Event]) -> Vec<Env> {
    events
        .iter()
        .filter_map(|event| match &event.body {
            EventBody::Env(env) => Some(env.clone()),
            _ => None,
        })
        .collect()
}

fn texts(events: &[Event]) -> Vec<String> {
    variables(events).into_iter().map(|env| env.text).collect()
}

fn secure(events: &[Event]) -> bool {
    events.iter().any(|event| matches!(&event.body, EventBody::Exec(exec) if exec.secure))
}

/// Environment as wanted and nothing else.
fn bare(environment: &[(String, String)]) -> Command {
    let mut command = Command::new(program());
    command.env_clear().envs(environment.iter().cloned());
    command
}

fn padded(count: usize, length: usize) -> Vec<(String, String)> {
    // In order of names, so that they come before the one looked for.
    let mut all: Vec<_> =
        (0..count).map(|number| (format!("A{number:05}"), "x".repeat(length))).collect();
    all.push(("LD_PRELOAD".to_owned(), "/nowhere/mark.so".to_owned()));
    all
}

#[test]
fn loader_variables_are_told_and_no_other() {
    let Some(mut bench) = Bench::start() else { return };
    let mut command = Command::new(program());
    command
        .env_clear()
        .env("A_SECRET", "hunter2")
        .env("LD_API_KEY", "hunter2")
        .env("LD_PRELOAD_NOT", "hunter2")
        .env("GLIBC_TUNABLES_NOT", "hunter2")
        .env("LD_LIBRARY_PATH", "/some/where")
        .env("LD_PRELOAD", "")
        .env("LD_AUDIT", "")
        .env("GLIBC_TUNABLES", "glibc.malloc.check=0")
        .env("GCONV_PATH", "/nowhere");
    let events = run(&mut bench, &mut command);
    let mut told = variables(&events);
    told.sort_by_key(|env| env.variable);
    let told: Vec<_> = told.into_iter().map(|env| (env.variable, env.text)).collect();
    same(
        "variables",
        told,
        vec![
            (ENV_LD_PRELOAD, "LD_PRELOAD=".to_owned()),
            (ENV_LD_AUDIT, "LD_AUDIT=".to_owned()),
            (ENV_LD_LIBRARY_PATH, "LD_LIBRARY_PATH=/some/where".to_owned()),
            (ENV_GLIBC_TUNABLES, "GLIBC_TUNABLES=glibc.malloc.check=0".to_owned()),
            (ENV_GCONV_PATH, "GCONV_PATH=/nowhere".to_owned()),
        ],
    );
    assert!(!format!("{:?}", bench.seen).contains("hunter2"), "a secret left the process");
}

#[test]
fn every_switch_of_the_loader_is_told() {
    let Some(mut bench) = Bench::start() else { return };
    // Values that change nothing about how /bin/true runs.
    let names = [
        "LD_ASSUME_KERNEL",
        "LD_BIND_NOT",
        "LD_BIND_NOW",
        "LD_DEBUG",
        "LD_DEBUG_OUTPUT",
        "LD_DYNAMIC_WEAK",
        "LD_HWCAP_MASK",
        "LD_ORIGIN_PATH",
        "LD_POINTER_GUARD",
        "LD_PREFER_MAP_32BIT_EXEC",
        "LD_PROFILE",
        "LD_PROFILE_OUTPUT",
        "LD_SHOW_AUXV",
        "LD_TRACE_LOADED_OBJECTS",
        "LD_TRACE_PRELINKING",
        "LD_USE_LOAD_BIAS",
        "LD_VERBOSE",
        "LD_WARN",
    ];
    let all: Vec<_> = names.iter().map(|name| ((*name).to_owned(), String::new())).collect();
    let events = run(&mut bench, bare(&all).stdout(Stdio::null()));
    let mut told = texts(&events);
    told.sort();
    same("variables", told, names.iter().map(|name| format!("{name}=")).collect());
    assert!(variables(&events).iter().all(|env| env.variable == ENV_LD_OTHER));
}

#[test]
fn one_variable_of_128_kb_before_it_hides_nothing() {
    let Some(mut bench) = Bench::start() else { return };
    // The kernel's longest string is 128 KiB with name and NUL.
    let events = run(&mut bench, &mut bare(&padded(1, (128 << 10) - 8)));
    same("variables", texts(&events), vec![MARK.to_owned()]);
}

#[test]
fn five_thousand_variables_before_it_hide_nothing() {
    let Some(mut bench) = Bench::start() else { return };
    for (count, length) in [(255, 1), (256, 0), (257, 30), (5_000, 16), (8_000, 1)] {
        let events = run(&mut bench, &mut bare(&padded(count, length)));
        same(&format!("after {count}"), texts(&events), vec![MARK.to_owned()]);
    }
}

#[test]
fn an_environment_longer_than_the_scan_says_so() {
    let Some(mut bench) = Bench::start() else { return };
    let before = bench.sensor.counters().expect("counters").get(Counter::EnvTruncated);
    let events = run(&mut bench, &mut bare(&padded(20_000, 1)));
    let told = variables(&events);
    same("bits", told.iter().map(|env| env.variable).collect::<Vec<_>>(), vec![ENV_TRUNCATED]);
    let after = bench.sensor.counters().expect("counters").get(Counter::EnvTruncated);
    assert!(after > before, "{before} then {after}");
}

#[test]
fn decoys_do_not_hide_a_loader_variable() {
    let Some(mut bench) = Bench::start() else { return };
    // The environment is sorted by name, so these come first.
    let mut all: Vec<_> =
        (0..200).map(|number| (format!("LD_AUDIT_{number:03}"), "x".to_owned())).collect();
    all.push(("LD_PRELOAD".to_owned(), "/nowhere/mark.so".to_owned()));
    let events = run(&mut bench, &mut bare(&all));
    same("variables", texts(&events), vec![MARK.to_owned()]);
}

#[test]
fn a_variable_set_often_is_told_each_time() {
    let Some(mut bench) = Bench::start() else { return };
    let Some(launcher) = launcher() else { return };
    let events = run(&mut bench, launcher.command("twice").env_clear());
    let wanted = ["/nowhere/first.so", "/nowhere/second.so"];
    same("variables", texts(&events), wanted.map(|path| format!("LD_PRELOAD={path}")).to_vec());
}

#[test]
fn a_program_without_environment_has_none() {
    let Some(mut bench) = Bench::start() else { return };
    same("cleared", texts(&run(&mut bench, &mut bare(&[]))), Vec::<String>::new());
    let Some(launcher) = launcher() else { return };
    for mode in ["no-environment", "nothing"] {
        let events = run(&mut bench, &mut launcher.command(mode));
        same(mode, texts(&events), Vec::<String>::new());
    }
}

#[test]
fn a_program_without_arguments_still_shows_its_environment() {
    let Some(mut bench) = Bench::start() else { return };
    let Some(launcher) = launcher() else { return };
    let events = run(&mut bench, &mut launcher.command("no-arguments"));
    same("variables", texts(&events), vec!["LD_AUDIT=/nowhere/audit.so".to_owned()]);
}

#[test]
fn arguments_of_100_kb_hide_nothing() {
    let Some(mut bench) = Bench::start() else { return };
    let all = padded(3, 8);
    for arguments in [vec!["y".repeat(100 << 10)], vec!["z".to_owned(); 50 << 10]] {
        let events = run(&mut bench, bare(&all).args(&arguments));
        let what = format!("after {} arguments", arguments.len());
        same(&what, texts(&events), vec![MARK.to_owned()]);
    }
}

#[test]
fn a_value_that_is_not_utf8_is_told() {
    let Some(mut bench) = Bench::start() else { return };
    let value = OsStr::from_bytes(b"/nowhere/\xff\xfe.so");
    let events = run(&mut bench, bare(&[]).env("LD_PRELOAD", value));
    same("variables", texts(&events), vec!["LD_PRELOAD=/nowhere/\u{fffd}\u{fffd}.so".to_owned()]);
}

#[test]
fn a_value_of_100_kb_is_told_as_cut() {
    let Some(mut bench) = Bench::start() else { return };
    let long = format!("/nowhere/{}", "v".repeat(100 << 10));
    let all = [("LD_PRELOAD".to_owned(), String::new()), ("LD_LIBRARY_PATH".to_owned(), long)];
    let told = variables(&run(&mut bench, &mut bare(&all)));
    let cut = told.iter().find(|env| env.variable == ENV_LD_LIBRARY_PATH).expect("told");
    same("cut", (cut.truncated, cut.text.len()), (true, ENV_MAX - 1));
    let other = told.iter().find(|env| env.variable == ENV_LD_PRELOAD).expect("told");
    same("other", (other.truncated, other.text.as_str()), (false, "LD_PRELOAD="));
}

#[test]
fn a_set_uid_program_says_that_its_loader_is_deaf() {
    let Some(mut bench) = Bench::start() else { return };
    let dir = tempfile::tempdir().expect("a directory");
    open_to_all(dir.path());
    let flags = rustix::fs::statvfs(dir.path()).expect("statvfs").f_flag;
    if flags.contains(StatVfsMountFlags::NOSUID) {
        skip(&format!("{} is mounted without set-uid", dir.path().display()));
        return;
    }
    let program = dir.path().join("true");
    std::fs::copy(self::program(), &program).expect("copy");
    for (mode, user, deaf) in [(0o755, 65534, false), (0o4755, 65534, true), (0o4755, 0, false)] {
        let permissions = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(&program, permissions).expect("chmod");
        let mut command = Command::new(&program);
        command.env_clear().env("LD_PRELOAD", "/nowhere/mark.so").uid(user);
        let events = run(&mut bench, &mut command);
        let what = format!("mode {mode:o} for user {user}");
        same(&what, (secure(&events), texts(&events)), (deaf, vec![MARK.to_owned()]));
    }
}

#[test]
fn a_32_bit_program_shows_its_environment() {
    if !cfg!(target_arch = "x86_64") {
        skip("no 32-bit program for this machine");
        return;
    }
    let Some(mut bench) = Bench::start() else { return };
    let dir = tempfile::tempdir().expect("a directory");
    let program = dir.path().join("tiny32");
    std::fs::write(&program, tiny_32()).expect("write");
    let permissions = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(&program, permissions).expect("chmod");
    match Command::new(&program).spawn() {
        Ok(mut child) => drop(child.wait()),
        Err(error) => {
            skip(&format!("no 32-bit programs: {error}"));
            return;
        }
    }
    // Where the kernel places the stack is chance: so many times that every alignment comes.
    let few = std::iter::repeat_n([(0, 0), (0, 1)], 100).flatten();
    for (count, arguments) in few.chain([(31, 2), (500, 3)]) {
        let mut command = Command::new(&program);
        command.env_clear().envs(padded(count, 5)).args(vec!["argument"; arguments]);
        let events = run(&mut bench, &mut command);
        same(&format!("after {count}, {arguments}"), texts(&events), vec![MARK.to_owned()]);
    }
    let events = run(&mut bench, Command::new(&program).env_clear());
    same("without environment", variables(&events).len(), 0);
}

/// A 32-bit ELF executable that does nothing but end: `mov $1, %eax; xor %ebx, %ebx; int $0x80`.
fn tiny_32() -> Vec<u8> {
    const BASE: u32 = 0x0804_8000;
    const HEADERS: u32 = 52 + 32;
    let code = [0xb8, 1, 0, 0, 0, 0x31, 0xdb, 0xcd, 0x80];
    let size = HEADERS + u32::try_from(code.len()).expect("small");
    let mut elf = b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x03\0".to_vec();
    // Version, entry, program headers, section headers, flags.
    for word in [1, BASE + HEADERS, 52, 0, 0] {
        elf.extend(word.to_le_bytes());
    }
    // Sizes and counts of headers.
    for half in [52_u16, 32, 1, 0, 0, 0] {
        elf.extend(half.to_le_bytes());
    }
    // One segment, loaded whole, readable and executable.
    for word in [1, 0, BASE, BASE, size, size, 5, 0x1000] {
        elf.extend(word.to_le_bytes());
    }
    elf.extend(code);
    elf
}

/// `raw_exec`, built.
struct Launcher {
    _dir: tempfile::TempDir,
    path: PathBuf,
}

impl Launcher {
    fn command(&self, mode: &str) -> Command {
        let mut command = Command::new(&self.path);
        command.arg(mode).arg(program());
        command
    }
}

/// `None`, with the reason printed, where there is no compiler.
fn launcher() -> Option<Launcher> {
    let dir = tempfile::tempdir().expect("a directory");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kernel/c/raw_exec.c");
    let path = dir.path().join("raw_exec");
    match Command::new("cc").args(["-O1", "-o"]).arg(&path).arg(&source).status() {
        Ok(status) => assert!(status.success(), "cc: {status}"),
        Err(error) => {
            skip(&format!("no cc: {error}"));
            return None;
        }
    }
    Some(Launcher { _dir: dir, path })
}

/// Lets another user start what lies there.
fn open_to_all(dir: &Path) {
    let permissions = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(dir, permissions).expect("chmod");
}
