//! The one network interface that a guest has.

use std::io;

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use rustix::net::{connect, recv, send, socket_with};

/// `RTM_NEWLINK` of linux/rtnetlink.h.
const NEW_LINK: u16 = 16;
/// `NLM_F_REQUEST | NLM_F_ACK` of linux/netlink.h.
const REQUEST_WITH_ANSWER: u16 = 1 | 4;
/// `NLMSG_ERROR` of linux/netlink.h; also the type of an acknowledgement, whose code is 0.
const ANSWER: u16 = 2;
/// `IFF_UP` of linux/if.h.
const UP: u32 = 1;
/// The loopback interface is the first in every network namespace.
const LOOPBACK: u32 = 1;
/// Size of the request: `struct nlmsghdr` and `struct ifinfomsg`.
const REQUEST_LEN: u32 = 32;

/// Brings the loopback interface up; its addresses come with it.
pub(crate) fn loopback_up() -> io::Result<()> {
    let socket = socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        // NETLINK_ROUTE, which is protocol 0.
        None,
    )?;
    connect(&socket, &SocketAddrNetlink::new(0, 0))?;
    send(&socket, &request(), SendFlags::empty())?;
    let mut answer = [0; 64];
    let (read, _) = recv(&socket, &mut answer[..], RecvFlags::empty())?;
    check(&answer[..read])
}

/// "Set the flag UP of interface 1, leave its other flags."
fn request() -> Vec<u8> {
    let mut message = Vec::new();
    message.extend(REQUEST_LEN.to_ne_bytes());
    message.extend(NEW_LINK.to_ne_bytes());
    message.extend(REQUEST_WITH_ANSWER.to_ne_bytes());
    message.extend([0; 8]); // sequence and port, which one request does not need
    message.extend([0; 4]); // family, padding, device type: any
    message.extend(LOOPBACK.to_ne_bytes());
    message.extend(UP.to_ne_bytes());
    message.extend(UP.to_ne_bytes()); // which flags to change
    message
}

/// The answer is a header and an errno, negative or 0.
fn check(answer: &[u8]) -> io::Result<()> {
    let malformed = || io::Error::new(io::ErrorKind::InvalidData, "netlink answered nonsense");
    let kind = answer.get(4..6).and_then(|bytes| bytes.try_into().ok()).map(u16::from_ne_bytes);
    let errno = answer.get(16..20).and_then(|bytes| bytes.try_into().ok()).map(i32::from_ne_bytes);
    match (kind, errno) {
        (Some(ANSWER), Some(0)) => Ok(()),
        (Some(ANSWER), Some(errno)) => Err(io::Error::from_raw_os_error(-errno)),
        _ => Err(malformed()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_request_is_as_long_as_it_says() {
        assert_eq!(u32::try_from(request().len()), Ok(REQUEST_LEN));
    }

    #[test]
    fn a_refusal_carries_its_errno() {
        let mut answer = [0; 36];
        answer[4..6].copy_from_slice(&ANSWER.to_ne_bytes());
        assert!(check(&answer).is_ok());
        answer[16..20].copy_from_slice(&(-1_i32).to_ne_bytes());
        assert_eq!(check(&answer).unwrap_err().raw_os_error(), Some(1));
        assert!(check(&answer[..10]).is_err());
    }
}
