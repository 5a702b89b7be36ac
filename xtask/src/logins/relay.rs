//! A relay between ssh and sshd that cuts the line at an exact point: what the client says beyond it
//! never reaches the server, however the two are scheduled.
//!
//! Before keys are in use the messages themselves are read; after that ssh's own log tells what it has
//! got as an answer, and whatever it sends next is too much. ssh writes its log before it sends.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::thread;
use std::time::Duration;

use anyhow::{Result, bail};

/// Messages of the key exchange (RFC 4250, 4.1.2).
pub(crate) const KEXINIT: u8 = 20;
pub(crate) const NEWKEYS: u8 = 21;
/// Longer than what a client says before its keys are in use; RFC 4253, 6.1, has packets of 35,000
/// bytes at most.
const PLAIN_MAX: usize = 256 * 1024;
/// Between two looks at whether ssh has connected.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// What the client may say.
pub(crate) enum Gate {
    /// Everything.
    Open,
    /// Everything up to the end of this message, and what it has said so far.
    Until(u8, Vec<u8>),
    /// Everything until its log has this text.
    Logged(PathBuf, &'static str),
}

/// What becomes of the connection where it is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Then {
    /// It ends.
    Close,
    /// It stays until the server ends it.
    Hold,
}

/// Waits until ssh has connected.
pub(crate) fn accept(listener: &TcpListener, ssh: &mut Child) -> Result<TcpStream> {
    listener.set_nonblocking(true)?;
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false)?;
                return Ok(stream);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
        if let Some(status) = ssh.try_wait()? {
            bail!("ssh ended with {status} before it connected");
        }
        thread::sleep(LOOK_AGAIN);
    }
}

/// Carries everything between the two until one of them ends, or the gate shuts; gives whether it did.
pub(crate) fn carry(
    client: &TcpStream,
    server: &TcpStream,
    gate: &mut Gate,
    then: Then,
) -> Result<bool> {
    let (mut from, mut to) = (server.try_clone()?, client.try_clone()?);
    let back = thread::spawn(move || {
        // However it ends, the client is to learn of it.
        let _ = io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Both);
    });
    let cut = forward(client, server, gate);
    // Either fails where the server was first.
    let _ = match cut {
        Ok(true) if then == Then::Hold => Ok(()),
        Ok(false) => server.shutdown(Shutdown::Write),
        _ => server.shutdown(Shutdown::Both),
    };
    if back.join().is_err() {
        bail!("the way back failed");
    }
    cut
}

/// Whether the gate was shut.
fn forward(mut client: &TcpStream, mut server: &TcpStream, gate: &mut Gate) -> Result<bool> {
    let mut bytes = [0; 16 * 1024];
    loop {
        let count = match client.read(&mut bytes) {
            Ok(0) => return Ok(false),
            Ok(count) => count,
            // Gone, or told that the server is.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        let (passing, shut) = gate.pass(&bytes[..count])?;
        if server.write_all(&bytes[..passing]).is_err() {
            return Ok(shut);
        }
        if shut {
            return Ok(true);
        }
    }
}

// === impl Gate ===

impl Gate {
    /// How many of the next bytes may pass, and whether it shuts behind them.
    fn pass(&mut self, bytes: &[u8]) -> Result<(usize, bool)> {
        match self {
            Self::Open => Ok((bytes.len(), false)),
            Self::Until(message, said) => {
                let before = said.len();
                said.extend_from_slice(bytes);
                if said.len() > PLAIN_MAX {
                    bail!("the client says too much before message {message}");
                }
                let end = end_of(said, *message).map(|end| end.saturating_sub(before));
                Ok((end.unwrap_or(bytes.len()), end.is_some()))
            }
            Self::Logged(log, text) => {
                let is_there = has(log, text);
                Ok((if is_there { 0 } else { bytes.len() }, is_there))
            }
        }
    }
}

/// Whether the file holds `text` by now.
pub(crate) fn has(file: &Path, text: &str) -> bool {
    fs::read(file).is_ok_and(|log| String::from_utf8_lossy(&log).contains(text))
}

/// Where the first packet with this message ends, in what a client says from its start on: a line, then
/// packets of a length (u32), a length of padding (u8) and a message (RFC 4253, 4.2 and 6).
fn end_of(said: &[u8], message: u8) -> Option<usize> {
    let mut start = said.iter().position(|byte| *byte == b'\n')? + 1;
    loop {
        let packet = said.get(start..)?;
        let (length, rest) = packet.split_first_chunk::<4>()?;
        let end =
            start.checked_add(4)?.checked_add(u32::from_be_bytes(*length).try_into().ok()?)?;
        if end > said.len() {
            return None;
        }
        if rest.get(1) == Some(&message) {
            return Some(end);
        }
        start = end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(message: u8, payload: usize) -> Vec<u8> {
        let length = u32::try_from(payload + 2).unwrap();
        [&length.to_be_bytes()[..], &[0, message], &vec![7; payload]].concat()
    }

    #[test]
    fn the_gate_shuts_right_behind_the_message_however_the_bytes_come() {
        let before = [&b"SSH-2.0-x\r\n"[..], &packet(KEXINIT, 40), &packet(30, 32)].concat();
        let wanted = [&before[..], &packet(NEWKEYS, 10)].concat();
        let all = [&wanted[..], &[0xff; 64]].concat();
        for step in [1, 7, 64, 4096] {
            let mut gate = Gate::Until(NEWKEYS, Vec::new());
            let mut passed = Vec::new();
            for chunk in all.chunks(step) {
                let (count, shut) = gate.pass(chunk).unwrap();
                passed.extend_from_slice(&chunk[..count]);
                if shut {
                    break;
                }
            }
            assert_eq!(passed, wanted, "{step} at a time");
        }
        assert_eq!(end_of(&all, 99), None);
    }

    #[test]
    fn what_no_client_says_is_refused_in_the_end() {
        let mut gate = Gate::Until(NEWKEYS, Vec::new());
        let endless = vec![b'x'; PLAIN_MAX];
        assert_eq!(gate.pass(&endless).unwrap(), (PLAIN_MAX, false));
        assert!(gate.pass(b"x").is_err());
        assert_eq!(end_of(b"SSH-2.0-x\r\n\xff\xff\xff\xff\0\x15", NEWKEYS), None);
    }

    #[test]
    fn a_logged_text_shuts_the_gate_before_the_next_byte() {
        let file = std::env::temp_dir().join(format!("halfsecond-gate-{}", std::process::id()));
        fs::write(&file, "debug1: something else\n").unwrap();
        let mut gate = Gate::Logged(file.clone(), "Server accepts key");
        assert_eq!(gate.pass(b"abc").unwrap(), (3, false));
        fs::write(&file, "debug1: Server accepts key: x\n").unwrap();
        assert_eq!(gate.pass(b"abc").unwrap(), (0, true));
        fs::remove_file(file).unwrap();
    }
}
