//! What makes two findings the same, and what an incident is called.

use std::collections::BTreeSet;
use std::fmt::Write;

use crate::finding::{Evidence, Finding};
use crate::host::Lineage;

/// FNV-1a, 64 bit (Fowler, Noll, Vo; draft-eastlake-fnv): stable over versions and machines. The
/// time it hashes is not the attacker's to choose to the nanosecond.
struct Fnv(u64);

/// Detector and objects.
pub(super) type Key = (String, BTreeSet<String>);

/// Detector and object: findings with the same key are one finding, counted. Numbers that change
/// from one connection to the next (addresses, pids, times) are no part of it.
pub(super) fn key(finding: &Finding) -> Key {
    let mut objects: BTreeSet<String> = finding.evidence.iter().filter_map(object).collect();
    if objects.is_empty() {
        // Where it only says who did something else, it is no object.
        objects.extend(finding.evidence.iter().filter_map(writer));
    }
    if objects.is_empty() {
        objects.insert(finding.subject.clone());
    }
    if finding.evidence.iter().any(|evidence| matches!(evidence, Evidence::Timing { .. })) {
        objects.extend(method(finding).map(|method| format!("by {method}")));
    }
    (finding.detector.clone(), objects)
}

/// Name of the incident that `first` opens.
pub(super) fn incident_id(host: &str, lineage: &Lineage, first: &Finding) -> String {
    let mut hash = Fnv::default();
    hash.part(host);
    match lineage {
        Lineage::Sshd(process) => {
            hash.part("sshd");
            hash.part(&format!("{} {}", process.tgid, process.start_ticks));
        }
        Lineage::Program(subject) => {
            hash.part("program");
            hash.part(subject);
        }
    }
    hash.part(&first.time.as_nanosecond().to_string());
    hash.part(&first.detector);
    format!("{:016x}", hash.0)
}

/// A name made of nothing but `parts`, in their order: the same for the same content.
pub(crate) fn content_id(parts: &[&str]) -> String {
    let mut hash = Fnv::default();
    for part in parts {
        hash.part(part);
    }
    format!("{:016x}", hash.0)
}

fn object(evidence: &Evidence) -> Option<String> {
    let parts: [&str; 4] = match evidence {
        Evidence::Slot { module, symbol, actual_module, actual_build_id, .. } => {
            let actual = actual_build_id.as_deref().unwrap_or(actual_module);
            ["slot", module, symbol, actual]
        }
        Evidence::Caller { function, caller_module, .. } => ["caller", function, caller_module, ""],
        Evidence::Audit { callback_module, .. } => ["audit", callback_module, "", ""],
        Evidence::Code { module, place, actual, .. } => ["code", module, place, actual],
        Evidence::Mapping { module, problem, memory, .. } => ["mapping", module, problem, memory],
        Evidence::Protection { module, access, .. } => ["protection", module, access, ""],
        Evidence::Library { path, build_id, .. } => {
            ["library", build_id.as_deref().unwrap_or(path), "", ""]
        }
        Evidence::Opened { library, caller_module, namespace, .. } => {
            let apart = if namespace.is_some() { "apart" } else { "" };
            ["opened", library, caller_module, apart]
        }
        Evidence::Timing { metric, module, .. } => {
            ["timing", metric, module.as_deref().unwrap_or_default(), ""]
        }
        Evidence::Environment { name, value } => ["environment", name, value, ""],
        Evidence::LoaderConfig { file, root, after, .. } => ["loader_config", file, root, after],
        Evidence::Instrument { what, name, file, owner, .. } => {
            let file = file.as_deref().unwrap_or_default();
            [what, name, file, owner.as_deref().unwrap_or_default()]
        }
        Evidence::PamStack { file, root, after, .. } => ["pam", file, root, after],
        Evidence::Exec { path, .. } => ["exec", path, "", ""],
        Evidence::Session { missing, .. } => ["session", missing, "", ""],
        Evidence::Libpam { verdict, libpam, .. } => ["libpam", verdict, libpam, ""],
        Evidence::File { .. }
        | Evidence::Package { .. }
        | Evidence::Search { .. }
        | Evidence::Since { .. }
        | Evidence::Writer { .. }
        | Evidence::Connection { .. }
        | Evidence::Repeated { .. }
        | Evidence::Note { .. } => return None,
    };
    let mut text = String::new();
    for part in parts {
        // The length keeps the parts apart, whatever stands in them.
        let _ = write!(text, "{}:{part} ", part.len());
    }
    Some(text)
}

fn writer(evidence: &Evidence) -> Option<String> {
    match evidence {
        Evidence::Writer { exe, .. } => Some(format!("writer {exe}")),
        _ => None,
    }
}

fn method(finding: &Finding) -> Option<&str> {
    finding.evidence.iter().find_map(|evidence| match evidence {
        Evidence::Connection { method, .. } => method.as_deref(),
        _ => None,
    })
}

// === impl Fnv ===

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv {
    fn part(&mut self, text: &str) {
        // 0xff is in no UTF-8 text, so it ends a part.
        for byte in text.bytes().chain([0xff]) {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_fnv_1a() {
        // Test vectors of the draft: "" and "foobar".
        let of = |text: &str| {
            let mut hash = Fnv::default();
            for byte in text.bytes() {
                hash.0 = (hash.0 ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
            }
            hash.0
        };
        assert_eq!(of(""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(of("foobar"), 0x8594_4171_f739_67e8);
    }
}
