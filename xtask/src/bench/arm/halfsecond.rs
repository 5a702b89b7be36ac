//! The sensor, as it ships, with its state in a folder of its own.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::Arm;
use crate::bench::process::Background;
use crate::repo;

/// Not the default, which a sensor in use on this machine has.
const LISTEN: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 9479);
/// The port of a sensor in use.
const DEFAULT_PORT: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 9477);
/// The answer comes from this machine.
const ANSWER_TIME: Duration = Duration::from_secs(2);

pub(in crate::bench) struct Halfsecond {
    config: PathBuf,
    log: PathBuf,
    running: Option<Background>,
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
}

impl Arm for Halfsecond {
    fn name(&self) -> &'static str {
        "halfsecond"
    }

    fn start(&mut self) -> Result<()> {
        let log = File::create(&self.log)?;
        let mut command = Command::new(repo::target().join("release/halfsecond"));
        command.args(["run", "--config"]).arg(&self.config);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let mut running = Background::start(&mut command)?;
        let took = running
            .wait_until(is_ready)
            .with_context(|| format!("its log is {}", self.log.display()))?;
        self.starts.push(took);
        self.running = Some(running);
        Ok(())
    }

    fn stop(&mut self) -> Result<()> {
        self.running.take().map_or(Ok(()), Background::end)
    }

    fn pid(&self) -> Option<u32> {
        self.running.as_ref().map(Background::pid)
    }

    fn starts(&self) -> &[Duration] {
        &self.starts
    }
}

/// Whether `/readyz` answers 200: every probe is armed.
fn is_ready() -> bool {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(SocketAddr::from(LISTEN))?;
        stream.set_read_timeout(Some(ANSWER_TIME))?;
        stream
            .write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut status = [0; 12];
        stream.read_exact(&mut status)?;
        Ok(String::from_utf8_lossy(&status).into_owned())
    };
    ask().is_ok_and(|status| status == "HTTP/1.1 200")
}
