//! The configuration as the running sensor uses it: complete and checked.
//!
//! The file as written is `config/file.rs`; nothing else sees an absent key.

mod error;
mod file;
mod reader;
mod suppress;
pub mod units;
mod value;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use error::{LoadError, Problem};
pub use suppress::{RULES_MAX, Suppress};

use crate::baseline::Bounds;

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
    /// The record of ssh logins.
    pub logins: Logins,
    /// Findings that are to be expected.
    pub suppress: Vec<Suppress>,
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Learning {
    /// Observations of a subject (starts; for authentication times: logins per method) before its
    /// detectors speak.
    pub observations: u32,
    /// How often the store is written while there is something new.
    pub flush_every: Duration,
    /// Baselines kept, and bytes of all of them as they are stored: beyond, those of the programs seen
    /// least recently go, of guarded ones last.
    #[serde(default)]
    pub keep: Bounds,
}

/// Detector limits.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Detect {
    /// Excess over the baseline median from which a single start alarms.
    pub link_gross_excess: Duration,
    /// The same for the CPU time to a verdict, and of checking its proof.
    pub auth_gross_excess: Duration,
    /// Average run length: how many starts or logins of one stream (linking, constructors, or logins
    /// by a method, of one program) there are on average, at least, to a false alarm of a small
    /// shift. `sensor_stats::RUN_LENGTHS`; what is assumed of the times stands in that crate.
    pub run_length: u64,
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Patrol {
    /// Length of a round: each guarded program is checked once in it, root daemons once in ten, and
    /// other programs once in sixty. `None` is never.
    pub every: Option<Duration>,
    /// CPU time that checks of programs that are not guarded may take of each second.
    pub cpu_per_second: Duration,
}

/// The record of ssh logins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Logins {
    /// Logins kept in memory, and about as many in the state directory; 0 keeps none.
    pub keep: usize,
    /// Keep the user names of logins that were not accepted: people type passwords there.
    pub failed_users: bool,
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
            learning: Learning {
                observations: 20,
                flush_every: Duration::from_secs(2),
                keep: Bounds::default(),
            },
            detect: Detect {
                link_gross_excess: Duration::from_millis(100),
                auth_gross_excess: Duration::from_millis(150),
                run_length: 1_000_000,
                settle: Duration::from_millis(10),
                incident_window: Duration::from_mins(5),
            },
            limits: Limits {
                bulk_ring_bytes: 2 * 1024 * 1024,
                priority_ring_bytes: 4 * 1024 * 1024,
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
            logins: Logins { keep: 10_000, failed_users: false },
            suppress: Vec::new(),
        }
    }
}

/// Where Debian 11 to 13, Ubuntu, Fedora, SUSE, Arch and Alpine put them. `/bin` and `/sbin` are for
/// distributions without a merged `/usr`; where `/usr/sbin` is merged into `/usr/bin` (Arch, Fedora from
/// 42 on), what the others have in the one is in the other.
fn default_guarded() -> Vec<GuardedProgram> {
    const SSHD: [&str; 12] = [
        "/usr/sbin/sshd",
        "/usr/lib/openssh/sshd-session",
        "/usr/lib/openssh/sshd-auth",
        "/usr/libexec/openssh/sshd-session",
        "/usr/libexec/openssh/sshd-auth",
        // SUSE.
        "/usr/libexec/ssh/sshd-session",
        "/usr/libexec/ssh/sshd-auth",
        // Alpine and Arch; Alpine has them without PAM, and with it under a name of its own.
        "/usr/lib/ssh/sshd-session",
        "/usr/lib/ssh/sshd-auth",
        "/usr/sbin/sshd.pam",
        "/usr/lib/ssh/sshd-session.pam",
        "/usr/lib/ssh/sshd-auth.pam",
    ];
    const OTHERS: [&str; 22] = [
        "/usr/bin/sudo",
        "/usr/bin/doas",
        "/usr/bin/su",
        "/bin/su",
        "/usr/bin/login",
        "/bin/login",
        // What pam_unix asks where it may not read the shadow file itself.
        "/usr/sbin/unix_chkpwd",
        "/sbin/unix_chkpwd",
        "/usr/lib/polkit-1/polkitd",
        "/usr/libexec/polkitd",
        "/usr/lib/polkit-1/polkit-agent-helper-1",
        "/usr/libexec/polkit-agent-helper-1",
        "/usr/lib/policykit-1/polkitd",
        "/usr/lib/policykit-1/polkit-agent-helper-1",
        "/usr/sbin/cron",
        "/usr/sbin/crond",
        "/usr/sbin/dropbear",
        "/usr/sbin/openvpn",
        "/usr/lib/ipsec/charon",
        "/usr/sbin/charon-systemd",
        "/usr/libexec/ipsec/charon",
        "/usr/libexec/strongswan/charon",
    ];
    let sshd = SSHD.map(|path| (path, true));
    let others = OTHERS.map(|path| (path, false));
    sshd.into_iter()
        .chain(others)
        .flat_map(|(path, sshd)| {
            let merged = path.strip_prefix("/usr/sbin/").map(|name| format!("/usr/bin/{name}"));
            [Some(path.to_owned()), merged].into_iter().flatten().map(move |path| (path, sshd))
        })
        .map(|(path, sshd)| GuardedProgram { path: PathBuf::from(path), sshd })
        .collect()
}

