//! A slot that is redirected for one request and restored: no check of slots finds it, and who
//! called the function tells all the same.

use std::{
    collections::BTreeSet,
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    lab::{Machine, Slot, must},
    running::{PATIENCE, Sensor, Settings, State},
    victim::guarded,
};

const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/transient.c");
const PROGRAM: &str = "decides";
const DECIDES: &str = "libdecides.so";
const HOOKS: &str = "libhooks.so";
/// Starts while learning: more than observations.
const STARTS: usize = 16;

/// The program and its libraries.
struct Decider(TempDir);

/// A run of it.
struct Run {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

// === impl Decider ===

impl Decider {
    fn build() -> Result<Self> {
        let mut named = tempfile::Builder::new();
        let decider =
            Self(named.prefix("halfsecond-decider-").tempdir_in(env!("CARGO_TARGET_TMPDIR"))?);
        let here = decider.0.path().display();
        let run = format!("-Wl,-rpath,{here}");
        let linked = "-l:libdecides.so";
        let shared = ["-shared", "-fPIC", "-DDECIDES"];
        let hooks = ["-shared", "-fPIC", "-DHOOKS", linked, run.as_str()];
        // Without RELRO the slot stays writable, so that nothing but the slot itself changes.
        let program = ["-l:libhooks.so", linked, run.as_str(), "-Wl,-z,norelro,-z,now"];
        for (output, flags) in
            [(DECIDES, &shared[..]), (HOOKS, &hooks[..]), (PROGRAM, &program[..])]
        {
            let mut cc = Command::new("cc");
            cc.args(["-O1", "-Wall", "-Wextra", "-Wl,--build-id", "-o"]).arg(decider.path(output));
            must(cc.arg(SOURCE).arg(format!("-L{here}")).args(flags), "", PATIENCE)?;
        }
        Ok(decider)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn config(&self) -> String {
        let guarded = guarded(&self.path(PROGRAM));
        format!("{guarded}[[functions]]\nlibrary = \"{DECIDES}\"\nsymbol = \"decide\"\n")
    }

    fn start(&self) -> Result<Run> {
        let mut command = Command::new(self.path(PROGRAM));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let input = child.stdin.take().context("no input")?;
        let output = BufReader::new(child.stdout.take().context("no output")?);
        Ok(Run { child, input, output })
    }

    /// Starts it and has it decide, and lets it live until the sensor has seen both.
    fn learn(&self, sensor: &Sensor) -> Result<()> {
        for _ in 0..STARTS {
            let before = calls(sensor)?;
            let mut run = self.start()?;
            sensor.scrape_until("a probe on the function", |scrape| {
                scrape.sum("halfsecond_function_probes", &[]) >= 1.0
            })?;
            ensure!(run.ask("plain")? == 1);
            sensor.scrape_until("a call that was seen", |scrape| {
                scrape.sum("halfsecond_events_total", &CALLED) > before
            })?;
            run.end()?;
        }
        sensor.scrape_until("a settled baseline", |scrape| {
            scrape.sum("halfsecond_baselines", &[("state", "settled")]) >= 1.0
        })?;
        Ok(())
    }
}

const CALLED: [(&str, &str); 1] = [("kind", "caller")];

fn calls(sensor: &Sensor) -> Result<f64> {
    Ok(sensor.scrape()?.sum("halfsecond_events_total", &CALLED))
}

// === impl Run ===

impl Run {
    fn ask(&mut self, request: &str) -> Result<i32> {
        writeln!(self.input, "{request}")?;
        self.input.flush()?;
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        line.trim().parse().with_context(|| format!("it answered {line:?}"))
    }

