//! Programs without what only a debugger reads: nine tenths of a test binary, which would have to go
//! through a guest's memory.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::kernel::Arch;
use crate::{repo, sh};

/// The start of every ELF file.
const ELF: &[u8] = b"\x7fELF";

/// A copy of an ELF file for `arch` without debug information; any other file as it is.
///
/// # Errors
/// When the toolchain's objcopy is missing or refuses the file.
pub(super) fn stripped(path: &Path, arch: Arch) -> Result<PathBuf> {
    if !fs::read(path).with_context(|| path.display().to_string())?.starts_with(ELF) {
        return Ok(path.to_owned());
    }
    let folder = repo::target().join("vm/stripped").join(arch.debian());
    fs::create_dir_all(&folder)?;
    let lean = folder.join(path.file_name().context("a file without a name")?);
    // The one that rustc itself strips with: it knows every architecture.
    let sysroot = PathBuf::from(
        sh::output(Command::new("rustc").args(["--print", "sysroot"]).current_dir(repo::root()))?
            .trim(),
    );
    let host = sh::output(
        Command::new("rustc").args(["--print", "host-tuple"]).current_dir(repo::root()),
    )?;
    let objcopy = sysroot.join("lib/rustlib").join(host.trim()).join("bin/rust-objcopy");
    let mut objcopy = Command::new(objcopy);
    objcopy.env("LD_LIBRARY_PATH", sysroot.join("lib"));
    sh::output(objcopy.arg("--strip-debug").arg(path).arg(&lean))?;
    Ok(lean)
}
