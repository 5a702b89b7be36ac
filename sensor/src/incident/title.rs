//! The title of an incident: its worst finding in one line.

use std::cmp::Reverse;

use super::limit::count;
use super::sentence::{mapped, method, proven, unit};
use super::text::{base, clause, cut, name, path, place_module, seconds, symbol};
use super::{code, loader_files, pam};
use crate::finding::{Evidence, Finding};

/// Characters of a title, without how often it was seen.
const MAX_TITLE: usize = 240;

/// Names the worst, the time it cost where that is known too, and on how many connections or how often it
/// was seen.
pub(super) fn title(findings: &[Finding], connections: u64) -> String {
    let Some(worst) = lead(findings) else { return String::new() };
    let mut title = headline(worst);
    if proven(worst)
        && let Some(owner) = worst.evidence.iter().find_map(owner)
        && let Some(cost) = cost(findings, owner)
    {
        title.push_str(" and added ");
        title.push_str(&cost);
    }
    let title = cut(&title, MAX_TITLE);
    match (connections, count(worst)) {
        (2.., _) => format!("{title}; on {connections} connections"),
        (_, 2..) => format!("{title}; seen {} times", count(worst)),
        _ => title,
    }
}

/// The worst finding that is not to be expected; among equals the one that proves most, then the
/// earliest.
pub(super) fn lead(findings: &[Finding]) -> Option<&Finding> {
    findings.iter().min_by_key(|finding| {
        let ranks = finding.evidence.iter().map(|evidence| rank(finding, evidence));
        let proof = ranks.min().unwrap_or(u8::MAX);
        let expected = finding.suppressed_by.is_some();
        (expected, Reverse(finding.severity), proof, finding.time)
    })
}

/// The more it proves, the lower.
fn rank(finding: &Finding, evidence: &Evidence) -> u8 {
    match evidence {
        Evidence::Slot { .. } | Evidence::Code { .. } => 0,
        Evidence::Audit { .. }
        | Evidence::Caller { .. }
        | Evidence::Mapping { .. }
        | Evidence::Session { .. }
        | Evidence::Libpam { .. } => 1,
        Evidence::Exec { .. }
        | Evidence::LoaderConfig { .. }
        | Evidence::PamStack { .. }
        | Evidence::Opened { .. }
        | Evidence::Instrument { .. }
        | Evidence::Protection { .. } => 2,
        Evidence::Library { .. } if mapped(finding).is_some() => 3,
        Evidence::Timing { .. } => 4,
        Evidence::Environment { .. } => 5,
        Evidence::Writer { .. } if finding.detector == "remote_write" => 2,
        Evidence::Library { .. }
        | Evidence::File { .. }
        | Evidence::Package { .. }
        | Evidence::Search { .. }
        | Evidence::Since { .. }
        | Evidence::Writer { .. }
        | Evidence::Note { .. }
        | Evidence::Connection { .. }
        | Evidence::Repeated { .. } => 6,
    }
}

fn headline(finding: &Finding) -> String {
    if !proven(finding) {
        return clause(&finding.title);
    }
    let exe = name(base(&finding.process.exe));
    let Some(evidence) = finding.evidence.iter().min_by_key(|evidence| rank(finding, evidence))
    else {
        return clause(&finding.title);
    };
    match evidence {
        Evidence::Slot { symbol: function, .. } => {
            let owner = owner(evidence).unwrap_or_default();
            format!("{} owns {exe}'s {}", name(owner), symbol(function))
        }
        Evidence::Caller { function, .. } => {
            let owner = owner(evidence).unwrap_or_default();
            format!("{} calls {} in {exe}", name(owner), symbol(function))
        }
        Evidence::Code { .. } => code::headline(evidence, &exe),
        Evidence::Audit { .. } => {
            let owner = owner(evidence).unwrap_or_default();
            format!("{} is called back by {exe}'s loader, unrequested", name(owner))
        }
        Evidence::Opened { library, caller_module, namespace, .. } => {
            let apart = if namespace.is_some() { " in a namespace of its own" } else { "" };
            match caller_module.as_str() {
                "" => format!("{exe} opened {}{apart}", path(library)),
                asker => format!("{} made {exe} open {}{apart}", name(base(asker)), path(library)),
            }
        }
        Evidence::Session { missing, .. } => {
            format!("A session of {exe} began although {}", clause(missing))
        }
        Evidence::Libpam { verdict, libpam, .. } => {
            format!("{exe} {} although {}", clause(verdict), clause(libpam))
        }
        Evidence::Exec { path: file, .. } if finding.detector == "preauth_exec" => {
            format!("{exe} executed {} before authentication", path(file))
        }
        Evidence::Exec { path: file, .. } => format!("{exe} executed {}", path(file)),
        Evidence::Library { path: file, .. } => match mapped(finding) {
            Some(how) => format!("{exe} mapped {}, {how}", path(file)),
            None => clause(&finding.title),
        },
        Evidence::Timing { .. } => timing(finding, evidence, &exe),
        Evidence::Environment { name: variable, .. } => {
            format!("{} was set for {exe}", name(variable))
        }
        Evidence::LoaderConfig { .. } => loader_files::headline(finding),
        Evidence::PamStack { .. } => pam::headline(finding),
        Evidence::Mapping { .. }
        | Evidence::Writer { .. }
        | Evidence::Protection { .. }
        | Evidence::File { .. }
        | Evidence::Package { .. }
        | Evidence::Search { .. }
        | Evidence::Since { .. }
        | Evidence::Instrument { .. }
        | Evidence::Note { .. }
        | Evidence::Connection { .. }
        | Evidence::Repeated { .. } => clause(&finding.title),
    }
}

