//! A library opened after the start, as a sentence.

use super::sentence::Modules;
use super::text::{base, name, place, seconds};
use crate::finding::Evidence;

/// Modules named as those that usually ask.
const MAX_KNOWN: usize = 3;

/// What [`Evidence::Opened`] says.
pub(super) fn sentence(
    evidence: &Evidence,
    subject: &str,
    when: &str,
    modules: &mut Modules,
) -> Option<String> {
    let Evidence::Opened {
        library,
        caller_module,
        caller,
        unwound,
        through_libc,
        known,
        namespace,
        seconds: took,
        ..
    } = evidence
    else {
        return None;
    };
    let opened = modules.library(library);
    let mut text = format!("{subject} opened {opened} after its start{when}");
    if let Some(number) = namespace {
        text = format!("{text}, in namespace {number}, apart from the program's own libraries");
    }
    if !caller_module.is_empty() {
        let more = modules.introduce(caller_module);
        let how =
            if *unwound { "asked for by" } else { "asked for, as far as its stack tells, by" };
        text = format!("{text}, {how} {}", place(caller, more));
    }
    if *through_libc {
        text.push_str(" through libc");
    }
    if let Some(took) = took {
        text = format!("{text}; it took {} to link", seconds(*took));
    }
    let known: Vec<String> = known.iter().take(MAX_KNOWN).map(|one| name(base(one))).collect();
    if !known.is_empty() {
        text = format!("{text}; while learning only {} asked for it", known.join(", "));
    }
    Some(text)
}
