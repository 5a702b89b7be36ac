//! What a client does in one cell: the host's own ssh behind a relay, or, for what ends before a key
//! exchange, a few bytes of our own.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use jiff::Timestamp;

use super::cell::{Cell, End, Point, USER, Way};
use super::place::Place;
use super::relay::{self, Gate, Then};

/// Seconds for one client: more than sshd gives it.
const LIMIT: &str = "60";
const SILENCE: Duration = Duration::from_mins(1);
const BANNER: &[u8] = b"SSH-2.0-halfsecond_cell\r\n";
/// A name that no server has.
const STRANGER: &str = "hs-nobody";
/// What ssh says when every method has failed.
const DENIED: &str = "Permission denied";

/// A connection as its client knows it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Made {
    /// What the server sees as its peer's.
    pub(super) port: u16,
    /// Ports come again: when it was made.
    pub(super) at: Timestamp,
}

/// Clients of one server.
#[derive(Clone, Copy)]
pub(super) struct Client<'a> {
    pub(super) place: &'a Place,
    pub(super) server: SocketAddr,
}

// === impl Client ===

impl Client<'_> {
    /// Does what the cell says.
    ///
    /// # Errors
    /// When the client has not come where the cell has it stop, or saw another end: nothing could be
    /// concluded from what the sensor tells.
    pub(super) fn run(self, cell: Cell) -> Result<Made> {
        match cell.stops() {
            Some(point @ (Point::Connect | Point::Banner)) => self.speak(point, then(cell)),
            _ => self.ssh(cell),
        }
    }

    fn connect(self) -> Result<(TcpStream, Made)> {
        let at = Timestamp::now();
        let stream = TcpStream::connect(self.server)?;
        // A server that hangs is an end, too, and none that a cell has.
        stream.set_read_timeout(Some(SILENCE))?;
        let port = stream.local_addr()?.port();
        Ok((stream, Made { port, at }))
    }

    fn speak(self, point: Point, then: Then) -> Result<Made> {
        let (stream, made) = self.connect()?;
        let mut reader = BufReader::new(&stream);
        if point == Point::Banner {
            reader.read_until(b'\n', &mut Vec::new())?;
            (&stream).write_all(BANNER)?;
            // It proposes its algorithms once it has sent its banner; ours may come after that.
            ensure!(!reader.fill_buf()?.is_empty(), "the server has gone before us");
        }
        if then == Then::Hold {
            let ended = reader.read_to_end(&mut Vec::new());
            ended.or_else(|error| reset(&error)).context("the server did not give up")?;
        }
        Ok(made)
    }

    fn ssh(self, cell: Cell) -> Result<Made> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let at = listener.local_addr()?;
        let log = self.place.folder().join(format!("ssh-{}.log", at.port()));
        let mut ssh = self.command(cell, at, &log).spawn().context("cannot start ssh")?;
        let near = relay::accept(&listener, &mut ssh)
            .with_context(|| format!("ssh's log is {}", log.display()))?;
        let (far, made) = self.connect()?;
        let mut gate = gate(cell, &log);
        let cut = relay::carry(&near, &far, &mut gate, then(cell))?;
        drop((near, far));
        let let_in = ssh.wait()?.success();
        let as_meant = match cell.end {
            End::Accepted => let_in && !cut,
            End::Refused | End::Stranger => !let_in && !cut && relay::has(&log, DENIED),
            End::Aborted(_) | End::TimedOut(_) => cut,
        };
        ensure!(as_meant, "the client ended otherwise; its log is {}", log.display());
        Ok(made)
    }

    fn command(self, cell: Cell, at: SocketAddr, log: &Path) -> Command {
        let own = !matches!(cell.end, End::Refused | End::Stranger);
        let mut ssh = Command::new("timeout");
        ssh.args(["--kill-after=5", LIMIT, "ssh", "-F", "none", "-T", "-vv", "-E"]).arg(log);
        // Nothing of the person who runs this, and no agent.
        ssh.env_clear().env("PATH", "/usr/bin:/bin");
        ssh.env("SSH_ASKPASS", self.place.askpass()).env("SSH_ASKPASS_REQUIRE", "force");
        ssh.env("HALFSECOND_PASSWORD", self.place.password_file(own));
        for option in [
            "UserKnownHostsFile=/dev/null",
            "GlobalKnownHostsFile=/dev/null",
            "StrictHostKeyChecking=no",
            "IdentityAgent=none",
            "IdentitiesOnly=yes",
            "ConnectTimeout=30",
            "NumberOfPasswordPrompts=1",
        ] {
            ssh.args(["-o", option]);
        }
        let method = cell.way.method().unwrap_or("none");
        ssh.args(["-o", &format!("PreferredAuthentications={method}")]);
        if cell.way.is_key() {
            ssh.args(["-o", "BatchMode=yes", "-i"]).arg(self.place.key(cell.way, own));
        } else {
            ssh.args(["-o", "PubkeyAuthentication=no"]);
        }
        let user = if cell.end == End::Stranger { STRANGER } else { USER };
        ssh.args(["-p", &at.port().to_string(), "-l", user, "127.0.0.1", "true"]);
        ssh.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        ssh
    }
}

fn then(cell: Cell) -> Then {
    if matches!(cell.end, End::TimedOut(_)) { Then::Hold } else { Then::Close }
}

/// What lets a client come as far as its cell says.
fn gate(cell: Cell, log: &Path) -> Gate {
    let logged = |text| Gate::Logged(PathBuf::from(log), text);
    match cell.stops() {
        None | Some(Point::Connect | Point::Banner) => Gate::Open,
        Some(Point::KeyExchange) => Gate::Until(relay::KEXINIT, Vec::new()),
        Some(Point::Keys) => Gate::Until(relay::NEWKEYS, Vec::new()),
        Some(Point::Service) => logged("SSH2_MSG_SERVICE_ACCEPT received"),
        // To `none`, which every client asks for first.
        Some(Point::Asked) => logged("Authentications that can continue"),
        Some(Point::Middle) => logged(match cell.way {
            Way::Password => "Next authentication method: password",
            Way::Dialogue => "input_userauth_info_req",
            _ => "Server accepts key",
        }),
    }
}

/// A reset is an end as good as any.
fn reset(error: &io::Error) -> Result<usize> {
    ensure!(error.kind() == io::ErrorKind::ConnectionReset, "{error}");
    Ok(0)
}
