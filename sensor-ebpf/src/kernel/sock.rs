//! `struct sock`.

use sensor_common::record::Peer;

use super::KernelPtr;
use crate::globals::offset;

const AF_UNIX: u16 = 1;
const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;

/// A `struct sock *`.
#[derive(Clone, Copy)]
pub struct Sock(KernelPtr);

impl From<KernelPtr> for Sock {
    #[inline(always)]
    fn from(pointer: KernelPtr) -> Self {
        Self(pointer)
    }
}

impl Sock {
    #[inline(always)]
    pub fn new(address: u64) -> Option<Self> {
        KernelPtr::new(address).map(Self)
    }

    #[inline(always)]
    fn family(self) -> Option<u16> {
        self.0.read(offset!(sock_family))
    }

    #[inline(always)]
    pub fn is_unix(self) -> bool {
        self.family() == Some(AF_UNIX)
    }

    /// Fills in the other end of an internet socket; leaves `peer` alone for any other.
    #[inline(always)]
    pub fn peer_into(self, peer: &mut Peer) -> Option<()> {
        let family = self.family()?;
        if family == AF_INET {
            let addr: u32 = self.0.read(offset!(sock_daddr))?;
            let [a, b, c, d] = addr.to_ne_bytes();
            (peer.addr[0], peer.addr[1], peer.addr[2], peer.addr[3]) = (a, b, c, d);
        } else if family == AF_INET6 {
            peer.addr = self.0.read(offset!(sock_v6_daddr))?;
        } else {
            return Some(());
        }
        peer.local_port = self.0.read(offset!(sock_num))?;
        peer.port = u16::from_be(self.0.read(offset!(sock_dport))?);
        peer.family = family;
        Some(())
    }
}
