//! One piece of evidence as a sentence.

use std::collections::{BTreeMap, BTreeSet};

use super::text::{base, build_id, clause, name, path, place, place_module, seconds, symbol};
use super::{code, dlopen, loader_files, pam, since, writes};
use crate::finding::{Evidence, Finding, Severity};

/// Slots of one finding that are told one by one.
const MAX_SLOTS: usize = 3;
/// Notes of one finding that are told.
const MAX_NOTES: usize = 2;
/// Modules named as the usual callers.
const MAX_KNOWN: usize = 3;
/// Characters of a command line in a sentence.
const MAX_COMMAND: usize = 120;

/// What has been told of modules so far.
#[derive(Debug)]
pub(super) struct Modules {
    /// Build-id by file name, from all evidence.
    build_ids: BTreeMap<String, String>,
    introduced: BTreeSet<String>,
}

/// How a sentence speaks of the process.
pub(super) struct Who {
    /// Its name.
    pub(super) subject: String,
    /// `linking`, or whose.
    pub(super) linking: String,
    /// File name of the executable.
    pub(super) exe: String,
}

/// Sentences for `finding`, without capital and full stop.
pub(super) fn sentences(finding: &Finding, who: &Who, modules: &mut Modules) -> Vec<String> {
    if !proven(finding) {
        return vec![clause(&finding.title)];
    }
    let mut told = Vec::new();
    let (mut slots, mut notes) = (0, 0);
    for evidence in &finding.evidence {
        match evidence {
            Evidence::Slot { .. } | Evidence::Code { .. } | Evidence::Mapping { .. } => slots += 1,
            Evidence::Note { .. } => notes += 1,
            _ => {}
        }
        let enough = match evidence {
            Evidence::Slot { .. } | Evidence::Code { .. } | Evidence::Mapping { .. } => {
                slots > MAX_SLOTS
            }
            Evidence::Note { .. } => notes > MAX_NOTES,
            _ => false,
        };
        if !enough {
            told.extend(sentence(finding, evidence, who, modules));
        }
    }
    if slots > MAX_SLOTS {
        let what = match finding.detector.as_str() {
            "text_patched" | "module_unlinked" => "places",
            _ => "slots",
        };
        told.push(format!("the same holds for {} further {what}", slots - MAX_SLOTS));
    }
    if told.len() <= notes.min(MAX_NOTES) {
        told.insert(0, clause(&finding.title));
    }
    told
}

/// Whether its slots may be told as redirected: a slot of a file that has changed since may be as
/// it should, and is of low severity for that.
pub(super) fn proven(finding: &Finding) -> bool {
    finding.severity >= Severity::Medium
        || !finding
            .evidence
            .iter()
            .any(|evidence| matches!(evidence, Evidence::Slot { .. } | Evidence::Code { .. }))
}

/// Whose address the connection is, where that is known.
pub(super) fn peer(finding: &Finding) -> Option<&str> {
    finding.evidence.iter().find_map(|evidence| match evidence {
        Evidence::Connection { peer, .. } => peer.as_deref(),
        _ => None,
    })
}

/// The authentication method, where it is known.
pub(super) fn method(finding: &Finding) -> Option<&str> {
    finding.evidence.iter().find_map(|evidence| match evidence {
        Evidence::Connection { method, .. } => method.as_deref(),
        _ => None,
    })
}

