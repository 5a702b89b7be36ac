//! What somebody who has never met the sensor needs to know of an incident besides its story: what it
//! means, how sure it is, which files are blamed, and what would settle it.

use super::blame::{Blamed, blamed};
use super::score::{Arithmetic, arithmetic};
use super::text::{base, clause, name, path, plain};
use super::title::lead;
use super::{Incident, advice};
use crate::finding::{Evidence, Family, Finding, Severity};

/// Files that are named; all of them stand in the evidence.
const MAX_FILES: usize = 6;

/// See the module. Every text is one paragraph, harmless to a terminal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Brief {
    /// What the worst finding means, without the sensor's own words.
    pub meaning: String,
    /// How sure the sensor is, and of what.
    pub sure: String,
    /// The files that are held against, with what identifies them.
    pub blame: Vec<String>,
    /// ATT&CK techniques: id and name; the name is empty where it is not known here.
    pub attack: Vec<(String, &'static str)>,
    /// What would confirm or refute it; empty where the recommendation says nothing of it.
    pub decides: String,
    /// What to do, one after the other.
    pub steps: Vec<String>,
}

/// Makes it from the incident's findings and its recommendation.
#[must_use]
pub fn brief(incident: &Incident) -> Brief {
    let findings = &incident.findings;
    let (mut steps, decides) = split(incident);
    if plain(&incident.id) {
        let named = format!("halfsecond incidents {} ", incident.id);
        steps = steps.iter().map(|step| step.replace("halfsecond incidents ID ", &named)).collect();
    }
    Brief {
        meaning: lead(findings).map(meaning).unwrap_or_default().to_owned(),
        sure: sure(incident, &arithmetic(findings)),
        blame: blame(findings),
        attack: attack(findings),
        decides,
        steps,
    }
}

/// The recommendation in parts. One that another version has written is left as it is.
fn split(incident: &Incident) -> (Vec<String>, String) {
    let text = &incident.recommendation;
    if *text == advice::recommendation(&incident.findings) {
        let decides = advice::decides(&incident.findings).unwrap_or_default().to_owned();
        return (advice::steps(&incident.findings), decides);
    }
    match text.rfind("Confirmed if ") {
        Some(at) => (vec![text[..at].trim_end().to_owned()], text[at..].to_owned()),
        None => (vec![text.clone()], String::new()),
    }
}

/// By the worst finding's detector.
fn meaning(worst: &Finding) -> &'static str {
    match worst.detector.as_str() {
        "got_redirected" => {
            "When the program calls a library's function, code of somebody else runs in its place. \
             Where that function decides a login, whoever put the code there decides who gets in, \
             and the program's own log need not show it."
        }
        "text_patched" => {
            "Code in the program's memory is not what its file says: somebody changed what it does \
             while it runs."
        }
        "foreign_caller" => {
            "A function that decides a login is called by code that never called it: somebody stands \
             between the program and the function, or uses it for ends of his own."
        }
        "audit_unrequested" => {
            "The loader reports every function that the program binds to a library that nobody asked \
             for; that library can exchange each of them."
        }
        "module_unlinked" => {
            "Code runs in the program that its loader does not know of, as injected code does."
        }
        "remote_write" | "relro_reopened" => {
            "Memory of the program that decides what it executes was written to, or made writable, \
             after it had started."
        }
        "foreign_probe" | "kernel_hook" => {
            "Somebody besides the sensor can see, or change, what passes there; passwords may be among \
             it."
        }
        "preauth_exec" => {
            "Somebody who had not logged in made the server execute a program: so it looks when a back \
             door takes commands."
        }
        "auth_without_method" => {
            "Somebody has a session though nobody was seen to prove who he is."
        }
        "pam_stack_changed" => "The rules by which this host lets people in were changed.",
        "preload_env" | "loader_config_changed" | "library_writable_path" => {
            "Code of somebody's choice can be loaded into programs before, or instead of, their own."
        }
        "library_unexpected" | "library_unowned" | "dlopen_unexpected" => {
            "The program runs code of a file that it never had, or that no package vouches for. It may \
             be an installation that nobody told the sensor of."
        }
        "link_time_shift" | "auth_cpu_shift" | "auth_wall_shift" => {
            "The program spends time that it did not spend before. Code that was added costs time, and \
             so do other things: by itself this is a reason to look, and no proof."
        }
        "blinded" => {
            "Something keeps the sensor from looking: until that is settled, its silence means nothing."
        }
        _ => "Something is not as it was while the sensor learned what is usual.",
    }
}

