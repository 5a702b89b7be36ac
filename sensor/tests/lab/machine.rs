//! Exclusive use of this machine for end-to-end tests, and the user who logs in.

use std::{
    env,
    fs::{self, File, OpenOptions, TryLockError},
    io::{Read as _, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use rustix::fs::OFlags;
use tempfile::TempDir;

use super::process::{ProcessId, descendants, must};

/// The user the laboratory creates; [`MARK`] in its comment field tells it from a person's.
pub(crate) const USER: &str = "hs-lab";
const MARK: &str = "halfsecond laboratory";
const LOCK: &str = "/run/halfsecond-lab.lock";
const TOOLS: &[&str] = &[
    "cc",
    "chpasswd",
    "chroot",
    "ldd",
    "mount",
    "nsenter",
    "sh",
    "ssh",
    "ssh-keygen",
    "sshd",
    "sshpass",
    "unshare",
    "useradd",
    "userdel",
];
pub(crate) const QUICK: Duration = Duration::from_secs(30);

/// Held while a test runs servers and agents: two at once would see each other's logins.
///
/// Owns the test user with its password and keys. The user is removed with the last handle.
#[derive(Debug)]
pub(crate) struct Machine {
    lock: File,
    dir: TempDir,
    password: String,
    /// Whether there is a test user.
    has_user: bool,
}

impl Machine {
    /// Waits for other tests (of any checkout) to finish, then takes the machine.
    ///
    /// # Errors
    /// Without root, or with a tool missing; the message names the remedy.
    pub(crate) fn acquire() -> Result<Arc<Self>> {
        if !rustix::process::geteuid().is_root() {
            bail!(
                "end-to-end tests start an sshd and a user: run them as root (`cargo xtask test --e2e` does)"
            );
        }
        require(TOOLS)?;
        let mut machine = Self::taken()?;
        for (key, bits) in [("rsa", "2048"), ("ed25519", "256"), ("host", "256")] {
            let kind = if key == "host" { "ed25519" } else { key };
            let mut keygen = Command::new("ssh-keygen");
            keygen.args(["-q", "-N", "", "-C", MARK, "-t", kind, "-b", bits, "-f"]);
            must(keygen.arg(machine.key(key)), "", QUICK)?;
        }
        private_file(&machine.password_file(), &format!("{}\n", machine.password))?;
        private_file(&machine.dir.path().join("wrong"), "not the password\n")?;
        add_user(None, &machine.password)?;
        machine.has_user = true;
        Ok(Arc::new(machine))
    }

    /// The same for tests without servers: there is no test user and there are no keys.
    ///
    /// # Errors
    /// Without root.
    pub(crate) fn without_user() -> Result<Arc<Self>> {
        if !rustix::process::geteuid().is_root() {
            bail!("the sensor needs root (`cargo xtask test --e2e` has it)");
        }
        Ok(Arc::new(Self::taken()?))
    }

    fn taken() -> Result<Self> {
        let mut lock = lock()?;
        end_leftovers(&mut lock)?;
        let dir = tempfile::Builder::new().prefix("halfsecond-machine-").tempdir()?;
        Ok(Self { lock, dir, password: random_word()?, has_user: false })
    }

    /// Notes a server or agent, so that it ends before the next test even if this one is killed.
    pub(crate) fn adopt(&self, pid: i32) -> Result<()> {
        let Some(process) = ProcessId::of(pid) else { return Ok(()) };
        Ok(writeln!(&self.lock, "{} {}", process.pid, process.start)?)
    }

    /// A key pair's private file: "rsa" and "ed25519" (the user's), "host" (every server's).
    pub(crate) fn key(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn public_key(&self, name: &str) -> Result<String> {
        let path = self.dir.path().join(format!("{name}.pub"));
        fs::read_to_string(&path).with_context(|| path.display().to_string())
    }

    pub(crate) fn password(&self) -> &str {
        &self.password
    }

    /// The user's password, for sshpass -f.
    pub(crate) fn password_file(&self) -> PathBuf {
        self.dir.path().join("password")
    }

    /// A password that is not the user's.
    pub(crate) fn wrong_password_file(&self) -> PathBuf {
        self.dir.path().join("wrong")
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if self.has_user {
            remove_user(None);
        }
    }
}

/// Fails with the remedy unless each of `tools` can be run.
pub(crate) fn require(tools: &[&str]) -> Result<()> {
    let path = env::var_os("PATH").unwrap_or_default();
    let places: Vec<PathBuf> =
        env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]).collect();
    let missing: Vec<&str> = tools
        .iter()
        .copied()
        .filter(|tool| !places.iter().any(|place| place.join(tool).is_file()))
        .collect();
    if !missing.is_empty() {
        bail!("not installed: {} (remedy: `cargo xtask setup`)", missing.join(", "));
    }
    Ok(())
}

/// Writes a file only its owner may read.
pub(crate) fn private_file(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| path.display().to_string())?;
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o600))?)
}

fn lock() -> Result<File> {
    let file = OpenOptions::new()
        .create(true)
        .read(true)
        .append(true)
        .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
        .open(LOCK)
        .with_context(|| LOCK.to_owned())?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            eprintln!("waiting for another end-to-end test to release {LOCK}");
            file.lock()?;
        }
        Err(TryLockError::Error(error)) => return Err(error).context(LOCK),
    }
    Ok(file)
}

/// Ends what a killed test left running. Nobody else runs anything: the lock is held.
fn end_leftovers(lock: &mut File) -> Result<()> {
    let mut notes = String::new();
    lock.read_to_string(&mut notes)?;
    for note in notes.lines() {
        let Some((pid, start)) = note.split_once(' ') else { continue };
        let (Ok(pid), Ok(start)) = (pid.parse(), start.parse()) else { continue };
        let process = ProcessId { pid, start };
        if process.is_alive() {
            let connections = descendants(pid);
            process.kill();
            for connection in connections {
                connection.kill();
            }
        }
    }
    Ok(lock.set_len(0)?)
}

fn random_word() -> Result<String> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(format!("{:032x}", u128::from_ne_bytes(bytes)))
}

/// `program` on the host, or in the root file system `root`.
fn command(root: Option<&Path>, program: &str) -> Command {
    let mut command = Command::new(if root.is_some() { "chroot" } else { program });
    if let Some(root) = root {
        command.arg(root).arg(program);
    }
    // Debian's chroot keeps the caller's PATH, which need not hold sbin.
    command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    command
}

/// Creates the user on the host or in `root`; takes over one left by a test that was killed.
pub(crate) fn add_user(root: Option<&Path>, password: &str) -> Result<()> {
    let passwd = root.unwrap_or(Path::new("/")).join("etc/passwd");
    let users = fs::read_to_string(&passwd).with_context(|| passwd.display().to_string())?;
    match users.lines().find(|line| line.starts_with(&format!("{USER}:"))) {
        Some(line) if line.contains(MARK) => {}
        Some(_) => bail!("{} has a user {USER} that is not the laboratory's", passwd.display()),
        None => {
            let mut add = command(root, "useradd");
            add.args(["--no-create-home", "--home-dir", "/", "--shell", "/bin/sh"]);
            must(add.args(["--comment", MARK, USER]), "", QUICK)?;
        }
    }
    must(&mut command(root, "chpasswd"), &format!("{USER}:{password}\n"), QUICK)?;
    Ok(())
}

/// Removes the user; its processes must have ended.
pub(crate) fn remove_user(root: Option<&Path>) {
    if let Err(error) = must(command(root, "userdel").arg(USER), "", QUICK) {
        eprintln!("the user {USER} stays: {error:#}");
    }
}
