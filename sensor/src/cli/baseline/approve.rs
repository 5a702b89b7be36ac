//! `halfsecond baseline approve`: one exact object at a time, or what an incident may be approved of.

use std::fs::File;
use std::io::Write;

use clap::Args;
use jiff::Timestamp;
use serde_json::json;

use super::change::{self, Changed};
use super::find::{self, Known};
use crate::baseline::{Act, Approval, CONSTRUCTOR, LINK, Object, SubjectName, check_stream};
use crate::cli::incidents::{self, ReadStore};
use crate::cli::term::{Style, Tone, escape_json};
use crate::cli::{Exit, Failure, Global, ended};
use crate::config::Config;
use crate::finding::{Evidence, Finding};
use crate::host::{Method, ModuleId};
use crate::incident::Incident;

/// Detectors of which an incident's id approves something: libraries and times.
const BY_INCIDENT: [&str; 3] = ["library_unexpected", "link_time_shift", "auth_cpu_shift"];

/// Arguments of `approve`.
#[derive(Args, Clone, Debug)]
#[command(group = clap::ArgGroup::new("what").required(true).multiple(true))]
pub struct ApproveArgs {
    /// Whose baseline; not with --incident
    #[arg(required_unless_present = "incident", conflicts_with = "incident")]
    pub subject: Option<String>,
    /// This build of a library; without it the one at PATH now, for programs that are not guarded
    #[arg(long, group = "what", value_name = "PATH[@BUILD]")]
    pub library: Vec<String>,
    /// This build of a library as a caller of a guarded function
    #[arg(long, group = "what", value_name = "FUNCTION=PATH@BUILD")]
    pub caller: Vec<String>,
    /// This build of a library as the one that opens LIBRARY
    #[arg(long, group = "what", value_name = "LIBRARY=PATH@BUILD")]
    pub asker: Vec<String>,
    /// A loader variable; with the library where it loads one
    #[arg(long, group = "what", value_name = "NAME[=PATH]")]
    pub variable: Vec<String>,
    /// A program that runs below sshd before the login
    #[arg(long, group = "what", value_name = "PATH")]
    pub helper: Vec<String>,
    /// Something that instruments the host, as `baseline show` or the finding names it
    #[arg(long, group = "what", value_name = "NAME")]
    pub instrument: Vec<String>,
    /// A stream of times: it is learned anew
    #[arg(long, group = "what", value_name = "STREAM")]
    pub times: Vec<String>,
    /// The libraries and times that an incident is about
    #[arg(long, group = "what", value_name = "ID")]
    pub incident: Option<String>,
    /// Who approves
    #[arg(long)]
    pub who: String,
    /// Why
    #[arg(long)]
    pub why: String,
}

/// `halfsecond baseline approve`.
pub(super) fn approve(
    global: &Global,
    config: &Config,
    args: &ApproveArgs,
    read_store: ReadStore,
    out: &mut impl Write,
) -> Result<Exit, Failure> {
    let known = find::all(config)?;
    let wanted = match (&args.incident, &args.subject) {
        (Some(id), _) => of_incident(&incidents::one(config, id, read_store)?, &known)?,
        (None, Some(asked)) => {
            let (subject, _) = find::one(&known, asked)?;
            let guarded = find::criteria(config, subject).guarded;
            vec![(subject.clone(), named(args, subject, guarded)?)]
        }
        (None, None) => Vec::new(),
    };
    let acts = acts(args, wanted, &known)?;
    let shown: Vec<(String, Vec<Approval>)> = acts
        .iter()
        .filter_map(|act| match act {
            Act::Approve { subject, approvals } => Some((subject.clone(), approvals.clone())),
            _ => None,
        })
        .collect();
    let changed = change::change(config, acts)?;
    let style = Style::stdout();
    let written = shown.iter().zip(&changed).try_for_each(|((subject, approvals), changed)| {
        approvals.iter().try_for_each(|one| tell(global, subject, one, changed, style, out))
    });
    ended(written, Exit::Success)
}

fn tell(
    global: &Global,
    subject: &str,
    approval: &Approval,
    changed: &Changed,
    style: Style,
    out: &mut impl Write,
) -> std::io::Result<()> {
    if global.json {
        let line = json!({
            "subject": subject, "approved": approval.object, "who": approval.who,
            "why": approval.why, "time": changed.time, "by": changed.by.name(),
        });
        return writeln!(out, "{}", escape_json(&line.to_string()));
    }
    let text = format!("approved for {subject}: {}; {}", approval.object.shown(), changed.when());
    writeln!(out, "{}", style.paint(Tone::Plain, &text))
}

