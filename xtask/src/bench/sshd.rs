//! A private sshd on loopback, for logins to time.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};

use crate::background::Background;
use crate::sh;

/// Where a client goes, and what it runs there: the end of its arguments.
pub(super) const REMOTE: [&str; 2] = ["root@127.0.0.1", "true"];

pub(super) struct Server {
    folder: PathBuf,
    port: u16,
    /// Ends the server when this goes away.
    running: Background,
}

impl Server {
    /// Starts one with a fresh host key, which lets root in with one fresh key only.
    pub(super) fn start() -> Result<Self> {
        let folder = super::folder()?.join("sshd");
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        fs::create_dir_all(&folder)?;
        for key in ["host", "client"] {
            let mut keygen = Command::new("ssh-keygen");
            keygen.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(folder.join(key));
            sh::output(&mut keygen)?;
        }
        // sshd insists on its empty directory for the unprivileged child.
        fs::create_dir_all("/run/sshd")?;
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let shown = folder.display();
        // With that level bash does not take itself for one started by sshd, and does not read a
        // .bashrc: what a person has in there (here once 60 programs) is not what a login costs.
        let config = format!(
            "ListenAddress 127.0.0.1:{port}\nHostKey {shown}/host\nPidFile none\n\
             AuthorizedKeysFile {shown}/client.pub\nPermitRootLogin prohibit-password\n\
             PasswordAuthentication no\nStrictModes no\nUsePAM yes\nMaxStartups 300\n\
             SetEnv SHLVL=2\n"
        );
        let sshd = sh::which("sshd").context("sshd is not installed")?;
        let file = folder.join("sshd_config");
        // Since 9.8 whoever breaks off is kept out for a while, unless told otherwise.
        fs::write(&file, format!("{config}PerSourcePenalties no\n"))?;
        if sh::output(Command::new(&sshd).args(["-t", "-f"]).arg(&file)).is_err() {
            fs::write(&file, config)?;
        }
        let mut command = Command::new(sshd);
        command.args(["-D", "-e", "-f"]).arg(file);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(fs::File::create(folder.join("sshd.log"))?);
        let mut running = Background::start(&mut command)?;
        running
            .wait_until(|| TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok())
            .with_context(|| format!("sshd's log is {shown}/sshd.log"))?;
        Ok(Self { folder, port, running })
    }

    pub(super) fn pid(&self) -> u32 {
        self.running.pid()
    }

    pub(super) fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    /// Logs in, runs `true`, logs out.
    pub(super) fn login(&self) -> Result<()> {
        sh::output(self.client(self.port).args(REMOTE)).map(drop)
    }

    /// The client that does so by way of this port, up to [`REMOTE`].
    pub(super) fn client(&self, port: u16) -> Command {
        let mut ssh = Command::new("ssh");
        ssh.args(["-F", "none", "-i"]).arg(self.folder.join("client"));
        ssh.args(["-p", &port.to_string()]);
        for option in [
            "BatchMode=yes",
            "IdentitiesOnly=yes",
            "StrictHostKeyChecking=no",
            "UserKnownHostsFile=/dev/null",
            "LogLevel=ERROR",
        ] {
            ssh.args(["-o", option]);
        }
        ssh.stdin(Stdio::null());
        ssh
    }
}
