//! Who wrote where nobody should, as sentences.

use super::text::{base, name, path};
use crate::finding::Evidence;

/// Ancestors named.
const MAX_ANCESTORS: usize = 4;

/// `gdb (/usr/bin/gdb, pid 7, uid 0, started by bash) wrote into sshd's memory by ptrace`
pub(super) fn written(evidence: &Evidence, subject: &str) -> Option<String> {
    let Evidence::Writer { pid, exe, uid, ancestors, ways, times, place, .. } = evidence else {
        return None;
    };
    let above: Vec<String> =
        ancestors.iter().take(MAX_ANCESTORS).map(|exe| name(base(exe))).collect();
    let above =
        if above.is_empty() { String::new() } else { format!(", below {}", above.join(", ")) };
    let ways: Vec<String> = ways.iter().map(|way| path(way)).collect();
    let at = if place.is_empty() { String::new() } else { format!(" at {}", path(place)) };
    let often = if *times > 1 { format!(", {times} times so far") } else { String::new() };
    Some(format!(
        "{} ({}, pid {pid}, uid {uid}{above}) wrote into {subject}'s memory{at} by {}{often}",
        name(base(exe)),
        path(exe),
        ways.join(" and ")
    ))
}

/// `sshd made the RELRO of libcrypto.so.3 writable again`
pub(super) fn reopened(evidence: &Evidence, subject: &str) -> Option<String> {
    let Evidence::Protection { module, place, length, access, relro } = evidence else {
        return None;
    };
    let what = if *relro { "which its loader had sealed" } else { "after it had been linked" };
    Some(format!(
        "{subject} made {length} bytes of {} at {} writable ({}), {what}",
        name(base(module)),
        path(place),
        path(access)
    ))
}
