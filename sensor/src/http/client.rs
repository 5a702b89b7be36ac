//! Asking the running sensor from the command line: one GET, bounded in time and size.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(5);
const ANSWER_MAX: u64 = 64 * 1024 * 1024;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody listens there.
    #[error("no sensor answers on {address}")]
    NotRunning {
        /// Where it was looked for.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The connection broke or took too long.
    #[error("the program on {address} did not finish its answer")]
    Broken {
        /// Whom.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// What came is not what a sensor says.
    #[error("the program on {address} does not answer as a halfsecond does")]
    Foreign {
        /// Whom.
        address: SocketAddr,
    },
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Body.
    pub body: Vec<u8>,
}

// === impl Answer ===

impl Answer {
    /// The body as JSON.
    #[must_use]
    pub fn json(&self) -> Option<Value> {
        serde_json::from_slice(&self.body).ok()
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// GETs `path` from the sensor that listens on `listen`.
pub fn get(listen: SocketAddr, path: &str) -> Result<Answer, AskError> {
    let address = reachable(listen);
    let deadline = Instant::now() + PATIENCE;
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)
        .map_err(|source| AskError::NotRunning { address, source })?;
    let bytes = exchange(&mut stream, path, deadline)
        .map_err(|source| AskError::Broken { address, source })?;
    parse(&bytes).ok_or(AskError::Foreign { address })
}

/// A value as it may stand in an address.
#[must_use]
pub fn encoded(value: &str) -> String {
    utf8_percent_encode(value, NON_ALPHANUMERIC).to_string()
}

/// An address to connect to for one to listen on.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

/// HTTP/1.0, so that the answer ends with the connection and is never chunked.
fn exchange(stream: &mut TcpStream, path: &str, deadline: Instant) -> io::Result<Vec<u8>> {
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes())?;
    let mut answer = Vec::new();
    let mut part = vec![0; 64 * 1024];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        let read = match stream.read(&mut part) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            read => read?,
        };
        if read == 0 {
            return Ok(answer);
        }
        answer.extend(part.iter().take(read));
        if u64::try_from(answer.len()).is_ok_and(|len| len > ANSWER_MAX) {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
    }
}

fn parse(bytes: &[u8]) -> Option<Answer> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let (head, body) = bytes.split_at_checked(end + 4)?;
    let head = std::str::from_utf8(head).ok()?;
    let status = head.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()?;
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    // An answer that was cut short is none.
    (length.is_none_or(|length| length == body.len()))
        .then(|| Answer { status, body: body.to_vec() })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_answer_is_taken_apart() {
        let answer = parse(b"HTTP/1.0 503 Service Unavailable\r\ncontent-length: 3\r\n\r\nno\n");
        assert_eq!(answer.map(|one| (one.status, one.body)), Some((503, b"no\n".to_vec())));
    }

    #[test]
    fn an_answer_cut_short_is_refused() {
        assert!(parse(b"HTTP/1.0 200 OK\r\ncontent-length: 30\r\n\r\n{").is_none());
        assert!(parse(b"SSH-2.0-OpenSSH_9.2\r\n").is_none());
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
        }
    }
}
