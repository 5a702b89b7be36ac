//! Distribution kernels: which one a name means, and getting its image.

use std::fmt;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::slice;
use std::str::FromStr;

use anyhow::{Context as _, Error, Result, bail};

use super::archive::{Archive, Package};
use crate::{repo, sh};

/// Modules that a guest needs and no distribution builds in: for its disk, and for tests.
const MODULES: [&str; 2] = ["loop.ko", "overlay.ko"];

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

/// A kernel on disk.
#[derive(Debug)]
pub(super) struct Kernel {
    pub(super) image: PathBuf,
    /// The package's version.
    pub(super) version: String,
    /// Modules, below a folder named as `uname -r` tells.
    pub(super) modules: Vec<PathBuf>,
}

// === impl Arch ===

impl Arch {
    pub(super) const fn debian(self) -> &'static str {
        match self {
            Self::X86_64 => "amd64",
            Self::Aarch64 => "arm64",
        }
    }

    /// As compilers name it; `-` where they would write `_`.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::X86_64 => "x86-64",
            Self::Aarch64 => "aarch64",
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

/// The image and the modules for `spec`, downloaded unless they are here already.
pub(super) fn provide(spec: &Spec, archive: &mut Archive) -> Result<Kernel> {
    let folder = repo::target().join(format!("vm/kernels/{spec}"));
    let (image, modules, stamp) =
        (folder.join("vmlinuz"), folder.join("modules"), folder.join("version"));
    let have = if modules.is_dir() { files(&modules)? } else { Vec::new() };
    let complete = MODULES.iter().all(|name| have.iter().any(|path| name_of(path) == *name));
    if let (true, Ok(version)) = (complete, fs::read_to_string(&stamp)) {
        return Ok(Kernel { image, version, modules: have });
    }
    let meta = format!("linux-image-cloud-{}", spec.arch.debian());
    let versions = archive.versions(&meta, spec.arch.debian())?;
    let newest = versions.into_iter().find(|package| spec.wants(&package.version));
    let package = newest.with_context(|| format!("Debian's archive has no {spec} of {meta}"))?;
    let unpacked = folder.join("unpacked");
    unpack(&package, archive, &unpacked)?;
    let unpacked_files = files(&unpacked)?;
    let found = unpacked_files.iter().find(|path| name_of(path).starts_with("vmlinuz"));
    let found =
        found.with_context(|| format!("no vmlinuz in what {meta} {} needs", package.version))?;
    fs::rename(found, &image)?;
    for name in MODULES {
        take_module(&unpacked_files, name, &modules)
            .with_context(|| format!("no {name} for {spec}"))?;
    }
    fs::remove_dir_all(unpacked)?;
    // Last, so that an interrupted download is not taken for a kernel.
    fs::write(stamp, &package.version)?;
    Ok(Kernel { image, version: package.version, modules: files(&modules)? })
}

/// Puts a module into a folder for its release, decompressed: not every kernel can do that.
fn take_module(unpacked: &[PathBuf], name: &str, modules: &Path) -> Result<()> {
    let module = unpacked.iter().find(|path| {
        let found = name_of(path);
        found == name || found.strip_suffix(".xz") == Some(name)
    });
    let module = module.context("not among the package's files")?;
    let mut parts = module.iter().skip_while(|part| *part != "modules").skip(1);
    let folder = modules.join(parts.next().context("not below lib/modules")?);
    fs::create_dir_all(&folder)?;
    let place = folder.join(name);
    if name_of(module) == name {
        fs::copy(module, place)?;
    } else {
        let mut xz = Command::new("xz");
        xz.args(["--decompress", "--stdout"]).arg(module).stdout(File::create(place)?);
        sh::run(&mut xz)?;
    }
    Ok(())
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

/// Follows a meta package to those with the image and the modules, which newer kernels keep in a
/// `linux-binary-*` and a `linux-modules-*` of their own.
fn unpack(meta: &Package, archive: &mut Archive, into: &Path) -> Result<()> {
    const PARTS: [&str; 3] = ["linux-image-", "linux-binary-", "linux-modules-"];
    let mut packages = vec![meta.clone()];
    fs::create_dir_all(into)?;
    while let Some(package) = packages.pop() {
        let next = archive.pinned_dependencies(&package)?;
        packages.extend(
            next.into_iter()
                .filter(|package| PARTS.iter().any(|part| package.name.starts_with(part))),
        );
        if package != *meta {
            archive.unpack(slice::from_ref(&package), into)?;
        }
    }
    Ok(())
}

/// Every file below a folder.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            } else {
                files.push(entry.path());
            }
        }
    }
    Ok(files)
}

fn name_of(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
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
