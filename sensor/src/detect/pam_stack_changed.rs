//! `pam_stack_changed`: a service of PAM, or a module that PAM loads by name, was changed.
//!
//! A module that a login really loads and never loaded before is `library_unexpected`'s and
//! `dlopen_unexpected`'s to tell. Blind to what a module makes of files of its own
//! (`/etc/security`, `~/.google_authenticator`) and to modules outside PAM's directories that
//! change in place.

mod module;

use std::cmp::Reverse;
use std::sync::Arc;

use super::{Detector, Draft, World};
use crate::finding::{Evidence, Family, Severity};
use crate::host::{Body, Observation, inode_text};
use crate::pam::{self, Facility, Line};
use crate::watch::{Action, LoaderConfig, Role};
use module::Doubt;

/// Modules that run what their arguments name.
const RUNNERS: [&str; 5] =
    ["pam_exec.so", "pam_script.so", "pam_python.so", "pam_lua.so", "pam_tcl.so"];

/// The detector.
#[derive(Debug)]
pub(super) struct PamStackChanged;

/// How bad, how sure, and the worst of it.
type Verdict = (Severity, f64, String);

// === impl PamStackChanged ===

impl Detector for PamStackChanged {
    fn id(&self) -> &'static str {
        "pam_stack_changed"
    }

    fn observe(&mut self, seen: &Observation, _world: &World<'_>, out: &mut Vec<Draft>) {
        let Body::LoaderConfig(change) = &seen.body else { return };
        if !change.role.is_pam() {
            return;
        }
        let explained_by =
            change.tool.as_ref().filter(|tool| tool.packages).map(|tool| tool.path.clone());
        let (severity, confidence, title) = judge(change);
        let object = format!("{} {} {}", change.root.path, change.path, change.after);
        out.push(Draft {
            detector: self.id(),
            family: Family::Hook,
            severity,
            confidence,
            title: titled(change, title),
            evidence: evidence(change, seen.process.shown.pid == 0),
            attack: &["T1556.003"],
            object,
            program: Arc::clone(&seen.process.program),
            ktime_ns: None,
            explained_by,
        });
    }
}

fn judge(change: &LoaderConfig) -> Verdict {
    let verdict = match change.role {
        Role::PamModule => judge_module(change),
        _ => judge_service(change),
    };
    let packages = change.tool.as_ref().is_some_and(|tool| tool.packages);
    match verdict {
        // A package's own work; that it lets everybody in is worth a word all the same.
        (severity, _, what) if packages => {
            let opens = !change.pam.opened.is_empty();
            if opens && severity > Severity::Low {
                (Severity::Low, 0.3, what)
            } else {
                (Severity::Info, 0.2, what)
            }
        }
        verdict => verdict,
    }
}

fn judge_service(change: &LoaderConfig) -> Verdict {
    let path = &change.path;
    let doubt = change.libraries.iter().filter_map(Doubt::of).max();
    if let Some(service) = change.pam.opened.first() {
        let what = format!("{path} now lets everybody in by {service}");
        return (Severity::High, 0.85, what);
    }
    if let Some(doubt) = doubt.filter(|doubt| doubt.severity() > Severity::Low) {
        let what = format!("{path} now has {}, {}", doubt.module(), doubt.clause());
        return (doubt.severity(), doubt.confidence(), what);
    }
    // What was there for a moment was not walked, nor is the file of all services.
    let unwalked = if path == pam::CONF { change.added.as_slice() } else { &[] };
    if let Some(line) = unwalked.iter().chain(&change.meanwhile).find(|line| permits(line)) {
        return (Severity::High, 0.7, format!("{path} has or had the line {line}"));
    }
    if let Some(line) = change.added.iter().chain(&change.meanwhile).find(|line| hands_over(line)) {
        return (Severity::High, 0.7, format!("{path} now hands passwords to a program: {line}"));
    }
    if change.exposed {
        let what = format!("{path} can be written to by others than root");
        return (Severity::High, 0.7, what);
    }
    if change.same {
        return (Severity::Info, 0.2, format!("{path} was touched, and says the same"));
    }
    let (severity, confidence) = match &change.tool {
        // What writes them on an administrator's behalf, and an upgrade that nobody watched.
        Some(_) => (Severity::Low, 0.3),
        None if change.while_away => (Severity::Low, 0.3),
        None => (Severity::Medium, 0.5),
    };
    let gained = change.added.first().or(change.meanwhile.first());
    let what = match (gained, change.removed.first()) {
        (Some(line), _) => format!("{path} now has the line {line}"),
        (None, Some(line)) => format!("{path} no longer has the line {line}"),
        (None, None) => format!("{path} was changed"),
    };
    (severity, confidence, what)
}

