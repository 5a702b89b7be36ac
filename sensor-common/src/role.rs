//! What a process means to the sensor, as bits the kernel side keeps per process.

/// A set of role bits. Carried in [`crate::Header::role`] and in the maps `GUARDED` (per file)
/// and `PROCS` (per process).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Role(pub u32);

impl Role {
    /// No interest beyond the host-wide events.
    pub const NONE: Self = Self(0);
    /// The executable is a guarded program (sshd, sudo, su, login by default).
    pub const GUARDED: Self = Self(1);
    /// The executable belongs to an OpenSSH server: sshd, sshd-session or sshd-auth.
    pub const SSHD: Self = Self(1 << 1);
    /// Some ancestor is an OpenSSH server process and no session has begun below it yet.
    pub const BELOW_SSHD: Self = Self(1 << 2);

    /// True if every bit of `other` is set.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The bits of both.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The bits of `self` that are not in `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// True if no bit is set: the process's records travel in the bulk ring.
    #[must_use]
    pub const fn is_none(self) -> bool {
        self.0 == 0
    }
}
