//! What a client has had checked before a verdict: whether two logins can be compared is its choice.
//!
//! A client may offer any number of keys, begin one method after another and break dialogues off; sshd
//! looks each of them up. What a login costs is comparable only where nothing but its one proof was
//! checked.

use super::method::Method;

/// `MONITOR_REQ_KEYALLOWED` and its answer: a key is looked up, 1 where it may log in. OpenSSH's client
/// has its key looked up twice, first without and then with a signature (RFC 4252, 7); others sign at
/// once.
const KEY: (u8, u8) = (22, 23);
/// Requests that begin another method's try: `AUTHPASSWORD`, `GSSSETUP`, `PAM_INIT_CTX`.
const BEGIN: [u8; 3] = [12, 42, 104];
/// Look-ups of one key.
const LOOKUPS: u32 = 2;

/// Requests of one connection so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tries {
    lookups: u32,
    refused: u32,
    begun: u32,
}

// === impl Tries ===

impl Tries {
    /// A request of the network child.
    pub(super) fn asked(&mut self, frame_type: u8) {
        if frame_type == KEY.0 {
            self.lookups = self.lookups.saturating_add(1);
        }
        if BEGIN.contains(&frame_type) {
            self.begun = self.begun.saturating_add(1);
        }
    }

    /// An answer of the monitor; a look-up without a value counts as refused.
    pub(super) fn answered(&mut self, frame_type: u8, value: Option<u32>) {
        if frame_type == KEY.1 && value != Some(1) {
            self.refused = self.refused.saturating_add(1);
        }
    }

    /// A verdict on this method that comes now is comparable: at most one key was offered, and
    ///
    /// * for a public key, a user's or a host's, it is the one that was used: none was refused, none looked up more than
    ///   twice, and no other method was begun;
    /// * for any other method, nothing but this one try was begun. Many clients offer a key before they
    ///   ask for a password, which costs little beside the password.
    pub(super) fn is_one(self, method: Method) -> bool {
        if method.is_by_key() {
            return self.begun == 0 && self.refused == 0 && (1..=LOOKUPS).contains(&self.lookups);
        }
        self.begun == 1 && self.lookups <= 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `(type, value)`: of the network child without a value, of the monitor with one.
    fn tries(frames: &[(u8, Option<u32>)]) -> Tries {
        let mut tries = Tries::default();
        for (frame_type, value) in frames {
            match value {
                Some(_) => tries.answered(*frame_type, *value),
                None => tries.asked(*frame_type),
            }
        }
        tries
    }

    const OFFERED: [(u8, Option<u32>); 2] = [(22, None), (23, Some(1))];
    const REFUSED: [(u8, Option<u32>); 2] = [(22, None), (23, Some(0))];

    #[test]
    fn one_key_is_comparable_whether_or_not_the_client_asks_before_it_signs() {
        let signed = [&OFFERED[..], &[(24, None)]].concat();
        let asked_first = [&OFFERED[..], &signed].concat();
        for frames in [&signed, &asked_first] {
            assert!(tries(frames).is_one(Method::Publickey), "{frames:?}");
        }
        let another_first = [&REFUSED[..], &asked_first].concat();
        let two_offered = [&OFFERED[..], &asked_first].concat();
        let password_begun = [&[(12, None)], &asked_first[..]].concat();
        let unread = [&[(22, None)], &signed[..]].concat();
        let mut unread = tries(&unread);
        unread.answered(23, None);
        for frames in [&another_first, &two_offered, &password_begun] {
            assert!(!tries(frames).is_one(Method::Publickey), "{frames:?}");
        }
        assert!(!unread.is_one(Method::Publickey));
        assert!(!Tries::default().is_one(Method::Publickey), "its look-up was not seen");
    }

    #[test]
    fn another_methods_one_try_is_comparable_after_one_key_at_most() {
        for (method, begin) in [
            (Method::Password, 12),
            (Method::GssapiWithMic, 42),
            (Method::KeyboardInteractive, 104),
        ] {
            let once = [(begin, None)];
            assert!(tries(&once).is_one(method), "{method}");
            assert!(tries(&[&REFUSED[..], &once].concat()).is_one(method), "{method}");
            let keys = [&REFUSED[..], &REFUSED, &once].concat();
            assert!(!tries(&keys).is_one(method), "{method}");
            for other in BEGIN {
                assert!(!tries(&[(other, None), (begin, None)]).is_one(method), "{method}");
            }
            assert!(!Tries::default().is_one(method), "its beginning was not seen");
        }
    }
}
