//! Starting a guest, reading its console, and ending it.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::console::Console;
use super::kernel::{Arch, Spec};
use super::matrix::Guest;
use crate::repo;

/// Emulated, a boot takes a quarter of a minute and the tests several minutes; three times that on a
/// host that does other things.
pub(crate) const TIME_LIMIT: Duration = Duration::from_mins(30);

/// Longer than any test runs there without a word: the guest hangs.
const SILENCE: Duration = Duration::from_mins(10);

/// How a guest fared.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// As asked for.
    pub(crate) kernel: String,
    /// What the guest told about itself.
    pub(crate) facts: String,
    pub(crate) took: Duration,
    /// It was ended before its tests were done, and until then nothing had gone wrong.
    pub(super) cut_short: bool,
    /// libtest's `test result:` lines.
    pub(crate) results: Vec<String>,
    pub(crate) verdict: Verdict,
}

/// What a guest's tests came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Passed,
    /// And why.
    Failed(String),
    /// It was not run, or not to its end, for a reason that says nothing of what is tested.
    NotTested(String),
}

/// How the console came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The guest powered itself off, or the emulator died.
    Off,
    /// Its time was up.
    Late,
    Silent,
}

/// Ends the emulator, whichever way we leave.
struct Running(Child);

// === impl Outcome ===

impl Outcome {
    /// One emulated processor met a breakpoint in the kernel's own text that another had just replaced
    /// (`text_poke_bp`, where a tracepoint is switched), which real ones are kept from. It is seen
    /// about once in thirty guests. Or both meet it over and over, at the first byte of a traced
    /// function, which the watchdog reports. Two in a row are something else.
    pub(super) fn is_emulators_fault(&self) -> bool {
        let of_patched_text = |why: &str| why.contains("Oops: int3") || why.contains("soft lockup");
        matches!(&self.verdict, Verdict::Failed(why) if of_patched_text(why))
    }

    /// Of a guest that there was no time for.
    pub(super) fn not_run(spec: &Spec) -> Self {
        let why = format!("time was up before its tests were done: cargo xtask test --vm {spec}");
        Self {
            kernel: spec.to_string(),
            facts: String::new(),
            took: Duration::ZERO,
            cut_short: true,
            results: Vec::new(),
            verdict: Verdict::NotTested(why),
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.took.as_secs_f64();
        write!(f, "{:<12} {seconds:>6.1}s  ", self.kernel)?;
        match &self.verdict {
            Verdict::Passed => write!(f, "ok      {}", self.facts),
            Verdict::Failed(why) => write!(f, "FAILED  {why} [{}]", self.facts),
            Verdict::NotTested(why) => write!(f, "skipped {why}"),
        }
    }
}

// === impl Running ===

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail when the guest has powered itself off, which is how it should be.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Where the consoles are kept, one file for each kernel.
pub(super) fn logs() -> PathBuf {
    repo::target().join("vm/logs")
}

/// Boots the guest and waits until it powers off or its time is up.
pub(super) fn boot(guest: &Guest, limit: Duration) -> Result<Outcome> {
    let Guest { spec, kernel, image } = guest;
    fs::create_dir_all(logs())?;
    let log = File::create(logs().join(format!("{spec}.log")))?;
    let started = Instant::now();
    let mut child = emulator(spec.arch)
        .arg("-kernel")
        .arg(&kernel.image)
        .arg("-initrd")
        .arg(image)
        .args(["-append", &command_line(spec.arch)])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start qemu; cargo xtask setup installs it")?;
    let stdout = child.stdout.take().context("qemu has no stdout")?;
    let _running = Running(child);
    let mut console = Console::default();
    let end = follow(&lines_of(stdout), spec, &mut console, log, started + limit)?;
    let verdict = match console.verdict() {
        Ok(()) => Verdict::Passed,
        Err(why) if end == End::Silent => {
            Verdict::Failed(format!("silent for {}s: {why}", SILENCE.as_secs()))
        }
        Err(why) if end == End::Late => {
            Verdict::Failed(format!("not done after {}s: {why}", limit.as_secs()))
        }
        Err(why) => Verdict::Failed(why),
    };
    Ok(Outcome {
        kernel: spec.to_string(),
        facts: console.facts().to_owned(),
        took: started.elapsed(),
        cut_short: end == End::Late && console.wrong().is_none(),
        results: console.into_results(),
        verdict,
    })
}

/// Reads the console until it closes, the deadline passes or nothing more is said.
fn follow(
    lines: &Receiver<Vec<u8>>,
    spec: &Spec,
    console: &mut Console,
    mut log: File,
    deadline: Instant,
) -> io::Result<End> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match lines.recv_timeout(left.min(SILENCE)) {
            Ok(line) => {
                log.write_all(&line)?;
                let line = String::from_utf8_lossy(&line);
                let line = line.trim_end();
                if console.read(line) {
                    // Another guest may speak at the same time.
                    println!("{:<12} {line}", spec.to_string());
                }
            }
            Err(RecvTimeoutError::Timeout) if left > SILENCE => return Ok(End::Silent),
            Err(RecvTimeoutError::Timeout) => return Ok(End::Late),
            Err(RecvTimeoutError::Disconnected) => return Ok(End::Off),
        }
    }
}

/// The lines of `stdout`, read by a thread of their own so that waiting for one can time out.
fn lines_of(stdout: ChildStdout) -> Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut stdout = BufReader::new(stdout);
        let mut line = Vec::new();
        // A read error is the end of the console, just as end of file is.
        while stdout.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            if sender.send(std::mem::take(&mut line)).is_err() {
                break;
            }
        }
    });
    receiver
}

fn emulator(arch: Arch) -> Command {
    let (program, machine, cpu) = match arch {
        // Without cmpxchg16b, which kernels from 6.3 on use in their allocator: QEMU 7.2 garbles the
        // flags after it when an interrupt comes right then, and the guest dies of a double fault.
        Arch::X86_64 => ("qemu-system-x86_64", "pc,accel=tcg", "max,-cx16"),
        Arch::Aarch64 => ("qemu-system-aarch64", "virt,accel=tcg", "cortex-a72"),
    };
    let mut command = Command::new(program);
    command.args(["-machine", machine, "-cpu", cpu, "-smp", "2", "-m", "2048"]);
    command.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
    command.args(["-serial", "stdio"]);
    command
}

/// Two things at once on the console are more than it can tell apart, so the kernel only says
/// what is wrong. Anything that shakes it ends it: `-no-reboot` turns the reboot into an exit.
fn command_line(arch: Arch) -> String {
    let console = match arch {
        // A kernel gives its timer a few ticks to come, which an emulator on a busy host may miss.
        Arch::X86_64 => "ttyS0,115200 no_timer_check",
        Arch::Aarch64 => "ttyAMA0",
    };
    format!(
        "console={console} rdinit=/init loglevel=5 panic=-1 oops=panic softlockup_panic=1 \
         lsm=landlock,lockdown,yama,bpf random.trust_cpu=on rcupdate.rcu_cpu_stall_timeout=60"
    )
}
