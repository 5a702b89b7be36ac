//! Title, story and recommendation: what an operator reads first.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::score::families;
use super::words::{accused, duration, file_name, function, library};
use crate::finding::{Evidence, Family, Finding, Severity};

/// Sentences of one story.
const SENTENCES_MAX: usize = 12;

/// The worst finding's title, the earliest of equals.
pub(super) fn title(findings: &[Finding]) -> String {
    let Some(first) = worst(findings) else { return String::new() };
    let mut detectors: Vec<&str> = findings.iter().map(|f| f.detector.as_str()).collect();
    detectors.sort_unstable();
    detectors.dedup();
    match detectors.len() {
        0 | 1 => first.title.clone(),
        2 => format!("{} (and one more sign)", first.title),
        n => format!("{} (and {} more signs)", first.title, n - 1),
    }
}

/// One paragraph: who and where, then one sentence per finding in the order of events.
pub(super) fn story(
    findings: &[Finding],
    repeats: &BTreeMap<String, u64>,
    partial: bool,
) -> String {
    let mut ordered: Vec<&Finding> = findings.iter().collect();
    ordered.sort_by_key(|finding| (finding.ktime_ns, finding.detector.clone()));
    let Some(first) = ordered.first() else { return String::new() };
    let mut story = opening(first);
    for finding in ordered.iter().take(SENTENCES_MAX) {
        let mut said = sentence(finding);
        if let Some(more) = repeats.get(&finding.id).filter(|more| **more > 0) {
            let times =
                if *more == 1 { "once more".to_owned() } else { format!("{more} more times") };
            let _ = write!(said, " ({times})");
        }
        let _ = write!(story, " {}.", capital(&said));
    }
    if ordered.len() > SENTENCES_MAX {
        let _ = write!(story, " {} more findings follow.", ordered.len() - SENTENCES_MAX);
    }
    if let Some(text) = connection(findings) {
        let _ = write!(story, " {text}");
    }
    if partial {
        story.push_str(" Records were lost meanwhile, so parts may be missing.");
    }
    story
}

/// What to do, by what is proven.
pub(super) fn recommendation(findings: &[Finding], severity: Severity) -> String {
    let Some(first) = worst(findings) else { return String::new() };
    let culprit = culprit(findings);
    let which = culprit
        .map_or_else(|| "the files named in the evidence".to_owned(), |(path, _)| path.to_owned());
    let hooked = findings.iter().any(|f| f.family == Family::Hook && f.severity >= Severity::High);
    let program = file_name(&first.process.exe);
    if hooked || severity == Severity::Critical {
        format!(
            "Treat {host} as compromised: keep it running but cut off from the network, copy {which} \
             and the memory of pid {pid} as evidence, find out what brought the file and when (dpkg \
             -S or rpm -qf {which}), then rebuild the host and replace every key and password that \
             {program} has seen since {time}.",
            host = first.host,
            pid = first.process.pid,
            time = first.time,
        )
    } else if severity >= Severity::High {
        format!(
            "Find out what brought {which} and when (dpkg -S or rpm -qf {which}), compare it with \
             its package, and check {program} at once with `halfsecond scan --pid {pid}`.",
            pid = first.process.pid,
        )
    } else {
        format!(
            "Compare {which} with its package; if an upgrade or a change of configuration explains \
             it, nothing is left to do."
        )
    }
}

fn worst(findings: &[Finding]) -> Option<&Finding> {
    let worst = findings.iter().map(|finding| finding.severity).max()?;
    let equals = findings.iter().filter(|finding| finding.severity == worst);
    // Of equals the slot itself says most.
    equals.min_by_key(|finding| (finding.detector != "got_redirected", finding.ktime_ns))
}

/// The file that most findings accuse.
fn culprit(findings: &[Finding]) -> Option<(&str, Option<&str>)> {
    let mut accusations: BTreeMap<&str, (u64, Option<&str>)> = BTreeMap::new();
    for finding in findings.iter().filter(|finding| finding.severity > Severity::Info) {
        let mut seen: Vec<&str> = Vec::new();
        for (path, build_id) in finding.evidence.iter().filter_map(accused) {
            let entry = accusations.entry(path).or_default();
            entry.1 = entry.1.or(build_id);
            if !seen.contains(&path) {
                entry.0 += 1;
                seen.push(path);
            }
        }
    }
    let most = accusations.into_iter().max_by_key(|(path, (count, _))| (*count, path.len()));
    most.map(|(path, (_, build_id))| (path, build_id))
}

