//! What is learned, from whom, and when it is believed.
//!
//! A program nobody guards teaches at once. A guarded process teaches once its slots were found
//! clean (or it ended unchecked, but never if it refused to be checked); a process of an sshd
//! connection only if the login succeeds as well: what strangers make sshd do, and what a redirected
//! sshd does, teaches nothing. A login has succeeded when its session runs a program, or the connection
//! is over and nobody has taken the verdict back, as PAM does for an account that is closed.
//!
//! An attacker may have been here first. So where something comes from weighs more than how often it was
//! seen: a guarded program never teaches a library of a place that others decide about, a caller that
//! is no library of its own or that no package brought, a preload that is told, or a program that sshd
//! and PAM are not configured to run before a login is proven. It is told once the rest is known.

mod trust;

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use crate::baseline::{Baselines, Changed};
use crate::config::{Detect, Learning};
use crate::detect::judge::{self, Judged};
use crate::detect::{Brought, Category, CheckReport, Draft, Reading, World};
use crate::event::FileKey;
use crate::finding::Severity;
use crate::host::{
    Asked, Body, ConnectionId, Directive, LinkTiming, Method, ModuleId, Observation, Opening,
    ProcessId, Program, Verdict,
};
use trust::{is_stray, refused};

/// Processes and connections on probation at once; the oldest teaches nothing beyond.
const UNITS_MAX: usize = 4096;
/// Lessons waiting in one of them.
const LESSONS_MAX: usize = 256;
/// Processes of one of them that are remembered to have refused; one is enough.
const REFUSED_MAX: usize = 64;

/// Holds lessons until they may be believed.
#[derive(Debug)]
pub(super) struct Learner {
    learning: Learning,
    detect: Detect,
    units: BTreeMap<Unit, State>,
    ages: BTreeSet<(u64, Unit)>,
    age: u64,
}

/// What is trusted or not as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Unit {
    Connection(ConnectionId),
    Process(ProcessId),
}

#[derive(Debug, Default)]
struct State {
    age: u64,
    lessons: Vec<Lesson>,
    /// Programs of sshd that ran: a login counts for each.
    programs: BTreeSet<String>,
    login: Option<Method>,
    /// A session's program has run: the verdict stands.
    session: bool,
    counted: bool,
    check: Check,
    /// Libraries that were not accepted, by path: nothing that they do is.
    distrusted: BTreeSet<String>,
    /// Processes that refused to be checked, and were not checked since.
    refused: BTreeSet<ProcessId>,
    /// It serves a connection that is not followed: nobody can tell whether somebody was let in.
    stray: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Check {
    #[default]
    Pending,
    Clean,
    Dirty,
}

/// One thing to learn about one subject.
#[derive(Clone, Debug)]
pub(super) struct Lesson {
    subject: String,
    guarded: bool,
    time: Timestamp,
    what: What,
}

#[derive(Clone, Debug)]
enum What {
    Start,
    Library {
        module: ModuleId,
        exe: FileKey,
        file: FileKey,
        late: bool,
    },
    /// Not accepted: ask for it again.
    Refused {
        path: String,
        exe: FileKey,
        file: FileKey,
    },
    Variable(String),
    Caller {
        function: String,
        module: ModuleId,
        known: bool,
        /// The program itself, or the function's own library.
        own: bool,
    },
    Opening {
        library: String,
        asker: ModuleId,
    },
    /// A library opened for somebody who was not seen, or could not be learned.
    Unasked {
        library: String,
    },
    /// Something that instruments the host.
    Instrument {
        form: String,
        learning: bool,
    },
    Link {
        timing: LinkTiming,
        exe: FileKey,
    },
    /// CPU time of a guarded program's constructors, ns.
    Constructors(u64),
    Auth {
        method: Method,
        cpu_ns: u64,
        check_ns: Option<u64>,
        drift_percent: Option<u64>,
    },
}

// === impl Learner ===

impl Learner {
    pub(super) fn new(learning: Learning, detect: Detect) -> Self {
        Self { learning, detect, units: BTreeMap::new(), ages: BTreeSet::new(), age: 0 }
    }

