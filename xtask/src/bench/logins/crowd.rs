//! Many clients at once: most log in, every fifth breaks off at one of four points.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};

use crate::bench::sshd::{REMOTE, Server};
use crate::logins::relay::{self, Gate, Then};

/// One in so many breaks off.
const LEAVERS: usize = 5;
const BANNER: &[u8] = b"SSH-2.0-halfsecond_crowd\r\n";
/// Longer than a login takes that shares a busy machine with a hundred others.
const SILENCE: Duration = Duration::from_secs(110);

/// What one client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::bench) enum Visit {
    Login,
    /// Goes right after it has connected.
    Connect,
    /// Goes after the banners.
    Banner,
    /// Goes when keys are exchanged.
    Keys,
    /// Goes when its key is accepted, without having proven that it has it.
    Offer,
}

/// Port of a client and the outcome of its connection, and how often there was one: ports come again.
pub(super) type Accounts = BTreeMap<(u16, String), usize>;

/// Has `visit` called with every number below `count`, by so many threads at once.
pub(in crate::bench) fn crowd<T: Send>(
    count: usize,
    at_once: usize,
    visit: impl Fn(usize) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let next = AtomicUsize::new(0);
    let work = || -> Result<Vec<T>> {
        let mut done = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return Ok(done);
            }
            done.push(visit(number)?);
        }
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..at_once).map(|_| scope.spawn(work)).collect();
        let mut all = Vec::new();
        for thread in threads {
            all.extend(thread.join().map_err(|_| anyhow!("a client panicked"))??);
        }
        Ok(all)
    })
}

// === impl Visit ===

impl Visit {
    pub(in crate::bench) fn of(number: usize) -> Self {
        if number % LEAVERS != LEAVERS - 1 {
            return Self::Login;
        }
        let kinds = [Self::Connect, Self::Banner, Self::Keys, Self::Offer];
        kinds[number / LEAVERS % kinds.len()]
    }

    /// The outcome that has to be told of it.
    pub(super) fn outcome(self) -> &'static str {
        if self == Self::Login { "accepted" } else { "aborted" }
    }

    /// Does it; gives the seconds of a login, and nothing for one who left.
    pub(in crate::bench) fn timed(self, server: &Server) -> Result<Option<f64>> {
        if self != Self::Login {
            return self.seen(server).map(|_| None);
        }
        let started = Instant::now();
        server.login()?;
        Ok(Some(started.elapsed().as_secs_f64()))
    }

    /// Does it by a way on which the port is known that the server sees.
    pub(super) fn seen(self, server: &Server) -> Result<u16> {
        match self {
            Self::Connect | Self::Banner => self.speak(server),
            Self::Login | Self::Keys | Self::Offer => self.ssh(server),
        }
    }

    fn speak(self, server: &Server) -> Result<u16> {
        let mut stream = TcpStream::connect(server.address())?;
        stream.set_read_timeout(Some(SILENCE))?;
        if self == Self::Banner {
            BufReader::new(&stream).read_until(b'\n', &mut Vec::new())?;
            stream.write_all(BANNER)?;
        }
        Ok(stream.local_addr()?.port())
    }

    fn ssh(self, server: &Server) -> Result<u16> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let at = listener.local_addr()?.port();
        let log = super::super::folder()?.join(format!("crowd-{at}.log"));
        let mut command = server.client(at);
        let mut gate = match self {
            Self::Login => Gate::Open,
            Self::Keys => Gate::Until(relay::NEWKEYS, Vec::new()),
            _ => {
                // The first level that is given counts, but -v raises it all the same.
                command.args(["-v", "-E"]).arg(&log);
                Gate::Logged(log.clone(), "Server accepts key")
            }
        };
        command.args(REMOTE).stdout(Stdio::null()).stderr(Stdio::null());
        let mut ssh = command.spawn().context("cannot start ssh")?;
        let near = relay::accept(&listener, &mut ssh)?;
        let far = TcpStream::connect(server.address())?;
        far.set_read_timeout(Some(SILENCE))?;
        let port = far.local_addr()?.port();
        let cut = relay::carry(&near, &far, &mut gate, Then::Close)?;
        drop((near, far));
        let let_in = ssh.wait()?.success();
        ensure!(
            let_in == (self == Self::Login) && cut != let_in,
            "{self:?} ended otherwise: let in {let_in}, cut {cut}"
        );
        let _ = std::fs::remove_file(log);
        Ok(port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fifth_breaks_off_at_every_point_alike() {
        let visits: Vec<_> = (0..2000).map(Visit::of).collect();
        let count = |wanted| visits.iter().filter(|visit| **visit == wanted).count();
        assert_eq!(count(Visit::Login), 1600);
        for leaver in [Visit::Connect, Visit::Banner, Visit::Keys, Visit::Offer] {
            assert_eq!(count(leaver), 100, "{leaver:?}");
        }
    }

    #[test]
    fn a_crowd_does_everything_once_and_tells_what_fails() {
        let mut all = crowd(1000, 8, Ok).unwrap();
        all.sort_unstable();
        assert!(all.into_iter().eq(0..1000));
        let failed = crowd(100, 8, |number| {
            ensure!(number != 57, "number {number}");
            Ok(())
        });
        assert_eq!(failed.unwrap_err().to_string(), "number 57");
    }
}
