//! A private sshd on loopback, with or without the fixture.

use std::{
    fs,
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;

use super::{
    fixture::{Fixture, Variant},
    http::free_port,
    machine::{Machine, QUICK, USER, add_user, private_file, remove_user},
    process::{ProcessId, Running, children, descendants, finish, must, wait_until},
    trixie,
};

pub(crate) const SSHD: &str = "/usr/sbin/sshd";
/// Compiled into Debian's sshd. Belongs to the package and is empty: it may stay.
const PRIVSEP_DIR: &str = "/run/sshd";
/// In the lab's directory. Written once: clients run side by side.
pub(super) const KNOWN_HOSTS: &str = "known_hosts";
/// Mounts each pair of paths up to "--" (the first over the second), then becomes the rest.
const MOUNT_AND_EXEC: &str = r#"set -e
while [ "$1" != -- ]; do mount --rbind "$1" "$2"; shift 2; done
shift
exec "$@""#;

/// Which OpenSSH serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    /// Debian 12's, from the host.
    V9_2,
    /// Debian 13's, in a root file system of its own.
    V10,
}

/// What server to start; made by [`SshdLab::builder`].
#[derive(Debug)]
pub(crate) struct Builder {
    machine: Arc<Machine>,
    version: Version,
    variant: Variant,
    burn_ms: u32,
    use_pam: bool,
    late: bool,
    every_kind: Option<bool>,
    /// Configuration that counts first.
    lines: String,
    env: Vec<(String, String)>,
}

/// A running server. Dropping it ends it and every connection it served.
#[derive(Debug)]
pub(crate) struct SshdLab {
    pub(super) machine: Arc<Machine>,
    pub(super) dir: TempDir,
    pub(super) port: u16,
    fixture: Fixture,
    listener: Running,
    /// The root file system it runs in, where it is not the host's.
    root: Option<PathBuf>,
}

impl SshdLab {
    /// A clean OpenSSH 9.2 with PAM, unless told otherwise.
    pub(crate) fn builder(machine: &Arc<Machine>) -> Builder {
        Builder {
            machine: Arc::clone(machine),
            version: Version::V9_2,
            variant: Variant::Clean,
            burn_ms: 0,
            use_pam: true,
            late: false,
            every_kind: None,
            lines: String::new(),
            env: Vec::new(),
        }
    }

    pub(crate) fn listener_pid(&self) -> Result<i32> {
        self.listener.pid()
    }

    pub(crate) fn fixture(&self) -> &Fixture {
        &self.fixture
    }

    /// One process per open connection: the privileged monitor (`sshd -R`, `sshd-session`).
    pub(crate) fn monitors(&self) -> Result<Vec<ProcessId>> {
        Ok(children(self.listener.pid()?))
    }

    /// Puts the fixture of a [`Builder::late`] server in place: from the next connection on.
    pub(crate) fn arrive(&self) -> Result<()> {
        self.fixture.release()?;
        for (file, onto) in &self.fixture.mounts {
            self.mount(file, onto)?;
        }
        Ok(())
    }

    /// Mounts `file` over `onto` as the server sees it, in the private mount namespace of a
    /// [`Builder::late`] server.
    pub(crate) fn mount(&self, file: &Path, onto: &Path) -> Result<()> {
        let onto = match &self.root {
            Some(root) => root.join(onto.strip_prefix("/")?),
            None => onto.to_owned(),
        };
        let namespace = format!("/proc/{}/ns/mnt", self.listener.pid()?);
        if fs::read_link(&namespace)? == fs::read_link("/proc/self/ns/mnt")? {
            bail!("this server shares the mounts of the host");
        }
        let mut command = Command::new("nsenter");
        command.arg(format!("--mount={namespace}"));
        must(command.args(["mount", "--bind"]).arg(file).arg(onto), "", QUICK)?;
        Ok(())
    }

    /// Puts `lines` in front of PAM's configuration of the server, which is a [`Builder::late`] one.
    pub(crate) fn pam(&self, lines: &str) -> Result<()> {
        let service = Path::new("/etc/pam.d/sshd");
        let own = fs::read_to_string(self.file(service))?;
        let copy = self.dir().join("pam-service");
        fs::write(&copy, lines.to_owned() + &own)?;
        self.mount(&copy, service)
    }

    /// Makes the server execute itself again, as log rotation and changes of its configuration do.
    pub(crate) fn reload(&self) -> Result<()> {
        self.listener.signal(rustix::process::Signal::HUP)
    }