fn judge_module(change: &LoaderConfig) -> Verdict {
    let path = &change.path;
    let Some(module) = change.libraries.first() else {
        return (Severity::Medium, 0.4, format!("PAM's module {path} is gone"));
    };
    let doubt = Doubt::of(module);
    if let Some(doubt) = doubt.filter(|doubt| doubt.severity() > Severity::Low) {
        let what = format!("PAM's module {path} was changed, {}", doubt.clause());
        return (doubt.severity(), doubt.confidence(), what);
    }
    let what = format!("PAM's module {path} was changed");
    match (change.same, module::is_packages(module)) {
        (true, _) => (Severity::Info, 0.2, format!("PAM's module {path} was touched")),
        // Put back, or upgraded by somebody who was not seen.
        (false, true) => (Severity::Low, 0.3, what),
        (false, false) if change.while_away => (Severity::Medium, 0.4, what),
        (false, false) => (Severity::High, 0.6, what),
    }
}

/// A line by which somebody gets in without proof, unless others refuse.
fn permits(line: &str) -> bool {
    understood(line).any(|line| {
        let module = line.named_module().map(pam::base);
        line.facility == Some(Facility::Auth) && module == Some("pam_permit.so")
    })
}

/// The line of a service, or of the file of all.
fn understood(line: &str) -> impl Iterator<Item = Line> {
    [Line::parse(line), Line::parse_conf(line)].into_iter().flatten()
}

/// A line that has a program of its own choosing read the password.
fn hands_over(line: &str) -> bool {
    understood(line).any(|line| {
        let module = line.named_module().map(pam::base);
        let runner = module.is_some_and(|module| RUNNERS.contains(&module));
        let asked = line.arguments.iter().any(|argument| argument == "expose_authtok");
        let proof = matches!(line.facility, Some(Facility::Auth | Facility::Password));
        runner && proof && (asked || module != Some("pam_exec.so"))
    })
}

fn titled(change: &LoaderConfig, what: String) -> String {
    match (change.actions.contains(&Action::Mounted), change.actions.is_empty()) {
        (true, _) => format!("{what}: something was mounted over it"),
        (false, true) if change.while_away => format!("{what} (while the sensor was not running)"),
        _ => what,
    }
}

fn evidence(change: &LoaderConfig, unseen: bool) -> Vec<Evidence> {
    let mut evidence = vec![Evidence::PamStack {
        file: change.path.clone(),
        what: change.role.name().to_owned(),
        root: change.root.path.clone(),
        actions: change.actions.iter().map(|action| action.name().to_owned()).collect(),
        before: change.before.clone(),
        after: change.after.clone(),
        added: change.added.clone(),
        removed: change.removed.clone(),
        meanwhile: change.meanwhile.clone(),
        services: change.pam.services.clone(),
        opened: change.pam.opened.clone(),
    }];
    // The most doubtful first: of several modules one is told in the story.
    let mut modules: Vec<_> =
        change.libraries.iter().map(|module| (Reverse(Doubt::of(module)), module)).collect();
    modules.sort_by_key(|(doubt, _)| *doubt);
    for (Reverse(doubt), module) in modules {
        if let Some(doubt) = doubt {
            let text = format!("{} is a module {}", doubt.module(), doubt.clause());
            evidence.push(Evidence::Note { text });
        }
        evidence.extend(module.file.as_ref().map(|file| Evidence::Library {
            path: module.path.clone(),
            build_id: module.build_id.clone(),
            inode: inode_text(file),
        }));
        evidence
            .extend(module.origin.as_ref().map(|origin| Evidence::of_origin(&module.path, origin)));
    }
    let mut note = |text: String| evidence.push(Evidence::Note { text });
    if unseen {
        note("Nobody was seen doing it: found by comparison".to_owned());
    }
    if change.exposed {
        note("Others than root may write to it now".to_owned());
    }
    if let Some(tool) = change.tool.as_ref().filter(|tool| !tool.packages) {
        note(format!("Written by {}, by whoever's order", tool.path));
    }
    if !change.further.is_empty() {
        note(format!("Also at it: {}", change.further.join(", ")));
    }
    if change.root.others > 0 {
        note(format!("{} further mount namespaces have the same file", change.root.others));
    }
    evidence
}

#[cfg(test)]
mod tests;