fn sentence(
    finding: &Finding,
    evidence: &Evidence,
    who: &Who,
    modules: &mut Modules,
) -> Option<String> {
    let subject = &who.subject;
    let when = on_connection(finding);
    Some(match evidence {
        Evidence::Slot { module, symbol: function, expected, actual, actual_module, .. } => {
            let whose = if base(module) == who.exe {
                format!("{subject}'s slot for {}", symbol(function))
            } else {
                format!(
                    "{subject}'s {} has a slot for {} that",
                    name(base(module)),
                    symbol(function)
                )
            };
            let more = modules.introduce(actual_module);
            let usual = name(place_module(expected));
            format!("{whose} leads to {} instead of {usual}{when}", place(actual, more))
        }
        Evidence::Caller { function, caller_module, caller, known, stack } => {
            let more = modules.introduce(caller_module);
            let known: Vec<String> =
                known.iter().take(MAX_KNOWN).map(|module| name(base(module))).collect();
            let before = if known.is_empty() {
                "while learning nothing called it".to_owned()
            } else {
                format!("while learning only {} called it", known.join(", "))
            };
            let by = place(caller, more);
            let way = way(caller, stack);
            format!("{} was called from {by}{way}{when}; {before}", symbol(function))
        }
        Evidence::Code { leads_to_module, .. } => {
            let more = modules.introduce(leads_to_module);
            format!("{}{when}", code::patched(evidence, subject, &who.exe, more))
        }
        // What a check found names the hand too, which its own finding has told.
        Evidence::Writer { .. } if finding.detector == "remote_write" => {
            writes::written(evidence, subject)?
        }
        Evidence::Protection { .. } if finding.detector == "relro_reopened" => {
            writes::reopened(evidence, subject)?
        }
        Evidence::Mapping { .. } => format!("{}{when}", code::mapping(evidence, subject)),
        Evidence::Audit { callback, callback_module, .. } => {
            let more = modules.introduce(callback_module);
            let who =
                if callback.is_empty() { "somebody".to_owned() } else { place(callback, more) };
            format!(
                "{subject}'s loader calls back {who} for auditing that nobody had asked for{when}"
            )
        }
        Evidence::Library { path: file, .. } => {
            // Other detectors add it to identify the module they speak of.
            let how = mapped(finding)?;
            format!("{subject} mapped {}, {how}", modules.library(file))
        }
        Evidence::Opened { .. } => dlopen::sentence(evidence, subject, &when, modules)?,
        Evidence::Timing { .. } => timing(evidence, method(finding), who, modules)?,
        Evidence::Since { .. } => since::sentence(finding, evidence)?,
        Evidence::Environment { name: variable, value } => {
            format!("{} was set to {} in {subject}'s environment", name(variable), path(value))
        }
        Evidence::Exec { path: file, cmdline } => {
            let before = match finding.detector.as_str() {
                "preauth_exec" => " before authentication had succeeded",
                "auth_without_method" => " in that session",
                _ => "",
            };
            format!("{subject} executed {}{}{before}", path(file), command(cmdline))
        }
        Evidence::Session { .. } | Evidence::Libpam { .. } => let_in(evidence, subject)?,
        Evidence::Package { package, .. } if package.is_empty() => return None,
        Evidence::Package { path: file, package, installed, previous, content, .. } => {
            let since = installed.map(|time| format!(", installed {time:.0}")).unwrap_or_default();
            let before = previous.as_ref().map(|version| format!(" in place of {}", name(version)));
            let but = if content == "differs" { ", but is not what that brought" } else { "" };
            let before = before.unwrap_or_default();
            let file = if file.is_empty() { "it".to_owned() } else { path(base(file)) };
            format!("{file} belongs to {}{since}{before}{but}", name(package))
        }
        Evidence::Search { found_by, .. } if found_by.is_empty() => return None,
        Evidence::Search { found_by, odd, .. } => {
            let odd = odd.first().map(|odd| format!(": {}", path(odd))).unwrap_or_default();
            format!("the loader found it by {}{odd}", path(found_by))
        }
        Evidence::LoaderConfig { .. } => loader_files::sentence(finding, evidence, subject)?,
        Evidence::Instrument { .. } => instrument(finding, evidence)?,
        Evidence::PamStack { .. } => pam::sentence(finding, evidence, subject)?,
        Evidence::Note { text } => opened(&clause(text)),
        Evidence::File { .. }
        | Evidence::Writer { .. }
        | Evidence::Protection { .. }
        | Evidence::Connection { .. }
        | Evidence::Repeated { .. } => return None,
    })
}

/// Somebody was let in by a way of his own.
fn let_in(evidence: &Evidence, subject: &str) -> Option<String> {
    let whose = |word: &str, user: &Option<String>| {
        user.as_ref().map(|user| format!("{word}{}", name(user))).unwrap_or_default()
    };
    Some(match evidence {
        Evidence::Session { sign, missing, user, .. } => {
            let (whose, missing, sign) = (whose(" as ", user), clause(missing), clause(sign));
            format!("{subject} began a session{whose} although {missing}: {sign}")
        }
        Evidence::Libpam { verdict, libpam, user } => {
            let (whose, verdict, libpam) = (whose(" for ", user), clause(verdict), clause(libpam));
            format!("{subject} {verdict}{whose} although {libpam}")
        }
        _ => return None,
    })
}

/// What was found, whose it is, and what is known of it.
fn instrument(finding: &Finding, evidence: &Evidence) -> Option<String> {
    let Evidence::Instrument {
        what, name: called, file, offset, symbol: at, owner, package, ..
    } = evidence
    else {
        return None;
    };
    let place = match (file, offset) {
        (Some(file), Some(offset)) => {
            let at = at.as_ref().map(|at| format!(", {}", name(at))).unwrap_or_default();
            format!("{} at {}+{}{at}", name(what), path(file), name(offset))
        }
        _ => format!("{} {}", name(what), name(called)),
    };
    let by = owner.as_ref().map(|owner| format!(" is held by {}", path(owner)));
    let by = by.unwrap_or_else(|| " is held by no process".to_owned());
    let package = package.as_ref().map(|text| format!(" of package {}", name(text)));
    let pid = Some(finding.process.pid).filter(|pid| *pid != 0 && owner.is_some());
    let pid = pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default();
    Some(format!("{place}{by}{pid}{}", package.unwrap_or_default()))
}

