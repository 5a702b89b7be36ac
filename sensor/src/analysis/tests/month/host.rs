//! The simulated server: its boots, its processes, and the sensor that watches it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::super::replay::Watched;
use super::files::{Files, Moved};
use super::scenes::{EXE, Scene, Scenes, kind, ktime, text};
use crate::baseline::Store;
use crate::config::Config;
use crate::detect::{Anyway, CheckFailed, CheckReport, SlotCheck};
use crate::event::FileKey;
use crate::finding::Severity;
use crate::host::testing::{LISTENER, MS};
use crate::host::{
    Body, CheckReason, Clock, Directive, Lineage, Observation, Process, ProcessId, Traced,
};
use crate::incident::{Entry, Incident, IncidentUpdate};
use crate::watch::{self, LoaderConfig, Tool};

pub(super) const HOUR: u64 = 3_600_000 * MS;
pub(super) const DAY: u64 = 24 * HOUR;
/// Midnight UTC of the first day, a Monday.
const BEGUN_S: i64 = 1_699_833_600;
/// From the start of the kernel to that of the sensor.
const BOOTING: u64 = 20_000 * MS;
/// How long the provenance station takes at most to answer: it may have to read a file. Of one that was
/// upgraded this day: the disk may be busy with the rest.
const ANSWERED_NS: u64 = 400 * MS;
const UPGRADED_NS: u64 = 8_000 * MS;

/// What checks of processes find; of any other, nothing.
#[derive(Clone, Debug, Default)]
struct Slots(Arc<Mutex<BTreeMap<ProcessId, CheckReport>>>);

/// See the module.
pub(super) struct Host {
    pub(super) scenes: Arc<Scenes>,
    pub(super) files: Files,
    config: Config,
    state_dir: PathBuf,
    slots: Slots,
    analysis: Option<Watched>,
    /// When this kernel was started, ns since the first midnight.
    booted_ns: u64,
    listener: ProcessId,
    tgid: u32,
    random: u64,
    /// Until when something happens, ns since the first midnight.
    busy_ns: u64,
    /// Pairs of program and library that the kernel side has told.
    told: BTreeSet<(u64, u64)>,
    /// Incidents that the store has as open.
    kept: BTreeMap<String, Entry>,
    /// The latest state of each incident, and when it was first above low.
    pub(super) incidents: BTreeMap<String, Incident>,
    pub(super) alarmed: BTreeMap<String, Timestamp>,
    /// Findings by detector and severity.
    pub(super) found: BTreeMap<(&'static str, Severity), u64>,
    /// What happened, by kind.
    pub(super) counts: BTreeMap<&'static str, u64>,
    pub(super) steps: u64,
}

/// See [`Host::stage`].
struct Staged {
    steps: Vec<Value>,
    processes: Vec<ProcessId>,
    /// What a check of any of them finds.
    report: CheckReport,
}

impl SlotCheck for Slots {
    fn check(&mut self, process: ProcessId, _: CheckReason) -> Result<CheckReport, CheckFailed> {
        let clean = CheckReport { slots_checked: 472, settled: true, ..CheckReport::default() };
        Ok(self.0.lock().unwrap().get(&process).cloned().unwrap_or(clean))
    }

    fn check_anyway(&mut self, _: ProcessId, _: Anyway) -> Result<CheckReport, CheckFailed> {
        Err(CheckFailed::Gone)
    }
}

// === impl Host ===

impl Host {
    /// Before its first boot.
    pub(super) fn new(scenes: Arc<Scenes>, seed: u64, state_dir: PathBuf) -> Self {
        let mut config = Config::default();
        // A month of it would be a million writes.
        config.learning.flush_every = std::time::Duration::from_hours(24);
        Self {
            scenes,
            files: Files::new(Self::wall(0)),
            config,
            state_dir,
            slots: Slots::default(),
            analysis: None,
            booted_ns: 0,
            listener: ProcessId { tgid: 0, start_ticks: 0 },
            tgid: 0,
            random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            busy_ns: 0,
            told: BTreeSet::new(),
            kept: BTreeMap::new(),
            incidents: BTreeMap::new(),
            alarmed: BTreeMap::new(),
            found: BTreeMap::new(),
            counts: BTreeMap::new(),
            steps: 0,
        }
    }

