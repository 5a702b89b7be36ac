//! One cell of the matrix: what a client does, and what has to be told of it.

use std::fmt;

/// The user who logs in.
pub(crate) const USER: &str = "hs-lab";

/// How a user proves who they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Rsa,
    Ed25519,
    Ecdsa,
    Password,
    /// The password, asked by PAM in a dialogue (`keyboard-interactive`).
    Dialogue,
    /// Not at all: the method `none`, which only asks what others there are (RFC 4252, 5.2).
    Nothing,
}

/// How far a client goes, in the order in which it gets there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Point {
    /// Connected; nothing was said.
    Connect,
    /// Both banners are exchanged.
    Banner,
    /// The client has proposed its algorithms.
    KeyExchange,
    /// Keys are exchanged and in use.
    Keys,
    /// The server is ready for authentication; no user was named.
    Service,
    /// A user was named, and nothing was proven.
    Asked,
    /// In the middle of proving: the key is accepted and not signed with, the question of the dialogue
    /// or for the password is not answered.
    Middle,
}

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Accepted,
    /// A wrong password, a key that is not the user's.
    Refused,
    /// A user that the server does not have.
    Stranger,
    /// The client goes away.
    Aborted(Point),
    /// The client stays and says nothing more, until the server has waited long enough.
    TimedOut(Point),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cell {
    /// What is proven with; where the client does not come so far, what it would have been.
    pub(super) way: Way,
    pub(super) end: End,
}

/// What has to be told of a cell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Expected {
    pub(super) outcome: &'static str,
    pub(super) method: Option<&'static str>,
    pub(super) user: Option<&'static str>,
    /// Method and verdict of each.
    pub(super) attempts: Vec<(&'static str, &'static str)>,
    /// Type of the key that each was by.
    pub(super) key: Option<&'static str>,
    /// Those that were reached, in their order.
    pub(super) phases: Vec<&'static str>,
    pub(super) session: bool,
}

/// Every cell that one server can serve.
pub(super) fn all() -> Vec<Cell> {
    let ways = [Way::Rsa, Way::Ed25519, Way::Ecdsa, Way::Password, Way::Dialogue];
    let mut cells: Vec<Cell> = ways.map(|way| Cell { way, end: End::Accepted }).into();
    cells.extend(ways.map(|way| Cell { way, end: End::Refused }));
    cells.push(Cell { way: Way::Nothing, end: End::Refused });
    cells.push(Cell { way: Way::Password, end: End::Stranger });
    for point in Point::BEFORE_PROOF {
        cells.push(Cell { way: Way::Ed25519, end: End::Aborted(point) });
        cells.push(Cell { way: Way::Ed25519, end: End::TimedOut(point) });
    }
    for way in ways {
        cells.push(Cell { way, end: End::Aborted(Point::Middle) });
        cells.push(Cell { way, end: End::TimedOut(Point::Middle) });
    }
    cells
}

// === impl Way ===

impl Way {
    pub(super) fn is_key(self) -> bool {
        matches!(self, Self::Rsa | Self::Ed25519 | Self::Ecdsa)
    }

    /// Type of the key itself, not of a signature with it.
    fn key(self) -> Option<&'static str> {
        match self {
            Self::Rsa => Some("ssh-rsa"),
            Self::Ed25519 => Some("ssh-ed25519"),
            // ssh-keygen's default length.
            Self::Ecdsa => Some("ecdsa-sha2-nistp256"),
            Self::Password | Self::Dialogue | Self::Nothing => None,
        }
    }

    /// As the protocol and the sensor name it.
    pub(super) fn method(self) -> Option<&'static str> {
        match self {
            Self::Rsa | Self::Ed25519 | Self::Ecdsa => Some("publickey"),
            Self::Password => Some("password"),
            Self::Dialogue => Some("keyboard-interactive"),
            Self::Nothing => None,
        }
    }
}

// === impl Point ===

impl Point {
    /// Those at which it does not matter how the user would go on.
    const BEFORE_PROOF: [Self; 6] =
        [Self::Connect, Self::Banner, Self::KeyExchange, Self::Keys, Self::Service, Self::Asked];
}

// === impl Cell ===

impl Cell {
    /// Where the client stops, if it does.
    pub(super) fn stops(self) -> Option<Point> {
        match self.end {
            End::Aborted(point) | End::TimedOut(point) => Some(point),
            End::Accepted | End::Refused | End::Stranger => None,
        }
    }

