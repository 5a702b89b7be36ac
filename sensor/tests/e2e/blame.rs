//! Who made a program start slowly: the right module is named, whatever it burns its time in, on a
//! machine that has nothing else to do and on one that has.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    thread,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    lab::{Machine, must},
    running::{PATIENCE, Sensor, Settings, State},
};

const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/slow_start.c");
const PROGRAM: &str = "slow-start-victim";
/// Starts while learning, and with the slow library: more than observations and than `run_length`.
const STARTS: (usize, usize) = (16, 7);

/// What burns.
#[derive(Clone, Copy, Debug)]
struct Case {
    library: &'static str,
    flag: &'static str,
    metric: &'static str,
}

/// 20 ms each, less than a single start is suspected for.
const CASES: [Case; 3] = [
    Case { library: "libouter.so", flag: "-DRESOLVER_MS=20", metric: "link_cpu" },
    Case { library: "libouter.so", flag: "-DCONSTRUCTOR_MS=20", metric: "constructor_cpu" },
    // What the program does not even name.
    Case { library: "libinner.so", flag: "-DRESOLVER_MS=20", metric: "link_cpu" },
];

/// A guarded program with a library that needs another.
struct Victim(TempDir);

/// A process that takes one core, ended when dropped.
struct Load(Child);

// === impl Victim ===

impl Victim {
    fn build() -> Result<Self> {
        let prefix = tempfile::Builder::new().prefix("halfsecond-blame-").to_owned();
        let victim = Self(prefix.tempdir_in(env!("CARGO_TARGET_TMPDIR"))?);
        for library in ["libinner.so", "libouter.so"] {
            victim.library(library, "-DRESOLVER_MS=0")?;
        }
        let main = victim.path("main.c");
        fs::write(
            &main,
            "int outer_all(void);\nint main(void)\n{\n\treturn outer_all() != 14;\n}\n",
        )?;
        let mut cc = victim.cc(PROGRAM);
        must(cc.arg(&main).args(["-l:libouter.so", "-Wl,-z,now"]), "", PATIENCE)?;
        Ok(victim)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The compiler, with what all parts share.
    fn cc(&self, output: &str) -> Command {
        let mut cc = Command::new("cc");
        let dir = self.0.path().display();
        cc.args(["-O1", "-Wall", "-Wextra", "-Wl,--build-id"]);
        cc.args([format!("-L{dir}"), format!("-Wl,-rpath,{dir}")]).arg("-o").arg(self.path(output));
        cc
    }

    /// Puts a library in place by a rename, as a package manager does.
    fn library(&self, name: &str, flag: &str) -> Result<()> {
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
        Ok(fs::rename(self.path(&new), self.path(name))?)
    }

    fn start(&self, times: usize) -> Result<()> {
        for _ in 0..times {
            let status = Command::new(self.path(PROGRAM)).status()?;
            ensure!(status.success(), "{PROGRAM} ended with {status}");
        }
        Ok(())
    }

    fn guarded(&self) -> String {
        format!("[[guarded]]\npath = \"{}\"\n", self.path(PROGRAM).display())
    }
}

// === impl Load ===

impl Load {
    /// One for each core.
    fn everywhere() -> Result<Vec<Self>> {
        let cores = thread::available_parallelism()?.get();
        (0..cores)
            .map(|_| {
                let mut command = Command::new("/bin/sh");
                command.args(["-c", "while :; do :; done"]).stdin(Stdio::null());
                Ok(Self(command.spawn()?))
            })
            .collect()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // Unreaped, so the pid is still this child's.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a sensor knows of the program once it has learned it.
fn learned(machine: &Arc<Machine>, victim: &Victim) -> Result<State> {
    let state = State::new()?;
    let guarded = victim.guarded();
    let settings = Settings { more: &guarded, ..Settings::default() };
    let sensor = Sensor::start(machine, state.path(), settings)?;
    victim.start(STARTS.0)?;
    sensor.scrape_until("a settled baseline", |scrape| {
        scrape.sum("halfsecond_baselines", &[("state", "settled")]) >= 1.0
    })?;
    sensor.stop()?.must_be_quiet()?;
    Ok(state)
}

/// The timing of a `link_time_shift` of the program.
fn timing<'a>(line: &'a Value, metric: &str) -> Option<&'a Value> {
    let findings = line["findings"].as_array()?;
    let mut shifts = findings.iter().filter(|finding| finding["detector"] == "link_time_shift");
    shifts.find_map(|finding| {
        let evidence = finding["evidence"].as_array()?;
        evidence.iter().find(|one| one["kind"] == "timing" && one["metric"] == metric)
    })
}

/// Gives the evidence.
fn blamed(machine: &Arc<Machine>, victim: &Victim, learned: &Path, case: Case) -> Result<Value> {
    let state = State::copy_of(learned)?;
    let guarded = victim.guarded();
    let settings = Settings { more: &guarded, ..Settings::default() };
    let sensor = Sensor::start(machine, state.path(), settings)?;
    // One clean start shows the sensor where the program is entered.
    victim.start(1)?;
    victim.library(case.library, case.flag)?;
    victim.start(STARTS.1)?;
    let line = sensor
        .agent()
        .wait_for("a link_time_shift", 0, PATIENCE, |line| timing(line, case.metric).is_some())?;
    let timing = timing(&line, case.metric).context("no timing")?;
    let module =
        timing["module"].as_str().with_context(|| format!("nobody is blamed: {line:#}"))?;
    ensure!(Path::new(module) == victim.path(case.library), "{module} is blamed: {line:#}");
    let share = timing["module_seconds"].as_f64().context("no share")?;
    ensure!(share > 0.01, "a share of {share} s: {line:#}");
    victim.library(case.library, "-DRESOLVER_MS=0")?;
    let timing = timing.clone();
    sensor.stop()?;
    Ok(timing)
}

/// Gives the evidence of each case.
fn all_are_blamed(loaded: bool) -> Result<Vec<Value>> {
    let machine = Machine::acquire()?;
    let victim = Victim::build()?;
    let state = learned(&machine, &victim)?;
    let _load = if loaded { Load::everywhere()? } else { Vec::new() };
    let blame = |case| blamed(&machine, &victim, state.path(), case).context(format!("{case:?}"));
    CASES.into_iter().map(blame).collect()
}

#[test]
fn module_that_slows_a_start_is_named_on_an_idle_machine() {
    for timing in all_are_blamed(false).unwrap() {
        println!("{timing}");
    }
}

#[test]
fn module_that_slows_a_start_is_named_with_every_core_loaded() {
    for timing in all_are_blamed(true).unwrap() {
        println!("{timing}");
    }
}