/// Tried out on what is stored, so that a refusal comes at once and with its reason.
fn acts(
    args: &ApproveArgs,
    wanted: Vec<(String, Vec<Object>)>,
    known: &Known,
) -> Result<Vec<Act>, Failure> {
    let time = Timestamp::now();
    let mut acts = Vec::new();
    for (subject, objects) in wanted {
        let mut trial = known.get(&subject).cloned().unwrap_or_default();
        let mut approvals = Vec::new();
        for object in objects {
            let (who, why) = (args.who.clone(), args.why.clone());
            let approval = Approval { time, who, why, object };
            trial
                .approve(&approval)
                .map_err(|error| Failure::Usage(format!("{}: {error}", approval.object.shown())))?;
            approvals.push(approval);
        }
        acts.push(Act::Approve { subject, approvals });
    }
    Ok(acts)
}

/// What the options name, in full.
fn named(args: &ApproveArgs, subject: &str, guarded: bool) -> Result<Vec<Object>, Failure> {
    let mut objects = Vec::new();
    for text in &args.library {
        let module = match text.rsplit_once('@') {
            Some(_) => module(text)?,
            None => there(text, subject, guarded)?,
        };
        objects.push(Object::Library { module });
    }
    for text in &args.caller {
        let (function, caller) = pair(text, "--caller FUNCTION=PATH@BUILD")?;
        objects.push(Object::Caller { function, module: module(caller)? });
    }
    for text in &args.asker {
        let (library, asker) = pair(text, "--asker LIBRARY=PATH@BUILD")?;
        objects.push(Object::Asker { library, module: module(asker)? });
    }
    objects.extend(args.variable.iter().map(|name| Object::Variable { name: name.clone() }));
    objects.extend(args.helper.iter().map(|path| Object::Helper { path: path.clone() }));
    objects.extend(args.instrument.iter().map(|key| Object::Instrument { key: key.clone() }));
    objects.extend(args.times.iter().map(|stream| Object::Times { stream: stream.clone() }));
    Ok(objects)
}

fn pair<'a>(text: &'a str, form: &str) -> Result<(String, &'a str), Failure> {
    match text.split_once('=') {
        Some((name, module)) if !name.is_empty() => Ok((name.to_owned(), module)),
        _ => Err(Failure::Usage(format!("{text:?} is not of the form {form}"))),
    }
}

fn module(text: &str) -> Result<ModuleId, Failure> {
    match text.rsplit_once('@') {
        Some((path, build)) if path.starts_with('/') && !build.is_empty() => {
            Ok(ModuleId { path: path.to_owned(), build: build.to_owned() })
        }
        _ => Err(Failure::Usage(format!(
            "{text:?} names no build: give /PATH@BUILD, as the finding or `baseline show` has it"
        ))),
    }
}

/// The build that is at a path now. For a guarded program the one that was seen has to be named: the
/// file may have been changed since somebody looked.
fn there(path: &str, subject: &str, guarded: bool) -> Result<ModuleId, Failure> {
    if !SubjectName::of(subject).home.is_empty() {
        let text = format!("{subject} runs in a container: name the build, as in {path}@BUILD");
        return Err(Failure::Usage(text));
    }
    let opened = File::open(path).map_err(|error| Failure::Usage(format!("{path}: {error}")))?;
    let build = crate::symbol::build_id(&opened).ok().flatten();
    let Some(build) = build else {
        let text = format!("{path} has no build-id: name it as `baseline show` does, {path}@BUILD");
        return Err(Failure::Usage(text));
    };
    if guarded {
        let text = format!(
            "{subject} is guarded: name the build that was found, as in {path}@BUILD; the file that \
             is there now has {build}"
        );
        return Err(Failure::Usage(text));
    }
    Ok(ModuleId { path: path.to_owned(), build })
}

/// Libraries and times. What proves an attack can be approved by no id, nor anything beside it.
fn of_incident(incident: &Incident, known: &Known) -> Result<Vec<(String, Vec<Object>)>, Failure> {
    let other = incident.findings.iter().find(|one| !BY_INCIDENT.contains(&&*one.detector));
    if let Some(finding) = other {
        return Err(Failure::Usage(format!(
            "{} belongs to incident {}: nothing of it can be approved by its id. If it is meant to \
             be so, name each object (see `halfsecond baseline approve --help`); redirected slots \
             and changed code cannot be approved at all",
            finding.detector, incident.id
        )));
    }
    let mut wanted: Vec<(String, Vec<Object>)> = Vec::new();
    for finding in &incident.findings {
        if !known.contains_key(&finding.subject) {
            let text = format!("there is no baseline of {} any more", finding.subject);
            return Err(Failure::Usage(text));
        }
        for object in of_finding(finding) {
            match wanted.iter_mut().find(|(subject, _)| *subject == finding.subject) {
                Some((_, objects)) if objects.contains(&object) => {}
                Some((_, objects)) => objects.push(object),
                None => wanted.push((finding.subject.clone(), vec![object])),
            }
        }
    }
    if wanted.is_empty() {
        let text =
            format!("incident {} names nothing that could be approved by its id", incident.id);
        return Err(Failure::Usage(text));
    }
    Ok(wanted)
}