    /// What the observation teaches, by the baseline as the detectors saw it.
    ///
    /// A time teaches only while hardly anything speaks for a shift of its stream: what is evidence
    /// for one must not become what is usual, whatever comes of it.
    pub(super) fn lessons(
        seen: &Observation,
        world: &World<'_>,
        drafts: &[Draft],
        readings: &[Reading],
    ) -> Vec<Lesson> {
        let program = &seen.process.program;
        let quiet = drafts.is_empty() && readings.iter().all(|reading| reading.calm);
        let own = |what| vec![lesson(program, seen.time, what)];
        // Whose baseline it belongs to is not known: the next one is to tell its libraries again.
        if program.guarded() && program.root_unseen {
            return match &seen.body {
                Body::Library(library) => own(refused(program, library)),
                _ => Vec::new(),
            };
        }
        match &seen.body {
            Body::Started => started(seen),
            Body::Library(library) => {
                trust::library(seen, library, world).map_or_else(Vec::new, own)
            }
            Body::Traced(traced) => trust::traced(seen, traced, world).map_or_else(Vec::new, own),
            Body::Environment(variable) => {
                let known = judge::knows_variable(variable, world);
                let open = !program.guarded() || !judge::settled(seen, world);
                // A guarded program's preload is told from the first start on, and no less afterwards.
                let told = drafts.iter().any(|draft| draft.severity >= Severity::High);
                if known || !open || (told && program.guarded()) {
                    return Vec::new();
                }
                let keys = judge::variable_keys(variable).into_iter();
                keys.map(|key| lesson(program, seen.time, What::Variable(key))).collect()
            }
            Body::Called(call) => match call.by() {
                Some(from) => match judge::caller(seen, call, from, world) {
                    Judged::Unexpected | Judged::Undecided => Vec::new(),
                    judged => own(What::Caller {
                        function: call.function.clone(),
                        module: from.module.clone(),
                        known: judged == Judged::Known,
                        own: from.module == program.module
                            || call.library.as_ref() == Some(&from.module),
                    }),
                },
                None => Vec::new(),
            },
            Body::Surveyed => own(What::Start),
            Body::Instrument(found) => {
                let key = found.key();
                let settled = world.own.settled(world.learning.observations, false);
                // Once settled, only what is told as harmless becomes usual.
                let harmless = drafts.iter().all(|draft| draft.severity == Severity::Info);
                if world.own.instruments.contains(&key) || (settled && !harmless) {
                    return Vec::new();
                }
                own(What::Instrument { form: key, learning: !settled })
            }
            Body::Opened(opening) => match judge::opening(seen, opening, world) {
                Judged::Learning => asker(opening).map(own).unwrap_or_default(),
                judged if judge::askers_are_open(opening, judged, world) => {
                    own(What::Unasked { library: opening.module.path.clone() })
                }
                _ => Vec::new(),
            },
            // A start that mostly slept says little about CPU.
            Body::Linked(timing) if quiet && timing.blocked_ns <= timing.cpu_ns => {
                own(What::Link { timing: timing.clone(), exe: program.file })
            }
            Body::Constructed(took) if quiet && !took.blocked => {
                own(What::Constructors(took.cpu_ns))
            }
            Body::Verdict(verdict) if verdict.accepted && verdict.earlier == 0 => {
                match &seen.connection {
                    Some(connection) if !connection.partial && quiet => {
                        let drift_percent = readings.iter().find_map(|one| one.drift_percent);
                        let Verdict { method, cpu_ns, check_ns, .. } = *verdict;
                        let what = What::Auth { method, cpu_ns, check_ns, drift_percent };
                        vec![lesson(&connection.program, seen.time, what)]
                    }
                    _ => Vec::new(),
                }
            }
            _ => Vec::new(),
        }
    }

