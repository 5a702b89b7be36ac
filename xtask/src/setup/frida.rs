//! Frida, which no distribution has: a Python of its own below `target` with the one release that
//! the tests were written against.

use std::process::Command;

use anyhow::{Context as _, Result};

use super::report;
use crate::{repo, sh};

const VERSION: &str = "17.26.2";

/// Puts it there unless it is. Without it one test says that it was not run: not every machine
/// reaches Python's package index, and not every architecture has a build.
pub(super) fn ensure(verbose: bool) {
    let folder = repo::target().join("tools/frida");
    let python = folder.join("bin/python3");
    let script = format!("import frida; assert frida.__version__ == '{VERSION}'");
    let have = sh::output(Command::new(&python).args(["-c", &script])).is_ok();
    report(verbose, have, "frida");
    if have {
        return;
    }
    let install = || -> Result<()> {
        sh::output(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder))?;
        let pip = ["-m", "pip", "--quiet", "--disable-pip-version-check", "install"];
        let wanted = format!("frida=={VERSION}");
        sh::output(Command::new(&python).args(pip).args(["--only-binary", ":all:", &wanted]))?;
        Ok(())
    };
    if let Err(error) = install().context("Frida is not there and is not tested") {
        println!("            {error:#}");
    }
}
