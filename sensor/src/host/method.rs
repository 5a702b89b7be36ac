//! How somebody authenticates, and with what kind of key.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};

/// How somebody authenticates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// Password, asked by sshd itself.
    Password,
    /// Public key.
    Publickey,
    /// A dialogue, mostly with PAM.
    KeyboardInteractive,
    /// Kerberos.
    GssapiWithMic,
    /// Whatever libpam's modules ask for; never sshd's.
    Pam,
    /// The key of the client's host, which is believed to know its users.
    Hostbased,
}

/// Type of a key, by the name that sshd has for it: one of few.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct KeyType(&'static str);

/// What OpenSSH has (sshkey.c `keyimpls`, 8.4 to 10.2).
const TYPES: [&str; 18] = [
    "ssh-ed25519",
    "ssh-ed25519-cert-v01@openssh.com",
    "sk-ssh-ed25519@openssh.com",
    "sk-ssh-ed25519-cert-v01@openssh.com",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp256-cert-v01@openssh.com",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp384-cert-v01@openssh.com",
    "ecdsa-sha2-nistp521",
    "ecdsa-sha2-nistp521-cert-v01@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
    "sk-ecdsa-sha2-nistp256-cert-v01@openssh.com",
    "ssh-rsa",
    "ssh-rsa-cert-v01@openssh.com",
    "ssh-dss",
    "ssh-dss-cert-v01@openssh.com",
    "ssh-xmss@openssh.com",
    "ssh-xmss-cert-v01@openssh.com",
];
const OTHER: &str = "other";

// === impl Method ===

impl Method {
    /// The name RFC 4252 and its kin give it; `pam` beyond ssh.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Password => "password",
            Self::Publickey => "publickey",
            Self::KeyboardInteractive => "keyboard-interactive",
            Self::GssapiWithMic => "gssapi-with-mic",
            Self::Pam => "pam",
            Self::Hostbased => "hostbased",
        }
    }

    /// A key is looked up, and a signature with it verified.
    #[must_use]
    pub fn is_by_key(self) -> bool {
        matches!(self, Self::Publickey | Self::Hostbased)
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

// === impl KeyType ===

impl KeyType {
    /// By its name in the key; whatever OpenSSH does not have is `other`.
    #[must_use]
    pub fn of(name: &str) -> Self {
        Self(TYPES.into_iter().find(|known| *known == name).unwrap_or(OTHER))
    }

    /// As output writes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.0
    }
}

// By hand: serde would borrow the name from what is read.
impl<'de> Deserialize<'de> for KeyType {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|name| Self::of(&name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_of_keys_are_few() {
        for name in TYPES {
            assert_eq!(KeyType::of(name).name(), name);
            assert!(name.len() <= sensor_common::record::USER_MAX, "{name} is cut on its way");
        }
        for name in ["", "ssh-ed25519\0", "SSH-RSA", "ssh-rsa2", "\u{1b}[2J"] {
            assert_eq!(KeyType::of(name).name(), "other", "{name:?}");
        }
    }
}
