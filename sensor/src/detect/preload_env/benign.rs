//! Preloaded libraries that explain themselves: well known by name, and in a place that only the
//! distribution and root decide about. A name alone never suffices.

use crate::host::{Ownership, Preloaded, Variable};

/// File names begin so, and what that is.
const KNOWN: [(&str, &str); 27] = [
    ("libjemalloc.so", "the allocator jemalloc"),
    ("libtcmalloc", "the allocator tcmalloc"),
    ("libmimalloc", "the allocator mimalloc"),
    ("libhoard.so", "the allocator hoard"),
    ("libtbbmalloc", "the allocator of oneTBB"),
    ("libclang_rt.scudo", "the allocator scudo"),
    ("libclang_rt.", "a sanitizer of clang"),
    ("libasan.so", "AddressSanitizer"),
    ("libhwasan.so", "AddressSanitizer"),
    ("libtsan.so", "ThreadSanitizer"),
    ("libubsan.so", "UndefinedBehaviorSanitizer"),
    ("liblsan.so", "LeakSanitizer"),
    ("libfakeroot", "fakeroot"),
    ("libfakechroot.so", "fakechroot"),
    ("libfaketime", "faketime"),
    ("libeatmydata.so", "eatmydata"),
    ("libstdbuf.so", "stdbuf"),
    ("libtorsocks.so", "torsocks"),
    ("libproxychains", "proxychains"),
    ("vgpreload_", "valgrind"),
    ("libgtk3-nocsd.so", "gtk3-nocsd"),
    ("libmemusage.so", "glibc's memusage"),
    ("libpcprofile.so", "glibc's pcprofile"),
    ("libSegFault.so", "glibc's catchsegv"),
    ("libsandbox.so", "Gentoo's sandbox"),
    ("libnvidia-", "NVIDIA's driver"),
    ("libheaptrack_", "heaptrack"),
];

/// What the distribution installs into; `/usr/local` is anyone's who is root for a moment.
const SYSTEM: [&str; 7] =
    ["/usr/lib/", "/usr/lib32/", "/usr/lib64/", "/usr/libexec/", "/lib/", "/lib64/", "/opt/"];
/// A snap's own files, on a file system that cannot be written to.
const SNAP: &str = "/snap/";

/// Why nothing is wrong with a variable, if every library of it is accounted for.
pub(super) fn explain(variable: &Variable) -> Option<String> {
    if variable.cut || variable.late || variable.libraries.is_empty() {
        return None;
    }
    let mut reasons: Vec<String> = Vec::new();
    for library in &variable.libraries {
        let reason = reason(library)?;
        if !reasons.contains(&reason) {
            reasons.push(reason);
        }
    }
    Some(reasons.join(", "))
}

/// Whether what keeps a variable from explaining itself is only that nobody could look.
pub(super) fn is_unseen(variable: &Variable) -> bool {
    variable.libraries.iter().all(|library| library.unseen || reason(library).is_some())
        && variable.libraries.iter().any(|library| library.unseen)
}

fn reason(library: &Preloaded) -> Option<String> {
    let file = library.file.as_ref().filter(|file| file.protected)?;
    let name = file.path.rsplit('/').next().unwrap_or_default();
    let known = KNOWN.iter().find(|(start, _)| name.starts_with(start)).map(|(_, what)| *what);
    let place = |places: &[&str]| places.iter().any(|place| file.path.starts_with(place));
    match (&library.owner, known) {
        // Of a snap's files no database of the host's knows.
        _ if place(&[SNAP]) => Some("a library of the snap itself".to_owned()),
        (Ownership::Package(package), Some(what)) => Some(format!("{what} (package {package})")),
        (Ownership::Unknown, Some(what)) if place(&SYSTEM) => Some(what.to_owned()),
        _ => None,
    }
}