    /// Believes lessons now, later or never, as whom they come from deserves.
    pub(super) fn take(
        &mut self,
        seen: &Observation,
        lessons: Vec<Lesson>,
        packages: &dyn Brought,
        baselines: &mut Baselines,
        directives: &mut Vec<Directive>,
    ) {
        let Some(unit) = unit(seen) else {
            for lesson in lessons {
                self.believe(lesson, baselines, directives);
            }
            return;
        };
        // An answer about what has ended begins nothing: nobody would end it.
        if matches!(seen.body, Body::Traced(_)) && !self.units.contains_key(&unit) {
            return;
        }
        let state = self.state(unit);
        let room = LESSONS_MAX.saturating_sub(state.lessons.len());
        state.lessons.extend(lessons.into_iter().take(room));
        let program = &seen.process.program;
        if matches!(seen.body, Body::Started) && program.sshd() && !program.root_unseen {
            state.programs.insert(program.subject.clone());
        }
        state.stray |= is_stray(seen);
        state.note(seen);
        let over = match unit {
            Unit::Connection(_) => matches!(seen.body, Body::Closed),
            Unit::Process(_) => matches!(seen.body, Body::Ended),
        };
        self.settle(unit, over, seen.time, packages, baselines, directives);
    }

    /// Connections and processes that have not ended.
    #[cfg(test)]
    pub(super) fn units(&self) -> usize {
        self.units.len()
    }

    /// A guarded process has refused to be checked, to the last try.
    pub(super) fn refused(&mut self, seen: &Observation) {
        if let Some(unit) = unit(seen).filter(|_| seen.process.program.guarded()) {
            let refused = &mut self.state(unit).refused;
            if refused.len() < REFUSED_MAX {
                refused.insert(seen.process.id);
            }
        }
    }

    fn settle(
        &mut self,
        unit: Unit,
        over: bool,
        time: Timestamp,
        packages: &dyn Brought,
        baselines: &mut Baselines,
        directives: &mut Vec<Directive>,
    ) {
        let Some(state) = self.units.get_mut(&unit) else { return };
        let alone = matches!(unit, Unit::Process(_)) && !state.stray;
        // Right after a method has succeeded PAM may still refuse the account.
        let let_in = state.login.is_some() && (state.session || over);
        let welcome = let_in || alone;
        let unchecked = over && state.check == Check::Pending;
        let clean = state.refused.is_empty() && (state.check == Check::Clean || unchecked);
        let (believed, refused) = match (welcome && clean, over || state.check == Check::Dirty) {
            (true, _) => (state.vouched_for(packages), Vec::new()),
            (false, true) => (Vec::new(), std::mem::take(&mut state.lessons)),
            (false, false) => return,
        };
        let login = state.login.filter(|_| welcome && clean && !state.counted);
        state.counted |= login.is_some();
        let programs = if login.is_some() { state.programs.clone() } else { BTreeSet::new() };
        for lesson in believed {
            self.believe(lesson, baselines, directives);
        }
        directives.extend(refused.iter().filter_map(Lesson::forget));
        for program in programs {
            let baseline = baselines.learn(&program, Changed::Learned);
            baseline.add_start(time, login);
            baseline.note_settled(self.learning.observations, true, time);
        }
        if over && let Some(state) = self.units.remove(&unit) {
            self.ages.remove(&(state.age, unit));
        }
    }

    fn state(&mut self, unit: Unit) -> &mut State {
        if !self.units.contains_key(&unit) {
            if self.units.len() >= UNITS_MAX
                && let Some((_, oldest)) = self.ages.pop_first()
            {
                self.units.remove(&oldest);
            }
            self.age += 1;
            self.ages.insert((self.age, unit));
        }
        let age = self.age;
        self.units.entry(unit).or_insert_with(|| State { age, ..State::default() })
    }

    fn believe(&self, lesson: Lesson, baselines: &mut Baselines, directives: &mut Vec<Directive>) {
        directives.extend(lesson.forget().filter(|_| lesson.is_open()));
        let settled =
            baselines.get(&lesson.subject).settled(self.learning.observations, lesson.guarded);
        let count = if settled { Changed::Count } else { Changed::Learned };
        let changed = match &lesson.what {
            What::Refused { .. } => return,
            What::Start
            | What::Link { .. }
            | What::Constructors(_)
            | What::Auth { .. }
            | What::Unasked { .. }
            | What::Caller { known: true, .. } => count,
            _ => Changed::Learned,
        };
        if lesson.guarded {
            baselines.mark_guarded(&lesson.subject);
        }
        let baseline = baselines.learn(&lesson.subject, changed);
        match lesson.what {
            What::Start => {
                baseline.add_start(lesson.time, None);
                baseline.note_settled(self.learning.observations, lesson.guarded, lesson.time);
            }
            What::Library { module, late, .. } => baseline.add_library(&module, lesson.time, late),
            What::Variable(name) => baseline.add_variable(&name),
            What::Caller { function, module, .. } => baseline.add_caller(&function, &module),
            What::Opening { library, asker } => baseline.add_opening(&library, &asker),
            What::Unasked { library } => baseline.add_unasked(&library),
            What::Instrument { form, learning } => baseline.add_instrument(&form, learning),
            What::Constructors(cpu_ns) => baseline.add_constructors(cpu_ns),
            What::Auth { method, cpu_ns, check_ns, drift_percent } => {
                baseline.add_auth(method, cpu_ns, check_ns, drift_percent);
            }
            What::Link { timing, exe } => {
                baseline.add_link(&timing, lesson.guarded);
                if !lesson.guarded {
                    let summary = baseline.link.summary();
                    directives.extend(summary.and_then(|usual| self.limit(exe, usual)));
                }
            }
            What::Refused { .. } => {}
        }
    }