fn sure(incident: &Incident, sum: &Arithmetic) -> String {
    let mut told = format!("The score is {} of 100.", incident.score);
    if sum.terms.iter().all(|term| !term.counts) {
        return format!(
            "{told} Nothing of it counts: it is to be expected, or merely worth knowing."
        );
    }
    let parts: Vec<String> = sum
        .terms
        .iter()
        .filter(|term| term.counts)
        .map(|term| {
            format!("{:.2} by {} ({})", term.strength, name(&term.detector), family(term.family))
        })
        .collect();
    told = format!("{told} It is made of {}", listed(&parts));
    told.push_str(match parts.len() {
        1 => ".",
        _ => ", put together as 1 - (1 - first) x (1 - second) and so on.",
    });
    let families = sum.witnesses.len();
    let about = incident.findings.iter().filter(|one| one.suppressed_by.is_none());
    let proof = about.clone().any(is_read);
    if proof {
        told.push_str(
            " What leads elsewhere was read from the program's memory and compared with its files: that \
             is no estimate. What it is for, the sensor cannot know.",
        );
    }
    told.push_str(match families {
        0 | 1 if proof => "",
        0 | 1 => " Only one kind of sign points this way so far.",
        2 => " Two kinds of signs point the same way.",
        3 => " Three kinds of signs point the same way.",
        _ => " All kinds of signs point the same way.",
    });
    if about.clone().any(|one| one.explained_by.is_some()) {
        told.push_str(" Part of it is explained, and counts half.");
    }
    if incident.partial {
        told.push_str(" Records were lost meanwhile: there may be more.");
    }
    told
}

/// Whether what it says was compared byte by byte.
fn is_read(finding: &Finding) -> bool {
    finding.severity >= Severity::High
        && finding
            .evidence
            .iter()
            .any(|one| matches!(one, Evidence::Slot { .. } | Evidence::Code { .. }))
}

fn blame(findings: &[Finding]) -> Vec<String> {
    let mut files: Vec<Blamed<'_>> = Vec::new();
    for one in findings.iter().flat_map(blamed) {
        match files.iter_mut().find(|known| known.path == one.path) {
            Some(known) => {
                known.build_id = known.build_id.or(one.build_id);
                known.package = known.package.or(one.package);
                known.sha256 = known.sha256.or(one.sha256);
            }
            None if !one.path.is_empty() => files.push(one),
            None => {}
        }
    }
    let more = files.len().saturating_sub(MAX_FILES);
    let mut told: Vec<String> =
        files.iter().take(MAX_FILES).map(|file| file_line(file, findings)).collect();
    if more > 0 {
        told.push(format!("and {more} more"));
    }
    told
}

fn file_line(file: &Blamed<'_>, findings: &[Finding]) -> String {
    let mut told = format!("{}, {}", name(base(file.path)), path(file.path));
    if let Some(id) = file.build_id {
        told = format!("{told}, build-id {}", name(id));
    }
    if let Some(digest) = file.sha256 {
        told = format!("{told}, SHA-256 {}", name(digest));
    }
    let others = || findings.iter().flat_map(|finding| &finding.evidence);
    let differs = others().find_map(|evidence| match evidence {
        Evidence::Package { path, package, content, .. }
            if path == file.path && !package.is_empty() && content != "matches" =>
        {
            Some((package, content))
        }
        _ => None,
    });
    match (file.package, differs) {
        (Some(package), _) => format!("{told}; as package {} brought it", path(package)),
        (None, Some((package, content))) if content == "differs" => {
            format!("{told}; of package {}, but not what that brought", path(package))
        }
        (None, Some((package, content))) => {
            format!("{told}; of package {}, not compared ({})", path(package), clause(content))
        }
        (None, None) => format!("{told}; no package is known to have brought it"),
    }
}

/// Of all findings that count, each once.
fn attack(findings: &[Finding]) -> Vec<(String, &'static str)> {
    let mut ids: Vec<&String> = findings
        .iter()
        .filter(|finding| finding.suppressed_by.is_none())
        .flat_map(|finding| &finding.attack)
        .collect();
    ids.sort_unstable();
    ids.dedup();
    ids.into_iter().map(|id| (name(id), technique(id))).collect()
}

