//! Libraries that a guarded program opens after its start: who asked is found, what is as always is
//! not.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    lab::{Machine, must},
    running::{PATIENCE, Sensor, Settings, State},
    victim::guarded,
};

const PROGRAM: &str = "opens";
/// Starts while learning: more than observations.
const STARTS: usize = 16;

/// A program that opens plug-ins, and its libraries. See `tests/kernel/c/opens.c`.
struct Opener(TempDir);

/// What is opened how, and what must be found at least.
struct Case {
    name: &'static str,
    mode: &'static str,
    library: &'static str,
    severity: &'static str,
    /// Pointers into the finding's evidence of kind `opened`, and what they hold at least a part of.
    evidence: &'static [(&'static str, &'static str)],
    /// A further detector in the same incident.
    also: Option<&'static str>,
    learned: bool,
}

const CASES: &[Case] = &[
    Case {
        name: "known library, another asker",
        mode: "other",
        library: "plugin.so",
        severity: "medium",
        evidence: &[("caller_module", "libasks.so"), ("caller", "ask+"), ("known", "opens")],
        also: None,
        learned: true,
    },
    Case {
        name: "unknown library",
        mode: "self",
        library: "extra.so",
        severity: "medium",
        evidence: &[("library", "extra.so"), ("caller_module", "opens")],
        also: Some("library_unexpected"),
        learned: true,
    },
    Case {
        name: "what an unknown library needs",
        mode: "self",
        library: "needing.so",
        severity: "medium",
        evidence: &[("library", "libneeded.so"), ("caller_module", "opens")],
        also: Some("library_unexpected"),
        learned: true,
    },
    Case {
        name: "asker in anonymous memory",
        mode: "memory",
        library: "plugin.so",
        severity: "critical",
        evidence: &[("caller_module", "anonymous rwx")],
        also: None,
        learned: true,
    },
    Case {
        name: "asker in anonymous memory, nothing learned",
        mode: "memory",
        library: "plugin.so",
        severity: "critical",
        evidence: &[("caller_module", "anonymous rwx")],
        also: None,
        learned: false,
    },
    Case {
        name: "namespace of its own",
        mode: "namespace",
        library: "plugin.so",
        severity: "medium",
        evidence: &[("namespace", "1"), ("caller_module", "opens")],
        also: None,
        learned: true,
    },
];

// === impl Opener ===

impl Opener {
    fn build() -> Result<Self> {
        let mut named = tempfile::Builder::new();
        let dir = named.prefix("halfsecond-opener-").tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
        let opener = Self(dir);
        let source = opener.path("plugin.c");
        fs::write(&source, "int plugin(void) { return 1; }\n")?;
        let c =
            |name: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kernel/c").join(name);
        let here = opener.0.path().display().to_string();
        let run = format!("-Wl,-rpath,{here}");
        let shared = ["-shared", "-fPIC", "-Wl,-z,relro,-z,now"];
        let needing = [&shared[..], &["-Wl,--no-as-needed", "-l:libneeded.so", &run]].concat();
        for (output, source, more) in [
            ("plugin.so", source.clone(), &shared[..]),
            ("extra.so", source.clone(), &shared[..]),
            ("libneeded.so", source, &shared[..]),
            ("needing.so", c("asks.c"), &needing[..]),
            ("libasks.so", c("asks.c"), &shared[..]),
            (PROGRAM, c("opens.c"), &["-l:libasks.so", "-Wl,-z,now", run.as_str()]),
        ] {
            let mut cc = Command::new("cc");
            cc.args(["-O2", "-Wl,--build-id", "-o"]).arg(opener.path(output)).arg(source);
            must(cc.arg(format!("-L{here}")).args(more).arg("-ldl"), "", PATIENCE)?;
        }
        Ok(opener)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Started, with the library opened.
    fn open(&self, mode: &str, library: &str) -> Result<Child> {
        let mut command = Command::new(self.path(PROGRAM));
        command.arg(mode).arg(self.path(library));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("no output")?).read_line(&mut line)?;
        ensure!(line == "done\n", "{line}");
        Ok(child)
    }