    /// From time to time, as the samples grow: up to where the kernel may keep silent.
    fn limit(&self, exe: FileKey, usual: crate::baseline::Summary) -> Option<Directive> {
        let wanted = u64::from(self.learning.observations.max(1));
        let due = usual.count >= wanted && (usual.count / wanted).is_power_of_two();
        let excess = u64::try_from(self.detect.link_gross_excess.as_nanos()).unwrap_or(u64::MAX);
        let limit_ns = usual.median_us.saturating_mul(1000).saturating_add(excess);
        (due && usual.count.is_multiple_of(wanted))
            .then_some(Directive::LinkLimit { exe, limit_ns })
    }
}

// === impl State ===

impl State {
    fn note(&mut self, seen: &Observation) {
        match &seen.body {
            Body::Checked(report) if dirty(report) => self.check = Check::Dirty,
            Body::Checked(report) if report.settled && report.doubtful.is_empty() => {
                self.refused.remove(&seen.process.id);
                if self.check == Check::Pending {
                    self.check = Check::Clean;
                }
            }
            // The account, or another method that is asked for as well.
            Body::Verdict(verdict) if !verdict.accepted => self.login = None,
            Body::Verdict(verdict) => {
                self.login = Some(verdict.method);
                let monitor = seen.connection.iter().map(|connection| &connection.program);
                let monitor = monitor.filter(|program| !program.root_unseen);
                self.programs.extend(monitor.map(|program| program.subject.clone()));
            }
            Body::Session => self.session = true,
            _ => {}
        }
    }
}

// === impl Lesson ===

impl Lesson {
    /// It is not settled with this: the file was not accepted, or could not be read.
    fn is_open(&self) -> bool {
        match &self.what {
            What::Refused { .. } => true,
            What::Library { module, .. } => module.is_unread(),
            _ => false,
        }
    }

    /// A library that is not accepted must be told again when it is next mapped.
    fn forget(&self) -> Option<Directive> {
        match self.what {
            What::Library { exe, file, .. } | What::Refused { exe, file, .. } => {
                Some(Directive::ForgetMapping { exe, file })
            }
            _ => None,
        }
    }
}

fn asker(opening: &Opening) -> Option<What> {
    let Asked { place, .. } = opening.asked.as_ref()?;
    let asker = place.module.before_deletion();
    Some(What::Opening { library: opening.module.path.clone(), asker })
}

fn unit(seen: &Observation) -> Option<Unit> {
    match &seen.connection {
        Some(connection) => Some(Unit::Connection(connection.id)),
        None if seen.process.program.guarded() => Some(Unit::Process(seen.process.id)),
        None => None,
    }
}

fn started(seen: &Observation) -> Vec<Lesson> {
    let program = &seen.process.program;
    // A program of sshd counts by logins.
    if program.sshd() {
        return Vec::new();
    }
    vec![lesson(program, seen.time, What::Start)]
}

fn lesson(program: &Program, time: Timestamp, what: What) -> Lesson {
    Lesson { subject: program.subject.clone(), guarded: program.guarded(), time, what }
}

fn dirty(report: &CheckReport) -> bool {
    report.audit.is_some()
        || report.mismatches.iter().any(|mismatch| mismatch.category != Category::FileChanged)
}
