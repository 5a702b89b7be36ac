//! Distribution kernels: which one a name means, and getting its image.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context as _, Error, Result, bail};

use super::archive::{Archive, Package};
use crate::repo;

/// The series a bare `arm64` means: the newest long-term one.
const ARM64_SERIES: &str = "6.12";

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Arch {
    X86_64,
    Aarch64,
}

/// A kernel as asked for: `6.1`, `newest`, `arm64`, `arm64-5.10`, `arm64-newest`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Spec {
    pub(super) arch: Arch,
    series: Series,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Series {
    Newest,
    /// `major.minor`.
    Of(String),
}

/// A kernel image on disk.
#[derive(Debug)]
pub(super) struct Kernel {
    pub(super) image: PathBuf,
    /// The package's version.
    pub(super) version: String,
}

// === impl Arch ===

impl Arch {
    pub(super) const fn debian(self) -> &'static str {
        match self {
            Self::X86_64 => "amd64",
            Self::Aarch64 => "arm64",
        }
    }

    pub(super) const fn rust_target(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64-unknown-linux-musl",
            Self::Aarch64 => "aarch64-unknown-linux-musl",
        }
    }
}

// === impl Spec ===

impl FromStr for Spec {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let (arch, series) = match name.strip_prefix("arm64") {
            Some("") => (Arch::Aarch64, ARM64_SERIES),
            Some(rest) => (Arch::Aarch64, rest.strip_prefix('-').unwrap_or(rest)),
            None => (Arch::X86_64, name),
        };
        let is_number = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        let series = match series.split_once('.') {
            _ if series == "newest" => Series::Newest,
            Some((major, minor)) if is_number(major) && is_number(minor) => {
                Series::Of(series.to_owned())
            }
            _ => bail!("no kernel is called {name}; try 5.10, 6.1, newest, arm64, arm64-5.10"),
        };
        Ok(Self { arch, series })
    }
}

impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let series = match &self.series {
            Series::Newest => "newest",
            Series::Of(series) => series,
        };
        match self.arch {
            Arch::X86_64 => f.pad(series),
            Arch::Aarch64 => f.pad(&format!("arm64-{series}")),
        }
    }
}

/// The image for `spec`, downloaded unless it is here already.
pub(super) fn provide(spec: &Spec, archive: &mut Archive) -> Result<Kernel> {
    let folder = repo::target().join(format!("vm/kernels/{spec}"));
    let (image, stamp) = (folder.join("vmlinuz"), folder.join("version"));
    if let (true, Ok(version)) = (image.is_file(), fs::read_to_string(&stamp)) {
        return Ok(Kernel { image, version });
    }
    let meta = format!("linux-image-cloud-{}", spec.arch.debian());
    let versions = archive.versions(&meta, spec.arch.debian())?;
    let newest = versions.into_iter().find(|package| spec.wants(&package.version));
    let package = newest.with_context(|| format!("Debian's archive has no {spec} of {meta}"))?;
    let unpacked = folder.join("unpacked");
    let found = unpack_image(&package, archive, &unpacked)?
        .with_context(|| format!("no vmlinuz in what {meta} {} needs", package.version))?;
    fs::rename(found, &image)?;
    fs::remove_dir_all(unpacked)?;
    // Last, so that an interrupted download is not taken for a kernel.
    fs::write(stamp, &package.version)?;
    Ok(Kernel { image, version: package.version })
}

impl Spec {
    fn wants(&self, version: &str) -> bool {
        match &self.series {
            Series::Newest => true,
            Series::Of(series) => version
                .strip_prefix(series.as_str())
                .is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_digit())),
        }
    }
}

/// Follows a meta package to the package with the image, which newer kernels keep in a
/// `linux-binary-*` of its own.
fn unpack_image(meta: &Package, archive: &mut Archive, into: &Path) -> Result<Option<PathBuf>> {
    let mut packages = vec![meta.clone()];
    while let Some(package) = packages.pop() {
        let next = archive.pinned_dependencies(&package)?;
        packages.extend(next.into_iter().filter(|package| {
            package.name.starts_with("linux-image-") || package.name.starts_with("linux-binary-")
        }));
        if package == *meta {
            continue;
        }
        fs::create_dir_all(into)?;
        archive.unpack(&package, into)?;
        if let Some(image) = find_image(into)? {
            return Ok(Some(image));
        }
    }
    Ok(None)
}

fn find_image(folder: &Path) -> Result<Option<PathBuf>> {
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            } else if entry.file_name().to_string_lossy().starts_with("vmlinuz") {
                return Ok(Some(entry.path()));
            }
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_mean_an_architecture_and_a_series() {
        let shown = |name: &str| name.parse::<Spec>().unwrap().to_string();
        assert_eq!(shown("5.10"), "5.10");
        assert_eq!(shown("arm64"), "arm64-6.12");
        assert_eq!(shown("arm64-newest"), "arm64-newest");
        assert!("six".parse::<Spec>().is_err());
        assert!("6.1.2".parse::<Spec>().is_err());
    }

    #[test]
    fn a_series_does_not_match_a_longer_number() {
        let spec: Spec = "6.1".parse().unwrap();
        assert!(spec.wants("6.1.176-1"));
        assert!(!spec.wants("6.12.107-1"));
    }
}
