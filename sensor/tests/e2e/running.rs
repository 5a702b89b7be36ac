//! `halfsecond run` with a state directory and a port of its own, and what it exposes.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::ExitStatus,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use tempfile::TempDir;

use crate::lab::{Agent, Machine, SshdLab, free_port, patience::is_emulated, wait_until};

/// Long enough for a machine that does other things; every wait ends as soon as it can.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Where a sensor keeps what it knows; removed when dropped.
#[derive(Debug)]
pub(crate) struct State(TempDir);

/// What a sensor is told beyond where it keeps its state.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings<'a> {
    /// Observations before the detectors speak.
    pub(crate) observations: u32,
    pub(crate) flush_every: &'a str,
    /// Further sections of the configuration.
    pub(crate) more: &'a str,
}

/// A running sensor.
#[derive(Debug)]
pub(crate) struct Sensor {
    agent: Agent,
    port: u16,
}

/// One page of /metrics.
#[derive(Debug)]
pub(crate) struct Scrape(String);

/// What a sensor wrote to standard output.
#[derive(Debug)]
pub(crate) struct Told {
    /// About processes of this test.
    own: Vec<Value>,
    /// About others. The sensor watches the whole machine; what is not this test's doing is shown
    /// and left out.
    foreign: Vec<Value>,
}

// === impl State ===

impl State {
    pub(crate) fn new() -> Result<Self> {
        Ok(Self(tempfile::Builder::new().prefix("halfsecond-state-").tempdir()?))
    }

    /// A state that begins as the files in `template` are.
    pub(crate) fn copy_of(template: &Path) -> Result<Self> {
        let state = Self::new()?;
        for entry in fs::read_dir(template).with_context(|| template.display().to_string())? {
            let entry = entry?;
            fs::copy(entry.path(), state.path().join(entry.file_name()))?;
        }
        Ok(state)
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }
}

// === impl Settings ===

impl Default for Settings<'_> {
    fn default() -> Self {
        Self { observations: 12, flush_every: "500ms", more: "" }
    }
}

impl Settings<'_> {
    /// As a configuration file.
    pub(crate) fn toml(&self, state: &Path, port: u16) -> String {
        let Self { observations, flush_every, more } = self;
        format!(
            "state_dir = \"{}\"\n[http]\nlisten = \"127.0.0.1:{port}\"\n[learning]\n\
             observations = {observations}\nflush_every = \"{flush_every}\"\n{more}\n",
            state.display()
        )
    }
}

// === impl Sensor ===

impl Sensor {
    /// Starts it and waits until it is armed.
    pub(crate) fn start(
        machine: &Arc<Machine>,
        state: &Path,
        settings: Settings<'_>,
    ) -> Result<Self> {
        let port = free_port()?;
        let agent = Agent::spawn(&["run"], &settings.toml(state, port))?;
        Self::armed(machine, agent, port)
    }

    /// Takes over one that was just started, and waits until it is armed.
    pub(crate) fn armed(machine: &Arc<Machine>, agent: Agent, port: u16) -> Result<Self> {
        machine.adopt(agent.pid()?)?;
        let mut sensor = Self { agent, port };
        wait_until("a sensor that is ready", PATIENCE, || {
            if let Some(status) = sensor.agent.has_exited()? {
                bail!("it ended at start: {status}");
            }
            // Refused connections are what starting looks like.
            Ok(sensor.agent.get(port, "/readyz").ok().filter(|(status, _)| *status == 200))
        })
        .with_context(|| sensor.agent.transcript())?;
        Ok(sensor)
    }

