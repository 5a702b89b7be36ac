//! Upgrades that explain themselves: a library in the place of one that is known, brought there by its
//! package.
//!
//! Three things must hold: another build of the library is known; the file is what its package records;
//! and the records, where they tell since when this version is installed, name a time after the known
//! build was first seen. Then the file is no news, and it may do what the one before it did. What it
//! does beyond that is judged as ever: its hooks, times and redirected slots, and calls of functions that
//! the one before it did not call, as a package can bring anything.
//!
//! Blind to who writes a package's records together with its files, as only root can.

use super::judge::{self, Judged};
use super::{Draft, World};
use crate::baseline::{Baseline, Seen};
use crate::event::FileKey;
use crate::finding::{Exposure, Severity};
use crate::host::{Body, Library, ModuleId, Observation};
use crate::package::Owned;

/// A file that has come in the place of another.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Upgrade<'a> {
    /// The one before it.
    pub(crate) known: &'a ModuleId,
    /// The package that has brought it.
    pub(crate) owned: &'a Owned,
}

/// What this module has replaced; `file` where it is known.
pub(crate) fn replaced<'a>(
    module: &ModuleId,
    file: Option<&FileKey>,
    world: &World<'a>,
) -> Option<Upgrade<'a>> {
    let owned = world.packages.vouched(module, file)?;
    let since = |seen: &Seen| owned.installed.is_none_or(|at| at > seen.first);
    let known = &world.own.libraries;
    let before = known.iter().rev().find(|(known, seen)| is_before(known, module) && since(seen));
    before.map(|(known, _)| Upgrade { known, owned })
}

/// The same of a library that lies where nobody can write but root and whoever runs the program.
pub(crate) fn of_library<'a>(library: &Library, world: &World<'a>) -> Option<Upgrade<'a>> {
    let ordinary = library.placed.exposure == Exposure::Ordinary;
    replaced(&library.module, Some(&library.file), world).filter(|_| ordinary)
}

/// Whether this library was learned in the place of another after the program's detectors had begun to
/// speak: on its package's word alone, so that it may do what that one did, and nothing first.
pub(crate) fn has_followed(module: &ModuleId, baseline: &Baseline) -> bool {
    let libraries = &baseline.libraries;
    // As it was learned: of a file without a build-id not everyone knows the times.
    let Some((own, came)) = libraries.iter().find(|(known, _)| known.same_file(module)) else {
        return false;
    };
    baseline.settled_at.is_none_or(|settled| came.first > settled)
        && libraries.iter().any(|(known, seen)| seen.first < came.first && is_before(known, own))
}

/// Takes the weight off a finding that an upgrade accounts for.
pub(crate) fn explain(seen: &Observation, draft: &mut Draft, world: &World<'_>) {
    let of = |module: &ModuleId| replaced(module, None, world);
    let upgrade = match (&seen.body, draft.detector) {
        (Body::Library(library), "library_unexpected") => of_library(library, world),
        // The package's word may have come after the finding was made.
        (Body::Opened(opening), "dlopen_unexpected")
            if judge::opening(seen, opening, world) != Judged::Unexpected =>
        {
            let asker = opening.asked.as_ref().map(|asked| asked.place.module.before_deletion());
            let file = Some(&opening.file);
            replaced(&opening.module, file, world).or_else(|| of(&asker?))
        }
        (Body::Called(call), "foreign_caller") => call
            .by()
            .filter(|from| judge::caller(seen, call, from, world) != Judged::Unexpected)
            .and_then(|from| of(&from.module)),
        _ => None,
    };
    let Some(Upgrade { owned, .. }) = upgrade else { return };
    // Without a date it is the digest alone that says so.
    let least = if owned.installed.is_some() { Severity::Info } else { Severity::Low };
    draft.severity = draft.severity.min(least);
    draft.confidence = draft.confidence.min(0.2);
    draft.explained_by = Some(text(owned));
}

/// `the upgrade of liblzma5 from 5.4.1-0.2 to 5.4.1-1`
fn text(owned: &Owned) -> String {
    let Owned { package, version, previous, .. } = owned;
    match previous {
        Some(previous) => format!("the upgrade of {package} from {previous} to {version}"),
        None => format!("the upgrade of {package} to {version}"),
    }
}