    /// What `halfsecond logins` has to tell of it, at a server with or without PAM.
    pub(super) fn expected(self, pam: bool) -> Expected {
        let attempts: Vec<_> = self.attempt().into_iter().collect();
        // A key that may not log in is refused before there is anything to verify.
        let verified = !(self.end == End::Refused && self.way.is_key());
        let decided = verified && attempts.iter().any(|(_, verdict)| *verdict != "undecided");
        let accepted = self.end == End::Accepted;
        let reached = [
            ("link", true),
            ("key_exchange", self.stops().is_none_or(|point| point >= Point::Asked)),
            ("auth", decided),
            // Without PAM nobody is asked about the account.
            ("pam", accepted && pam),
            ("session", accepted),
        ];
        Expected {
            outcome: self.outcome(),
            method: attempts.first().map(|(method, _)| *method),
            user: accepted.then_some(USER),
            attempts,
            key: self.way.key(),
            phases: reached.into_iter().filter(|(_, is)| *is).map(|(name, _)| name).collect(),
            session: accepted,
        }
    }

    fn outcome(self) -> &'static str {
        match self.end {
            End::Accepted => "accepted",
            // sshd's network child answers `none` by itself: its monitor hears of no attempt.
            End::Refused if self.way == Way::Nothing => "aborted",
            End::Refused | End::Stranger => "refused",
            End::Aborted(_) => "aborted",
            End::TimedOut(_) => "timed_out",
        }
    }

    /// What sshd's monitor hears of an attempt, and says to it.
    fn attempt(self) -> Option<(&'static str, &'static str)> {
        let method = self.way.method()?;
        match self.end {
            End::Accepted => Some((method, "accepted")),
            End::Refused | End::Stranger => Some((method, "refused")),
            // Whoever wants to send a password asks for nothing before.
            End::Aborted(Point::Middle) | End::TimedOut(Point::Middle)
                if self.way != Way::Password =>
            {
                Some((method, "undecided"))
            }
            End::Aborted(_) | End::TimedOut(_) => None,
        }
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Rsa => "publickey rsa",
            Self::Ed25519 => "publickey ed25519",
            Self::Ecdsa => "publickey ecdsa",
            Self::Password => "password",
            Self::Dialogue => "keyboard-interactive",
            Self::Nothing => "none",
        })
    }
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connect => "after connect",
            Self::Banner => "after banner",
            Self::KeyExchange => "in key exchange",
            Self::Keys => "after key exchange",
            Self::Service => "before user",
            Self::Asked => "after user",
            Self::Middle => "in authentication",
        })
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::Accepted => "accepted".to_owned(),
            Self::Refused => "refused".to_owned(),
            Self::Stranger => "refused, unknown user".to_owned(),
            Self::Aborted(point) => format!("aborted {point}"),
            Self::TimedOut(point) => format!("timed out {point}"),
        };
        f.pad(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expected(way: Way, end: End, pam: bool) -> Expected {
        Cell { way, end }.expected(pam)
    }

    #[test]
    fn a_login_reaches_every_phase_and_pam_only_where_it_is_used() {
        let with = expected(Way::Rsa, End::Accepted, true);
        assert_eq!(with.phases, ["link", "key_exchange", "auth", "pam", "session"]);
        let without = expected(Way::Password, End::Accepted, false);
        assert_eq!(without.phases, ["link", "key_exchange", "auth", "session"]);
        assert_eq!((without.user, without.session), (Some(USER), true));
    }

    #[test]
    fn whoever_goes_early_has_reached_little_and_is_not_named() {
        let early = expected(Way::Ed25519, End::Aborted(Point::Service), true);
        assert_eq!((early.phases, early.user, early.method), (vec!["link"], None, None));
        let asked = expected(Way::Password, End::TimedOut(Point::Middle), true);
        assert_eq!((asked.phases, asked.attempts), (vec!["link", "key_exchange"], vec![]));
        let begun = expected(Way::Dialogue, End::Aborted(Point::Middle), true);
        assert_eq!(begun.attempts, [("keyboard-interactive", "undecided")]);
    }

    #[test]
    fn every_cell_is_there_once() {
        let cells = all();
        for (place, cell) in cells.iter().enumerate() {
            assert!(!cells[..place].contains(cell), "{cell:?} is there twice");
        }
        assert_eq!(cells.len(), 34);
    }
}
