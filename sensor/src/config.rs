//! The configuration as the running sensor uses it: complete and checked.
//!
//! The file as written is `config/file.rs`; nothing else sees an absent key.

mod error;
mod file;
mod reader;
pub mod units;
mod value;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use error::{LoadError, Problem};

/// Where the configuration is looked for.
pub const DEFAULT_PATH: &str = "/etc/halfsecond/halfsecond.toml";

/// Everything the sensor is told.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Where baselines and incidents are kept.
    pub state_dir: PathBuf,
    /// Metrics, health and API.
    pub http: Http,
    /// Where incidents go.
    pub output: Output,
    /// Programs whose authentication or crypto is protected.
    pub guarded: Vec<GuardedProgram>,
    /// Functions whose callers are watched.
    pub functions: Vec<GuardedFunction>,
    /// When a baseline is settled.
    pub learning: Learning,
    /// Limits of the detectors.
    pub detect: Detect,
    /// Sizes of rings and queues.
    pub limits: Limits,
    /// Which mechanisms may be used.
    pub probes: Probes,
    /// Ask package databases whose the mapped libraries are, and compare their digests.
    pub provenance: bool,
    /// The watch over the loader's files.
    pub watch: Watch,
    /// The rounds of checks.
    pub patrol: Patrol,
}

/// The HTTP listener.
#[derive(Clone, Debug, PartialEq)]
pub struct Http {
    /// `None` turns it off.
    pub listen: Option<SocketAddr>,
}

/// The incident outputs.
#[derive(Clone, Debug, PartialEq)]
pub struct Output {
    /// JSON lines on standard output.
    pub stdout: bool,
    /// Rotated file; `None` turns it off.
    pub file: Option<PathBuf>,
    /// Bytes after which the file is rotated.
    pub max_bytes: u64,
    /// Rotated files kept.
    pub keep: u32,
    /// Incidents kept in memory for an output that fails; then the oldest is dropped and counted.
    pub pending: usize,
}

/// A program to protect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuardedProgram {
    /// Absolute path; matches on the host and, as a suffix, in chroots and containers.
    pub path: PathBuf,
    /// Belongs to an OpenSSH server.
    pub sshd: bool,
}

/// A function to watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuardedFunction {
    /// Start of the library's file name up to its version: `libcrypto.so`.
    pub library: String,
    /// Exported symbol.
    pub symbol: String,
}

/// When learning ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Learning {
    /// Observations of a subject (starts; for authentication times: logins per method) before its
    /// detectors speak.
    pub observations: u32,
    /// How often the store is written while there is something new.
    pub flush_every: Duration,
}

/// Detector limits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Detect {
    /// Excess over the baseline median from which a single start alarms.
    pub link_gross_excess: Duration,
    /// The same for the CPU time to a verdict.
    pub auth_gross_excess: Duration,
    /// Consecutive samples above the baseline's p95 that alarm together.
    pub run_length: u32,
    /// Quiet time after a guarded program's last seal before its slots are checked.
    pub settle: Duration,
    /// Findings of one program this close together join one incident.
    pub incident_window: Duration,
}

/// Bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bulk ring, bytes (power of two).
    pub bulk_ring_bytes: u32,
    /// Priority ring, bytes (power of two).
    pub priority_ring_bytes: u32,
    /// Observations between host and detectors.
    pub queue: usize,
    /// Processes remembered.
    pub processes: usize,
}

/// What the probes may cost the host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Probes {
    /// Where nothing cheaper loads, take tracepoints of system calls: they tax every system call.
    pub syscall_tracepoints: bool,
}

/// The watch over the loader's files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watch {
    /// Roots (of the host, of containers, of chroots) watched at once.
    pub roots: usize,
    /// How often all are compared with what they were; less often where that takes longer than a
    /// hundredth of the time.
    pub compare_every: Duration,
}

