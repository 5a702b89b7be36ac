//! What the lines of a service come to: whom it lets in though every module that checks refuses.
//!
//! Follows `_pam_dispatch_aux` of Linux-PAM 1.7 (`libpam/pam_dispatch.c`), which 1.1 to 1.6 agree
//! with for what is followed here.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use super::line::{Action, Actions, Control, Facility, Line};
use super::{CONF, SERVICE_DIRS, base};

/// Nesting of includes (`PAM_SUBSTACK_MAX_LEVEL` is 16, and the same for includes since 1.3).
const DEPTH_MAX: usize = 16;
/// Modules of one service, those of its includes counted each time, and includes followed for it.
const STEPS_MAX: usize = 1024;
const INCLUDES_MAX: usize = 256;
/// The service whose lines count where one has none.
const OTHER: &str = "other";

/// Modules that let anybody in.
const PERMIT: [&str; 1] = ["pam_permit.so"];
/// Modules whose authentication answers `PAM_IGNORE`, whoever it is: they prepare or tell something.
const SILENT: [&str; 13] = [
    "pam_cap.so",
    "pam_echo.so",
    "pam_env.so",
    "pam_faildelay.so",
    "pam_faillock.so",
    "pam_group.so",
    "pam_issue.so",
    "pam_keyinit.so",
    "pam_motd.so",
    "pam_nologin.so",
    "pam_selinux.so",
    "pam_tally2.so",
    "pam_warn.so",
];
/// Modules that ask who or where it is, not for proof: they may say yes or no.
const CONDITIONS: [&str; 8] = [
    "pam_access.so",
    "pam_listfile.so",
    "pam_localuser.so",
    "pam_securetty.so",
    "pam_shells.so",
    "pam_succeed_if.so",
    "pam_time.so",
    "pam_usertype.so",
];

/// What a module answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Success,
    Ignore,
    Refusal,
}

/// A module at its place in a stack.
#[derive(Clone, Copy, Debug)]
enum Step<'a> {
    Module {
        module: &'a str,
        actions: Actions,
    },
    /// A line that libpam does not understand: the service fails.
    MustFail,
    /// The beginning of a substack.
    Substack,
}

/// Every service of a root.
#[derive(Clone, Debug, Default)]
pub(crate) struct Services {
    lines: BTreeMap<String, Vec<Option<Line>>>,
}

/// A service's modules, by their level.
#[derive(Debug, Default)]
struct Expanded<'a> {
    steps: Vec<(usize, Step<'a>)>,
    includes: usize,
}

/// Where a walk over a stack stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Standing {
    impression: Impression,
    success: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Impression {
    Undefined,
    Positive,
    Negative,
}

// === impl Services ===

impl Services {
    /// From the entries of files by their paths.
    pub(crate) fn new<'a>(files: impl IntoIterator<Item = (&'a str, &'a [String])>) -> Self {
        let mut found: BTreeMap<String, (usize, Vec<Option<Line>>)> = BTreeMap::new();
        for (path, entries) in files {
            let Some((dir, name)) = path.rsplit_once('/') else { continue };
            let Some(rank) = SERVICE_DIRS.iter().position(|known| *known == dir) else { continue };
            if found.get(name).is_none_or(|(known, _)| *known > rank) {
                let lines = entries.iter().map(|entry| Line::parse(entry)).collect();
                found.insert(name.to_owned(), (rank, lines));
            }
        }
        Self { lines: found.into_iter().map(|(name, (_, lines))| (name, lines)).collect() }
    }

    /// The service that a file is for; none for `/etc/pam.conf`.
    pub(crate) fn of(path: &str) -> Option<&str> {
        let (dir, name) = path.rsplit_once('/')?;
        (path != CONF && SERVICE_DIRS.contains(&dir)).then_some(name)
    }

    /// The services that have the lines of `name`, itself first.
    pub(crate) fn with(&self, name: &str) -> Vec<String> {
        let mut found = BTreeSet::from([name]);
        // Each round goes one include further.
        for _ in 0..DEPTH_MAX {
            let includes = |lines: &Vec<Option<Line>>| {
                lines
                    .iter()
                    .flatten()
                    .any(|line| included(line).is_some_and(|it| found.contains(it)))
            };
            let more: Vec<&str> = self
                .lines
                .iter()
                .filter(|(other, lines)| !found.contains(other.as_str()) && includes(lines))
                .map(|(other, _)| other.as_str())
                .collect();
            if more.is_empty() {
                break;
            }
            found.extend(more);
        }
        let others = found.iter().filter(|other| **other != name);
        std::iter::once(&name).chain(others).map(|name| (*name).to_owned()).collect()
    }

    /// Whether authentication succeeds though every module that wants proof refuses it. A service
    /// that nobody could authenticate by has no such way in.
    pub(crate) fn opens(&self, service: &str) -> bool {
        let mut steps = self.steps(service);
        if steps.is_empty() {
            steps = self.steps(OTHER);
        }
        [false, true].into_iter().any(|conditions| succeeds(&steps, conditions))
    }

    fn steps(&self, service: &str) -> Vec<(usize, Step<'_>)> {
        let mut expanded = Expanded::default();
        self.expand(service, 0, 0, &mut expanded);
        expanded.steps
    }

    fn expand<'a>(&'a self, service: &str, level: usize, depth: usize, out: &mut Expanded<'a>) {
        out.includes += 1;
        let bounded = depth < DEPTH_MAX && out.includes <= INCLUDES_MAX;
        let lines = self.lines.get(base(service)).filter(|_| bounded);
        let Some(lines) = lines else {
            // Not to be found, or endless: libpam gives up, except for a service without a file.
            if depth > 0 {
                out.push(level, Step::MustFail);
            }
            return;
        };
        for line in lines {
            let Some(line) = line else {
                out.push(level, Step::MustFail);
                continue;
            };
            if line.facility.is_some_and(|facility| facility != Facility::Auth) {
                continue;
            }
            match line.control {
                Control::Include => self.expand(&line.module, level, depth + 1, out),
                Control::Substack => {
                    out.push(level, Step::Substack);
                    self.expand(&line.module, level + 1, depth + 1, out);
                }
                Control::Actions(actions) => {
                    out.push(level, Step::Module { module: &line.module, actions });
                }
            }
        }
    }
}