/// Names of MITRE ATT&CK for Enterprise.
fn technique(id: &str) -> &'static str {
    match id {
        "T1014" => "Rootkit",
        "T1036.005" => "Match Legitimate Resource Name or Location",
        "T1055" => "Process Injection",
        "T1055.001" => "Dynamic-link Library Injection",
        "T1056" => "Input Capture",
        "T1078" => "Valid Accounts",
        "T1190" => "Exploit Public-Facing Application",
        "T1195.002" => "Compromise Software Supply Chain",
        "T1205.002" => "Socket Filters",
        "T1547.006" => "Kernel Modules and Extensions",
        "T1554" => "Compromise Host Software Binary",
        "T1556" => "Modify Authentication Process",
        "T1556.003" => "Pluggable Authentication Modules",
        "T1562" => "Impair Defenses",
        "T1574" => "Hijack Execution Flow",
        "T1574.006" => "Dynamic Linker Hijacking",
        "T1574.008" => "Path Interception by Search Order Hijacking",
        "T1620" => "Reflective Code Loading",
        _ => "",
    }
}

fn family(family: Family) -> &'static str {
    match family {
        Family::Linker => "what the linker does",
        Family::Hook => "who took functions over",
        Family::Sshd => "how logins go",
        Family::Sensor => "how the sensor itself fares",
    }
}

fn listed(parts: &[String]) -> String {
    match parts {
        [] => String::new(),
        [only] => only.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::{BUILD_ID, slow_link, sshd, xz_like};
    use super::*;
    use crate::incident::Incidents;
    use crate::metrics::DETECTORS;

    fn told(findings: Vec<Finding>) -> Incident {
        let mut incidents = Incidents::new(std::time::Duration::from_mins(5), "web1".to_owned());
        for finding in findings {
            let ktime_ns = finding.ktime_ns;
            incidents.join(finding, &sshd(), ktime_ns);
        }
        let first = incidents.open().next().cloned();
        first.unwrap()
    }

    #[test]
    fn an_xz_like_incident_says_what_it_means_how_sure_it_is_and_what_to_do() {
        let told = told(xz_like());
        let brief = brief(&told);
        assert!(brief.meaning.contains("decides who gets in"), "{}", brief.meaning);
        for text in [
            "96 of 100",
            "0.88 by got_redirected",
            "(1 - first)",
            "no estimate",
            "Three kinds of signs",
        ] {
            assert!(brief.sure.contains(text), "no {text:?} in {}", brief.sure);
        }
        let [file] = brief.blame.as_slice() else { panic!("{:?}", brief.blame) };
        assert!(file.contains(BUILD_ID) && file.contains("no package is known"), "{file}");
        assert_eq!(brief.attack, [("T1554".to_owned(), "Compromise Host Software Binary")]);
        assert!(brief.decides.starts_with("Confirmed if") && brief.decides.contains("refuted if"));
        assert!(brief.steps[0].starts_with("Save evidence before sshd is restarted"));
        let names_itself = format!("`halfsecond incidents {} --json > incident.json`", told.id);
        assert!(brief.steps[0].contains(&names_itself), "{}", brief.steps[0]);
        assert!(brief.steps.iter().all(|step| !step.contains("Confirmed if")), "{:?}", brief.steps);
    }

    #[test]
    fn a_time_alone_is_told_as_no_proof() {
        let brief = brief(&told(vec![slow_link()]));
        assert!(brief.meaning.contains("no proof"), "{}", brief.meaning);
        assert!(brief.sure.contains("Only one kind of sign"), "{}", brief.sure);
        assert!(!brief.sure.contains("no estimate"), "{}", brief.sure);
    }

    #[test]
    fn every_detector_has_a_meaning_of_its_own() {
        let none = Finding { detector: "none".to_owned(), ..slow_link() };
        let general = meaning(&none);
        for detector in DETECTORS {
            let finding = Finding { detector: detector.to_owned(), ..slow_link() };
            assert_ne!(meaning(&finding), general, "{detector}");
        }
    }

    #[test]
    fn what_another_version_recommended_is_left_as_it_is() {
        let mut incident = told(xz_like());
        incident.recommendation = "Do this. Confirmed if that; refuted if not.".to_owned();
        let brief = brief(&incident);
        assert_eq!(brief.steps, ["Do this."]);
        assert_eq!(brief.decides, "Confirmed if that; refuted if not.");
    }
}