    pub(crate) fn agent(&self) -> &Agent {
        &self.agent
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn scrape(&self) -> Result<Scrape> {
        let (status, page) = self.agent.get(self.port, "/metrics")?;
        ensure!(status == 200, "/metrics answered {status}: {page}");
        Ok(Scrape(page))
    }

    /// Waits until a scrape pleases `wanted`.
    pub(crate) fn scrape_until(
        &self,
        what: &str,
        mut wanted: impl FnMut(&Scrape) -> bool,
    ) -> Result<Scrape> {
        let mut last = None;
        wait_until(what, PATIENCE, || {
            let scrape = self.scrape()?;
            let pleased = wanted(&scrape);
            last = Some(scrape);
            Ok(pleased.then(|| last.take()).flatten())
        })
        .with_context(|| last.as_ref().map_or("never scraped".to_owned(), Scrape::shown))
        .with_context(|| self.agent.transcript())
    }

    /// Waits until the server has no connection left and the sensor has read everything of it.
    pub(crate) fn caught_up(&self, lab: &SshdLab) -> Result<Scrape> {
        wait_until("a server without connections", PATIENCE, || {
            Ok(lab.monitors()?.is_empty().then_some(()))
        })?;
        self.ring_read()
    }

    /// Waits until the sensor has read everything of the priority ring.
    pub(crate) fn ring_read(&self) -> Result<Scrape> {
        self.scrape_until("a priority ring that is read", |scrape| {
            let ring = [("ring", "priority")];
            let emitted = scrape.sum("halfsecond_records_emitted_total", &ring);
            let lost = scrape.sum("halfsecond_records_lost_total", &ring);
            same(emitted, scrape.sum("halfsecond_records_consumed_total", &ring) + lost)
        })
    }

    /// The latest state of every incident as the API tells it, newest first.
    pub(crate) fn incidents(&self) -> Result<Vec<Value>> {
        let (status, body) = self.agent.get(self.port, "/api/v1/incidents")?;
        ensure!(status == 200, "/api/v1/incidents answered {status}: {body}");
        let mut answer: Value = serde_json::from_str(&body)?;
        Ok(serde_json::from_value(answer["incidents"].take())?)
    }

    /// Waits for an incident that pleases `wanted`: a line is written only when one opens or gets
    /// worse, so the API is asked.
    pub(crate) fn incident_that(
        &self,
        what: &str,
        wanted: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        wait_until(what, PATIENCE, || Ok(self.incidents()?.into_iter().find(|one| wanted(one))))
            .with_context(|| self.agent.transcript())
    }

    /// Ends it as systemd does.
    pub(crate) fn stop(self) -> Result<Told> {
        let (status, lines) = self.agent.terminate(PATIENCE)?;
        ensure!(status.success(), "the sensor ended with {status}");
        Told::of_this_test(lines)
    }

    /// Ends it as `kill -9` does.
    pub(crate) fn kill(self) -> Result<ExitStatus> {
        self.agent.kill()
    }
}

// === impl Scrape ===

impl Scrape {
    /// Sum of the samples of the metric `name` that carry all of `labels`; 0 where there is none.
    pub(crate) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.samples(name)
            .filter(|(has, _)| labels.iter().all(|(key, value)| has.get(key) == Some(value)))
            .map(|(_, value)| value)
            .sum()
    }

    /// Findings above info, by detector and severity.
    pub(crate) fn findings_above_info(&self) -> Vec<String> {
        self.samples("halfsecond_findings_total")
            .filter(|(labels, count)| labels.get("severity") != Some(&"info") && *count > 0.0)
            .map(|(labels, count)| format!("{labels:?}: {count}"))
            .collect()
    }

    /// Everything of a metric, to be shown.
    pub(crate) fn show(&self, name: &str) -> Vec<String> {
        self.samples(name)
            .filter(|(_, value)| *value != 0.0)
            .map(|(labels, value)| format!("{name}{labels:?} {value}"))
            .collect()
    }

    /// What is not zero, without histograms, for messages.
    fn shown(&self) -> String {
        let zero = |line: &&str| line.ends_with(" 0");
        let lines = self.0.lines().filter(|line| line.starts_with("halfsecond_") && !zero(line));
        lines
            .filter(|line| !line.contains("_bucket{"))
            .fold("scraped last:".to_owned(), |all, line| all + "\n" + line)
    }

    fn samples(&self, name: &str) -> impl Iterator<Item = (BTreeMap<&str, &str>, f64)> {
        self.0.lines().filter_map(move |line| {
            let rest = line.strip_prefix(name)?;
            let (labels, value) = match rest.strip_prefix('{') {
                Some(rest) => rest.split_once("} ")?,
                None => ("", rest.strip_prefix(' ')?),
            };
            // None of our labels' values holds a comma or a quote.
            let labels = labels.split(',').filter_map(|label| {
                let (key, value) = label.split_once('=')?;
                Some((key, value.trim_matches('"')))
            });
            Some((labels.collect(), value.trim().parse().ok()?))
        })
    }
}

