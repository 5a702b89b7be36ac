//! Moments in the life of an sshd connection that its phases lie between.

use serde::{Deserialize, Serialize};

/// A moment, and what had been used by then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// The event's clock, `CLOCK_MONOTONIC` ns.
    pub ktime_ns: u64,
    /// CPU time of all the connection's processes since accept, ns.
    pub cpu_ns: u64,
    /// Minor page faults of all of them since then.
    pub minor_faults: u64,
}

/// What has been reached so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marks {
    /// The network child asked for the user: keys are exchanged (RFC 4253, 10: the service request
    /// follows them).
    pub asked: Option<Mark>,
    /// PAM's word on the account, the last one.
    pub account: Option<Mark>,
    /// The monitor let the key that was offered last not log in.
    pub key_refused: bool,
    /// What the connection's first process ended with: status << 8 | signal.
    pub exit_code: Option<u32>,
}