// === impl Expanded ===

impl<'a> Expanded<'a> {
    /// One that is too long fails, at its end or before.
    fn push(&mut self, level: usize, step: Step<'a>) {
        match self.steps.len().cmp(&STEPS_MAX) {
            Ordering::Less => self.steps.push((level, step)),
            Ordering::Equal => self.steps.push((0, Step::MustFail)),
            Ordering::Greater => {}
        }
    }
}

fn included(line: &Line) -> Option<&str> {
    line.named_module().is_none().then(|| base(&line.module))
}

fn answer(module: &str, conditions: bool) -> Answer {
    let name = base(module);
    if PERMIT.contains(&name) {
        Answer::Success
    } else if SILENT.contains(&name) {
        Answer::Ignore
    } else if CONDITIONS.contains(&name) && conditions {
        Answer::Success
    } else {
        Answer::Refusal
    }
}

fn succeeds(steps: &[(usize, Step<'_>)], conditions: bool) -> bool {
    let mut now = Standing { impression: Impression::Undefined, success: false };
    let mut entered = [now; DEPTH_MAX + 1];
    let (mut at, mut last_level) = (0, 0);
    while let Some((level, step)) = steps.get(at) {
        if last_level < *level
            && let Some(entered) = entered.get_mut(*level)
        {
            *entered = now;
        }
        last_level = *level;
        let (answer, action) = match step {
            Step::Module { module, actions } => {
                let answer = answer(module, conditions);
                (answer, actions.of(answer))
            }
            Step::MustFail => (Answer::Refusal, Action::Bad),
            Step::Substack => {
                at += 1;
                continue;
            }
        };
        let begun = entered.get(*level).copied().unwrap_or(now);
        let ends = now.take(answer, action, begun);
        at = match action {
            Action::Jump(count) => jump(steps, at, *level, count).unwrap_or_else(|| {
                now = Standing { impression: Impression::Negative, success: false };
                steps.len()
            }),
            _ if ends => over(steps, at, *level),
            _ => at + 1,
        };
    }
    now.impression == Impression::Positive && now.success
}

/// Behind the next `count` modules of this level; a substack is one with its line. `None` where there
/// are not so many.
fn jump(steps: &[(usize, Step<'_>)], at: usize, level: usize, count: u32) -> Option<usize> {
    let level_of = |at: usize| steps.get(at).map(|(level, _)| *level);
    let mut at = at;
    for _ in 0..count {
        level_of(at + 1).filter(|next| *next >= level)?;
        at += 1;
        while level_of(at + 1).is_some_and(|next| next > level) {
            at += 1;
        }
    }
    Some(at + 1)
}

/// Behind the rest of this level.
fn over(steps: &[(usize, Step<'_>)], at: usize, level: usize) -> usize {
    let rest = steps.get(at + 1..).unwrap_or_default();
    at + 1 + rest.iter().take_while(|(next, _)| *next >= level).count()
}

// === impl Standing ===

impl Standing {
    /// Takes a module's answer; true where the level ends with it.
    fn take(&mut self, answer: Answer, action: Action, begun: Self) -> bool {
        let open = self.impression == Impression::Undefined
            || self.impression == Impression::Positive && self.success;
        match action {
            Action::Ok | Action::Done => {
                if open {
                    let success = answer == Answer::Success;
                    *self = Self { impression: Impression::Positive, success };
                }
                action == Action::Done && self.impression == Impression::Positive
            }
            Action::Bad | Action::Die => {
                if self.impression != Impression::Negative {
                    *self = Self { impression: Impression::Negative, success: false };
                }
                action == Action::Die
            }
            Action::Reset => {
                *self = begun;
                false
            }
            Action::Ignore | Action::Jump(_) => false,
        }
    }
}

// === impl Actions ===

impl Actions {
    fn of(&self, answer: Answer) -> Action {
        match answer {
            Answer::Success => self.success,
            Answer::Ignore => self.ignore,
            Answer::Refusal => self.refusal,
        }
    }
}

#[cfg(test)]
mod tests;