// === impl Told ===

impl Told {
    fn of_this_test(lines: Vec<Value>) -> Result<Self> {
        let test = std::env::current_exe()?;
        let test = test.to_str().context("a path that is no text")?;
        let (own, foreign): (Vec<_>, Vec<_>) = lines.into_iter().partition(|line| {
            let findings = line["findings"].as_array().map(Vec::as_slice).unwrap_or_default();
            let ancestors = findings.iter().map(|finding| &finding["process"]["ancestors"]);
            ancestors.filter_map(Value::as_array).flatten().any(|exe| exe == test)
        });
        for line in &foreign {
            eprintln!("not of this test: {} ({})", line["title"], line["findings"][0]["process"]);
        }
        Ok(Self { own, foreign })
    }

    /// The ids of all incidents told.
    pub(crate) fn ids(&self) -> BTreeSet<&str> {
        self.own.iter().filter_map(|incident| incident["id"].as_str()).collect()
    }

    /// Fails, showing them, if there was any incident above info.
    pub(crate) fn must_be_quiet(&self) -> Result<()> {
        let loud: Vec<&Value> =
            self.own.iter().filter(|incident| incident["severity"] != "info").collect();
        ensure!(loud.is_empty(), "incidents: {loud:#?}");
        Ok(())
    }

    /// The same, but for incidents of nothing but time where the processor is emulated: what its host
    /// does beside it counts for CPU time there, and a start may take three times as long.
    pub(crate) fn must_be_quiet_but_for_emulation(&mut self) -> Result<()> {
        if is_emulated() {
            self.own.retain(|incident| {
                let late = is_of_time(incident);
                if late {
                    eprintln!("by the emulator's doing: {}", incident["title"]);
                }
                !late
            });
        }
        self.must_be_quiet()
    }

    /// Fails, showing them, if there was any incident above low.
    pub(crate) fn must_be_low(&self) -> Result<()> {
        let is_loud =
            |incident: &&Value| incident["severity"] != "info" && incident["severity"] != "low";
        let loud: Vec<&Value> = self.own.iter().filter(is_loud).collect();
        ensure!(loud.is_empty(), "incidents: {loud:#?}");
        Ok(())
    }

    /// As [`Self::must_be_quiet`], and by what `scrape`, the last one, counts: every finding above info.
    pub(crate) fn must_be_quiet_in(&self, scrape: &Scrape) -> Result<()> {
        self.must_be_quiet()?;
        let loud = scrape.findings_above_info();
        ensure!(loud.is_empty() || !self.foreign.is_empty(), "findings above info: {loud:?}");
        Ok(())
    }

    /// Whether any incident of this test has a finding by this detector.
    pub(crate) fn has_finding(&self, detector: &str) -> bool {
        let mut findings = self.own.iter().filter_map(|line| line["findings"].as_array()).flatten();
        findings.any(|finding| finding["detector"] == detector)
    }

    /// The last line, for messages.
    pub(crate) fn last(&self) -> &Value {
        self.own.last().unwrap_or(&Value::Null)
    }

    /// The last state told of the only incident there is.
    pub(crate) fn only(&self) -> Result<&Value> {
        let titles: Vec<&Value> = self.own.iter().map(|incident| &incident["title"]).collect();
        ensure!(self.ids().len() == 1, "{} incidents: {titles:?}", self.ids().len());
        self.own.last().context("no incident")
    }
}

fn is_of_time(incident: &Value) -> bool {
    let findings = incident["findings"].as_array().map(Vec::as_slice).unwrap_or_default();
    !findings.is_empty() && findings.iter().all(|finding| finding["detector"] == "link_time_shift")
}

/// Counters are whole numbers far below 2^53.
pub(crate) fn same(a: f64, b: f64) -> bool {
    (a - b).abs() < 0.5
}

/// How often to repeat what is to be repeated: the variable, or `usual`.
pub(crate) fn times(variable: &str, usual: usize) -> Result<usize> {
    match std::env::var(variable) {
        Ok(text) => text.parse().with_context(|| format!("{variable}={text}: not a number")),
        Err(_) => Ok(usual),
    }
}

/// A file or directory of this test run, below the target directory.
pub(crate) fn scratch(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}