fn of_finding(finding: &Finding) -> Vec<Object> {
    let method = finding.evidence.iter().find_map(|one| match one {
        Evidence::Connection { method: Some(method), .. } => method_named(method),
        _ => None,
    });
    let each = finding.evidence.iter().filter_map(|one| match one {
        Evidence::Library { path, build_id: Some(build), .. } => {
            let module = ModuleId { path: path.clone(), build: build.clone() };
            Some(Object::Library { module })
        }
        Evidence::Timing { metric, .. } => {
            let stream = match metric.as_str() {
                "link_cpu" | "link_wall" => LINK.to_owned(),
                "check_cpu" | "auth_cpu" => check_stream(method?),
                "constructor_cpu" => CONSTRUCTOR.to_owned(),
                _ => return None,
            };
            Some(Object::Times { stream })
        }
        _ => None,
    });
    each.collect()
}

fn method_named(name: &str) -> Option<Method> {
    let all = [
        Method::Password,
        Method::Publickey,
        Method::KeyboardInteractive,
        Method::GssapiWithMic,
        Method::Pam,
    ];
    all.into_iter().find(|method| method.name() == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::baseline::Baseline;
    use crate::cli::Exit;

    fn incident(findings: &[(&str, serde_json::Value)]) -> Incident {
        let finding = |(detector, evidence): &(&str, serde_json::Value)| {
            let time = "2026-11-21T10:00:00Z";
            json!({
                "time": time, "ktime_ns": 5, "id": "f1", "detector": detector,
                "family": "linker", "severity": "high", "confidence": 0.9, "title": "t",
                "host": "h", "process": {
                    "pid": 1, "exe": "/usr/sbin/sshd", "cmdline": [], "uid": 0, "start": time,
                    "ancestors": [], "container": null, "pod": null,
                },
                "subject": "/usr/sbin/sshd ab", "attack": [], "explained_by": null,
                "evidence": evidence,
            })
        };
        let findings: Vec<_> = findings.iter().map(finding).collect();
        serde_json::from_value(json!({
            "id": "aaa1", "opened": "2026-11-21T10:00:00Z", "updated": "2026-11-21T10:00:00Z",
            "state": "open", "severity": "high", "score": 50, "title": "t", "story": "s",
            "findings": findings, "hosts": ["h"], "recommendation": "r", "partial": false,
        }))
        .unwrap()
    }

    fn library() -> serde_json::Value {
        json!([{"kind": "library", "path": "/lib/x.so", "build_id": "cd", "inode": "8:1:2"}])
    }

    fn known() -> Known {
        [("/usr/sbin/sshd ab".to_owned(), Baseline::default())].into()
    }

    #[test]
    fn an_incidents_libraries_and_times_are_approved_once_each() {
        let timing = json!([
            {"kind": "timing", "metric": "check_cpu", "seconds": 1.0, "baseline_seconds": 0.1,
             "limit_seconds": 0.2, "samples": 50, "module": null, "module_seconds": null},
            {"kind": "connection", "peer": null, "method": "publickey", "authenticated": true,
             "since_accept_seconds": 1.0},
        ]);
        let incident = incident(&[
            ("library_unexpected", library()),
            ("library_unexpected", library()),
            ("auth_cpu_shift", timing),
        ]);
        let module = ModuleId { path: "/lib/x.so".to_owned(), build: "cd".to_owned() };
        let expected =
            [Object::Library { module }, Object::Times { stream: check_stream(Method::Publickey) }];
        let wanted = of_incident(&incident, &known()).unwrap();
        assert_eq!(wanted, [("/usr/sbin/sshd ab".to_owned(), expected.to_vec())]);
        assert!(of_incident(&incident, &Known::new()).is_err(), "forgotten since");
    }

    #[test]
    fn what_must_not_be_learned_is_approved_by_no_incident_nor_anything_beside_it() {
        for detector in [
            "got_redirected",
            "foreign_caller",
            "preauth_exec",
            "text_patched",
            "relro_reopened",
            "remote_write",
            "auth_without_method",
            "dlopen_unexpected",
            "preload_env",
        ] {
            let incident = incident(&[("library_unexpected", library()), (detector, json!([]))]);
            let failure = of_incident(&incident, &known()).unwrap_err();
            assert_eq!(failure.exit(), Exit::Usage);
            assert!(failure.told().starts_with(detector), "{}", failure.told());
        }
    }

    #[test]
    fn a_guarded_programs_library_has_to_be_named_with_its_build() {
        let own = "/proc/self/exe";
        let failure = there(own, "/usr/sbin/sshd ab", true).unwrap_err().told();
        assert!(failure.contains("is guarded"), "{failure}");
        let found = there(own, "/usr/bin/cat ab", false).unwrap();
        assert!(found.build_id().is_some() && failure.contains(&found.build), "{found:?}");
        assert!(there(own, "/usr/bin/cat ab image:cd", false).is_err());
        assert!(there("/etc/passwd", "/usr/bin/cat ab", false).is_err());
        for text in ["/lib/x.so", "/lib/x.so@", "x.so@aa", "@aa"] {
            assert!(module(text).is_err(), "{text}");
        }
        assert_eq!(module("/lib/a@b.so@cd").unwrap().path, "/lib/a@b.so");
    }
}
