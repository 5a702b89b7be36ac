//! A small guarded program with a library that needs another, to be slowed down and lied to.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
};

use anyhow::{Result, ensure};
use tempfile::TempDir;

use crate::{
    lab::{Machine, must},
    running::{PATIENCE, Sensor, Settings, State},
};

const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/slow_start.c");
pub(crate) const PROGRAM: &str = "loader-victim";
/// With an argument it waits for the end of its input.
const MAIN: &str = "#include <stdio.h>\nint outer_all(void);\nint main(int argc, char **argv)\n{\n\
                    \t(void)argv;\n\twhile (argc > 1 && getchar() != EOF)\n\t\t;\n\
                    \treturn outer_all() != 14;\n}\n";
/// Starts while learning: more than observations.
const STARTS: usize = 16;
const LIBRARIES: [&str; 2] = ["libinner.so", "libouter.so"];
/// Where the program and its libraries are kept as they were built, and what tests have built once.
const KEPT: &str = "kept";
const PARTS: &str = "parts";

/// The program, its libraries, and their directory.
pub(crate) struct Victim(TempDir);

// === impl Victim ===

impl Victim {
    pub(crate) fn build() -> Result<Self> {
        let mut named = tempfile::Builder::new();
        let victim =
            Self(named.prefix("halfsecond-victim-").tempdir_in(env!("CARGO_TARGET_TMPDIR"))?);
        for library in LIBRARIES {
            victim.library(library, "-DRESOLVER_MS=0")?;
        }
        let main = victim.path("main.c");
        fs::write(&main, MAIN)?;
        let mut cc = victim.cc(PROGRAM);
        must(cc.arg(&main).args(["-l:libouter.so", "-Wl,-z,now"]), "", PATIENCE)?;
        for folder in [KEPT, PARTS] {
            fs::create_dir(victim.path(folder))?;
        }
        for name in LIBRARIES.into_iter().chain([PROGRAM]) {
            fs::copy(victim.path(name), victim.path(KEPT).join(name))?;
        }
        Ok(victim)
    }

    /// Undoes what was done to the program, its libraries and their directory.
    pub(crate) fn restore(&self) -> Result<()> {
        for entry in fs::read_dir(self.0.path())? {
            let entry = entry?;
            if !entry.file_type()?.is_dir() {
                fs::remove_file(entry.path())?;
            } else if entry.file_name() != KEPT && entry.file_name() != PARTS {
                fs::remove_dir_all(entry.path())?;
            }
        }
        for name in LIBRARIES.into_iter().chain([PROGRAM]) {
            fs::copy(self.path(KEPT).join(name), self.path(name))?;
        }
        Ok(fs::set_permissions(self.0.path(), fs::Permissions::from_mode(0o700))?)
    }

    /// Lets other users start the program.
    pub(crate) fn open_to_all(&self) -> Result<()> {
        Ok(fs::set_permissions(self.0.path(), fs::Permissions::from_mode(0o755))?)
    }

    /// A file that is made once and put in place by a copy, under any name, whenever it is asked for.
    pub(crate) fn part(
        &self,
        name: &str,
        place: &str,
        make: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<PathBuf> {
        let (part, place) = (self.path(PARTS).join(name), self.path(place));
        if !part.exists() {
            make(&part)?;
        }
        fs::copy(part, &place)?;
        Ok(place)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The compiler, with what all parts share.
    pub(crate) fn cc(&self, output: &str) -> Command {
        let mut cc = Command::new("cc");
        let dir = self.0.path().display();
        cc.args(["-O1", "-Wall", "-Wextra", "-Wl,--build-id"]);
        cc.args([format!("-L{dir}"), format!("-Wl,-rpath,{dir}")]).arg("-o").arg(self.path(output));
        cc
    }

    /// Puts a library in place by a rename, as a package manager does.
    pub(crate) fn library(&self, name: &str, flag: &str) -> Result<()> {
        let new = self.other(name, flag)?;
        Ok(fs::rename(new, self.path(name))?)
    }

    /// Builds a library beside the one that is in place.
    pub(crate) fn other(&self, name: &str, flag: &str) -> Result<PathBuf> {
        let new = format!("{name}.new");
        let mut cc = self.cc(&new);
        cc.args(["-shared", "-fPIC", "-fno-stack-protector", flag, SOURCE]);
        cc.arg(format!("-Wl,-soname,{name},-z,relro,-z,now"));
        if name == "libouter.so" {
            cc.args(["-DNAME=outer", "-DCALLS=inner", "-l:libinner.so"]);
        } else {
            cc.arg("-DNAME=inner");
        }
        must(&mut cc, "", PATIENCE)?;
        Ok(self.path(&new))
    }

    pub(crate) fn command(&self) -> Command {
        Command::new(self.path(PROGRAM))
    }

    /// Starts it and lets it live until the sensor has looked at its start: of one that is gone by
    /// then no module can be named.
    pub(crate) fn start_watched(&self, sensor: &Sensor, times: usize) -> Result<()> {
        const LINKED: &str = "halfsecond_link_cpu_seconds_count";
        let guarded = [("class", "guarded")];
        for _ in 0..times {
            let before = sensor.scrape()?.sum(LINKED, &guarded);
            let mut child = self.command().arg("wait").stdin(Stdio::piped()).spawn()?;
            let seen = sensor.scrape_until("a start that was seen", |scrape| {
                scrape.sum(LINKED, &guarded) > before
            });
            drop(child.stdin.take());
            let status = child.wait()?;
            ensure!(status.success(), "{PROGRAM} ended with {status}");
            seen?;
        }
        Ok(())
    }

    pub(crate) fn guarded(&self) -> String {
        guarded(&self.path(PROGRAM))
    }

    /// What a sensor knows of the program once it has learned it.
    pub(crate) fn learned(&self, machine: &Arc<Machine>) -> Result<State> {
        let state = State::new()?;
        let guarded = self.guarded();
        let settings = Settings { more: &guarded, ..Settings::default() };
        let sensor = Sensor::start(machine, state.path(), settings)?;
        self.start_watched(&sensor, STARTS)?;
        sensor.scrape_until("a settled baseline", |scrape| {
            scrape.sum("halfsecond_baselines", &[("state", "settled")]) >= 1.0
        })?;
        sensor.stop()?.must_be_quiet_but_for_emulation()?;
        Ok(state)
    }
}

/// The section of a configuration.
pub(crate) fn guarded(path: &Path) -> String {
    format!("[[guarded]]\npath = \"{}\"\n", path.display())
}