/// The files whose package might explain a finding on this, and whether each may be an upgrade of a
/// library that is known.
pub(crate) fn awaited<'a>(seen: &'a Observation, baseline: &Baseline) -> Vec<(&'a ModuleId, bool)> {
    let follows = |module: &ModuleId| {
        let mut known = baseline.libraries.iter();
        !baseline.has_library(module) && known.any(|(known, _)| is_before(known, module))
    };
    match &seen.body {
        Body::Library(library) if library.asked => {
            vec![(&library.module, follows(&library.module))]
        }
        Body::Opened(opening) => {
            let asker = opening.asked.as_ref().map(|asked| &asked.place.module);
            let files = [Some(&opening.module), asker.filter(|asker| asker.is_mapped_file())];
            let files = files.into_iter().flatten().filter(|module| follows(module));
            files.map(|module| (module, true)).collect()
        }
        // Only who goes on with what another build did.
        Body::Called(call) => {
            let callers = baseline.callers.get(&call.function);
            let goes_on = |module: &&ModuleId| {
                let mut known = callers.into_iter().flat_map(|callers| &callers.modules);
                follows(module) && known.any(|known| is_before(known, module))
            };
            let from = call.by().map(|from| &from.module).filter(goes_on);
            from.map(|module| (module, true)).into_iter().collect()
        }
        _ => Vec::new(),
    }
}

/// Another build of the same library.
fn is_before(known: &ModuleId, module: &ModuleId) -> bool {
    let another = known != module && !module.is_unread();
    another && module.is_mapped_file() && line_of(&known.path) == line_of(&module.path)
}

/// What all versions of a library that can take each other's place have in common:
/// `/usr/lib/liblzma.so.5` of `/usr/lib/liblzma.so.5.4.1`.
fn line_of(path: &str) -> &str {
    let name = path.rsplit_once('/').map_or(path, |(_, name)| name);
    let Some((_, version)) = name.split_once(".so.") else { return path };
    let further = version.find('.').map_or(0, |at| version.len() - at);
    path.get(..path.len() - further).unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_followed_is_known_by_its_file_where_it_has_no_build_id() {
        let at = |second| jiff::Timestamp::from_second(second).unwrap();
        let seen = |first| Seen { first: at(first), last: at(9) };
        let module =
            |build: &str| ModuleId { path: "/usr/lib/libx.so.1".into(), build: build.into() };
        let (before, after) = (module("aa"), module("inode:8:1:7:5:4096"));
        let baseline = Baseline {
            settled_at: Some(at(2)),
            libraries: vec![(before.clone(), seen(1)), (after.clone(), seen(3))],
            ..Baseline::default()
        };
        assert!(has_followed(&after, &baseline) && !has_followed(&before, &baseline));
        let again = ModuleId { build: "inode:8:1:7:6:4096".into(), ..after.clone() };
        assert_eq!(has_followed(&again, &baseline), baseline.has_library(&again));
        assert!(baseline.has_library(&again), "it tests nothing");
        // It was there before the detectors spoke.
        assert!(!has_followed(&after, &Baseline { settled_at: Some(at(3)), ..baseline }));
    }

    #[test]
    fn versions_of_one_interface_are_one_library() {
        for (path, line) in [
            ("/usr/lib/liblzma.so.5.4.1", "/usr/lib/liblzma.so.5"),
            ("/usr/lib/libcrypto.so.3", "/usr/lib/libcrypto.so.3"),
            ("/usr/lib/security/pam_unix.so", "/usr/lib/security/pam_unix.so"),
            ("/usr/lib.so.1.2/x", "/usr/lib.so.1.2/x"),
            ("/usr/lib/libx.so.", "/usr/lib/libx.so."),
        ] {
            assert_eq!(line_of(path), line);
        }
    }

    #[test]
    fn another_interface_another_directory_and_the_same_file_take_nobodys_place() {
        let module = |path: &str, build: &str| ModuleId { path: path.into(), build: build.into() };
        let known = module("/usr/lib/liblzma.so.5.4.1", "aa");
        assert!(is_before(&known, &module("/usr/lib/liblzma.so.5.6.1", "bb")));
        assert!(is_before(&known, &module("/usr/lib/liblzma.so.5.4.1", "bb")));
        for (path, build) in [
            ("/usr/lib/liblzma.so.5.4.1", "aa"),
            ("/usr/lib/liblzma.so.6.0.0", "bb"),
            ("/tmp/liblzma.so.5.4.1", "bb"),
            ("/usr/lib/liblzma.so.5.4.1", "unread:8:1:7:1:4096"),
            ("/usr/lib/liblzma.so.5.4.1 (deleted)", "bb"),
        ] {
            assert!(!is_before(&known, &module(path, build)), "{path} {build}");
        }
    }
}