    /// A number below this one.
    pub(super) fn random(&mut self, below: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % below.max(1)
    }

    pub(super) fn pick<'a>(&mut self, scenes: &'a [Scene]) -> &'a Scene {
        let at = usize::try_from(self.random(scenes.len() as u64)).unwrap();
        &scenes[at]
    }

    pub(super) fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    /// The wall clock.
    pub(super) fn wall(at_ns: u64) -> Timestamp {
        let begun = Timestamp::from_second(BEGUN_S).unwrap();
        begun + SignedDuration::from_nanos(i64::try_from(at_ns).unwrap())
    }

    fn clock(&self) -> Clock {
        let booted = i64::try_from(self.booted_ns).unwrap() - i64::try_from(BOOTING).unwrap();
        let wall_minus_monotonic_ns = BEGUN_S * 1_000_000_000 + booted;
        Clock { wall_minus_monotonic_ns, boot_minus_monotonic_ns: 0 }
    }

    /// `CLOCK_MONOTONIC` of this boot, ns.
    fn ktime(&self, at_ns: u64) -> u64 {
        BOOTING + at_ns.saturating_sub(self.booted_ns)
    }

    // --- boots ---

    /// The kernel starts, with it sshd, then the sensor, with what its stores have kept.
    pub(super) fn boot(&mut self, at_ns: u64) {
        self.stop();
        (self.booted_ns, self.busy_ns) = (at_ns, at_ns);
        self.tgid = 400 + u32::try_from(self.random(300)).unwrap();
        self.listener = ProcessId { tgid: self.tgid, start_ticks: 900 + self.random(300) };
        self.start_sensor(at_ns);
        self.count("boots");
    }

    /// The sensor starts: the kernel side has told it nothing yet.
    pub(super) fn start_sensor(&mut self, at_ns: u64) {
        self.stop();
        self.told.clear();
        let (store, slots) = (Store::open(&self.state_dir).0, Box::new(self.slots.clone()));
        let mut analysis = Watched::new(&self.config, store, slots);
        analysis.ask_dates(true);
        let kept = std::mem::take(&mut self.kept).into_values().collect();
        analysis.restore(kept, Self::wall(at_ns), self.ktime(at_ns));
        self.analysis = Some(analysis);
        self.check_listener(at_ns, "Late");
    }

    /// The sensor ends, as for a reboot: what it has told must be what its recording replays to.
    pub(super) fn stop(&mut self) {
        let Some(mut analysis) = self.analysis.take() else { return };
        let rest = analysis.finish();
        analysis.flush();
        assert_eq!(analysis.store_failure(), None);
        self.note(rest);
        self.keep(&mut analysis);
        // Replays, and compares.
        drop(analysis);
    }

    fn keep(&mut self, analysis: &mut Watched) {
        let kept = &mut self.kept;
        let save = |entries: &[&Entry]| {
            for &entry in entries {
                kept.insert(entry.incident.id.clone(), entry.clone());
            }
            kept.retain(|_, entry| !entry.over);
            Ok::<_, std::convert::Infallible>(())
        };
        analysis.incidents().save(save).unwrap();
    }

    // --- what happens ---

    /// Plays a scene at this time, or as soon as nothing else happens. Gives its end.
    pub(super) fn play(&mut self, scene: &Scene, at_ns: u64) -> u64 {
        let Staged { steps, processes, report } = self.stage(scene, at_ns);
        let checked = processes.iter().map(|id| (*id, report.clone()));
        self.slots.0.lock().unwrap().extend(checked);
        self.tell_all(steps);
        self.slots.0.lock().unwrap().retain(|id, _| !processes.contains(id));
        self.tick(self.busy_ns);
        self.busy_ns
    }

    /// A scene as processes of this boot play it.
    fn stage(&mut self, scene: &Scene, at_ns: u64) -> Staged {
        let at_ns = at_ns.max(self.busy_ns);
        let begun = i64::try_from(scene.begun_ns).unwrap();
        let shift_ns = i64::try_from(self.ktime(at_ns)).unwrap() - begun;
        let slide = i64::try_from(self.random(1 << 28) << 12).unwrap();
        let processes = BTreeMap::from([(u64::from(LISTENER), self.listener)]);
        let Self { files, tgid, .. } = self;
        let mut moved = Moved { files, processes, tgid, shift_ns, slide };
        let (mut steps, mut report) = (scene.steps.clone(), json!(scene.report));
        for step in &mut steps {
            moved.apply(step);
        }
        moved.apply(&mut report);
        let processes = moved.processes.into_values().collect();
        Staged { steps, processes, report: serde_json::from_value(report).unwrap() }
    }

    /// The start of any program by root, which maps libraries; the start itself. The kept recordings hold
    /// the starts of logins' shells: it is one of those, of another program.
    pub(super) fn start(&mut self, path: &str, libraries: &[&str], at_ns: u64) -> Observation {
        let scenes = Arc::clone(&self.scenes);
        let mut scene = scenes.start.clone();
        let seen = &mut scene.steps[0];
        seen["process"]["program"]["module"]["path"] = json!(path);
        seen["process"]["shown"]["exe"] = json!(path);
        seen["process"]["shown"]["uid"] = json!(0);
        seen["process"]["euid"] = json!(0);
        seen["process"]["shown"]["ancestors"] = json!(["/usr/lib/systemd/systemd"]);
        let started = seen.clone();
        for (at, library) in (1_u64..).zip(libraries) {
            let mut seen = started.clone();
            seen["ktime_ns"] = json!(scene.begun_ns + at * 100_000);
            seen["body"] = scenes.library.clone();
            seen["body"]["Library"]["module"]["path"] = json!(library);
            scene.steps.push(seen);
        }
        let Staged { steps, .. } = self.stage(&scene, at_ns);
        let started = self.typed(steps[0].clone());
        self.tell_all(steps);
        started
    }

    /// A package manager or ldconfig has written a file that the loader reads.
    pub(super) fn loader_file(&mut self, by: &Observation, role: watch::Role, path: &str) {
        let tool = Some(Tool { path: "/usr/bin/dpkg".to_owned(), packages: true });
        let change = LoaderConfig { tool, ..LoaderConfig::written(role, path) };
        let body = Body::LoaderConfig(Box::new(change));
        self.feed(Observation { body, ..by.clone() });
    }

    /// The listener is looked at.
    pub(super) fn check_listener(&mut self, at_ns: u64, reason: &str) {
        let scenes = Arc::clone(&self.scenes);
        let scene = scenes.keys[0].without_connection(&["CheckDue"]);
        let mut seen = scene.steps[0].clone();
        // The monitor's check: the same program, by another process.
        let id = json!({"tgid": LISTENER, "start_ticks": 1});
        seen["process"]["id"] = id;
        seen["process"]["shown"]["ancestors"] = json!(["/usr/lib/systemd/systemd"]);
        seen["body"] = json!({ "CheckDue": reason });
        let begun_ns = ktime(&seen);
        self.play(&Scene { begun_ns, steps: vec![seen], ..scene }, at_ns);
    }

    /// sshd starts anew, by another process.
    pub(super) fn restart_sshd(&mut self, at_ns: u64) {
        self.tgid += 1;
        let start_ticks = self.ktime(at_ns) / (10 * MS);
        self.listener = ProcessId { tgid: self.tgid, start_ticks };
        self.check_listener(at_ns, "Late");
    }

    pub(super) fn tick(&mut self, at_ns: u64) {
        let ktime_ns = self.ktime(at_ns);
        let mut analysis = self.analysis.take().expect("it runs");
        let updates = analysis.tick(ktime_ns);
        self.note(updates);
        self.keep(&mut analysis);
        self.analysis = Some(analysis);
    }

    // --- to the sensor ---

    /// Steps in order, each library only where its program was not seen mapping it, with what the
    /// provenance station answers some time later.
    fn tell_all(&mut self, steps: Vec<Value>) {
        let mut answers: Vec<(u64, Observation)> = Vec::new();
        for step in steps {
            let is_library = kind(&step) == "Library";
            let mut seen = self.typed(step);
            let now = seen.ktime_ns;
            let (due, later): (Vec<_>, Vec<_>) =
                answers.into_iter().partition(|(due, _)| *due <= now);
            answers = later;
            self.answer_all(due);
            if is_library {
                if !self.is_news(&seen) {
                    continue;
                }
                let answer = self.answer(&mut seen);
                let longest = if is_new(&answer) { UPGRADED_NS } else { ANSWERED_NS };
                answers.push((now + self.random(longest), answer));
            }
            self.feed(seen);
        }
        self.answer_all(answers);
    }

    /// When each is due.
    fn answer_all(&mut self, mut answers: Vec<(u64, Observation)>) {
        answers.sort_by_key(|(due, _)| *due);
        for (due, seen) in answers {
            let at_ns = self.booted_ns + due.saturating_sub(BOOTING);
            self.busy_ns = self.busy_ns.max(at_ns);
            self.tick(at_ns);
            self.feed(seen);
        }
    }

    /// The kernel side tells each pair once.
    fn is_news(&mut self, seen: &Observation) -> bool {
        let Body::Library(library) = &seen.body else { return true };
        self.told.insert((seen.process.program.file.ino, library.file.ino))
    }

    fn answer(&mut self, seen: &mut Observation) -> Observation {
        let process = Arc::clone(&seen.process);
        let Body::Library(library) = &mut seen.body else { panic!("{process:?}") };
        library.asked = true;
        let library = library.clone();
        let origin = Arc::new(self.files.origin(&library.module.path));
        let way = Err(Arc::from("it was not asked"));
        let body = Body::Traced(Traced { library, origin, way, judged: None });
        Observation { body, ..seen.clone() }
    }

    /// As the station makes it: what of it follows from the rest.
    fn typed(&self, step: Value) -> Observation {
        let exe = text(&step, EXE).to_owned();
        let mut seen: Observation = serde_json::from_value(step).unwrap();
        let clock = self.clock();
        seen.time = clock.wall(seen.ktime_ns);
        let mut process = Process::clone(&seen.process);
        process.shown.pid = process.id.tgid;
        process.shown.start = Some(clock.start(process.id.start_ticks));
        process.shown.exe.clone_from(&exe);
        if let Lineage::Program(subject) = &mut process.lineage {
            subject.clone_from(&process.program.subject);
        }
        seen.process = Arc::new(process);
        seen
    }

    fn feed(&mut self, seen: Observation) {
        self.steps += 1;
        let at_ns = self.booted_ns + seen.ktime_ns.saturating_sub(BOOTING);
        self.busy_ns = self.busy_ns.max(at_ns + MS);
        let mut analysis = self.analysis.take().expect("it runs");
        let mut updates = analysis.on_observation(seen);
        // What changed before a shift: nobody looks.
        for question in analysis.questions() {
            updates.extend(analysis.on_observation(question));
        }
        for directive in analysis.directives() {
            match directive {
                Directive::ForgetMapping { exe, file } => self.forget(&exe, &file),
                Directive::ForgetMappings => self.told.clear(),
                _ => {}
            }
        }
        for one in analysis.found() {
            *self.found.entry(one).or_default() += 1;
        }
        self.note(updates);
        self.analysis = Some(analysis);
    }

    fn forget(&mut self, exe: &FileKey, file: &FileKey) {
        self.told.remove(&(exe.ino, file.ino));
    }

    fn note(&mut self, updates: Vec<IncidentUpdate>) {
        for IncidentUpdate { incident, .. } in updates {
            if incident.severity > Severity::Low {
                self.alarmed.entry(incident.id.clone()).or_insert(incident.updated);
            }
            self.incidents.insert(incident.id.clone(), incident);
        }
    }
}

/// Its package was upgraded within a day.
fn is_new(answer: &Observation) -> bool {
    let Body::Traced(traced) = &answer.body else { return false };
    let installed = traced.origin.package().and_then(|owned| owned.installed);
    installed.is_some_and(|at| answer.time.duration_since(at) < SignedDuration::from_hours(24))
}
