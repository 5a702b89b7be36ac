//! BPF programs and links by id, as the kernel lists them: `BPF_PROG_GET_NEXT_ID` and its kin.

use std::collections::BTreeSet;

use aya::programs::links::LinkType;
use aya::programs::{ProgramInfo, loaded_links, loaded_programs};
use jiff::Timestamp;

use super::{Program, Source};
use crate::trouble::chain;

/// Programs and links believed.
const MAX: usize = 16_384;

/// What is loaded.
#[derive(Debug, Default)]
pub(super) struct Objects {
    pub(super) programs: Vec<(u32, Program)>,
    pub(super) links: Vec<Link>,
}

/// A link, as far as it tells of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) id: u32,
    pub(super) program: u32,
    pub(super) kind: String,
}

/// Every program and link.
pub(super) fn list(sources: &mut Vec<Source>) -> Objects {
    let (programs, reason) = gathered(loaded_programs(), |info| (info.id(), program(&info)));
    sources.push(Source { name: "BPF programs", reason });
    let (links, reason) = gathered(loaded_links(), |info| Link {
        id: info.id(),
        program: info.program_id(),
        kind: info.link_type().map_or_else(|_| "unknown".to_owned(), link_kind),
    });
    sources.push(Source { name: "BPF links", reason });
    Objects { programs, links }
}

/// Ids of programs and links: ids only grow, so equal sets mean that nothing came or went.
pub(super) fn ids() -> (BTreeSet<u32>, BTreeSet<u32>) {
    let programs = loaded_programs().take(MAX).filter_map(|info| info.ok().map(|info| info.id()));
    let links = loaded_links().take(MAX).filter_map(|info| info.ok().map(|info| info.id()));
    (programs.collect(), links.collect())
}

/// What is gone meanwhile is left out; the reason is told only where there is nothing else.
fn gathered<I, T, E: std::error::Error + 'static>(
    infos: impl Iterator<Item = Result<I, E>>,
    make: impl Fn(I) -> T,
) -> (Vec<T>, Option<String>) {
    let (mut found, mut reason) = (Vec::new(), None);
    for info in infos.take(MAX) {
        match info {
            Ok(info) => found.push(make(info)),
            Err(error) => reason = Some(chain(&error)),
        }
    }
    let reason = if found.is_empty() { reason } else { None };
    (found, reason)
}

fn program(info: &ProgramInfo) -> Program {
    let name = String::from_utf8_lossy(info.name());
    Program {
        kind: kind(&format!("{:?}", info.program_type()), "BPF_PROG_TYPE_"),
        name: name.chars().filter(|character| !character.is_control()).collect(),
        tag: info.tag(),
        loaded: info.loaded_at().and_then(|time| Timestamp::try_from(time).ok()),
        uid: info.created_by_uid(),
        places: Vec::new(),
    }
}

/// The kernel's constant without its prefix, in small letters.
fn kind(constant: &str, prefix: &str) -> String {
    match constant.strip_prefix(prefix) {
        Some(kind) => kind.to_ascii_lowercase(),
        None => "unknown".to_owned(),
    }
}

fn link_kind(kind: LinkType) -> String {
    format!("{kind:?}").to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_told_as_bpftool_does_and_new_ones_as_unknown() {
        assert_eq!(kind("BPF_PROG_TYPE_CGROUP_SKB", "BPF_PROG_TYPE_"), "cgroup_skb");
        assert_eq!(kind("__MAX_BPF_PROG_TYPE", "BPF_PROG_TYPE_"), "unknown");
        assert_eq!(link_kind(LinkType::Cgroup), "cgroup");
    }

    #[test]
    fn a_list_that_is_refused_says_why_and_one_that_lost_a_program_does_not() {
        let refused = || std::io::Error::from(std::io::ErrorKind::PermissionDenied);
        let (found, reason) = gathered(vec![Err::<u32, _>(refused())].into_iter(), |id| id);
        assert!(found.is_empty() && reason.is_some());
        let (found, reason) = gathered(vec![Ok(1), Err(refused())].into_iter(), |id| id);
        assert_eq!((found, reason), (vec![1], None));
    }
}