fn timing(
    evidence: &Evidence,
    method: Option<&str>,
    who: &Who,
    modules: &mut Modules,
) -> Option<String> {
    let Evidence::Timing {
        metric, seconds: took, baseline_seconds, module, module_seconds, ..
    } = evidence
    else {
        return None;
    };
    let unit = unit(metric);
    let (took, usual) = (seconds(*took), seconds(*baseline_seconds));
    let mut text = if metric.starts_with("link") {
        format!("{} took {took}{unit} instead of {usual}", who.linking)
    } else if metric.starts_with("constructor") {
        format!("its libraries' constructors took {took}{unit} instead of {usual}")
    } else if metric.starts_with("auth") {
        let by = method.map(|method| format!(" by {}", name(method))).unwrap_or_default();
        format!("authentication{by} cost {took}{unit} (usual {usual})")
    } else {
        format!("{}'s {} was {took} (usual {usual})", who.subject, name(metric))
    };
    if let Some(module) = module {
        let library = modules.library(module);
        let share = match module_seconds {
            Some(share) => format!("{library} took {} of it", seconds(*share)),
            None => format!("most of it went to {library}"),
        };
        text = format!("{text}, and {share}");
    }
    Some(text)
}

/// What the seconds of `metric` are.
pub(super) fn unit(metric: &str) -> &'static str {
    if metric.contains("cpu") {
        " of CPU"
    } else if metric.contains("wall") {
        " of wall time"
    } else {
        ""
    }
}

/// What is wrong with a mapping, for the detectors of mappings.
pub(super) fn mapped(finding: &Finding) -> Option<&'static str> {
    let placed = finding.evidence.iter().find_map(|evidence| match evidence {
        Evidence::File { exposure, .. } => Some(exposure.clause()),
        _ => None,
    });
    Some(match finding.detector.as_str() {
        "library_unexpected" => "which was not there while learning",
        "library_unowned" => "which no package owns as it is",
        "library_writable_path" => placed.unwrap_or("which others can write to"),
        "module_unlinked" => "which the loader does not know of",
        _ => return None,
    })
}

/// `, which was called from sshd+0x6a2c1 (ssh_rsa_verify+0x111)`
fn way(caller: &str, stack: &[String]) -> String {
    let outer = stack.iter().skip_while(|frame| *frame != caller).nth(1);
    outer.map_or(String::new(), |outer| format!(", which was called from {}", place(outer, None)))
}

/// First letter in upper case, unless the first word may be a name.
fn opened(text: &str) -> String {
    let first = text.split(' ').next().unwrap_or_default();
    if first.is_empty() || !first.bytes().all(|byte| byte.is_ascii_lowercase()) {
        return text.to_owned();
    }
    format!("{}{}", text[..1].to_ascii_uppercase(), &text[1..])
}

fn command(cmdline: &[String]) -> String {
    if cmdline.len() < 2 {
        return String::new();
    }
    format!(" ({})", path(&super::text::cut(&cmdline.join(" "), MAX_COMMAND)))
}

/// When on its connection a hook was seen: evidence from before the login's end is worth more.
fn on_connection(finding: &Finding) -> String {
    let connection = finding.evidence.iter().find_map(|evidence| match evidence {
        Evidence::Connection { authenticated, since_accept_seconds, .. } => {
            Some((*authenticated, seconds(*since_accept_seconds)))
        }
        _ => None,
    });
    match connection {
        Some((true, after)) => format!(", {after} after the connection was accepted"),
        Some((false, after)) => format!(
            ", {after} after the connection was accepted and before authentication had finished"
        ),
        None => String::new(),
    }
}

// === impl Modules ===

impl Modules {
    /// Collects the build-ids from all evidence of `findings`.
    pub(super) fn of(findings: &[Finding]) -> Self {
        let mut build_ids = BTreeMap::new();
        for evidence in findings.iter().flat_map(|finding| &finding.evidence) {
            let (module, id) = match evidence {
                Evidence::Slot { actual_module, actual_build_id: Some(id), .. } => {
                    (actual_module, id)
                }
                Evidence::Library { path, build_id: Some(id), .. } => (path, id),
                Evidence::Opened { caller_module, caller_build_id: Some(id), .. } => {
                    (caller_module, id)
                }
                Evidence::Mapping { module, build_id: Some(id), .. } => (module, id),
                Evidence::Audit { callback_module, callback_build_id: Some(id), .. } => {
                    (callback_module, id)
                }
                _ => continue,
            };
            build_ids.entry(base(module).to_owned()).or_insert_with(|| id.clone());
        }
        Self { build_ids, introduced: BTreeSet::new() }
    }

    /// File name, with path and build-id the first time.
    pub(super) fn library(&mut self, module: &str) -> String {
        match self.introduce(module) {
            Some(more) => format!("{} ({more})", name(base(module))),
            None => name(base(module)),
        }
    }

    /// What to add to the file name of `module` the first time it is named.
    pub(super) fn introduce(&mut self, module: &str) -> Option<String> {
        if module.is_empty() || !self.introduced.insert(base(module).to_owned()) {
            return None;
        }
        let full = module.contains('/').then(|| path(module));
        let id = self.build_ids.get(base(module)).map(|id| build_id(id));
        let more: Vec<String> = full.into_iter().chain(id).collect();
        (!more.is_empty()).then(|| more.join(", "))
    }
}