    /// The file at `path` as the server sees it.
    pub(crate) fn file(&self, path: &Path) -> PathBuf {
        match (&self.root, path.strip_prefix("/")) {
            (Some(root), Ok(below)) => root.join(below),
            _ => path.to_owned(),
        }
    }

    /// The directory of everything that was made for this server.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The same directory as the server sees it.
    pub(crate) fn inside(&self) -> &Path {
        self.root.as_deref().map_or(self.dir.path(), |_| Path::new(trixie::LAB_DIR))
    }

    /// Where it listens, on loopback.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// What the server has logged.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("sshd.log")).unwrap_or_default()
    }
}

impl Builder {
    pub(crate) fn version(mut self, version: Version) -> Self {
        self.version = version;
        self
    }

    pub(crate) fn variant(mut self, variant: Variant) -> Self {
        self.variant = variant;
        self
    }

    /// CPU milliseconds the fixture's resolver burns each time sshd is linked.
    pub(crate) fn burn_ms(mut self, burn_ms: u32) -> Self {
        self.burn_ms = burn_ms;
        self
    }

    pub(crate) fn use_pam(mut self, use_pam: bool) -> Self {
        self.use_pam = use_pam;
        self
    }

    /// The listener starts clean, in a mount namespace of its own; the fixture comes with
    /// [`SshdLab::arrive`], as an upgrade comes to a server that runs.
    pub(crate) fn late(mut self) -> Self {
        self.late = true;
        self
    }

    /// Lets users in by a dialogue as well, and serves sftp. `command`: their keys come from an
    /// `AuthorizedKeysCommand`.
    pub(crate) fn every_kind(mut self, command: bool) -> Self {
        self.every_kind = Some(command);
        self
    }

    /// A line of its configuration, which counts before the usual ones.
    pub(crate) fn line(mut self, line: &str) -> Self {
        self.lines.push_str(line);
        self.lines.push('\n');
        self
    }

    /// An environment variable of the server (not of its users' sessions).
    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Starts the server and waits until it listens.
    pub(crate) fn start(self) -> Result<SshdLab> {
        if self.version == Version::V10 && self.variant != Variant::Clean {
            bail!("OpenSSH 10 does not load liblzma: only 9.2 can carry the fixture");
        }
        let dir = tempfile::Builder::new().prefix("halfsecond-sshd-").tempdir()?;
        // The test user's processes read the authorized keys and may load the fixture.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755))?;
        let root = match self.version {
            Version::V9_2 => {
                check_host_version()?;
                None
            }
            Version::V10 => Some(trixie::root()?),
        };
        self.write_keys(dir.path())?;
        let mut fixture = Fixture::build(dir.path(), self.variant, self.burn_ms)?;
        fixture.env.extend(self.env.clone());
        make_privsep_dir(root.as_deref())?;
        if let Some(root) = &root {
            add_user(Some(root), self.machine.password())?;
        }
        // From here on the lab's Drop cleans up.
        let port = free_port()?;
        let inside = root.as_deref().map_or(dir.path(), |_| Path::new(trixie::LAB_DIR));
        private_file(&dir.path().join("sshd_config"), &self.config(inside, port))?;
        let known = format!("[127.0.0.1]:{port} {}", self.machine.public_key("host")?);
        fs::write(dir.path().join(KNOWN_HOSTS), known)?;
        if self.late {
            fixture.withhold()?;
        }
        let mut command = launch(dir.path(), inside, root.as_deref(), &fixture, self.late);
        let listener = match Running::spawn(&mut command) {
            Ok(listener) => listener,
            Err(error) => {
                if root.is_some() {
                    remove_user(root.as_deref());
                }
                return Err(error);
            }
        };
        let machine = Arc::clone(&self.machine);
        let mut lab = SshdLab { machine, dir, port, fixture, listener, root };
        lab.machine.adopt(lab.listener.pid()?)?;
        lab.wait_listening()?;
        Ok(lab)
    }

    fn write_keys(&self, dir: &Path) -> Result<()> {
        let host = fs::read_to_string(self.machine.key("host"))?;
        private_file(&dir.join("host_key"), &host)?;
        let keys = self.machine.public_key("rsa")? + &self.machine.public_key("ed25519")?;
        fs::write(dir.join("authorized_keys"), keys)?;
        Ok(())
    }

