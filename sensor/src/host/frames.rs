//! What a frame between sshd's monitor and its network child says.
//!
//! Types are `enum monitor_reqtype` of OpenSSH's monitor.h, the same from 8.4 to 10.x.

use sensor_common::record::FRAME_KEY_ALLOWED;

use super::method::Method;

/// Its first word for a host's (`monitor_wrap.h`, `MM_HOSTKEY`).
const HOST_KEY: u32 = 1;

/// A frame's meaning for the life of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// The network child asks about a user.
    User,
    /// The network child begins or goes on with a method.
    Attempt(Method),
    /// The monitor's answer that ends an attempt.
    Answer(Method, bool),
    /// The monitor's answer to a key that was offered, not yet used: whether it may log in. Nothing is
    /// proven by it.
    Offered(bool),
    /// PAM's word on the account, after the method's own answer.
    Account(bool),
    /// The network child hands over its keys: it takes authentication for finished.
    KeyExport,
    /// Anything else, and answers whose value is missing.
    Other,
}

/// Reads type and first word.
pub(super) fn read(frame_type: u8, verdict: Option<u32>) -> Said {
    let answer = |method, accepting: u32| match verdict {
        Some(value) => Said::Answer(method, value == accepting),
        None => Said::Other,
    };
    match frame_type {
        8 => Said::User,
        12 => Said::Attempt(Method::Password),
        13 => answer(Method::Password, 1),
        FRAME_KEY_ALLOWED if verdict == Some(HOST_KEY) => Said::Attempt(Method::Hostbased),
        FRAME_KEY_ALLOWED | 24 => Said::Attempt(Method::Publickey),
        23 => verdict.map_or(Said::Other, |value| Said::Offered(value == 1)),
        // mm_answer_keyverify sends ssh_err's scale: 0 is success.
        25 => answer(Method::Publickey, 0),
        26 => Said::KeyExport,
        42 | 44 | 46 | 48 => Said::Attempt(Method::GssapiWithMic),
        47 => answer(Method::GssapiWithMic, 1),
        103 => verdict.map_or(Said::Other, |value| Said::Account(value == 1)),
        104 | 106 | 108 => Said::Attempt(Method::KeyboardInteractive),
        // sshpam_query: 0 a question, or an end that the respond after it tells; -1 failed, as by a
        // wrong password. It never accepts.
        107 => match verdict {
            None | Some(0) => Said::Other,
            Some(_) => Said::Answer(Method::KeyboardInteractive, false),
        },
        // sshpam_respond: 0 done, 1 another question, -1 failed, where PAM had something to say.
        109 if verdict == Some(1) => Said::Other,
        109 => answer(Method::KeyboardInteractive, 0),
        _ => Said::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_is_offered_may_log_in_or_not() {
        assert_eq!([0, 1].map(|value| read(23, Some(value))), [false, true].map(Said::Offered));
        assert_eq!(read(23, None), Said::Other);
    }

    #[test]
    fn success_is_1_for_a_password_and_0_for_a_signature() {
        assert_eq!(read(13, Some(1)), Said::Answer(Method::Password, true));
        assert_eq!(read(13, Some(0)), Said::Answer(Method::Password, false));
        assert_eq!(read(25, Some(0)), Said::Answer(Method::Publickey, true));
        assert_eq!(read(25, Some(u32::MAX)), Said::Answer(Method::Publickey, false));
        assert_eq!(read(109, Some(0)), Said::Answer(Method::KeyboardInteractive, true));
        assert_eq!(read(109, Some(1)), Said::Other);
        let failed = Said::Answer(Method::KeyboardInteractive, false);
        assert_eq!((read(107, Some(u32::MAX)), read(109, Some(u32::MAX))), (failed, failed));
        assert_eq!(read(107, Some(0)), Said::Other, "a question, or an end");
        assert_eq!(read(103, Some(1)), Said::Account(true));
        assert_eq!(read(47, Some(1)), Said::Answer(Method::GssapiWithMic, true));
        assert_eq!(read(47, Some(0)), Said::Answer(Method::GssapiWithMic, false));
    }

    #[test]
    fn a_key_that_is_looked_up_is_a_users_or_a_hosts() {
        let of = |word| read(FRAME_KEY_ALLOWED, word);
        assert_eq!(of(Some(1)), Said::Attempt(Method::Hostbased));
        // Where nobody could read it, the usual one.
        for word in [Some(2), None] {
            assert_eq!(of(word), Said::Attempt(Method::Publickey), "{word:?}");
        }
    }

    #[test]
    fn an_answer_without_its_value_says_nothing() {
        for frame_type in [13, 25, 47, 103, 107, 109] {
            assert_eq!(read(frame_type, None), Said::Other, "{frame_type}");
        }
    }
}