/// The rounds in which running processes are checked though nothing happened to them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patrol {
    /// Length of a round: each guarded program is checked once in it, root daemons once in ten, and
    /// other programs once in sixty. `None` is never.
    pub every: Option<Duration>,
    /// CPU time that checks of programs that are not guarded may take of each second.
    pub cpu_per_second: Duration,
}

impl Config {
    /// Reads the file at `path`, or at [`DEFAULT_PATH`] where none is given. Every key has a
    /// default, so a missing default file is an empty one; a missing file that was asked for is an
    /// error.
    pub fn load(path: Option<&Path>) -> Result<Self, LoadError> {
        match (path, file::read(path.unwrap_or(Path::new(DEFAULT_PATH)))) {
            (None, Err(LoadError::Read { source, .. }))
                if source.kind() == std::io::ErrorKind::NotFound =>
            {
                Ok(Self::default())
            }
            (_, result) => result,
        }
    }
}

/// The host's name in findings: `HALFSECOND_HOST` where it is set (a pod's own name says nothing
/// of its node), else the kernel's.
#[must_use]
pub fn host_name() -> String {
    match std::env::var("HALFSECOND_HOST") {
        Ok(name) if !name.is_empty() && name.len() <= 253 => name,
        _ => rustix::system::uname().nodename().to_string_lossy().into_owned(),
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            state_dir: PathBuf::from("/var/lib/halfsecond"),
            http: Http { listen: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 9477))) },
            output: Output {
                stdout: true,
                file: Some(PathBuf::from("/var/lib/halfsecond/incidents.jsonl")),
                max_bytes: 16 * 1024 * 1024,
                keep: 4,
                pending: 1024,
            },
            guarded: default_guarded(),
            functions: default_functions(),
            learning: Learning { observations: 20, flush_every: Duration::from_secs(2) },
            detect: Detect {
                link_gross_excess: Duration::from_millis(100),
                auth_gross_excess: Duration::from_millis(150),
                run_length: 5,
                settle: Duration::from_millis(10),
                incident_window: Duration::from_mins(5),
            },
            limits: Limits {
                bulk_ring_bytes: 2 * 1024 * 1024,
                priority_ring_bytes: 512 * 1024,
                queue: 4096,
                processes: 32_768,
            },
            probes: Probes::default(),
            provenance: true,
            watch: Watch { roots: 1024, compare_every: Duration::from_secs(2) },
            patrol: Patrol {
                every: Some(Duration::from_mins(1)),
                cpu_per_second: Duration::from_millis(2),
            },
        }
    }
}

fn default_guarded() -> Vec<GuardedProgram> {
    [
        ("/usr/sbin/sshd", true),
        ("/usr/lib/openssh/sshd-session", true),
        ("/usr/lib/openssh/sshd-auth", true),
        ("/usr/libexec/openssh/sshd-session", true),
        ("/usr/libexec/openssh/sshd-auth", true),
        ("/usr/bin/sudo", false),
        ("/usr/bin/su", false),
        ("/usr/bin/login", false),
    ]
    .into_iter()
    .map(|(path, sshd)| GuardedProgram { path: PathBuf::from(path), sshd })
    .collect()
}

fn default_functions() -> Vec<GuardedFunction> {
    [
        ("libcrypto.so", "RSA_public_decrypt"),
        ("libcrypto.so", "ECDSA_do_verify"),
        ("libcrypto.so", "EVP_DigestVerify"),
        ("libcrypto.so", "EVP_PKEY_verify"),
        ("libpam.so", "pam_authenticate"),
        ("libpam.so", "pam_acct_mgmt"),
        ("libpam.so", "pam_open_session"),
        ("libcrypt.so", "crypt"),
        ("libcrypt.so", "crypt_r"),
    ]
    .into_iter()
    .map(|(library, symbol)| GuardedFunction {
        library: library.to_owned(),
        symbol: symbol.to_owned(),
    })
    .collect()
}

#[cfg(test)]
mod tests;
