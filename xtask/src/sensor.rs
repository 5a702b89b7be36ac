//! A sensor of our own, beside whatever else runs on this machine: started, asked, ended.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::background::Background;

/// The answer comes from this machine.
const ANSWER_TIME: Duration = Duration::from_secs(5);

/// One that runs, with every probe armed; ended when this goes away, or xtask does.
pub(crate) struct Sensor {
    running: Background,
    armed_after: Duration,
}

impl Sensor {
    /// Starts `agent` with a configuration that has it listen at `listen`, and waits until it is
    /// armed. What it says goes into the file `log`.
    pub(crate) fn start(
        agent: &Path,
        config: &Path,
        log: &Path,
        listen: SocketAddr,
    ) -> Result<Self> {
        let file = File::create(log).with_context(|| format!("cannot make {}", log.display()))?;
        // Replaced by the agent under the same pid; the kernel ends it when xtask is killed.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "TERM"]).arg(agent).args(["run", "--config"]).arg(config);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file);
        let mut running = Background::start(&mut command)?;
        let armed_after = running
            .wait_until(|| ask(listen, "/readyz").unwrap_or(false))
            .with_context(|| format!("its log is {}", log.display()))?;
        Ok(Self { running, armed_after })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.running.pid()
    }

    pub(crate) fn armed_after(&self) -> Duration {
        self.armed_after
    }

    /// Asks it to end, and waits until it has written everything.
    pub(crate) fn stop(self) -> Result<()> {
        self.running.end()
    }
}

/// Whether the answer is 200.
fn ask(listen: SocketAddr, path: &str) -> Result<bool> {
    let mut stream = TcpStream::connect(listen)?;
    stream.set_read_timeout(Some(ANSWER_TIME))?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut status = [0; 12];
    stream.read_exact(&mut status)?;
    Ok(status == *b"HTTP/1.1 200")
}
