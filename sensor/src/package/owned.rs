//! The answer: which package a file belongs to and what the package records of it.

use std::fmt::{self, Write as _};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::digest::Digest;

/// Who keeps the records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Manager {
    /// Debian, Ubuntu and what is built on them.
    Dpkg,
    /// Alpine, Wolfi.
    Apk,
    /// Fedora, RHEL, SUSE, Amazon Linux.
    Rpm,
}

/// The distribution, from `os-release`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Distro {
    /// `ID`: `debian`, `ubuntu`, `fedora`; `linux` where the file does not say.
    pub id: String,
    /// `VERSION_ID`, else `VERSION_CODENAME`: `12`, `24.04`, `sid`.
    pub version: Option<String>,
}

/// What a package says of one of its files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owned {
    /// Name of the package.
    pub package: String,
    /// Its version as its manager writes it, with the release; for dpkg with the epoch.
    pub version: String,
    /// Its architecture in the distribution's words (`amd64`, `x86_64`, `all`, `noarch`).
    pub arch: String,
    /// rpm's epoch where it is not 0.
    pub epoch: Option<u32>,
    /// The distribution.
    pub distro: Distro,
    /// Who keeps the records.
    pub manager: Manager,
    /// Since when this version is installed. apk does not record it.
    pub installed: Option<Timestamp>,
    /// The version this one replaced, where the log still tells (dpkg).
    pub previous: Option<String>,
    /// The digest the file had in the package. Links, directories and some generated files have
    /// none.
    #[serde(with = "crate::serial::option")]
    pub recorded: Option<Digest>,
    /// A configuration file: an administrator may change it.
    pub config: bool,
    /// The package's own path of the file, where another package or the administrator had it put
    /// aside to the path that was asked for (`dpkg-divert`).
    pub diverted_from: Option<String>,
}

/// How a file compares with what its package records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is the package's file.
    Matches,
    /// It is not what the package brought.
    Differs,
    /// It is not what the package brought, as is the right of a configuration file.
    Changed,
    /// The package records no digest, or none of the kind that was computed.
    Unknown,
}

// === impl Manager ===

impl fmt::Display for Manager {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Dpkg => "dpkg",
            Self::Apk => "apk",
            Self::Rpm => "rpm",
        })
    }
}

// === impl Owned ===

impl Owned {
    /// Whether a file with this content is the package's.
    pub fn verdict(&self, found: &Digest) -> Verdict {
        match &self.recorded {
            Some(recorded) if recorded == found => Verdict::Matches,
            Some(recorded) if recorded.algorithm() == found.algorithm() => {
                if self.config {
                    Verdict::Changed
                } else {
                    Verdict::Differs
                }
            }
            _ => Verdict::Unknown,
        }
    }

    /// The package as a package URL (purl-spec, types deb, rpm and apk):
    /// `pkg:deb/debian/liblzma5@5.4.1-1?arch=amd64&distro=debian-12`.
    pub fn purl(&self) -> String {
        let Distro { id, version } = &self.distro;
        let (kind, name) = match self.manager {
            Manager::Dpkg => ("deb", self.package.to_ascii_lowercase()),
            Manager::Apk => ("apk", self.package.to_ascii_lowercase()),
            Manager::Rpm => ("rpm", self.package.clone()),
        };
        let mut purl = format!("pkg:{kind}/");
        encode(&mut purl, &id.to_ascii_lowercase());
        purl.push('/');
        encode(&mut purl, &name);
        purl.push('@');
        encode(&mut purl, &self.version);
        purl.push_str("?arch=");
        encode(&mut purl, &self.arch);
        purl.push_str("&distro=");
        encode(&mut purl, id);
        if let Some(version) = version {
            purl.push('-');
            encode(&mut purl, version);
        }
        if let Some(epoch) = self.epoch {
            // A `String` takes everything.
            let _ = write!(purl, "&epoch={epoch}");
        }
        purl
    }
}

/// Percent-encodes all but what a package URL leaves as it is: letters, digits, `.`, `-`, `_`, `~`
/// and `:`.
fn encode(purl: &mut String, text: &str) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b".-_~:".contains(&byte) {
            purl.push(char::from(byte));
        } else {
            let _ = write!(purl, "%{byte:02X}");
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn owned(manager: Manager, package: &str, version: &str) -> Owned {
        Owned {
            package: package.to_owned(),
            version: version.to_owned(),
            arch: "amd64".to_owned(),
            epoch: None,
            distro: Distro { id: "debian".to_owned(), version: Some("12".to_owned()) },
            manager,
            installed: None,
            previous: None,
            recorded: None,
            config: false,
            diverted_from: None,
        }
    }

    #[test]
    fn package_urls_are_those_of_the_specification() {
        let deb = owned(Manager::Dpkg, "attr", "1:2.4.47-2+b1");
        assert_eq!(deb.purl(), "pkg:deb/debian/attr@1:2.4.47-2%2Bb1?arch=amd64&distro=debian-12");
        let mut rpm = owned(Manager::Rpm, "perl-Net", "1~rc^1-3");
        rpm.epoch = Some(2);
        rpm.arch = "noarch".to_owned();
        rpm.distro = Distro { id: "fedora".to_owned(), version: Some("42".to_owned()) };
        assert_eq!(
            rpm.purl(),
            "pkg:rpm/fedora/perl-Net@1~rc%5E1-3?arch=noarch&distro=fedora-42&epoch=2"
        );
        let mut apk = owned(Manager::Apk, "libstdc++", "13.2.1_git20240309-r0");
        apk.distro = Distro { id: "alpine".to_owned(), version: None };
        assert_eq!(
            apk.purl(),
            "pkg:apk/alpine/libstdc%2B%2B@13.2.1_git20240309-r0?arch=amd64&distro=alpine"
        );
    }

    #[test]
    fn only_digests_of_one_kind_are_compared() {
        let mut file = owned(Manager::Dpkg, "sed", "4");
        assert_eq!(file.verdict(&Digest::Md5([1; 16])), Verdict::Unknown);
        file.recorded = Some(Digest::Md5([1; 16]));
        assert_eq!(file.verdict(&Digest::Md5([1; 16])), Verdict::Matches);
        assert_eq!(file.verdict(&Digest::Md5([2; 16])), Verdict::Differs);
        assert_eq!(file.verdict(&Digest::Sha1([1; 20])), Verdict::Unknown);
        file.config = true;
        assert_eq!(file.verdict(&Digest::Md5([2; 16])), Verdict::Changed);
    }
}