/// What the guarded programs import to decide about somebody, by the dynamic symbols of Debian 12's
/// and 13's packages (`readelf --dyn-syms`): none of them runs more than a few times a login.
///
/// * sshd 9.2: `RSA_public_decrypt`, `ECDSA_do_verify`, `DSA_do_verify`, `crypt`; 10.0:
///   `EVP_DigestVerify`. Ed25519 is code of its own.
/// * libpam's: sshd, `sudoers.so`, su, login, `polkit-agent-helper-1`,
///   `openvpn-plugin-auth-pam.so` and strongSwan's `xauth-pam` authenticate; cron only asks for
///   `pam_acct_mgmt`, `pam_setcred` and `pam_open_session`. `pam_get_authtok` is how modules
///   (`pam_unix.so`, `pam_pwhistory.so`) come by a password. `pam_end` is told how it went: for
///   `halfsecond logins` and to compare it with sshd's verdict, nobody's call of it is judged.
/// * libcrypt's: sshd and dropbear `crypt`, `pam_unix.so` and `unix_chkpwd` `crypt_r`. Dropbear's
///   signatures are checked by code of its own.
/// * `polkit_authorization_result_new`: polkitd's answer to who may.
/// * `OpenVPN` 2.6 leaves it to libssl, which imports `X509_verify_cert`, `EVP_DigestVerify` and
///   `EVP_DigestVerifyFinal`.
/// * strongSwan 5.9's `openssl` plugin: `EVP_DigestVerify` and its `Final`, `EVP_PKEY_verify` and
///   `EVP_PKEY_verify_recover`.
fn default_functions() -> Vec<GuardedFunction> {
    [
        ("libcrypto.so", "RSA_public_decrypt"),
        ("libcrypto.so", "ECDSA_do_verify"),
        ("libcrypto.so", "DSA_do_verify"),
        ("libcrypto.so", "EVP_DigestVerify"),
        ("libcrypto.so", "EVP_DigestVerifyFinal"),
        ("libcrypto.so", "EVP_PKEY_verify"),
        ("libcrypto.so", "EVP_PKEY_verify_recover"),
        ("libcrypto.so", "X509_verify_cert"),
        ("libpam.so", "pam_authenticate"),
        ("libpam.so", "pam_acct_mgmt"),
        ("libpam.so", "pam_setcred"),
        ("libpam.so", "pam_open_session"),
        ("libpam.so", "pam_chauthtok"),
        ("libpam.so", "pam_get_authtok"),
        ("libpam.so", "pam_end"),
        ("libcrypt.so", "crypt"),
        ("libcrypt.so", "crypt_r"),
        ("libpolkit-gobject-1.so", "polkit_authorization_result_new"),
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
