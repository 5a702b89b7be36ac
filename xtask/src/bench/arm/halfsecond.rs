//! The sensor, as it ships, with its state in a folder of its own.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::Arm;
use crate::repo;
use crate::sensor::{Sensor, Start};

/// Not the default, which a sensor in use on this machine has.
const LISTEN: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 9479);
/// The port of a sensor in use.
const DEFAULT_PORT: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 9477);

pub(in crate::bench) struct Halfsecond {
    name: &'static str,
    config: PathBuf,
    log: PathBuf,
    running: Option<Sensor>,
    starts: Vec<Duration>,
    recording: Option<PathBuf>,
}

impl Halfsecond {
    /// With everything of its own in `folder`.
    pub(in crate::bench) fn new(folder: &Path) -> Result<Self> {
        Self::called("halfsecond", folder)
    }

    /// One of several, each in a folder of its own.
    pub(in crate::bench) fn called(name: &'static str, folder: &Path) -> Result<Self> {
        ensure!(
            TcpStream::connect(SocketAddr::from(DEFAULT_PORT)).is_err(),
            "something listens on port {}; stop the sensor that runs on this machine",
            DEFAULT_PORT.1
        );
        // What one round teaches it, the next one knows: a sensor in use is not new either.
        let state = folder.join("state");
        if state.exists() {
            fs::remove_dir_all(&state)?;
        }
        fs::create_dir_all(&state)?;
        let config = folder.join("halfsecond.toml");
        let text = format!(
            "state_dir = \"{}\"\n[http]\nlisten = \"{}\"\n[output]\nstdout = false\n",
            state.display(),
            SocketAddr::from(LISTEN)
        );
        fs::write(&config, text)?;
        let log = folder.join("halfsecond.log");
        Ok(Self { name, config, log, running: None, starts: Vec::new(), recording: None })
    }

    /// Has it record, each time anew, to a file in its folder.
    pub(in crate::bench) fn recorded(mut self) -> Self {
        self.recording = Some(self.config.with_file_name("bench.rec"));
        self
    }

    /// Bytes of its recording so far; none where it does not record.
    pub(in crate::bench) fn bytes_recorded(&self) -> Result<Option<u64>> {
        let size = |path: &PathBuf| {
            fs::metadata(path).with_context(|| format!("no recording {}", path.display()))
        };
        Ok(self.recording.as_ref().map(size).transpose()?.map(|file| file.len()))
    }

    /// What it has said since it was last started.
    pub(in crate::bench) fn log(&self) -> Result<String> {
        fs::read_to_string(&self.log).with_context(|| format!("no log {}", self.log.display()))
    }

    pub(in crate::bench) fn config(&self) -> &Path {
        &self.config
    }

    /// The binary that is measured.
    pub(in crate::bench) fn agent() -> PathBuf {
        repo::target().join("release/halfsecond")
    }

    /// The body of one of its pages, while it runs.
    pub(in crate::bench) fn page(&self, path: &str) -> Result<String> {
        self.running.as_ref().context("the sensor does not run")?.get(path)
    }
}

impl Arm for Halfsecond {
    fn name(&self) -> &'static str {
        self.name
    }

    fn start(&mut self) -> Result<()> {
        let record = self.recording.as_deref();
        if let Some(file) = record.filter(|file| file.exists()) {
            fs::remove_file(file)?;
        }
        let start = Start {
            agent: &Self::agent(),
            config: &self.config,
            log: &self.log,
            listen: SocketAddr::from(LISTEN),
            lines: Stdio::null(),
            level: None,
            record,
        };
        let sensor = start.run()?;
        self.starts.push(sensor.armed_after());
        self.running = Some(sensor);
        Ok(())
    }

    fn stop(&mut self) -> Result<()> {
        self.running.take().map_or(Ok(()), Sensor::stop)
    }

    fn pid(&self) -> Option<u32> {
        self.running.as_ref().map(Sensor::pid)
    }

    fn starts(&self) -> &[Duration] {
        &self.starts
    }
}
