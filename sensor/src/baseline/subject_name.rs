//! Names of subjects: a program's path, a blank and its build; below a container also which image.

use std::path::Path;

use crate::config::GuardedProgram;

/// What the configuration says of a subject's program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RoleOf {
    /// It is guarded.
    pub guarded: bool,
    /// It belongs to an OpenSSH server: it counts logins.
    pub sshd: bool,
}

/// A subject's name in parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubjectName<'a> {
    /// Path of the program; for the host's own instrumentation its whole name.
    pub path: &'a str,
    /// Build-id, or what stands for it; empty where there is none.
    pub build: &'a str,
    /// `image:…` or `file:…` of a container; empty on the host.
    pub home: &'a str,
}

// === impl SubjectName ===

impl<'a> SubjectName<'a> {
    /// Takes a name apart. Every name has parts, sensible or not.
    #[must_use]
    pub fn of(subject: &'a str) -> Self {
        if !subject.starts_with('/') {
            return Self { path: subject, build: "", home: "" };
        }
        let (rest, home) = match subject.rsplit_once(' ') {
            Some((rest, home)) if home.starts_with("image:") || home.starts_with("file:") => {
                (rest, home)
            }
            _ => (subject, ""),
        };
        let (path, build) = rest.rsplit_once(' ').unwrap_or((rest, ""));
        Self { path, build, home }
    }
}

/// Whether the subject's program is guarded: by whole components of its path, as the host station
/// decides, so that programs in containers and chroots count as well.
#[must_use]
pub fn role_of(subject: &str, guarded: &[GuardedProgram]) -> RoleOf {
    let path = Path::new(SubjectName::of(subject).path);
    let mut role = RoleOf::default();
    for program in guarded {
        let tail = program.path.strip_prefix("/").unwrap_or(&program.path);
        if path.ends_with(tail) {
            role.guarded = true;
            role.sshd |= program.sshd;
        }
    }
    role
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn a_name_has_a_path_a_build_and_in_a_container_a_home() {
        let parts = |name| {
            let SubjectName { path, build, home } = SubjectName::of(name);
            (path, build, home)
        };
        assert_eq!(parts("/usr/sbin/sshd ab"), ("/usr/sbin/sshd", "ab", ""));
        assert_eq!(parts("/opt/a b ab image:cd"), ("/opt/a b", "ab", "image:cd"));
        assert_eq!(parts("/x inode:8:1:7:9:10 file:cd"), ("/x", "inode:8:1:7:9:10", "file:cd"));
        assert_eq!(parts("(host) instrumentation"), ("(host) instrumentation", "", ""));
        assert_eq!(parts("/x"), ("/x", "", ""));
    }

    #[test]
    fn guarded_programs_are_those_of_the_configuration_on_the_host_and_below_another_root() {
        let role = |subject| role_of(subject, &Config::default().guarded);
        let sshd = RoleOf { guarded: true, sshd: true };
        assert_eq!(role("/usr/sbin/sshd ab"), sshd);
        assert_eq!(role("/srv/root/usr/sbin/sshd ab image:cd"), sshd);
        assert_eq!(role("/usr/bin/sudo ab"), RoleOf { guarded: true, sshd: false });
        assert_eq!(role("/tmp/xsshd ab"), RoleOf::default());
    }
}
