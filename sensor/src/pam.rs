//! PAM's configuration: what the lines of a service say, and what they come to together.
//!
//! Both are total over whatever a file holds: bounded, and what libpam would not understand is
//! kept as it is written.

mod line;
mod stack;

pub(crate) use line::{Facility, Line, entries};
pub(crate) use stack::Services;

/// Directories of service files, the first in which a service is found counts (Linux-PAM 1.7,
/// `libpam/pam_handlers.c`, `_pam_open_config_file`; openSUSE builds it with `/usr/etc` for the
/// vendor's).
pub(crate) const SERVICE_DIRS: [&str; 3] = ["/etc/pam.d", "/usr/lib/pam.d", "/usr/etc/pam.d"];
/// The file that counts where `/etc/pam.d` is not there.
pub(crate) const CONF: &str = "/etc/pam.conf";

/// The last part of a module's path: how lines name modules of the distribution.
pub(crate) fn base(module: &str) -> &str {
    module.rsplit('/').next().unwrap_or(module)
}
