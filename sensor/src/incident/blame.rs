//! The files that a finding holds against, and what identifies them: what findings of several
//! programs join by, and what suppressions match.

use crate::finding::{Evidence, Finding, Severity};

/// From this many pieces of one kind on, a detector may have left out more.
const MANY: usize = 16;
/// The same for evidence of all kinds, with what `limit::trim` says of it.
const MANY_OF_ALL: usize = 32;

/// One such file, as far as the finding's own evidence identifies it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Blamed<'a> {
    /// Path, or what the kernel calls the memory; empty where nobody is known.
    pub(crate) path: &'a str,
    /// Hex.
    pub(crate) build_id: Option<&'a str>,
    /// `name version (architecture)` of the package that has brought it as it is.
    pub(crate) package: Option<&'a str>,
    /// Hex, where it was told.
    pub(crate) sha256: Option<&'a str>,
}

/// Each once, in the order of evidence; empty where it is about no file.
pub(crate) fn blamed(finding: &Finding) -> Vec<Blamed<'_>> {
    files(finding, object)
}

/// The same for who says which file's finding this is: where changed code leads nowhere nobody is to
/// blame, but it is known whose code it is.
pub(crate) fn known_by(finding: &Finding) -> Vec<Blamed<'_>> {
    files(finding, |finding, evidence| match evidence {
        Evidence::Code { module, build_id, leads_to_module, .. } if leads_to_module.is_empty() => {
            Some((module.as_str(), build_id.as_deref()))
        }
        _ => object(finding, evidence),
    })
}

fn files<'a>(
    finding: &'a Finding,
    object: impl Fn(&Finding, &'a Evidence) -> Option<(&'a str, Option<&'a str>)>,
) -> Vec<Blamed<'a>> {
    let mut found: Vec<Blamed<'_>> = Vec::new();
    let objects = || finding.evidence.iter().filter_map(|one| object(finding, one));
    let libraries = || finding.evidence.iter().filter_map(library);
    // Other detectors add a library to identify the module they speak of.
    let named: Vec<_> =
        if objects().next().is_some() { objects().collect() } else { libraries().collect() };
    for (path, own) in named {
        let told = libraries().find_map(|(known, id)| id.filter(|_| known == path));
        let one = Blamed {
            path,
            build_id: own.or(told),
            package: finding.evidence.iter().find_map(|evidence| package(evidence, path)),
            sha256: finding.evidence.iter().find_map(|evidence| sha256(evidence, path)),
        };
        if !found.contains(&one) {
            found.push(one);
        }
    }
    found
}

/// Whether [`blamed`] names every file there is: a rule for one must not hide another.
pub(crate) fn complete(finding: &Finding) -> bool {
    let many = finding
        .evidence
        .iter()
        .filter(|one| {
            matches!(one, Evidence::Slot { .. } | Evidence::Code { .. } | Evidence::Mapping { .. })
        })
        .count();
    many < MANY && finding.evidence.len() <= MANY_OF_ALL
}

/// What another program's finding must share to join: paths and build-ids. Nothing for what nobody
/// need be told of.
pub(super) fn shared(finding: &Finding) -> Vec<String> {
    if finding.severity == Severity::Info {
        return Vec::new();
    }
    let mut keys = Vec::new();
    for Blamed { path, build_id, .. } in blamed(finding) {
        // Memory that is no file's is called the same everywhere.
        if path.starts_with('/') {
            keys.push(format!("path {path}"));
            keys.extend(build_id.map(|id| format!("build-id {id}")));
        }
    }
    keys
}

fn object<'a>(finding: &Finding, evidence: &'a Evidence) -> Option<(&'a str, Option<&'a str>)> {
    let (path, build_id) = match evidence {
        Evidence::Slot { actual_module, actual_build_id, .. } => (actual_module, actual_build_id),
        // Where it leads nowhere nobody is known; whose code was changed is no culprit.
        Evidence::Code { leads_to_module, leads_to_build_id, .. } => {
            (leads_to_module, leads_to_build_id)
        }
        Evidence::Mapping { module, build_id, .. } => (module, build_id),
        Evidence::Caller { caller_module, .. } => (caller_module, &None),
        Evidence::Audit { callback_module, callback_build_id, .. } => {
            (callback_module, callback_build_id)
        }
        Evidence::Opened { caller_module, caller_build_id, .. }
            if caller_module.starts_with('/') =>
        {
            (caller_module, caller_build_id)
        }
        Evidence::Opened { library, .. } => (library, &None),
        Evidence::Timing { module: Some(module), .. } => (module, &None),
        // What a check found names the hand, too: that is another's story.
        Evidence::Writer { exe, .. } if finding.detector == "remote_write" => (exe, &None),
        _ => return None,
    };
    Some((path.as_str(), build_id.as_deref()))
}

