//! Real programs to look at: interpreters and a private sshd on loopback.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::fixture::{Child, Workshop, command, have};

const SSHD: &str = "/usr/sbin/sshd";

/// A program that waits, with the files it needs.
pub(crate) struct Server {
    process: Running,
    _files: Workshop,
}

enum Running {
    Fixture(Child),
    Sshd(std::process::Child),
}

impl Server {
    pub(crate) fn pid(&self) -> u32 {
        match &self.process {
            Running::Fixture(child) => child.pid(),
            Running::Sshd(child) => child.id(),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Running::Sshd(child) = &mut self.process {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// sshd in the foreground on a loopback port of its own, with a host key of its own.
pub(crate) fn sshd() -> Option<Server> {
    if !Path::new(SSHD).exists() {
        println!("{SSHD} is not installed: it is not tested");
        return None;
    }
    let files = Workshop::new();
    let key = files.path("host_key");
    let made =
        Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key).status();
    assert!(made.unwrap().success(), "ssh-keygen failed");
    // sshd insists on its empty directory, which the service manager makes otherwise.
    fs::create_dir_all("/run/sshd").unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut sshd = command(SSHD);
    sshd.args(["-D", "-e", "-f", "/dev/null", "-o", "PidFile=none"]);
    sshd.arg("-o").arg(format!("ListenAddress=127.0.0.1:{port}"));
    sshd.arg("-h").arg(&key).stderr(Stdio::piped());
    let mut child = sshd.spawn().unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    log.read_line(&mut line).unwrap();
    if !line.contains("listening") {
        let _ = log.read_to_string(&mut line);
        let _ = child.kill();
        let _ = child.wait();
        panic!("sshd does not listen: {line}");
    }
    Some(Server { process: Running::Sshd(child), _files: files })
}

/// Python with a few extension modules loaded.
pub(crate) fn python() -> Option<Server> {
    let script = "import ssl, sqlite3, json, ctypes, socket; print('ready', flush=True); input()";
    interpreter("python3", &["-c", script])
}

/// Perl with a few extension modules loaded.
pub(crate) fn perl() -> Option<Server> {
    let script = "use POSIX; use Socket; use List::Util; $| = 1; print \"ready\\n\"; <STDIN>";
    interpreter("perl", &["-e", script])
}

/// Bash with its readline library.
pub(crate) fn bash() -> Option<Server> {
    interpreter("bash", &["-c", "echo ready; read line"])
}

fn interpreter(program: &str, arguments: &[&str]) -> Option<Server> {
    if !have(program) {
        return None;
    }
    let child = Child::ready(command(program).args(arguments));
    Some(Server { process: Running::Fixture(child), _files: Workshop::new() })
}