/// What was found out about a library, as a sentence.
pub(super) fn found(library: &Preloaded) -> String {
    let Some(file) = &library.file else {
        let how = if library.unseen { "could not be looked for" } else { "was not found" };
        return format!("{} {how}", library.name);
    };
    let who = match (&library.owner, file.protected) {
        (Ownership::Package(package), _) => format!("of package {package}"),
        (Ownership::Differs(package), _) => {
            format!("where package {package} has one, but is not what that brought")
        }
        (Ownership::Nobody, true) => "of no package, in a place only root may write to".to_owned(),
        (Ownership::Nobody, false) => {
            "of no package, in a place others than root may write to".to_owned()
        }
        (Ownership::Unknown, true) => "in a place only root may write to".to_owned(),
        (Ownership::Unknown, false) => "in a place others than root may write to".to_owned(),
    };
    if library.name == file.path {
        return format!("{} is {who}", file.path);
    }
    format!("{} is {}, {who}", library.name, file.path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::{FoundLibrary, Owners};

    fn library(path: &str, protected: bool, owner: Ownership) -> Preloaded {
        let file = FoundLibrary { path: path.to_owned(), inode: 7, set_uid: false, protected };
        Preloaded { name: "x".to_owned(), file: Some(file), unseen: false, owner }
    }

    fn variable(libraries: Vec<Preloaded>) -> Variable {
        Variable {
            name: "LD_PRELOAD".to_owned(),
            value: "x".to_owned(),
            inherited: false,
            again: false,
            cut: false,
            late: false,
            libraries,
            owners: Owners::NotAsked,
        }
    }

    const JEMALLOC: &str = "/usr/lib/x86_64-linux-gnu/libjemalloc.so.2";

    #[test]
    fn a_known_library_of_the_distribution_explains_itself() {
        let cheap = variable(vec![library(JEMALLOC, true, Ownership::Unknown)]);
        assert_eq!(explain(&cheap).as_deref(), Some("the allocator jemalloc"));
        let package = Ownership::Package("libjemalloc2 5.3.0-1".to_owned());
        let owned = variable(vec![library(JEMALLOC, true, package)]);
        let reason = explain(&owned).unwrap();
        assert_eq!(reason, "the allocator jemalloc (package libjemalloc2 5.3.0-1)");
    }

    #[test]
    fn the_name_alone_explains_nothing() {
        for library in [
            library("/tmp/libjemalloc.so.2", false, Ownership::Unknown),
            library(JEMALLOC, false, Ownership::Unknown),
            library(JEMALLOC, true, Ownership::Nobody),
            library(JEMALLOC, true, Ownership::Differs("libjemalloc2 5.3.0-1".to_owned())),
            library("/usr/local/lib/libjemalloc.so.2", true, Ownership::Unknown),
            library("/root/libjemalloc.so.2", true, Ownership::Unknown),
            library("/usr/lib/libevil.so", true, Ownership::Unknown),
            library("/snap/x/1/lib/y.so", false, Ownership::Unknown),
            Preloaded {
                name: "libjemalloc.so.2".to_owned(),
                file: None,
                unseen: false,
                owner: Ownership::Unknown,
            },
        ] {
            assert_eq!(explain(&variable(vec![library.clone()])), None, "{library:?}");
            assert!(!is_unseen(&variable(vec![library])));
        }
    }

    #[test]
    fn what_nobody_could_look_for_neither_explains_nor_hides_a_stranger() {
        let unseen = Preloaded {
            name: "/usr/$LIB/faketime/libfaketime.so.1".to_owned(),
            file: None,
            unseen: true,
            owner: Ownership::Unknown,
        };
        assert!(found(&unseen).ends_with("could not be looked for"));
        let alone = variable(vec![unseen.clone()]);
        assert!(is_unseen(&alone) && explain(&alone).is_none());
        let known = library(JEMALLOC, true, Ownership::Unknown);
        assert!(is_unseen(&variable(vec![known, unseen.clone()])));
        let stranger = library("/tmp/x.so", false, Ownership::Unknown);
        assert!(!is_unseen(&variable(vec![unseen, stranger])));
    }

    #[test]
    fn one_stranger_among_known_ones_is_not_explained() {
        let known = library(JEMALLOC, true, Ownership::Unknown);
        let stranger = library("/tmp/x.so", false, Ownership::Unknown);
        assert_eq!(explain(&variable(vec![known.clone(), stranger])), None);
        let snap = library("/snap/core/1/lib/bindtextdomain.so", true, Ownership::Unknown);
        assert_eq!(
            explain(&variable(vec![known, snap])).as_deref(),
            Some("the allocator jemalloc, a library of the snap itself")
        );
    }

    #[test]
    fn what_was_not_seen_whole_is_not_explained() {
        let known = || vec![library(JEMALLOC, true, Ownership::Unknown)];
        assert_eq!(explain(&Variable { cut: true, ..variable(known()) }), None);
        assert_eq!(explain(&Variable { late: true, ..variable(known()) }), None);
    }
}
