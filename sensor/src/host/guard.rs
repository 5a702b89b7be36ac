//! Which programs are guarded and which libraries hold watched functions, by configuration.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::config::{GuardedFunction, GuardedProgram};
use crate::event::Role;

/// Answers by path.
#[derive(Clone, Debug)]
pub(super) struct Guards {
    /// By their file names: every start of a program asks, and nearly none has such a name.
    programs: BTreeMap<OsString, Vec<Guarded>>,
    functions: Vec<GuardedFunction>,
}

#[derive(Clone, Debug)]
struct Guarded {
    path: PathBuf,
    /// The same without the leading slash: what a path in a chroot or container ends with.
    tail: PathBuf,
    role: Role,
}

impl Guards {
    pub(super) fn new(programs: &[GuardedProgram], functions: &[GuardedFunction]) -> Self {
        let mut by_name: BTreeMap<OsString, Vec<Guarded>> = BTreeMap::new();
        for program in programs {
            let Some(name) = program.path.file_name() else { continue };
            by_name.entry(name.to_owned()).or_default().push(Guarded {
                path: program.path.clone(),
                tail: program.path.strip_prefix("/").unwrap_or(&program.path).to_owned(),
                role: if program.sshd { Role::GUARDED.with(Role::SSHD) } else { Role::GUARDED },
            });
        }
        Self { programs: by_name, functions: functions.to_vec() }
    }

    /// Role of the program at `path`: whole components are compared, so `/tmp/xsshd` is not `sshd`.
    pub(super) fn role(&self, path: &Path) -> Role {
        let named = path.file_name().and_then(|name| self.programs.get(name));
        named
            .into_iter()
            .flatten()
            .filter(|guarded| path.ends_with(&guarded.tail))
            .fold(Role::NONE, |role, guarded| role.with(guarded.role))
    }

    /// The paths themselves, for the files on this host.
    pub(super) fn paths(&self) -> impl Iterator<Item = (&Path, Role)> {
        let all = self.programs.values().flatten();
        all.map(|guarded| (guarded.path.as_path(), guarded.role))
    }

    /// The configured name of a function that was found by address: of names for the same code, the
    /// nearest symbol may be another one (glibc's `crypt_r` is `xcrypt_r` too).
    pub(super) fn function(&self, found: String) -> String {
        let names = || self.functions.iter().map(|function| &function.symbol);
        if names().any(|name| *name == found) {
            return found;
        }
        names().filter(|name| found.ends_with(name.as_str())).max().cloned().unwrap_or(found)
    }

    /// A function of that very name is watched.
    pub(super) fn is_function(&self, name: &str) -> bool {
        self.functions.iter().any(|function| function.symbol == name)
    }

    /// Watched functions that the library at `path` may export.
    pub(super) fn symbols(&self, path: &Path) -> Vec<String> {
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
            return Vec::new();
        };
        self.functions
            .iter()
            .filter(|function| is_version_of(name, &function.library))
            .map(|function| function.symbol.clone())
            .collect()
    }
}

/// `libcrypto.so.3` and `libcrypto.so` are `libcrypto.so`; `libcrypto.so3` is not.
fn is_version_of(name: &str, library: &str) -> bool {
    name.strip_prefix(library).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn guards() -> Guards {
        let config = Config::default();
        Guards::new(&config.guarded, &config.functions)
    }

    #[test]
    fn guarded_paths_match_on_the_host_and_below_another_root() {
        let guards = guards();
        let sshd = Role::GUARDED.with(Role::SSHD);
        assert_eq!(guards.role(Path::new("/usr/sbin/sshd")), sshd);
        assert_eq!(guards.role(Path::new("/srv/trixie/usr/lib/openssh/sshd-session")), sshd);
        assert_eq!(guards.role(Path::new("/usr/bin/sudo")), Role::GUARDED);
        for other in ["/usr/sbin/sshd2", "/tmp/xusr/sbin/sshd", "/usr/sbin/sshd/x", "sshd", "/"] {
            assert_eq!(guards.role(Path::new(other)), Role::NONE, "{other}");
        }
    }

    #[test]
    fn an_alias_is_told_by_its_configured_name() {
        let guards = guards();
        for (found, told) in [
            ("xcrypt_r", "crypt_r"),
            ("xcrypt", "crypt"),
            ("crypt", "crypt"),
            ("RSA_public_decrypt", "RSA_public_decrypt"),
            ("strlen", "strlen"),
        ] {
            assert_eq!(guards.function(found.to_owned()), told);
        }
    }

    #[test]
    fn an_empty_configured_path_guards_nothing() {
        let program = GuardedProgram { path: PathBuf::from("/"), sshd: true };
        assert_eq!(Guards::new(&[program], &[]).role(Path::new("/bin/sh")), Role::NONE);
    }

    #[test]
    fn watched_libraries_match_up_to_their_version() {
        let guards = guards();
        let symbols = guards.symbols(Path::new("/lib/x86_64-linux-gnu/libcrypto.so.3"));
        assert!(symbols.contains(&"RSA_public_decrypt".to_owned()), "{symbols:?}");
        assert_eq!(guards.symbols(Path::new("/lib/libcrypt.so.1")), ["crypt", "crypt_r"]);
        assert!(guards.symbols(Path::new("/lib/libcrypto.sox")).is_empty());
        assert!(guards.symbols(Path::new("/lib/libc.so.6")).is_empty());
    }
}
