//! The sensor, as it ships, with its state in a folder of its own.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::Arm;
use crate::repo;
use crate::sensor::Sensor;

/// Not the default, which a sensor in use on this machine has.
const LISTEN: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 9479);
/// The port of a sensor in use.
const DEFAULT_PORT: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 9477);

pub(in crate::bench) struct Halfsecond {
    config: PathBuf,
    log: PathBuf,
    running: Option<Sensor>,
    starts: Vec<Duration>,
}

impl Halfsecond {
    pub(in crate::bench) fn new(folder: &Path) -> Result<Self> {
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
        Ok(Self { config, log, running: None, starts: Vec::new() })
    }

    /// The body of one of its pages, while it runs.
    pub(in crate::bench) fn page(&self, path: &str) -> Result<String> {
        self.running.as_ref().context("the sensor does not run")?.get(path)
    }
}

impl Arm for Halfsecond {
    fn name(&self) -> &'static str {
        "halfsecond"
    }

    fn start(&mut self) -> Result<()> {
        let agent = repo::target().join("release/halfsecond");
        let sensor = Sensor::start(&agent, &self.config, &self.log, SocketAddr::from(LISTEN))?;
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