    /// Opens its plug-in as always, and lives until the sensor has seen it linked.
    fn open_watched(&self, sensor: &Sensor, times: usize) -> Result<()> {
        const LINKED: &str = "halfsecond_link_cpu_seconds_count";
        const OPENED: [(&str, &str); 1] = [("kind", "opened")];
        let count = |sensor: &Sensor| -> Result<(f64, f64)> {
            let scrape = sensor.scrape()?;
            let opened = scrape.sum("halfsecond_events_total", &OPENED);
            Ok((scrape.sum(LINKED, &[("class", "guarded")]), opened))
        };
        for _ in 0..times {
            let before = count(sensor)?;
            let child = self.open("self", "plugin.so")?;
            let seen = sensor.scrape_until("a start that was seen", |scrape| {
                scrape.sum(LINKED, &[("class", "guarded")]) > before.0
                    && scrape.sum("halfsecond_events_total", &OPENED) > before.1
            });
            end(child)?;
            seen?;
        }
        Ok(())
    }

    /// What a sensor knows of the program once it has learned it.
    fn learned(&self, machine: &Arc<Machine>) -> Result<State> {
        let state = State::new()?;
        let sensor = self.sensor(machine, &state)?;
        self.open_watched(&sensor, STARTS)?;
        sensor.scrape_until("a settled baseline", |scrape| {
            scrape.sum("halfsecond_baselines", &[("state", "settled")]) >= 1.0
        })?;
        // As always is nothing to tell.
        self.open_watched(&sensor, 4)?;
        sensor.stop()?.must_be_quiet()?;
        Ok(state)
    }

    fn sensor(&self, machine: &Arc<Machine>, state: &State) -> Result<Sensor> {
        let more = guarded(&self.path(PROGRAM));
        Sensor::start(machine, state.path(), Settings { more: &more, ..Settings::default() })
    }
}

fn end(mut child: Child) -> Result<()> {
    drop(child.stdin.take());
    let status = child.wait()?;
    ensure!(status.success(), "{PROGRAM} ended with {status}");
    Ok(())
}

fn finding<'a>(line: &'a Value, case: &Case) -> Option<&'a Value> {
    let findings = line["findings"].as_array()?;
    let also = |id: &str| findings.iter().any(|finding| finding["detector"] == id);
    let holds = |evidence: &Value| {
        let has = |(key, part): &(&str, &str)| evidence[*key].to_string().contains(part);
        evidence["kind"] == "opened" && case.evidence.iter().all(has)
    };
    let fits = |finding: &&Value| {
        finding["detector"] == "dlopen_unexpected"
            && finding["severity"] == case.severity
            && finding["evidence"].as_array().is_some_and(|all| all.iter().any(holds))
    };
    findings.iter().find(fits).filter(|_| case.also.is_none_or(also))
}

fn found(machine: &Arc<Machine>, opener: &Opener, learned: &State, case: &Case) -> Result<String> {
    let state = if case.learned { State::copy_of(learned.path())? } else { State::new()? };
    let sensor = opener.sensor(machine, &state)?;
    let child = opener.open(case.mode, case.library)?;
    let line = sensor.incident_that(case.name, |line| finding(line, case).is_some());
    end(child)?;
    let line = line?;
    sensor.stop()?;
    let Some(found) = finding(&line, case) else { bail!("gone again: {line:#}") };
    let story = line["story"].as_str().context("no story")?;
    let title = found["title"].as_str().context("no title")?;
    Ok(format!("| {} | {} | {title} |\n  {story}", case.name, found["severity"]))
}

#[test]
fn each_way_to_open_a_library_late_is_found_with_who_asked() {
    let machine = Machine::without_user().unwrap();
    let opener = Opener::build().unwrap();
    let learned = opener.learned(&machine).unwrap();
    for case in CASES {
        match found(&machine, &opener, &learned, case) {
            Ok(row) => println!("{row}"),
            Err(error) => panic!("{}: {error:?}", case.name),
        }
    }
}
