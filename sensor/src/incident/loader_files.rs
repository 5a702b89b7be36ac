//! A change of the loader's files as a sentence and as a headline.

use super::text::{base, clause, name, path};
use crate::finding::{Evidence, Finding};

/// Entries named in a sentence.
const MAX_ENTRIES: usize = 3;

/// What was done, and what it comes to.
pub(super) fn sentence(finding: &Finding, evidence: &Evidence, subject: &str) -> Option<String> {
    let Evidence::LoaderConfig { file, root, actions, .. } = evidence else { return None };
    let what = touched(finding, (file, root, actions), subject);
    Some(match effect(evidence) {
        Some(effect) => format!("{what}; {effect}"),
        None => what,
    })
}

/// Who did what to a file below a root.
pub(super) fn touched(
    finding: &Finding,
    (file, root, actions): (&str, &str, &[String]),
    subject: &str,
) -> String {
    let inside = if root == "/" { String::new() } else { format!(" below {}", path(root)) };
    let file = format!("{}{inside}", path(file));
    let done: Vec<&str> = actions.iter().filter_map(|action| verb(action)).collect();
    match (finding.process.pid, done.as_slice()) {
        (0, _) if actions.iter().any(|action| action == "mounted_over") => {
            format!("something was mounted over {file} or unmounted from it")
        }
        (0, _) | (_, []) => format!("{file} is not as it was"),
        (_, done) => format!("{subject} {} {file}", done.join(" and ")),
    }
}

/// The worst of it in one line.
pub(super) fn headline(finding: &Finding) -> String {
    let title = clause(&finding.title);
    if finding.process.pid == 0 {
        return title;
    }
    format!("{title} (by {})", name(base(&finding.process.exe)))
}

fn verb(action: &str) -> Option<&'static str> {
    Some(match action {
        "created" => "created",
        "linked" => "linked another file to",
        "symlinked" => "made a symbolic link of",
        "renamed_into_place" => "renamed another file to",
        "renamed_away" => "renamed",
        "removed" => "removed",
        "written" => "wrote",
        "attributes" => "changed the owner, mode or links of",
        "mounted_over" => "mounted something over",
        _ => return None,
    })
}

fn effect(evidence: &Evidence) -> Option<String> {
    let Evidence::LoaderConfig { what, before, after, added, removed, meanwhile, .. } = evidence
    else {
        return None;
    };
    let preload = what == "preload list";
    if !added.is_empty() {
        let gained = listed(added);
        return Some(if preload {
            format!("the loader now puts {gained} into every program that starts")
        } else {
            format!("it now has {gained}")
        });
    }
    if !meanwhile.is_empty() {
        return Some(format!("for a moment it had {}", listed(meanwhile)));
    }
    if !removed.is_empty() {
        return Some(format!("it no longer has {}", listed(removed)));
    }
    if before == after {
        return Some("what it says is the same".to_owned());
    }
    Some(format!("it was: {}; it is: {}", clause(before), clause(after)))
}

/// The first of them.
pub(super) fn listed(entries: &[String]) -> String {
    let shown: Vec<String> = entries.iter().take(MAX_ENTRIES).map(|entry| path(entry)).collect();
    let more = entries.len().saturating_sub(MAX_ENTRIES);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{more}", shown.join(", "))
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;
    use crate::finding::{Family, Severity};

    fn finding(actions: &[&str], added: &[&str]) -> Finding {
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        let evidence = Evidence::LoaderConfig {
            file: "/etc/ld.so.preload".to_owned(),
            what: "preload list".to_owned(),
            root: "/".to_owned(),
            actions: texts(actions),
            before: "absent".to_owned(),
            after: added.join(" "),
            added: texts(added),
            removed: Vec::new(),
            meanwhile: Vec::new(),
        };
        let (family, severity) = (Family::Linker, Severity::High);
        sample::finding("loader_config_changed", family, severity, 0.8, 5, vec![evidence])
    }

    #[test]
    fn the_sentence_says_who_how_and_what_is_loaded_now() {
        let found = finding(&["created", "written"], &["/tmp/evil.so"]);
        let told = sentence(&found, &found.evidence[0], "bash").unwrap();
        assert_eq!(
            told,
            "bash created and wrote /etc/ld.so.preload; the loader now puts /tmp/evil.so into \
             every program that starts"
        );
    }

    #[test]
    fn nobody_is_accused_of_what_nobody_was_seen_doing() {
        let mut found = finding(&["mounted_over"], &["/tmp/evil.so"]);
        found.process.pid = 0;
        let told = sentence(&found, &found.evidence[0], "unknown").unwrap();
        assert!(told.starts_with("something was mounted over /etc/ld.so.preload"), "{told}");
    }

    #[test]
    fn an_entry_cannot_pass_for_the_sentence() {
        let found = finding(&["written"], &["/a\" is fine. All is well"]);
        let told = sentence(&found, &found.evidence[0], "bash").unwrap();
        assert!(told.contains("\"/a' is fine. All is well\""), "{told}");
    }
}