fn opening(first: &Finding) -> String {
    let mut place = format!("On {}", first.host);
    if let Some(container) = &first.process.container {
        let short = container.get(..12).unwrap_or(container);
        let _ = write!(place, " in container {short}");
    }
    let at = first.time.strftime("%Y-%m-%d %H:%M:%S UTC");
    let program = &first.process.exe;
    format!("{place}, {at}, {program} (pid {}):", first.process.pid)
}

fn sentence(finding: &Finding) -> String {
    let program = file_name(&finding.process.exe);
    let told = finding.evidence.iter().find_map(|evidence| told(finding, program, evidence));
    told.unwrap_or_else(|| finding.title.clone())
}

fn told(finding: &Finding, program: &str, evidence: &Evidence) -> Option<String> {
    Some(match evidence {
        Evidence::Slot { module, symbol, expected, actual_module, actual_build_id, .. } => {
            let symbol = function(symbol);
            let owner = library(actual_module, actual_build_id.as_deref());
            let due = expected.split('+').next().unwrap_or(expected);
            let when = if authenticated(finding) == Some(false) {
                ", before the login was decided"
            } else {
                ""
            };
            let more = match slots(finding) {
                1 => String::new(),
                n => format!(" (and {} more functions)", n - 1),
            };
            let module = file_name(module);
            format!("{owner} now owns {module}'s {symbol}{more}, which belongs to {due}{when}")
        }
        Evidence::Caller { function, caller_module, known, .. } => {
            let known: Vec<&str> = known.iter().map(|path| file_name(path)).collect();
            let so_far = match known.as_slice() {
                [] => String::new(),
                known => format!(", so far only by {}", known.join(", ")),
            };
            format!("{function} was called by {}{so_far}", file_name(caller_module))
        }
        Evidence::Library { path, build_id, .. } if finding.detector == "library_unexpected" => {
            let note = finding.evidence.iter().find_map(|evidence| match evidence {
                Evidence::Note { text } => Some(text.as_str()),
                _ => None,
            });
            let why = note.map(|text| format!(": {text}")).unwrap_or_default();
            format!("{program} loaded {}{why}", library(path, build_id.as_deref()))
        }
        Evidence::Timing { metric, seconds, baseline_seconds, module, module_seconds, .. } => {
            timing(
                finding,
                program,
                metric,
                (*seconds, *baseline_seconds),
                module.as_deref().zip(*module_seconds),
            )
        }
        Evidence::Environment { name, value } => {
            format!("{program} was started with {name}={value}")
        }
        Evidence::Exec { path, cmdline } => {
            let arguments = cmdline.get(1..).unwrap_or_default().join(" ");
            let user = finding.process.uid;
            format!("{path} {arguments} ran as uid {user} before anyone had authenticated")
        }
        _ => return None,
    })
}

fn timing(
    finding: &Finding,
    program: &str,
    metric: &str,
    (seconds, usual): (f64, f64),
    module: Option<(&str, f64)>,
) -> String {
    if metric == "auth_cpu" {
        let method = finding.evidence.iter().find_map(|evidence| match evidence {
            Evidence::Connection { method, .. } => method.as_deref(),
            _ => None,
        });
        return format!(
            "the login by {} cost {} of CPU time (usual {})",
            method.unwrap_or("an unknown method"),
            duration(seconds),
            duration(usual)
        );
    }
    let Some((path, share)) = module else {
        return format!("{program} took {} to link (usual {})", duration(seconds), duration(usual));
    };
    let build_id = finding.evidence.iter().find_map(|evidence| match evidence {
        Evidence::Library { path: other, build_id, .. } if other == path => build_id.as_deref(),
        _ => None,
    });
    format!(
        "{} spent {} while {program} was being linked (all modules together usually {})",
        library(path, build_id),
        duration(share),
        duration(usual)
    )
}

fn slots(finding: &Finding) -> usize {
    finding.evidence.iter().filter(|evidence| matches!(evidence, Evidence::Slot { .. })).count()
}

fn authenticated(finding: &Finding) -> Option<bool> {
    finding.evidence.iter().find_map(|evidence| match evidence {
        Evidence::Connection { authenticated, .. } => Some(*authenticated),
        _ => None,
    })
}

fn connection(findings: &[Finding]) -> Option<String> {
    let peer =
        findings.iter().flat_map(|finding| &finding.evidence).find_map(
            |evidence| match evidence {
                Evidence::Connection { peer: Some(peer), .. } => Some(peer),
                _ => None,
            },
        )?;
    let signs = match families(findings).len() {
        0 | 1 => "",
        _ => " Independent signs agree.",
    };
    Some(format!("The first connection it showed on came from {peer}.{signs}"))
}

fn capital(text: &str) -> String {
    // A file name keeps its own spelling.
    if text.starts_with('/') || text.split(' ').next().is_some_and(|word| word.contains('.')) {
        return text.to_owned();
    }
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}
