//! PID 1 of a test guest: mounts what the tests expect, runs them, reports, powers off.
//!
//! `/tests/NAME.args` beside `/tests/NAME` holds its arguments, one a line. It talks to the host over
//! the console only, in lines that start with `HALFSECOND-VM`; xtask/src/vm/console.rs reads them.

#![expect(clippy::print_stdout, reason = "stdout is the console, the only way out of the guest")]

mod net;

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use rustix::mount::{MountFlags, mount};
use rustix::process::{WaitOptions, WaitStatus, wait};
use rustix::system::{RebootCommand, reboot};

/// Type and place of each file system, in the order they are mounted.
const MOUNTS: [(&str, &str); 10] = [
    ("proc", "/proc"),
    ("sysfs", "/sys"),
    ("devtmpfs", "/dev"),
    ("devpts", "/dev/pts"),
    ("tmpfs", "/run"),
    ("debugfs", "/sys/kernel/debug"),
    ("tracefs", "/sys/kernel/tracing"),
    ("securityfs", "/sys/kernel/security"),
    ("cgroup2", "/sys/fs/cgroup"),
    ("bpf", "/sys/fs/bpf"),
];

const PATH: &str = "/usr/sbin:/usr/bin";

/// The disk's image, in memory and mostly holes, and where it is mounted.
const DISK: (&str, &str) = ("/disk", "/tmp");
/// Bytes.
const DISK_SIZE: u64 = 1 << 30;

fn main() -> ExitCode {
    // It ends with the machine switched off: not something to do by mistake.
    if std::process::id() != 1 {
        eprintln!("vm-init: only runs as PID 1 of a test guest");
        return ExitCode::from(2);
    }
    prepare();
    println!("HALFSECOND-VM ready {}", facts());
    let failures = run_tests();
    println!("HALFSECOND-VM done failures={failures}");
    rustix::fs::sync();
    if let Err(error) = reboot(RebootCommand::PowerOff) {
        println!("vm-init: cannot power off: {error}");
    }
    // When PID 1 ends the kernel panics, which ends the guest too.
    ExitCode::FAILURE
}

/// Makes the guest look like a booted system; the tests say what they miss of it.
fn prepare() {
    for (kind, place) in MOUNTS {
        if let Err(error) = mount_at(kind, Path::new(place)) {
            println!("vm-init: no {kind} on {place}: {error}");
        }
    }
    load_modules();
    if let Err(error) = disk() {
        println!("vm-init: no file system for {}: {error}", DISK.1);
    }
    // What every system has done: the loader then reads its cache, and unmaps it.
    match Command::new("/usr/sbin/ldconfig").status() {
        Ok(status) if status.success() => {}
        other => println!("vm-init: ldconfig: {other:?}"),
    }
    if let Err(error) = net::loopback_up() {
        println!("vm-init: loopback stays down: {error}");
    }
}

/// Those that came along for this kernel.
fn load_modules() {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    for entry in fs::read_dir(format!("/modules/{release}")).into_iter().flatten().flatten() {
        let loaded = fs::File::open(entry.path()).and_then(|module| {
            rustix::system::finit_module(&module, c"", 0).map_err(io::Error::from)
        });
        if let Err(error) = loaded {
            println!("vm-init: no {}: {error}", entry.path().display());
        }
    }
}

/// Puts a file system as disks have it below the tests: the one in memory that a guest starts from
/// has neither identity nor file handles in older kernels.
fn disk() -> io::Result<()> {
    let (image, place) = DISK;
    fs::File::create(image)?.set_len(DISK_SIZE)?;
    let make = ["mke2fs", "-q", "-F", "-t", "ext4", "-O", "^has_journal", image];
    for command in [&make[..], &["mount", image, place]] {
        let (program, args) = command.split_first().unwrap_or((&"", &[]));
        let status = Command::new(program).env("PATH", PATH).args(args).status()?;
        if !status.success() {
            return Err(io::Error::other(format!("{program}: {status}")));
        }
    }
    fs::set_permissions(place, fs::Permissions::from_mode(0o1777))
}

fn mount_at(kind: &str, place: &Path) -> io::Result<()> {
    // Only where the kernel has not made the mount point itself.
    if !place.exists() {
        fs::create_dir_all(place)?;
    }
    // Set-uid programs are among what is tested.
    mount(kind, place, kind, MountFlags::empty(), None)?;
    Ok(())
}

/// What decides which of our probes can load here.
fn facts() -> String {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let btf = if Path::new("/sys/kernel/btf/vmlinux").exists() { "yes" } else { "no" };
    let lsm = fs::read_to_string("/sys/kernel/security/lsm").unwrap_or_else(|_| "unknown".into());
    format!("release={release} btf={btf} lsm={}", lsm.trim())
}

/// How much longer than on a real machine tests wait for what is to come.
const PATIENCE: (&str, &str) = ("HALFSECOND_TEST_PATIENCE", "4");

/// Tests repeat less: it takes long, and one kernel does the same the thousandth time.
const QUICK: (&str, &str) = ("HALFSECOND_TEST_QUICK", "1");

/// Of a property test, whose input no kernel decides about.
const PROPERTY_CASES: &str = "8";

/// Runs everything in /tests by name; returns how many failed.
fn run_tests() -> usize {
    let mut failures = 0;
    for test in tests() {
        let name = test.file_name().unwrap_or_default().display();
        match run(&test) {
            Ok(code) => {
                println!("HALFSECOND-VM {name} exit={code}");
                failures += usize::from(code != 0);
            }
            Err(error) => {
                println!("HALFSECOND-VM {name} exit={error}");
                failures += 1;
            }
        }
    }
    failures
}

fn tests() -> Vec<PathBuf> {
    let mut tests: Vec<_> = fs::read_dir("/tests")
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_none())
        .collect();
    tests.sort();
    tests
}

/// Starts `test` and reaps whatever ends until it has ended itself: orphans are ours.
///
/// Returns its exit code, or 128 and the signal that ended it, as a shell would.
fn run(test: &Path) -> io::Result<i32> {
    let args = fs::read_to_string(test.with_extension("args")).unwrap_or_default();
    let child = Command::new(test)
        .args(args.lines())
        .env_clear()
        .env(PATIENCE.0, PATIENCE.1)
        .env("PATH", PATH)
        .env("HOME", "/run")
        .env("TMPDIR", "/tmp")
        .env("RUST_BACKTRACE", "0")
        .env("PROPTEST_CASES", PROPERTY_CASES)
        .env(QUICK.0, QUICK.1)
        .spawn()?;
    let own = i32::try_from(child.id()).map_err(io::Error::other)?;
    loop {
        if let Some((pid, status)) = wait(WaitOptions::empty())?
            && pid.as_raw_nonzero().get() == own
        {
            return Ok(exit_code(status));
        }
    }
}

fn exit_code(status: WaitStatus) -> i32 {
    let signalled = status.terminating_signal().map(|signal| 128 + signal);
    status.exit_status().or(signalled).unwrap_or(-1)
}
