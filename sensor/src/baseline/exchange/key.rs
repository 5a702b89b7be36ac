//! Keys that exports are signed with, as text: `ed25519-private:` or `ed25519:` and 64 hex digits.

use std::fmt::{self, Write as _};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};

const PRIVATE: &str = "ed25519-private:";
const PUBLIC: &str = "ed25519:";
/// Bytes of a file with a key; more is something else.
const FILE_MAX: u64 = 4096;

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file.
    #[error("{path}: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// Others can read it.
    #[error("{path} can be read by others (mode {mode:03o}): anybody may have it; make a new key")]
    Open {
        /// Which.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// It is no key.
    #[error("{0} is no {1}; `halfsecond baseline key FILE` makes one")]
    Malformed(String, &'static str),
}

/// Signs exports.
pub struct PrivateKey(SigningKey);

/// Verifies them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PublicKey(VerifyingKey);

// === impl PrivateKey ===

impl PrivateKey {
    /// A new one, from the kernel's random numbers.
    ///
    /// # Errors
    /// Where there are none.
    pub fn generate() -> io::Result<Self> {
        let mut seed = [0; 32];
        // Waits until they are good: at the first boot, from an image, that is not at once.
        File::open("/dev/random")?.read_exact(&mut seed)?;
        Ok(Self(SigningKey::from_bytes(&seed)))
    }

    /// Reads one from a file that nobody else can read.
    ///
    /// # Errors
    /// Where the file is not to be had, is open to others, or holds something else.
    pub fn read(path: &Path) -> Result<Self, KeyError> {
        let failed = |source| KeyError::Io { path: path.to_owned(), source };
        let file = File::open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if metadata.mode() & 0o077 != 0 {
            return Err(KeyError::Open { path: path.to_owned(), mode: metadata.mode() & 0o777 });
        }
        let text = text(file).map_err(failed)?;
        let seed = text.trim().strip_prefix(PRIVATE).and_then(bytes::<32>);
        let none = || KeyError::Malformed(path.display().to_string(), "private key");
        Ok(Self(SigningKey::from_bytes(&seed.ok_or_else(none)?)))
    }

    /// Writes it to a new file with mode 0600. A file that is there is left alone.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(0o600).open(path)?;
        let written = writeln!(file, "{PRIVATE}{}", hex(self.0.as_bytes()));
        let written = written.and_then(|()| file.sync_all());
        if written.is_err() {
            // Half a key is none.
            let _ = fs::remove_file(path);
        }
        written
    }

    /// What verifies its signatures.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key())
    }

    /// The signature, 128 hex digits.
    pub(super) fn sign(&self, message: &[u8]) -> String {
        hex(&self.0.sign(message).to_bytes())
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrivateKey").field("public", &self.public()).finish_non_exhaustive()
    }
}

// === impl PublicKey ===

impl PublicKey {
    /// From its text.
    ///
    /// # Errors
    /// Where it is none: another length, other digits, or no point of the curve.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let key = text.trim().strip_prefix(PUBLIC).and_then(bytes::<32>);
        let key = key.and_then(|bytes| VerifyingKey::from_bytes(&bytes).ok());
        let shown = || text.chars().take(80).collect::<String>();
        let none = || KeyError::Malformed(format!("{:?}", shown()), "public key");
        // One of small order verifies signatures that its owner never made.
        key.filter(|key| !key.is_weak()).map(Self).ok_or_else(none)
    }

    /// From its text, or from a file that holds it.
    ///
    /// # Errors
    /// As [`PublicKey::parse`], and where the file cannot be read.
    pub fn given(text: &str) -> Result<Self, KeyError> {
        if text.starts_with(PUBLIC) {
            return Self::parse(text);
        }
        let path = Path::new(text);
        let read = File::open(path).and_then(self::text);
        Self::parse(&read.map_err(|source| KeyError::Io { path: path.to_owned(), source })?)
    }

    /// Whether the signature (hex) is one of this message by this key, after RFC 8032 without the
    /// leniency for malleable signatures.
    pub(super) fn verifies(&self, message: &[u8], signature: &str) -> bool {
        let Some(signature) = bytes::<64>(signature) else { return false };
        self.0.verify_strict(message, &Signature::from_bytes(&signature)).is_ok()
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PUBLIC}{}", hex(self.0.as_bytes()))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn text(file: File) -> io::Result<String> {
    let mut text = String::new();
    file.take(FILE_MAX).read_to_string(&mut text)?;
    Ok(text)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn bytes<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != 2 * N || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; N];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// RFC 8032, section 7.1, test 2.
    const SEED: &str = "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb";
    const KEY: &str = "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c";
    const SIGNATURE: &str = "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da\
        085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00";

    #[test]
    fn keys_and_signatures_are_those_of_the_standard() {
        let key = PrivateKey(SigningKey::from_bytes(&bytes(SEED).unwrap()));
        assert_eq!(key.public().to_string(), format!("ed25519:{KEY}"));
        assert_eq!(key.sign(&[0x72]), SIGNATURE);
        let public = PublicKey::parse(&format!(" ed25519:{KEY}\n")).unwrap();
        assert!(public.verifies(&[0x72], SIGNATURE));
        assert!(!public.verifies(&[0x73], SIGNATURE) && !public.verifies(&[0x72], "00"));
    }

    #[test]
    fn a_private_key_is_for_its_owner_alone_and_overwrites_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let key = PrivateKey::generate().unwrap();
        key.save(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(PrivateKey::read(&path).unwrap().public(), key.public());
        assert_eq!(key.save(&path).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_ne!(PrivateKey::generate().unwrap().public(), key.public());
        assert!(!format!("{key:?}").contains(&hex(key.0.as_bytes())));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let error = PrivateKey::read(&path).unwrap_err();
        assert!(matches!(error, KeyError::Open { mode: 0o640, .. }), "{error}");
    }

    #[test]
    fn what_is_no_key_is_told_as_such() {
        let weak = format!("ed25519:01{}", "0".repeat(62));
        let upper = format!("ed25519:{}", KEY.to_uppercase());
        assert!(PublicKey::parse(&upper).is_ok());
        for text in ["", "ed25519:", KEY, "ed25519:zz", &*weak, "rsa:00"] {
            let error = PublicKey::parse(text).unwrap_err();
            assert!(error.to_string().contains("is no public key"), "{error}");
        }
        assert!(matches!(PublicKey::given("/nowhere/key"), Err(KeyError::Io { .. })));
    }
}
