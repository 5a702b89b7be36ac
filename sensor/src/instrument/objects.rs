//! BPF programs and links by id, as the kernel lists them: `BPF_PROG_GET_NEXT_ID` and its kin.

use std::collections::{BTreeMap, BTreeSet};

use aya::programs::links::LinkType;
use aya::programs::{ProgramInfo, loaded_links, loaded_programs};
use jiff::Timestamp;

use super::{Program, Source};
use crate::trouble::chain;
use crate::verify::program_target;

/// Programs and links believed.
const MAX: usize = 16_384;

/// What is loaded.
#[derive(Debug, Default)]
pub(super) struct Objects {
    pub(super) programs: Vec<(u32, Program)>,
    pub(super) links: Vec<Link>,
    pub(super) targets: Targets,
}

/// Which kernel functions programs are loaded for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Targets {
    /// Programs by function: number of the type information << 32 | number of its type in it.
    pub(super) known: BTreeMap<u64, Vec<u32>>,
    /// Programs that sit at some function, the kernel does not say which; all there may be where they
    /// cannot even be listed.
    pub(super) untold: usize,
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
    let (programs, reason, is_cut) =
        gathered(loaded_programs(), |info| (info.id(), program(&info)));
    let is_refused = reason.is_some();
    sources.push(Source { name: "BPF programs", reason });
    let mut targets = targets(&programs);
    let reason = "the kernel (before 6.0) does not tell in which functions some BPF programs sit";
    let reason = (targets.untold > 0).then(|| reason.to_owned());
    sources.push(Source { name: "BPF program targets", reason });
    if is_refused {
        targets.untold = usize::MAX;
    }
    let (links, reason, are_links_cut) = gathered(loaded_links(), |info| Link {
        id: info.id(),
        program: info.program_id(),
        kind: info.link_type().map_or_else(|_| "unknown".to_owned(), link_kind),
    });
    sources.push(Source { name: "BPF links", reason });
    sources.push(Source { name: "BPF ids", reason: cut(is_cut, are_links_cut) });
    Objects { programs, links, targets }
}

/// Those with the highest ids are left out, which are the latest.
fn cut(programs: bool, links: bool) -> Option<String> {
    let which = match (programs, links) {
        (true, true) => "programs and links",
        (true, false) => "programs",
        (false, true) => "links",
        (false, false) => return None,
    };
    Some(format!("more than {MAX} {which}: the latest are not seen"))
}

/// Of the kinds that are called by a function's trampoline.
fn targets(programs: &[(u32, Program)]) -> Targets {
    const KINDS: [&str; 2] = ["tracing", "lsm"];
    let mut targets = Targets::default();
    let wanted = programs.iter().filter(|(_, program)| KINDS.contains(&program.kind.as_str()));
    for (id, _) in wanted {
        match program_target(*id) {
            Ok(Some((types, function))) => {
                let key = (u64::from(types) << 32) | u64::from(function);
                targets.known.entry(key).or_default().push(*id);
            }
            // It has gone meanwhile.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Ok(None) | Err(_) => targets.untold += 1,
        }
    }
    targets
}

/// Ids of programs and links: ids only grow, so equal sets mean that nothing came or went.
pub(super) fn ids() -> (BTreeSet<u32>, BTreeSet<u32>) {
    let programs = loaded_programs().take(MAX).filter_map(|info| info.ok().map(|info| info.id()));
    let links = loaded_links().take(MAX).filter_map(|info| info.ok().map(|info| info.id()));
    (programs.collect(), links.collect())
}

/// And whether there are more. What is gone meanwhile is left out; the reason is told only where there
/// is nothing else.
fn gathered<I, T, E: std::error::Error + 'static>(
    mut infos: impl Iterator<Item = Result<I, E>>,
    make: impl Fn(I) -> T,
) -> (Vec<T>, Option<String>, bool) {
    let (mut found, mut reason) = (Vec::new(), None);
    for info in infos.by_ref().take(MAX) {
        match info {
            Ok(info) => found.push(make(info)),
            Err(error) => reason = Some(chain(&error)),
        }
    }
    let reason = if found.is_empty() { reason } else { None };
    (found, reason, infos.next().is_some())
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
        functions: Vec::new(),
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
        let (found, reason, _) = gathered(vec![Err::<u32, _>(refused())].into_iter(), |id| id);
        assert!(found.is_empty() && reason.is_some());
        let told = gathered(vec![Ok(1), Err(refused())].into_iter(), |id| id);
        assert_eq!(told, (vec![1], None, false));
    }

    #[test]
    fn a_list_that_goes_on_is_told_as_cut() {
        let all = |count: usize| (0..count).map(Ok::<_, std::io::Error>);
        let (found, reason, is_cut) = gathered(all(MAX), |id| id);
        assert_eq!((found.len(), reason, is_cut), (MAX, None, false));
        let (found, _, is_cut) = gathered(all(MAX + 1), |id| id);
        assert_eq!((found.len(), is_cut), (MAX, true));
        assert_eq!(cut(false, false), None);
        assert!(cut(is_cut, false).is_some_and(|reason| reason.contains("programs:")));
    }
}
