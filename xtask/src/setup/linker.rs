//! bpf-linker: turns rustc's bitcode into a BPF object, with an LLVM no older than rustc's.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::{apt, report, rust};
use crate::sh;

/// The release everybody uses, so that the kernel object is the same everywhere.
const VERSION: &str = "0.13.0";

/// The LLVM majors that release has a feature for.
const LLVM_FEATURES: [u32; 3] = [21, 22, 23];

/// Builds bpf-linker unless one that fits is installed.
pub(super) fn ensure(verbose: bool) -> Result<()> {
    let rustc = rust::llvm_major()?;
    let unfit = sh::tool("bpf-linker")
        .map_or(Some("not installed".to_owned()), |path| why_unfit(&path, rustc));
    let what = format!("bpf-linker for LLVM {rustc}");
    report(verbose, unfit.is_none(), &what);
    let Some(reason) = unfit else {
        return Ok(());
    };
    println!("            ({reason}; building it takes a minute or two)");
    let llvm = provide_llvm(rustc)?;
    build(llvm).with_context(|| {
        format!(
            "bpf-linker does not build against llvm-{llvm}-dev; to see more, try: \
             LLVM_PREFIX={} cargo install bpf-linker --version {VERSION} --no-default-features \
             --features llvm-{llvm}",
            prefix(llvm)
        )
    })
}

/// Why the installed linker will not do, if so.
fn why_unfit(path: &Path, rustc: u32) -> Option<String> {
    let Ok(version) = sh::output(Command::new(path).arg("--version")) else {
        return Some("it does not start".to_owned());
    };
    if version.split_whitespace().nth(1) != Some(VERSION) {
        return Some(format!("{} is installed, {VERSION} is wanted", version.trim()));
    }
    // Linked statically, or on a system without ldd, there is nothing to compare.
    let libraries = sh::output(Command::new("ldd").arg(path)).unwrap_or_default();
    let llvm = linked_llvm(&libraries)?;
    (llvm < rustc).then(|| format!("it uses LLVM {llvm}, rustc LLVM {rustc}"))
}

/// The LLVM major among the libraries that ldd lists (`libLLVM.so.22.1`, `libLLVM-14.so.1`).
fn linked_llvm(ldd: &str) -> Option<u32> {
    let name = ldd.split_whitespace().find(|word| word.starts_with("libLLVM"))?;
    let digits = name.trim_start_matches(|c: char| !c.is_ascii_digit());
    digits.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// Makes sure LLVM's development files are there; returns the major version chosen.
///
/// The closest to rustc's own is taken: bitcode is only sure to be read by the same LLVM or a
/// newer one.
fn provide_llvm(rustc: u32) -> Result<u32> {
    let fitting: Vec<u32> = LLVM_FEATURES.into_iter().filter(|llvm| *llvm >= rustc).collect();
    if let Some(llvm) = fitting.iter().find(|llvm| is_installed(**llvm)) {
        return Ok(*llvm);
    }
    apt::update(&format!("LLVM {rustc}"))?;
    let Some(llvm) =
        fitting.iter().find(|llvm| packages(**llvm).iter().all(|name| apt::available(name)))
    else {
        bail!(
            "no package source has an LLVM that fits (wanted: one of {fitting:?}); Debian 12 and \
             13 carry llvm-22-dev with their updates and security sources enabled; elsewhere add \
             LLVM's own package source, then: apt-get install {}",
            packages(rustc).join(" ")
        );
    };
    apt::install(&packages(*llvm))?;
    Ok(*llvm)
}

fn is_installed(llvm: u32) -> bool {
    packages(llvm).iter().all(|name| apt::installed(name))
}

/// What bpf-linker links against: LLVM's shared library, so nothing of what that is made of.
fn packages(llvm: u32) -> Vec<String> {
    vec![format!("llvm-{llvm}-dev")]
}

/// Where Debian puts one LLVM of several.
fn prefix(llvm: u32) -> String {
    format!("/usr/lib/llvm-{llvm}")
}

fn build(llvm: u32) -> Result<()> {
    sh::run(
        sh::cargo(["install", "bpf-linker", "--locked", "--force", "--version", VERSION])
            .args(["--no-default-features", "--features", &format!("llvm-{llvm}")])
            // Its build script would otherwise look for a plain llvm-config on the PATH, where
            // Debian has none, or another LLVM's.
            .env("LLVM_PREFIX", prefix(llvm)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_llvm_a_linker_uses_is_read_from_its_libraries() {
        let new = "\tlibLLVM.so.22.1 => /lib/x86_64-linux-gnu/libLLVM.so.22.1 (0x7f)\n";
        let old = "\tlinux-vdso.so.1 (0x7f)\n\tlibLLVM-14.so.1 => /lib/libLLVM-14.so.1 (0x7f)\n";
        assert_eq!(linked_llvm(new), Some(22));
        assert_eq!(linked_llvm(old), Some(14));
        assert_eq!(linked_llvm("\tstatically linked\n"), None);
    }
}