fn library(evidence: &Evidence) -> Option<(&str, Option<&str>)> {
    match evidence {
        Evidence::Library { path, build_id, .. } => Some((path.as_str(), build_id.as_deref())),
        _ => None,
    }
}

fn package<'a>(evidence: &'a Evidence, of: &str) -> Option<&'a str> {
    match evidence {
        Evidence::Package { path, package, content, .. }
            if path == of && content == "matches" && !package.is_empty() =>
        {
            Some(package)
        }
        _ => None,
    }
}

fn sha256<'a>(evidence: &'a Evidence, of: &str) -> Option<&'a str> {
    match evidence {
        Evidence::Package { path, digest: Some(digest), .. } if path == of => {
            digest.strip_prefix("Sha256:")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::{
        BUILD_ID, LIBCRYPTO, LIBCRYPTO_ID, LIBLZMA, foreign_caller, new_library, patched, preload,
        redirected, slow_link,
    };
    use super::*;

    #[test]
    fn the_file_that_is_held_against_is_named_with_what_identifies_it() {
        let liblzma =
            Blamed { path: LIBLZMA, build_id: Some(BUILD_ID), package: None, sha256: None };
        for finding in [redirected(), foreign_caller(), new_library(), slow_link()] {
            assert_eq!(blamed(&finding), [liblzma], "{}", finding.detector);
        }
        assert!(blamed(&preload()).is_empty());
    }

    #[test]
    fn a_package_counts_only_for_its_own_file_and_only_as_it_brought_it() {
        let of = |path: &str, content: &str, digest: Option<&str>| {
            let mut finding = redirected();
            finding.evidence.push(Evidence::Package {
                path: path.to_owned(),
                package: "liblzma5 5.4.1-0.2 (amd64)".to_owned(),
                purl: None,
                installed: None,
                previous: None,
                content: content.to_owned(),
                digest: digest.map(str::to_owned),
            });
            let found = blamed(&finding);
            (found[0].package.is_some(), found[0].sha256.map(str::to_owned))
        };
        assert_eq!(of(LIBLZMA, "matches", None), (true, None));
        assert_eq!(of("/usr/lib/x86_64-linux-gnu/libcrypto.so.3", "matches", None), (false, None));
        assert_eq!(of(LIBLZMA, "differs", Some("Sha256:ab")), (false, Some("ab".to_owned())));
        assert_eq!(of(LIBLZMA, "differs", Some("Md5:ab")), (false, None));
        assert_eq!(of(LIBLZMA, "not_recorded", None), (false, None));
    }

    #[test]
    fn whose_code_was_changed_is_not_blamed_for_it() {
        let finding = patched(false);
        let [nobody] = blamed(&finding).try_into().unwrap();
        assert_eq!((nobody.path, nobody.build_id), ("", None));
        assert!(shared(&finding).is_empty());
        let [known] = known_by(&finding).try_into().unwrap();
        assert_eq!((known.path, known.build_id), (LIBCRYPTO, Some(LIBCRYPTO_ID)));
        // Where it leads somewhere, that is the culprit for everybody.
        let finding = patched(true);
        let [culprit] = blamed(&finding).try_into().unwrap();
        assert_eq!((culprit.path, culprit.build_id), (LIBLZMA, Some(BUILD_ID)));
        assert_eq!(known_by(&finding), [culprit]);
    }

    #[test]
    fn evidence_of_earlier_versions_has_no_identity_of_patched_code() {
        let mut old = serde_json::to_value(&patched(true).evidence[0]).unwrap();
        for key in ["build_id", "leads_to_build_id"] {
            assert!(old.as_object_mut().unwrap().remove(key).is_some(), "{key}");
        }
        let mut finding = patched(true);
        finding.evidence = vec![serde_json::from_value(old).unwrap()];
        let [culprit] = blamed(&finding).try_into().unwrap();
        assert_eq!((culprit.path, culprit.build_id), (LIBLZMA, None));
    }

    #[test]
    fn what_may_lack_files_is_not_complete() {
        let mut finding = redirected();
        assert!(complete(&finding));
        let slot = finding.evidence[0].clone();
        finding.evidence = vec![slot; MANY];
        assert!(!complete(&finding));
    }
}