    fn end(mut self) -> Result<()> {
        drop(self.input);
        let status = self.child.wait()?;
        ensure!(status.success(), "{PROGRAM} ended with {status}");
        Ok(())
    }
}

fn foreign_caller<'a>(incident: &'a Value, program: &Path) -> Option<&'a Value> {
    let about = |finding: &&Value| {
        finding["detector"] == "foreign_caller"
            && finding["process"]["exe"].as_str().map(Path::new) == Some(program)
    };
    incident["findings"].as_array()?.iter().find(about)
}

#[test]
fn a_slot_redirected_for_one_request_only_is_told_by_who_called() {
    let machine = Machine::acquire().unwrap();
    let (decider, state) = (Decider::build().unwrap(), State::new().unwrap());
    let (config, program) = (decider.config(), decider.path(PROGRAM));
    let settings = Settings { more: &config, ..Settings::default() };
    let sensor = Sensor::start(&machine, state.path(), settings).unwrap();
    decider.learn(&sensor).unwrap();

    let mut run = decider.start().unwrap();
    let pid = i32::try_from(run.child.id()).unwrap();
    assert_eq!(run.ask("plain").unwrap(), 1);
    assert_eq!(run.ask("hooked").unwrap(), 1, "nobody can tell by the answer");
    // By the time anybody looks it leads where it should.
    let slot = Slot::read(pid, "decide").unwrap();
    assert!(slot.writable && slot.target.is_of(&decider.path(DECIDES)).unwrap(), "{slot:?}");

    let told = |line: &Value| foreign_caller(line, &program).is_some();
    let incident = sensor.agent().wait_for("an incident", 0, PATIENCE, told).unwrap();
    let finding = foreign_caller(&incident, &program).unwrap();
    assert_eq!(finding["severity"], "critical", "{finding:#}");
    assert_eq!(finding["process"]["pid"], pid);
    let caller = &finding["evidence"][0];
    assert_eq!(caller["function"], "decide");
    assert_eq!(caller["caller_module"].as_str().map(Path::new), Some(&*decider.path(HOOKS)));
    let others: BTreeSet<&str> = incident["findings"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|finding| finding["detector"].as_str())
        .collect();
    assert_eq!(others, BTreeSet::from(["foreign_caller"]), "no check of slots could find it");
    run.end().unwrap();
    sensor.stop().unwrap();
}

#[test]
fn a_call_by_the_librarys_own_code_is_told_by_who_called_into_it() {
    let machine = Machine::acquire().unwrap();
    let (decider, state) = (Decider::build().unwrap(), State::new().unwrap());
    let (config, program) = (decider.config(), decider.path(PROGRAM));
    let settings = Settings { more: &config, ..Settings::default() };
    let sensor = Sensor::start(&machine, state.path(), settings).unwrap();
    decider.learn(&sensor).unwrap();

    let mut run = decider.start().unwrap();
    assert_eq!(run.ask("through").unwrap(), 1);
    let told = |line: &Value| foreign_caller(line, &program).is_some();
    let incident = sensor.agent().wait_for("an incident", 0, PATIENCE, told).unwrap();
    let finding = foreign_caller(&incident, &program).unwrap();
    let caller = &finding["evidence"][0];
    assert_eq!(caller["caller_module"].as_str().map(Path::new), Some(&*decider.path(HOOKS)));
    let told = caller["caller"].as_str().unwrap();
    assert!(told.contains("(through+"), "{told}");
    let stack = caller["stack"].as_array().unwrap().iter();
    let stack: Vec<&str> = stack.filter_map(Value::as_str).collect();
    let whole = ["(decide_twice+", "(through+", PROGRAM, "libc.so"];
    let is_whole = whole.iter().zip(&stack).all(|(part, frame)| frame.contains(part));
    assert!(is_whole && stack.len() >= whole.len(), "{stack:#?}");
    let notes = finding["evidence"].as_array().unwrap().iter();
    let mut notes = notes.filter_map(|evidence| evidence["text"].as_str());
    assert!(notes.any(|text| text.contains("decide_twice+")), "{finding:#}");
    run.end().unwrap();
    sensor.stop().unwrap();
}
