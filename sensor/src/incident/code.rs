//! Changed code and stray mappings as sentences and as a headline.

use super::text::{base, clause, name, path, place};
use crate::finding::Evidence;

/// What was done to a function, and where it leads now; `more` is told of that module.
pub(super) fn patched(
    evidence: &Evidence,
    subject: &str,
    exe: &str,
    more: Option<String>,
) -> String {
    let Evidence::Code { module, place: at, function, leads_to, explained_by, .. } = evidence
    else {
        return String::new();
    };
    let whose = if base(module) == exe {
        subject.to_owned()
    } else {
        format!("{subject}'s {}", name(base(module)))
    };
    let code = if function.is_empty() {
        format!("{whose} has other code at {} than its file", path(at))
    } else {
        format!("{whose} has other code in {} than its file", name(function))
    };
    let leads = if leads_to.is_empty() {
        String::new()
    } else {
        format!(", which leads to {}", place(leads_to, more))
    };
    let why = explained_by.as_ref().map(|why| format!(": {}", clause(why))).unwrap_or_default();
    format!("{code}{leads}{why}")
}

/// `libevil.so patched sshd's RSA_public_decrypt`
pub(super) fn headline(evidence: &Evidence, exe: &str) -> String {
    let Evidence::Code { module, function, leads_to_module, .. } = evidence else {
        return String::new();
    };
    let what = name(if function.is_empty() { base(module) } else { function });
    if leads_to_module.is_empty() {
        return format!("the code of {exe}'s {what} was changed");
    }
    format!("{exe}'s {what} was patched to lead into {}", name(base(leads_to_module)))
}

/// What contradicts.
pub(super) fn mapping(evidence: &Evidence, subject: &str) -> String {
    let Evidence::Mapping { module, problem, size, memory, differing, .. } = evidence else {
        return String::new();
    };
    let memory = clause(memory);
    if module.is_empty() {
        return format!(
            "{subject} has {size} bytes of executable memory ({memory}) that {}",
            clause(problem)
        );
    }
    let differs = match differing {
        Some(0) => ", equal to its file".to_owned(),
        Some(bytes) => format!(", {bytes} bytes of it not its file's"),
        None => String::new(),
    };
    format!("in {subject} {} {} ({memory}){differs}", path(module), clause(problem))
}
