//! A change of PAM's services and modules as a sentence and as a headline.

use super::loader_files::{listed, touched};
use super::text::{base, clause, name};
use crate::finding::{Evidence, Finding};

/// What was done, and what it comes to.
pub(super) fn sentence(finding: &Finding, evidence: &Evidence, subject: &str) -> Option<String> {
    let Evidence::PamStack { file, root, actions, .. } = evidence else { return None };
    let what = touched(finding, (file, root, actions), subject);
    Some(match effect(evidence) {
        Some(effect) => format!("{what}; {effect}"),
        None => what,
    })
}

/// The worst of it in one line.
pub(super) fn headline(finding: &Finding) -> String {
    let title = clause(&finding.title);
    if finding.process.pid == 0 {
        return title;
    }
    format!("{title} (by {})", name(base(&finding.process.exe)))
}

fn effect(evidence: &Evidence) -> Option<String> {
    let Evidence::PamStack {
        what, before, after, added, removed, meanwhile, services, opened, ..
    } = evidence
    else {
        return None;
    };
    if !opened.is_empty() {
        let count = opened.len();
        let all = if count > 3 { format!(" ({count} services)") } else { String::new() };
        return Some(format!(
            "{} now lets everybody in, whatever the password{all}, for it has {}",
            listed(opened),
            listed(if added.is_empty() { removed } else { added })
        ));
    }
    let concerns = match services.len() {
        0 | 1 => String::new(),
        // The first is the file's own.
        _ => format!(", which concerns {}", listed(services.get(1..).unwrap_or_default())),
    };
    if !added.is_empty() {
        return Some(format!("it now has the line {}{concerns}", listed(added)));
    }
    if !meanwhile.is_empty() {
        return Some(format!("for a moment it had the line {}{concerns}", listed(meanwhile)));
    }
    if !removed.is_empty() {
        return Some(format!("it no longer has the line {}{concerns}", listed(removed)));
    }
    if before == after {
        return Some("what it says is the same".to_owned());
    }
    if what == "PAM module" {
        return Some(format!("it was: {}; it is: {}", clause(before), clause(after)));
    }
    Some(format!("its lines stand in another order{concerns}"))
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;
    use crate::finding::{Family, Severity};

    fn told(opened: &[&str], added: &[&str]) -> String {
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        let evidence = Evidence::PamStack {
            file: "/etc/pam.d/common-auth".to_owned(),
            what: "PAM service".to_owned(),
            root: "/".to_owned(),
            actions: texts(&["written"]),
            before: String::new(),
            after: "x".to_owned(),
            added: texts(added),
            removed: Vec::new(),
            meanwhile: Vec::new(),
            services: texts(&["common-auth", "sshd"]),
            opened: texts(opened),
        };
        let (family, severity) = (Family::Hook, Severity::High);
        let found = sample::finding("pam_stack_changed", family, severity, 0.8, 5, vec![evidence]);
        sentence(&found, &found.evidence[0], "bash").unwrap()
    }

    #[test]
    fn the_sentence_says_who_wrote_what_and_whom_it_concerns() {
        assert_eq!(
            told(&[], &["auth optional pam_x.so"]),
            "bash wrote /etc/pam.d/common-auth; it now has the line \"auth optional pam_x.so\", \
             which concerns sshd"
        );
    }

    #[test]
    fn an_open_door_is_what_is_told_of_it() {
        let told = told(&["sshd"], &["auth sufficient pam_permit.so"]);
        assert!(told.contains("; sshd now lets everybody in, whatever the password"), "{told}");
        assert!(told.contains("auth sufficient pam_permit.so"), "{told}");
    }
}
