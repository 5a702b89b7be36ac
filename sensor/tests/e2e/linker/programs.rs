//! Programs that are linked otherwise, or started otherwise: what can be seen of them is, and what
//! cannot is said.

use std::{
    fs,
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, Command},
};

use anyhow::{Context as _, Result, bail};

use super::{Case, NotHere, extra, waiting};
use crate::{
    lab::must,
    running::PATIENCE,
    victim::{PROGRAM, Victim},
};

/// A user that owns nothing here.
const STRANGER: u32 = 65_534;
const LOADERS: [&str; 2] = ["/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1"];

pub(super) const CASES: &[Case] = &[
    Case {
        name: "LD_PRELOAD at a set-uid program",
        act: set_uid,
        detector: "preload_env",
        severity: "info",
        evidence: "so its loader ignored this",
    },
    Case {
        name: "LD_PRELOAD at a script",
        act: script,
        detector: "preload_env",
        severity: "high",
        evidence: "libextra",
    },
    Case {
        name: "LD_PRELOAD at a program run by its loader",
        act: by_loader,
        detector: "preload_env",
        severity: "high",
        evidence: "libextra",
    },
    Case {
        name: "LD_PRELOAD at a musl program",
        act: musl,
        detector: "preload_env",
        severity: "high",
        evidence: "libmusl-extra.so",
    },
    Case {
        name: "LD_PRELOAD at a static glibc program",
        act: static_glibc,
        detector: "preload_env",
        severity: "high",
        evidence: "is linked statically",
    },
    Case {
        name: "LD_PRELOAD at a static-pie glibc program",
        act: static_pie,
        detector: "preload_env",
        severity: "high",
        evidence: "is linked statically",
    },
    Case {
        name: "LD_PRELOAD at a static musl program",
        act: static_musl,
        detector: "preload_env",
        severity: "high",
        evidence: "is linked statically",
    },
    Case {
        name: "LD_PRELOAD at a 32-bit program",
        act: narrow,
        detector: "preload_env",
        severity: "high",
        evidence: "is a 32-bit program",
    },
];

/// Guarded besides the victim: what the cases here start, and the loader, for what it is told to
/// run is the loader's process.
pub(super) fn guarded(victim: &Victim) -> Vec<PathBuf> {
    let own = ["musl", "static", "pie", "static-musl", "narrow"].map(|kind| named(victim, kind));
    let loaders = LOADERS.into_iter().filter_map(|path| fs::canonicalize(path).ok());
    own.into_iter().chain(loaders).collect()
}

/// The table knows the victim by how its name ends.
fn named(victim: &Victim, kind: &str) -> PathBuf {
    victim.path(&format!("{kind}-{PROGRAM}"))
}

/// The set-uid bit is that of a user without any right who is not the one who starts it. That it
/// was ignored opens no incident; what is made to look like an attack on CVE-2023-4911, and is only
/// long, does, and the ignored variable joins it.
fn set_uid(victim: &Victim) -> Result<Child> {
    let library = extra(victim)?;
    let program = victim.path(PROGRAM);
    fs::set_permissions(&program, fs::Permissions::from_mode(0o4755))?;
    victim.open_to_all()?;
    let mut command = victim.command();
    command.uid(STRANGER).env("LD_PRELOAD", library);
    command.env("GLIBC_TUNABLES", format!("glibc.malloc.mxfast={}", "A".repeat(2000)));
    waiting(&mut command).map_err(|error| match error.downcast_ref::<std::io::Error>() {
        Some(cause) if cause.kind() == std::io::ErrorKind::PermissionDenied => {
            NotHere(format!("{} is out of reach of other users", program.display())).into()
        }
        _ => error,
    })
}

fn script(victim: &Victim) -> Result<Child> {
    let script = victim.path("script");
    fs::write(&script, format!("#!{}\n", victim.path(PROGRAM).display()))?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
    waiting(Command::new(script).env("LD_PRELOAD", extra(victim)?))
}

fn by_loader(victim: &Victim) -> Result<Child> {
    let loader = LOADERS.into_iter().find(|path| Path::new(path).exists());
    let mut command = Command::new(loader.context("no glibc loader")?);
    waiting(command.arg(victim.path(PROGRAM)).env("LD_PRELOAD", extra(victim)?))
}

fn musl(victim: &Victim) -> Result<Child> {
    let library = victim.path("libmusl-extra.so");
    let source = source(victim, "extra.c", "int extra(void) { return 1; }\n")?;
    must(musl_gcc(&library)?.args(["-shared", "-fPIC"]).arg(source), "", PATIENCE)?;
    let program = named(victim, "musl");
    must(musl_gcc(&program)?.arg("-pie").arg(main(victim)?), "", PATIENCE)?;
    waiting(Command::new(program).env("LD_PRELOAD", library))
}

fn static_glibc(victim: &Victim) -> Result<Child> {
    let program = named(victim, "static");
    let mut cc = Command::new("cc");
    must(cc.args(["-static", "-o"]).arg(&program).arg(main(victim)?), "", PATIENCE)?;
    waiting(Command::new(program).env("LD_PRELOAD", extra(victim)?))
}

fn static_pie(victim: &Victim) -> Result<Child> {
    let program = named(victim, "pie");
    let mut cc = Command::new("cc");
    must(cc.args(["-static-pie", "-o"]).arg(&program).arg(main(victim)?), "", PATIENCE)?;
    waiting(Command::new(program).env("LD_PRELOAD", extra(victim)?))
}

fn static_musl(victim: &Victim) -> Result<Child> {
    let program = named(victim, "static-musl");
    must(musl_gcc(&program)?.args(["-static", "-no-pie"]).arg(main(victim)?), "", PATIENCE)?;
    waiting(Command::new(program).env("LD_PRELOAD", extra(victim)?))
}

/// In assembler, as few machines have a 32-bit C library.
fn narrow(victim: &Victim) -> Result<Child> {
    if !cfg!(target_arch = "x86_64") {
        return Err(NotHere("no 32-bit program for this machine".to_owned()).into());
    }
    let (object, program) = (victim.path("narrow.o"), named(victim, "narrow"));
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/verify/c/tiny32.s");
    must(Command::new("as").args(["--32", source, "-o"]).arg(&object), "", PATIENCE)?;
    let mut ld = Command::new("ld");
    must(ld.args(["-m", "elf_i386", "-o"]).arg(&program).arg(&object), "", PATIENCE)?;
    waiting(Command::new(program).env("LD_PRELOAD", extra(victim)?))
}

fn musl_gcc(output: &Path) -> Result<Command> {
    let mut gcc = Command::new("musl-gcc");
    match gcc.arg("--version").output() {
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(NotHere("musl-gcc (package musl-tools) is not installed".to_owned()).into());
        }
        Err(error) => bail!("musl-gcc: {error}"),
    }
    let mut gcc = Command::new("musl-gcc");
    gcc.arg("-o").arg(output);
    Ok(gcc)
}

/// With an argument it waits for the end of its input.
fn main(victim: &Victim) -> Result<PathBuf> {
    let text = "#include <unistd.h>\nint main(int argc, char **argv)\n{\n\tchar end;\n\t(void)argv;\n\
                \twhile (argc > 1 && read(0, &end, 1) > 0)\n\t\t;\n\treturn 0;\n}\n";
    source(victim, "other.c", text)
}

fn source(victim: &Victim, name: &str, text: &str) -> Result<PathBuf> {
    let path = victim.path(name);
    fs::write(&path, text)?;
    Ok(path)
}
