//! Logins with the real ssh client, kept apart from the developer's own configuration.

use std::{process::Command, time::Duration};

use anyhow::{Result, bail};
use jiff::Timestamp;

use super::{
    machine::USER,
    process::{Finished, Running, finish},
    sshd::{KNOWN_HOSTS, SshdLab},
};

/// Longer than sshd's own 120 s for an authentication would only hide a hang.
const PATIENCE: Duration = Duration::from_mins(1);

/// How the user proves who they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    /// A 2048-bit RSA key with rsa-sha2-512: OpenSSH 9.2 verifies it with `RSA_public_decrypt`.
    Rsa,
    /// Verified inside sshd, without libcrypto.
    Ed25519,
    Password,
    /// The same password, asked by PAM in a dialogue (`keyboard-interactive`).
    Dialogue,
    /// Refused.
    WrongPassword,
    /// Refused by PAM in a dialogue.
    WrongDialogue,
}

/// A session held open: its monitor can be looked at. Dropping it cuts the connection.
#[derive(Debug)]
pub(crate) struct Session {
    client: Running,
}

impl Method {
    /// The methods that succeed.
    pub(crate) const GOOD: [Self; 3] = [Self::Rsa, Self::Ed25519, Self::Password];

    fn is_dialogue(self) -> bool {
        matches!(self, Self::Dialogue | Self::WrongDialogue)
    }

    fn is_password(self) -> bool {
        self.is_dialogue() || matches!(self, Self::Password | Self::WrongPassword)
    }
}

impl SshdLab {
    /// Logs in, runs `echo ok` there and waits for the end.
    pub(crate) fn login(&self, method: Method) -> Result<Finished> {
        self.run(method, "echo ok")
    }

    /// Logs in, runs `remote` in the user's shell and waits for its end. The exit code is
    /// `remote`'s, or 255 if there was no session.
    pub(crate) fn run(&self, method: Method, remote: &str) -> Result<Finished> {
        let mut client = self.client(method);
        finish(client.arg(remote), "", PATIENCE)
    }

    /// The same with further options of the client; without `remote` no command is asked for.
    pub(crate) fn with_options(
        &self,
        method: Method,
        options: &[&str],
        remote: &str,
    ) -> Result<Finished> {
        let mut client = self.client(method);
        client.args(options);
        if !remote.is_empty() {
            client.arg(remote);
        }
        finish(&mut client, "", PATIENCE)
    }

    /// A client with these options that goes on until it is dropped.
    pub(crate) fn start_with(&self, method: Method, options: &[&str]) -> Result<Running> {
        Running::spawn(self.client(method).args(options))
    }

    /// Logs in as [`Self::login`] does; also tells when the client learned that it was let in.
    pub(crate) fn timed_login(&self, method: Method) -> Result<Timestamp> {
        let mut command = self.client(method);
        // The first value of an option counts, but -v raises the level all the same.
        let mut client = Running::spawn(command.args(["-v", "echo ok"]))?;
        let told = |line: &str| line.contains("Authenticated to ").then(Timestamp::now);
        let Some(at) = client.stderr().wait_for(0, PATIENCE, told) else {
            bail!("no login by {method:?}: {}{}", client.transcript(), self.log());
        };
        let status = client.wait(PATIENCE)?;
        client.stdout().wait_closed(PATIENCE);
        if status.code() != Some(0) || client.stdout().since(0) != ["ok"] {
            bail!("{method:?} ended with {status}: {}{}", client.transcript(), self.log());
        }
        Ok(at)
    }

    /// Logs in and keeps the session open.
    pub(crate) fn open(&self, method: Method) -> Result<Session> {
        let mut command = self.client(method);
        let client = Running::spawn(command.arg("echo open; exec cat"))?;
        let opened = |line: &str| (line == "open").then_some(());
        if client.stdout().wait_for(0, PATIENCE, opened).is_none() {
            bail!("no session by {method:?}: {}{}", client.transcript(), self.log());
        }
        Ok(Session { client })
    }

    /// The client command, up to the remote command.
    fn client(&self, method: Method) -> Command {
        let mut command = if method.is_password() {
            let file = match method {
                Method::WrongPassword | Method::WrongDialogue => self.machine.wrong_password_file(),
                _ => self.machine.password_file(),
            };
            let mut sshpass = Command::new("sshpass");
            sshpass.arg("-f").arg(file).arg("ssh");
            sshpass
        } else {
            Command::new("ssh")
        };
        // The user has no home the client could read, and no agent: nothing but what is named here.
        command.env_clear().env("PATH", "/usr/bin:/bin").args(["-F", "none"]);
        let known = self.dir.path().join(KNOWN_HOSTS);
        let mut option = |text: &str| {
            command.args(["-o", text]);
        };
        option(&format!("UserKnownHostsFile={}", known.display()));
        option("GlobalKnownHostsFile=none");
        option("StrictHostKeyChecking=yes");
        option("IdentityAgent=none");
        option("IdentitiesOnly=yes");
        option("ConnectTimeout=30");
        option("LogLevel=ERROR");
        if method.is_password() {
            let name = if method.is_dialogue() { "keyboard-interactive" } else { "password" };
            option(&format!("PreferredAuthentications={name}"));
            option("PubkeyAuthentication=no");
            option("NumberOfPasswordPrompts=1");
        } else {
            let (key, algorithm) = match method {
                Method::Rsa => ("rsa", "rsa-sha2-512"),
                _ => ("ed25519", "ssh-ed25519"),
            };
            option("PreferredAuthentications=publickey");
            option("PasswordAuthentication=no");
            option("BatchMode=yes");
            option(&format!("PubkeyAcceptedAlgorithms={algorithm}"));
            option(&format!("IdentityFile={}", self.machine.key(key).display()));
        }
        command.args(["-T", "-p", &self.port.to_string(), &format!("{USER}@127.0.0.1")]);
        command
    }
}

impl Session {
    /// Ends the session as a user would; the remote shell's exit code.
    pub(crate) fn close(mut self) -> Result<Option<i32>> {
        self.client.close_stdin();
        Ok(self.client.wait(PATIENCE)?.code())
    }
}
