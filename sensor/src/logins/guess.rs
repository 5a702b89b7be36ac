//! Brute force and user enumeration: many failures from one peer, and many names.
//!
//! Whoever measures how long sshd takes for a name that exists and for one that does not has to try
//! many names, so the names are what is counted. Only a keyed hash of each is held, and only here.

use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::BuildHasher;
use std::net::{IpAddr, Ipv6Addr};

use serde::{Deserialize, Serialize};

/// Failures count for this long, ns.
const WINDOW_NS: u64 = 600_000_000_000;
/// Refused or undecided attempts within the window that are no typing errors any more.
pub(super) const ATTEMPTS: usize = 10;
/// Different names within the window that one person does not have.
pub(super) const NAMES: usize = 6;
/// Names of one peer that are told apart.
const NAMES_MAX: usize = 32;
/// Peers remembered; the one that failed longest ago is forgotten beyond.
pub(super) const PEERS_MAX: usize = 4096;

/// What many failures from one peer look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Guessing {
    /// Many attempts.
    BruteForce,
    /// Many names.
    UserEnumeration,
}

/// Failures by peer.
#[derive(Debug, Default)]
pub(super) struct Guesses {
    peers: BTreeMap<IpAddr, Peer>,
    by_age: BTreeSet<(u64, IpAddr)>,
    key: RandomState,
}

#[derive(Debug, Default)]
struct Peer {
    last: u64,
    /// When the latest attempts failed, oldest first; no more than matter.
    failed: VecDeque<u64>,
    /// When each name was last tried.
    names: VecDeque<(u64, u64)>,
}

// === impl Guessing ===

impl Guessing {
    /// As output and metrics write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::BruteForce => "brute_force",
            Self::UserEnumeration => "user_enumeration",
        }
    }
}

// === impl Guesses ===

impl Guesses {
    /// A connection let nobody in.
    pub(super) fn failed(&mut self, peer: IpAddr, user: Option<&str>, attempts: usize, now: u64) {
        let who = prefix(peer);
        let name = user.map(|user| self.key.hash_one(user));
        self.by_age.remove(&(self.peers.get(&who).map_or(0, |peer| peer.last), who));
        if !self.peers.contains_key(&who)
            && self.peers.len() >= PEERS_MAX
            && let Some((_, oldest)) = self.by_age.pop_first()
        {
            self.peers.remove(&oldest);
        }
        let peer = self.peers.entry(who).or_default();
        peer.last = now.max(peer.last);
        peer.note(name, attempts);
        self.by_age.insert((peer.last, who));
    }

    /// What the peer is doing, by what it did up to now.
    pub(super) fn of(&self, peer: IpAddr, now: u64) -> Option<Guessing> {
        let peer = self.peers.get(&prefix(peer))?;
        let recent = |at: u64| now.saturating_sub(at) <= WINDOW_NS;
        if peer.names.iter().filter(|(at, _)| recent(*at)).count() >= NAMES {
            return Some(Guessing::UserEnumeration);
        }
        let many = peer.failed.iter().filter(|at| recent(**at)).count() >= ATTEMPTS;
        many.then_some(Guessing::BruteForce)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        assert_eq!(self.peers.len(), self.by_age.len());
        self.peers.len()
    }
}

// === impl Peer ===

impl Peer {
    fn note(&mut self, name: Option<u64>, attempts: usize) {
        for _ in 0..attempts.min(ATTEMPTS) {
            if self.failed.len() >= ATTEMPTS {
                self.failed.pop_front();
            }
            self.failed.push_back(self.last);
        }
        if let Some(name) = name {
            self.names.retain(|(_, known)| *known != name);
            if self.names.len() >= NAMES_MAX {
                self.names.pop_front();
            }
            self.names.push_back((self.last, name));
        }
    }
}

/// Who counts as one: an IPv4 address, or an IPv6 network of 64 bits, of which one host has many
/// addresses (RFC 4291, 2.5.1).
fn prefix(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn many_failures_are_brute_force_and_age() {
        let mut guesses = Guesses::default();
        let peer = ip("192.0.2.7");
        for at in 0..9 {
            guesses.failed(peer, Some("root"), 1, at * SECOND);
        }
        assert_eq!(guesses.of(peer, 9 * SECOND), None, "nine are not ten");
        guesses.failed(peer, Some("root"), 1, 9 * SECOND);
        assert_eq!(guesses.of(peer, 10 * SECOND), Some(Guessing::BruteForce));
        assert_eq!(guesses.of(ip("192.0.2.8"), 10 * SECOND), None, "its neighbour did nothing");
        assert_eq!(guesses.of(peer, WINDOW_NS + SECOND), None, "the first has aged");
    }

    #[test]
    fn many_names_are_enumeration_though_nothing_was_attempted() {
        let mut guesses = Guesses::default();
        let peer = ip("2001:db8::1");
        for (at, user) in ["a", "b", "c", "d", "e", "a", "b"].into_iter().enumerate() {
            guesses.failed(peer, Some(user), 0, at as u64 * SECOND);
        }
        assert_eq!(guesses.of(peer, 8 * SECOND), None, "five names");
        guesses.failed(peer, Some("f"), 0, 8 * SECOND);
        assert_eq!(guesses.of(peer, 9 * SECOND), Some(Guessing::UserEnumeration));
        let same_network = ip("2001:db8::ffff:1");
        assert_eq!(guesses.of(same_network, 9 * SECOND), Some(Guessing::UserEnumeration));
        assert_eq!(guesses.of(ip("2001:db8:0:1::1"), 9 * SECOND), None);
    }

    #[test]
    fn an_address_in_ipv6_clothes_is_the_same_peer() {
        let mut guesses = Guesses::default();
        guesses.failed(ip("::ffff:192.0.2.7"), None, ATTEMPTS, 0);
        assert_eq!(guesses.of(ip("192.0.2.7"), 1), Some(Guessing::BruteForce));
    }

    #[test]
    fn a_flood_of_peers_is_bounded_and_forgets_the_oldest() {
        let mut guesses = Guesses::default();
        for at in 0..10_000_u32 {
            let peer = IpAddr::V4(at.into());
            guesses.failed(peer, Some("x"), ATTEMPTS, u64::from(at));
        }
        assert_eq!(guesses.len(), PEERS_MAX);
        assert_eq!(guesses.of(IpAddr::V4(0.into()), 10_000), None);
        assert!(guesses.of(IpAddr::V4(9_999.into()), 10_000).is_some());
    }
}