fn timing(finding: &Finding, evidence: &Evidence, exe: &str) -> String {
    let Evidence::Timing {
        metric, seconds: took, baseline_seconds, module, module_seconds, ..
    } = evidence
    else {
        return clause(&finding.title);
    };
    let what = if metric.starts_with("link") {
        format!("Linking of {exe}")
    } else if metric.starts_with("constructor") {
        format!("Constructors in {exe}")
    } else if metric.starts_with("auth") {
        let by = method(finding).map(|method| format!(" by {}", name(method))).unwrap_or_default();
        format!("Authentication{by} in {exe}")
    } else {
        format!("{} of {exe}", name(metric))
    };
    let share = match (module, module_seconds) {
        (Some(module), Some(share)) => {
            format!(", {} of it in {}", seconds(*share), name(base(module)))
        }
        (Some(module), None) => format!(", mostly in {}", name(base(module))),
        _ => String::new(),
    };
    let (took, usual) = (seconds(*took), seconds(*baseline_seconds));
    format!("{what} took {took}{} instead of {usual}{share}", unit(metric))
}

/// File name of the module that has taken a function over or calls it.
fn owner(evidence: &Evidence) -> Option<&str> {
    match evidence {
        Evidence::Slot { actual, actual_module, .. } if actual_module.is_empty() => {
            Some(place_module(actual))
        }
        Evidence::Slot { actual_module, .. } => Some(base(actual_module)),
        Evidence::Code { leads_to_module, .. } if !leads_to_module.is_empty() => {
            Some(base(leads_to_module))
        }
        Evidence::Caller { caller_module, .. } => Some(base(caller_module)),
        Evidence::Audit { callback_module, .. } if callback_module.is_empty() => Some("somebody"),
        Evidence::Audit { callback_module, .. } => Some(base(callback_module)),
        _ => None,
    }
}

/// The time `owner` cost, as far as nobody else is named for it: at the start where that is known,
/// else at the authentication.
fn cost(findings: &[Finding], owner: &str) -> Option<String> {
    let timings = || {
        findings.iter().flat_map(|finding| {
            finding.evidence.iter().filter_map(move |evidence| match evidence {
                Evidence::Timing {
                    metric,
                    seconds,
                    baseline_seconds,
                    module,
                    module_seconds,
                    ..
                } if module.as_ref().is_none_or(|module| base(module) == owner) => {
                    Some((finding, metric, module_seconds.unwrap_or(seconds - baseline_seconds)))
                }
                _ => None,
            })
        })
    };
    let linking = timings().find(|(_, metric, _)| metric.starts_with("link"));
    if let Some((_, _, excess)) = linking {
        return Some(format!("{} to its start", seconds(excess)));
    }
    let (finding, _, excess) = timings().find(|(_, metric, _)| metric.starts_with("auth"))?;
    let by = method(finding).map(|method| format!(" by {}", name(method))).unwrap_or_default();
    Some(format!("{} to authentication{by}", seconds(excess)))
}
