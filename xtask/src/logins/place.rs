//! What clients and servers of one run share: keys, the password, and a folder for all of it.

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::cell::Way;
use crate::sh;

/// Of the end-to-end tests, which have users and servers like these (`sensor/tests/lab/machine.rs`).
const LOCK: &str = "/run/halfsecond-lab.lock";
/// What ssh asks instead of a person; the file with the password is in the environment.
const ASKPASS: &str = "#!/bin/sh\nexec cat \"$HALFSECOND_PASSWORD\"\n";

pub(super) struct Place {
    folder: PathBuf,
    password: String,
    /// No test of another checkout runs meanwhile.
    _lock: File,
}

// === impl Place ===

impl Place {
    /// Makes `folder` anew, with new keys, once no end-to-end test runs.
    pub(super) fn make(folder: &Path) -> Result<Self> {
        let lock = OpenOptions::new().create(true).append(true).open(LOCK).context(LOCK)?;
        if lock.try_lock().is_err() {
            eprintln!("waiting for an end-to-end test to release {LOCK}");
            lock.lock().context(LOCK)?;
        }
        if folder.exists() {
            fs::remove_dir_all(folder)?;
        }
        fs::create_dir_all(folder)?;
        let place = Self { folder: folder.to_owned(), password: random_word()?, _lock: lock };
        for way in [Way::Rsa, Way::Ed25519, Way::Ecdsa] {
            place.make_key(kind(way), &place.key(way, true))?;
            place.make_key(kind(way), &place.key(way, false))?;
        }
        place.make_key("ed25519", &folder.join("host_key"))?;
        private(&place.password_file(true), &format!("{}\n", place.password), 0o600)?;
        private(&place.password_file(false), "not the password\n", 0o600)?;
        private(&place.askpass(), ASKPASS, 0o700)?;
        Ok(place)
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(super) fn password(&self) -> &str {
        &self.password
    }

    pub(super) fn askpass(&self) -> PathBuf {
        self.folder.join("askpass")
    }

    /// A private key: the user's, or one that the servers have never seen.
    pub(super) fn key(&self, way: Way, own: bool) -> PathBuf {
        self.folder.join(format!("{}-{}", if own { "own" } else { "strange" }, kind(way)))
    }

    /// With the user's password, or with another.
    pub(super) fn password_file(&self, own: bool) -> PathBuf {
        self.folder.join(if own { "password" } else { "wrong" })
    }

    /// Public keys of the user, as sshd reads them.
    pub(super) fn authorized_keys(&self) -> Result<String> {
        [Way::Rsa, Way::Ed25519, Way::Ecdsa].into_iter().try_fold(String::new(), |keys, way| {
            Ok(keys + &fs::read_to_string(self.key(way, true).with_extension("pub"))?)
        })
    }

    fn make_key(&self, kind: &str, file: &Path) -> Result<()> {
        let mut keygen = Command::new("ssh-keygen");
        keygen.args(["-q", "-N", "", "-C", "halfsecond", "-t", kind, "-f"]).arg(file);
        sh::output(keygen.current_dir(&self.folder)).map(drop)
    }
}

/// ssh-keygen's name for the type of a key.
fn kind(way: Way) -> &'static str {
    match way {
        Way::Rsa => "rsa",
        Way::Ecdsa => "ecdsa",
        _ => "ed25519",
    }
}

/// Writes a file that is its owner's alone from the start.
pub(super) fn private(file: &Path, text: &str, mode: u32) -> Result<()> {
    let mut options = OpenOptions::new();
    let opened = options.write(true).create(true).truncate(true).mode(mode).open(file);
    let mut opened = opened.with_context(|| format!("cannot write {}", file.display()))?;
    opened.set_permissions(fs::Permissions::from_mode(mode))?;
    Ok(opened.write_all(text.as_bytes())?)
}

fn random_word() -> Result<String> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(format!("{:032x}", u128::from_ne_bytes(bytes)))
}
