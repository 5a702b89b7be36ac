//! An sshd of one release on loopback, in its own root file system.

use std::fmt;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};

use super::cell::USER;
use super::place::{Place, private};
use super::root::{Root, Version};
use crate::background::Background;
use crate::sensor;

/// Where the server's folder appears in the root.
const INSIDE: &str = "/mnt";
/// Mounts each pair of paths up to "--" (the first over the second), then becomes the rest.
const MOUNT_AND_EXEC: &str = r#"set -e
while [ "$1" != -- ]; do mount --rbind "$1" "$2"; shift 2; done
shift
exec "$@""#;

/// What servers of one release differ in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Settings {
    pub(super) pam: bool,
    pub(super) level: Level,
}

/// How much sshd logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    Info,
    Quiet,
}

/// One that listens; ended when this goes away, or xtask does.
pub(super) struct Server {
    address: SocketAddr,
    _running: Background,
}

// === impl Server ===

impl Server {
    /// Starts one, and waits until it listens. `grace`: seconds in which a client must have logged in.
    ///
    /// Must be called by a thread that outlives it: the kernel ends it with that.
    pub(super) fn start(
        root: &Root,
        place: &Place,
        settings: Settings,
        grace: u32,
    ) -> Result<Self> {
        let address = sensor::free_address()?;
        let folder = folder(place, address)?;
        let config = config(&root.version, settings, grace, address);
        private(&folder.join("sshd_config"), &config, 0o600)?;
        // sshd insists on its empty directory for the unprivileged child.
        fs::create_dir_all(root.folder.join("run/sshd"))?;
        let log = folder.join("sshd.log");
        let mut running = Background::start(&mut launch(&root.folder, &folder, &log)?)?;
        // By the kernel's list: a connection would be one more for the sensor to tell.
        running
            .wait_until(|| listens(address))
            .with_context(|| format!("sshd's log is {}", log.display()))?;
        Ok(Self { address, _running: running })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }
}

/// What one server reads, in a folder of its own.
fn folder(place: &Place, address: SocketAddr) -> Result<PathBuf> {
    let folder = place.folder().join(format!("sshd-{}", address.port()));
    fs::create_dir_all(&folder)?;
    fs::write(folder.join("authorized_keys"), place.authorized_keys()?)?;
    let key = fs::read_to_string(place.folder().join("host_key"))?;
    private(&folder.join("host_key"), &key, 0o600)?;
    Ok(folder)
}

fn config(version: &Version, settings: Settings, grace: u32, address: SocketAddr) -> String {
    let yes_no = |yes| if yes { "yes" } else { "no" };
    // The name before 8.7; the newer one meant less there.
    let dialogue = if version.number < (8, 7) {
        "ChallengeResponseAuthentication"
    } else {
        "KbdInteractiveAuthentication"
    };
    let mut config = format!(
        "ListenAddress {}\nPort {}\nPidFile none\nLogLevel {}\nUseDNS no\nHostKey {INSIDE}/host_key\n\
         AuthorizedKeysFile {INSIDE}/authorized_keys\nStrictModes no\nAllowUsers {USER}\n\
         PubkeyAuthentication yes\nPasswordAuthentication yes\n{dialogue} {pam}\nUsePAM {pam}\n\
         X11Forwarding no\nPrintMotd no\nMaxStartups 100\nMaxAuthTries 20\nLoginGraceTime {grace}\n",
        address.ip(),
        address.port(),
        settings.level,
        pam = yes_no(settings.pam),
    );
    if version.number >= (9, 8) {
        // Failures would make it drop later connections from loopback unseen.
        config.push_str("PerSourcePenalties no\n");
    }
    config
}

/// In a mount namespace that goes with its last process.
fn launch(root: &Path, folder: &Path, log: &Path) -> Result<Command> {
    let log = File::create(log)?;
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "TERM", "unshare", "--mount", "--propagation", "private"]);
    command.args(["sh", "-c", MOUNT_AND_EXEC, "sh"]);
    command.arg(folder).arg(root.join(INSIDE.trim_start_matches('/')));
    for shared in ["/dev", "/proc"] {
        command.arg(shared).arg(root.join(shared.trim_start_matches('/')));
    }
    command.arg("--").arg("chroot").arg(root);
    command.args(["/usr/sbin/sshd", "-D", "-e", "-f"]).arg(format!("{INSIDE}/sshd_config"));
    command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    Ok(command)
}

fn listens(address: SocketAddr) -> bool {
    fs::read_to_string("/proc/net/tcp").is_ok_and(|table| is_listening(&table, address.port()))
}

/// Whether a table of sockets has one that listens on `port` of 127.0.0.1 (state 0A, `TCP_LISTEN`;
/// `tcp4_seq_show`, `net/ipv4/tcp_ipv4.c`: addresses are hexadecimal words as they lie in memory).
fn is_listening(table: &str, port: u16) -> bool {
    let loopback = u32::from_ne_bytes(Ipv4Addr::LOCALHOST.octets());
    let local = format!("{loopback:08X}:{port:04X}");
    table.lines().any(|line| {
        let mut fields = line.split_whitespace().skip(1);
        fields.next() == Some(local.as_str()) && fields.nth(1) == Some("0A")
    })
}

impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<6} {:<5}", if self.pam { "PAM" } else { "no PAM" }, self.level)
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Info => "INFO",
            Self::Quiet => "QUIET",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_is_told_from_a_connection() {
        let line = |local: u16, state: &str| {
            let loopback = u32::from_ne_bytes([127, 0, 0, 1]);
            format!("   0: {loopback:08X}:{local:04X} 00000000:0000 {state} 00000000:00000000 00\n")
        };
        assert!(is_listening(&line(2222, "0A"), 2222));
        assert!(!is_listening(&line(2222, "01"), 2222));
        assert!(!is_listening(&line(2223, "0A"), 2222));
    }

    #[test]
    fn a_server_is_told_only_what_its_version_knows() {
        let of = |number, pam| {
            let version = Version { number, text: String::new() };
            let settings = Settings { pam, level: Level::Quiet };
            config(&version, settings, 60, SocketAddr::from(([127, 0, 0, 1], 22)))
        };
        let old = of((8, 4), true);
        assert!(old.contains("\nChallengeResponseAuthentication yes\nUsePAM yes\n"), "{old}");
        assert!(!old.contains("PerSourcePenalties"), "{old}");
        let new = of((10, 0), false);
        assert!(new.contains("\nKbdInteractiveAuthentication no\nUsePAM no\n"), "{new}");
        assert!(new.contains("\nPerSourcePenalties no\n"), "{new}");
        assert!(new.contains("\nLogLevel QUIET\n"), "{new}");
    }
}
