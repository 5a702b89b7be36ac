//! A sensor of our own, beside whatever else runs on this machine: started, asked, ended.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::background::Background;

/// The answer comes from this machine.
const ANSWER_TIME: Duration = Duration::from_secs(5);

/// One that runs, with every probe armed; ended when this goes away, or xtask does.
pub(crate) struct Sensor {
    running: Background,
    listen: SocketAddr,
    armed_after: Duration,
}

/// How one is started.
pub(crate) struct Start<'a> {
    /// Its binary.
    pub(crate) agent: &'a Path,
    /// Its configuration, which has it listen at `listen`.
    pub(crate) config: &'a Path,
    /// The file that takes its log.
    pub(crate) log: &'a Path,
    pub(crate) listen: SocketAddr,
    /// What takes the lines of its incidents.
    pub(crate) lines: Stdio,
    /// Filter of its log; its own default where there is none.
    pub(crate) level: Option<&'a str>,
    /// Where it records, if it does.
    pub(crate) record: Option<&'a Path>,
}

/// An address that nothing listened on a moment ago.
pub(crate) fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

// === impl Start ===

impl Start<'_> {
    /// Starts it, and waits until it is armed.
    pub(crate) fn run(self) -> Result<Sensor> {
        let Self { agent, config, log, listen, lines, level, record } = self;
        let file = File::create(log).with_context(|| format!("cannot make {}", log.display()))?;
        // Replaced by the agent under the same pid; the kernel ends it when xtask is killed.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "TERM"]).arg(agent).args(["run", "--config"]).arg(config);
        if let Some(record) = record {
            command.arg("--record").arg(record);
        }
        command.stdin(Stdio::null()).stdout(lines).stderr(file);
        if let Some(level) = level {
            command.env("HALFSECOND_LOG", level);
        }
        let mut running = Background::start(&mut command)?;
        // With it goes our copy of where the lines go: who reads them shall see their end.
        drop(command);
        let armed_after = running
            .wait_until(|| ask(listen, "/readyz").is_ok_and(|(ready, _)| ready))
            .with_context(|| format!("its log is {}", log.display()))?;
        Ok(Sensor { running, listen, armed_after })
    }
}

// === impl Sensor ===

impl Sensor {
    /// Starts `agent` with a configuration that has it listen at `listen`, and waits until it is
    /// armed. What it says goes into the file `log`.
    pub(crate) fn start(
        agent: &Path,
        config: &Path,
        log: &Path,
        listen: SocketAddr,
    ) -> Result<Self> {
        let lines = Stdio::null();
        Start { agent, config, log, listen, lines, level: None, record: None }.run()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.running.pid()
    }

    pub(crate) fn armed_after(&self) -> Duration {
        self.armed_after
    }

    /// The body of one of its pages.
    ///
    /// # Errors
    /// When it does not answer, or not with 200.
    pub(crate) fn get(&self, path: &str) -> Result<String> {
        let (good, body) = ask(self.listen, path).with_context(|| format!("no {path}"))?;
        ensure!(good, "{path} is refused: {body}");
        Ok(body)
    }

    /// Asks it to end, and waits until it has written everything.
    pub(crate) fn stop(self) -> Result<()> {
        self.running.end()
    }
}

/// Whether the answer was 200, and its body.
fn ask(listen: SocketAddr, path: &str) -> Result<(bool, String)> {
    let mut stream = TcpStream::connect(listen)?;
    stream.set_read_timeout(Some(ANSWER_TIME))?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").context("an answer without a head")?;
    Ok((head.starts_with("HTTP/1.1 200"), body.to_owned()))
}