    fn config(&self, dir: &Path, port: u16) -> String {
        let dir = dir.display();
        let yes_no = |yes| if yes { "yes" } else { "no" };
        let mut config = format!(
            "ListenAddress 127.0.0.1\nPort {port}\nPidFile none\nLogLevel VERBOSE\nUseDNS no\n\
             HostKey {dir}/host_key\nAuthorizedKeysFile {dir}/authorized_keys\nStrictModes no\n\
             AllowUsers {USER}\nPubkeyAuthentication yes\nPasswordAuthentication yes\n\
             KbdInteractiveAuthentication no\nUsePAM {}\nX11Forwarding no\nPrintMotd no\n\
             MaxStartups 100\nMaxAuthTries 20\n",
            yes_no(self.use_pam)
        );
        if let Some(command) = self.every_kind {
            let keys = format!(
                "AuthorizedKeysCommand /bin/cat {dir}/authorized_keys\n\
                 AuthorizedKeysCommandUser root\nAuthorizedKeysFile none\n"
            );
            let keys = if command { keys } else { String::new() };
            // The first value counts.
            let dialogue = "KbdInteractiveAuthentication yes\nSubsystem sftp internal-sftp\n";
            config = format!("{keys}{dialogue}{config}");
        }
        config.insert_str(0, &self.lines);
        if self.version == Version::V10 {
            // Failed logins would make it drop later connections from loopback unseen.
            config.push_str("PerSourcePenalties no\n");
        }
        config
    }
}

impl SshdLab {
    fn wait_listening(&mut self) -> Result<()> {
        let log = self.dir.path().join("sshd.log");
        let listener = &mut self.listener;
        // The log, and not a connection, which would be one more event for the agent to learn.
        let listening = wait_until("an sshd that listens", QUICK, || {
            if let Some(status) = listener.has_exited()? {
                bail!("sshd ended at start: {status}");
            }
            let log = fs::read_to_string(&log).unwrap_or_default();
            Ok(log.contains("Server listening on").then_some(()))
        });
        listening.with_context(|| format!("{}{}", self.listener.transcript(), self.log()))
    }
}

impl Drop for SshdLab {
    fn drop(&mut self) {
        if let Ok(pid) = self.listener.pid() {
            let connections = descendants(pid);
            let _ = self.listener.signal(rustix::process::Signal::TERM);
            let _ = self.listener.wait(Duration::from_secs(5));
            for process in &connections {
                process.kill();
            }
            let _ = wait_until("end of the connections", Duration::from_secs(5), || {
                Ok((!connections.iter().any(|process| process.is_alive())).then_some(()))
            });
        }
        if self.root.is_some() {
            remove_user(self.root.as_deref());
        }
        if std::thread::panicking() {
            eprintln!("--- end of sshd.log\n{}\n---", last_lines(&self.log()));
        }
    }
}

fn last_lines(text: &str) -> String {
    const SHOWN: usize = 20;
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(SHOWN)..].join("\n")
}

/// The command that becomes the server: directly, or through a private mount namespace (which the
/// kernel takes down with the last process in it, however that ends).
fn launch(
    dir: &Path,
    inside: &Path,
    root: Option<&Path>,
    fixture: &Fixture,
    late: bool,
) -> Command {
    let mut mounts = if late { Vec::new() } else { fixture.mounts.clone() };
    if let Some(root) = root {
        let place = |path: &str| root.join(path.trim_start_matches('/'));
        mounts.push((dir.to_owned(), place(trixie::LAB_DIR)));
        mounts.push(("/dev".into(), place("dev")));
        mounts.push(("/proc".into(), place("proc")));
    }
    let mut command = Command::new("env");
    if late || !mounts.is_empty() {
        command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", MOUNT_AND_EXEC, "sh"]);
        for (file, onto) in &mounts {
            command.arg(file).arg(onto);
        }
        command.arg("--");
        if let Some(root) = root {
            command.arg("chroot").arg(root);
        }
        command.arg("env");
    }
    // Set last, so that the fixture's variables reach no program but sshd.
    command.args(fixture.env.iter().map(|(name, value)| format!("{name}={value}")));
    command.args([SSHD, "-D", "-f"]).arg(inside.join("sshd_config"));
    command.arg("-E").arg(inside.join("sshd.log"));
    command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    command
}

fn check_host_version() -> Result<()> {
    let told = finish(Command::new(SSHD).arg("-V"), "", QUICK)?;
    if !told.stderr.contains("OpenSSH_9.2") {
        bail!(
            "{SSHD} is not OpenSSH 9.2 but {:?}: the tests need Debian 12's openssh-server",
            told.stderr.lines().next().unwrap_or_default()
        );
    }
    Ok(())
}

fn make_privsep_dir(root: Option<&Path>) -> Result<()> {
    let dir = root.unwrap_or(Path::new("/")).join(PRIVSEP_DIR.trim_start_matches('/'));
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(&dir)
        .with_context(|| dir.display().to_string())
}
