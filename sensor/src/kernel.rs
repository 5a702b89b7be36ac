//! What the running kernel says about itself: its type information and release.

pub mod btf;
pub mod offsets;

use std::fmt;

/// Where the kernel publishes its own type information (`CONFIG_DEBUG_INFO_BTF`).
pub const BTF_PATH: &str = "/sys/kernel/btf/vmlinux";

/// `uname -r`, for messages only: features are found by trying.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release(pub String);

impl Release {
    /// The running kernel's.
    pub fn current() -> Self {
        Self(rustix::system::uname().release().to_string_lossy().into_owned())
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
