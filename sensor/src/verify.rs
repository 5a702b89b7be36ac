//! Checks from outside whether the linkage slots of a running process hold what its dynamic
//! linker should have written there.
//!
//! Every relocated address of every module that is not meant to change ([`SlotKind`]) is resolved
//! again from the mapped files, by the rules of glibc's `_dl_lookup_symbol_x` or musl's `find_sym`,
//! and compared with the memory of the process: 64-bit programs for x86 and ARM, 32-bit ones for
//! x86. Nothing is executed, attached or mapped in the process; all that is read
//! from it or its files is treated as hostile.

mod audit;
pub(crate) mod auxv;
mod budget;
pub(crate) mod bytes;
pub(crate) mod cache;
mod compare;
mod copied;
pub(crate) mod elf;
#[cfg(test)]
mod emulated;
mod error;
mod explain;
mod ifunc;
mod insist;
mod layout;
pub(crate) mod link_map;
mod live_scope;
mod loader;
pub(crate) mod maps;
mod places;
mod plan;
pub(crate) mod process;
mod reach;
mod report;
mod resolve;
mod rest;
mod scope;
mod target;
mod text;
mod warm;
pub(crate) mod width;

use std::thread;
use std::time::Duration;

use self::budget::Budget;
use self::compare::{Comparer, Comparison};
use self::ifunc::Vdso;
use self::layout::{Files, Layout};
use self::link_map::Bounds;
use self::loader::Program;
use self::plan::Plans;
use self::process::{Opened, Process};
use self::rest::Threads;
use self::text::TextChecker;
use self::warm::{Areas, Warm};

pub use self::elf::{Depth, ElfError};
pub use self::error::VerifyError;
pub use self::places::{Listed, Place, Places};
pub use self::process::list_processes;
pub use self::report::{
    Audit, AuditRequest, Category, Gap, Linkage, ModuleRef, Namespace, Report, Skipped, SlotCounts,
    SlotKind, SlotMismatch, Target,
};
pub use self::rest::Standing;
pub use self::text::{Explanation, Loose, OwnProbes, Patch, RestoredPage, Stray, StrayKind, Text};
pub(crate) use self::text::{program_target, shown};

/// How often a process is looked at again while its loader is at work.
const SETTLE_TRIES: u32 = 3;

/// Bounds and times of a [`Verifier`].
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Modules followed per process.
    pub modules: usize,
    /// Link namespaces followed per process.
    pub namespaces: usize,
    /// Parsed files kept: entries.
    pub file_entries: usize,
    /// Parsed files kept: bytes.
    pub file_bytes: usize,
    /// Computed expectations kept: entries.
    pub plan_entries: usize,
    /// Computed expectations kept: bytes.
    pub plan_bytes: usize,
    /// What clean processes looked like: entries.
    pub image_entries: usize,
    /// What clean processes looked like: bytes.
    pub image_bytes: usize,
    /// Time one look at a process may take.
    pub time: Duration,
    /// Wait before a deviation is looked at again; only unchanged ones count.
    pub recheck_after: Duration,
    /// Looks at a process that is being linked or changes, `recheck_after` apart. Who asks again
    /// by itself sets 1, so that one such process does not keep others waiting.
    pub settle_tries: u32,
    /// How much of a process is compared.
    pub depth: Depth,
    /// Whether code is compared, too.
    pub text: bool,
}

/// Checks processes, remembering files and expectations between checks.
#[derive(Debug)]
pub struct Verifier {
    limits: Limits,
    files: Files,
    plans: Plans,
    vdso: Vdso,
    code: TextChecker,
    warm: Warm,
}

/// How much a [`Verifier`] remembers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Parsed files.
    pub files: usize,
    /// Heap bytes of the parsed files.
    pub file_bytes: usize,
    /// Combinations of files with computed expectations.
    pub plans: usize,
    /// Heap bytes of the expectations.
    pub plan_bytes: usize,
    /// Clean processes that are known again; forks of one program are one.
    pub images: usize,
    /// Heap bytes of what they looked like.
    pub image_bytes: usize,
}

// === impl Limits ===

impl Default for Limits {
    fn default() -> Self {
        Self {
            modules: 4096,
            namespaces: 64,
            file_entries: 2048,
            file_bytes: 12 << 20,
            plan_entries: 512,
            plan_bytes: 4 << 20,
            image_entries: 4096,
            image_bytes: 2 << 20,
            time: Duration::from_secs(10),
            recheck_after: Duration::from_millis(30),
            settle_tries: SETTLE_TRIES,
            depth: Depth::Full,
            text: true,
        }
    }
}

impl Limits {
    fn bounds(&self) -> Bounds {
        Bounds { modules: self.modules, namespaces: self.namespaces, insist: false }
    }
}

// === impl Verifier ===

impl Verifier {
    /// A verifier that remembers nothing yet.
    pub fn new(limits: Limits) -> Self {
        Self::knowing(limits, OwnProbes::default())
    }

    /// One that does not tell the probes that the sensor itself has set.
    pub fn knowing(limits: Limits, own: OwnProbes) -> Self {
        let files = Files::new(limits.file_entries, limits.file_bytes, limits.depth);
        let plans = Plans::new(limits.plan_entries, limits.plan_bytes);
        let warm = Warm::new(limits.image_entries, limits.image_bytes);
        Self { limits, files, plans, vdso: Vdso::own(), code: TextChecker::new(own), warm }
    }

    /// Checks one process now. Deviations are looked at twice, [`Limits::recheck_after`] apart
    /// (the calling thread sleeps), and reported only if both looks agree, or if the process ended
    /// between them ([`Gap::Unconfirmed`]): a login may be over before the second.
    ///
    /// A process that was found clean and is as it was then, or is as another one was, costs far
    /// less than the first look.
    pub fn check(&mut self, pid: u32) -> Result<Report, VerifyError> {
        self.check_to(pid, self.limits.depth)
    }

    /// The same to another depth than [`Limits::depth`].
    pub fn check_to(&mut self, pid: u32, depth: Depth) -> Result<Report, VerifyError> {
        let enough = |first: &Report| first.is_clean() && first.settled;
        self.check_twice(pid, enough, |verifier| verifier.settled_report(pid, depth))
    }

    /// What two looks say together, unless the first is enough.
    fn check_twice(
        &mut self,
        pid: u32,
        enough: impl FnOnce(&Report) -> bool,
        mut look: impl FnMut(&mut Self) -> Result<Report, VerifyError>,
    ) -> Result<Report, VerifyError> {
        let first = look(self)?;
        if enough(&first) {
            return Ok(first);
        }
        let earlier = Threads::of(pid);
        thread::sleep(self.limits.recheck_after);
        let before = Threads::of(pid);
        let second = look(self);
        let mut both = first.confirmed_by(second)?;
        // Not even two looks tell a library that is being loaded or unloaded from a hidden one.
        if !both.text.strays.is_empty() && !earlier.moved_on(&before, &Threads::of(pid)) {
            both.text.doubtful = std::mem::take(&mut both.text.strays);
        }
        Ok(both)
    }

    /// What is remembered at the moment.
    pub fn held(&self) -> Held {
        let ((files, file_bytes), (plans, plan_bytes)) = (self.files.held(), self.plans.held());
        let (images, image_bytes) = self.warm.held();
        Held { files, file_bytes, plans, plan_bytes, images, image_bytes }
    }

    /// Looks that found a process as it was when it was found clean.
    pub fn known_again(&self) -> u64 {
        self.warm.known
    }

    /// One look, repeated while the process is being linked or changes under the look.
    fn settled_report(&mut self, pid: u32, depth: Depth) -> Result<Report, VerifyError> {
        let mut tries = 1;
        loop {
            match self.look(pid, depth) {
                Err(VerifyError::NotSettled { .. } | VerifyError::Malformed { .. })
                    if tries < self.limits.settle_tries =>
                {
                    tries += 1;
                    thread::sleep(self.limits.recheck_after);
                }
                other => return other,
            }
        }
    }

    fn look(&mut self, pid: u32, depth: Depth) -> Result<Report, VerifyError> {
        let opened = Opened::new(pid)?;
        let asked = self.warm.ask(&opened, depth);
        if let Ok(Some(report)) = asked {
            return Ok(report);
        }
        // What is remembered goes by what was looked at, which may have changed since it was asked for.
        let text = opened.text()?;
        let mut areas = Areas::read(&text);
        let key = self.warm.key(&mut areas, &opened.auxv, depth);
        if let (Err(_), Ok(key)) = (&asked, &key)
            && let Some(report) = self.warm.look(&opened, key, &mut areas)
        {
            return Ok(report);
        }
        let process = opened.parse(&text, Some(self.warm.record()))?;
        let budget = Budget::new(pid, self.limits.time);
        let report = self.look_at(&process, depth, budget, false)?;
        if let Ok(key) = key {
            self.warm.remember(key, process, &report);
        }
        Ok(report)
    }

    fn look_at(
        &mut self,
        process: &Process,
        depth: Depth,
        budget: Budget,
        insist: bool,
    ) -> Result<Report, VerifyError> {
        self.files.depth = depth;
        let pid = process.pid;
        let gone = || VerifyError::Gone { pid };
        let mut gaps = Vec::new();
        let program = loader::find(process, &mut self.files, &mut gaps)?;
        let Program::Linked(linked) = program else {
            let text = self.look_at_code(process, None, budget, &mut gaps)?;
            let report = Report::unchecked(process, program.linkage(), gaps);
            return if process.is_same() { Ok(Report { text, ..report }) } else { Err(gone()) };
        };
        let bounds = Bounds { insist, ..self.limits.bounds() };
        let maps = link_map::read_link_maps(process, linked.debug, bounds)?;
        let sound = maps.flaws.is_empty();
        gaps.extend(maps.flaws.iter().map(|detail| Gap::List { detail }));
        let loader = (&linked.loader, linked.base);
        let files = &mut self.files;
        let layout =
            Layout::build(process, maps, loader, linked.linkage, files, budget, &mut gaps)?;
        let plan = self.plans.get(&layout, depth, budget)?;
        if plan.scopes.order_differs {
            gaps.push(Gap::LinkOrder);
        }
        let comparer = Comparer::new(process, &layout, &plan, &self.vdso, budget, &mut gaps);
        let comparison = comparer.run()?;
        if !self.limits.text {
            let unlisted = layout.unlisted(process).into_iter();
            gaps.extend(unlisted.map(|vma| Gap::Unlisted { path: vma.path.to_string() }));
        }
        let text = self.look_at_code(process, Some(&layout), budget, &mut gaps)?;
        // Exiting processes lose their memory first: what could not be read then means nothing.
        if !process.is_same() || process.read_word(linked.debug, layout.width).is_err() {
            return Err(gone());
        }
        let audit = audit::look(process, &linked, &layout)?;
        let preloads = plan.scopes.preloads.iter();
        let preloads = preloads.filter_map(|at| layout.modules.get(*at)?.module_ref()).collect();
        let report = Report::checked(process, &layout, comparison, preloads, gaps);
        Ok(Report { audit, text, settled: report.settled && sound, ..report })
    }

    fn look_at_code(
        &mut self,
        process: &Process,
        layout: Option<&Layout>,
        budget: Budget,
        gaps: &mut Vec<Gap>,
    ) -> Result<Text, VerifyError> {
        if !self.limits.text {
            return Ok(Text::default());
        }
        self.code.look(process, layout, &mut self.files, budget, gaps)
    }
}

/// Checks each process in turn and hands over every outcome, failures included.
pub fn scan(
    verifier: &mut Verifier,
    pids: impl IntoIterator<Item = u32>,
    mut on_report: impl FnMut(u32, Result<Report, VerifyError>),
) {
    for pid in pids {
        on_report(pid, verifier.check(pid));
    }
}

// === impl Report ===

impl Report {
    /// Whether slots and code are what they should be, or account for themselves.
    pub fn is_clean(&self) -> bool {
        self.mismatches.is_empty() && self.text.is_quiet()
    }

    fn unchecked(process: &Process, linkage: Linkage, gaps: Vec<Gap>) -> Self {
        Self {
            pid: process.pid,
            start_ticks: process.start_ticks(),
            slots_checked: 0,
            slots: SlotCounts::default(),
            skipped: Skipped::default(),
            slots_lenient: 0,
            slots_ifunc: 0,
            modules: 0,
            mismatches: Vec::new(),
            gaps,
            settled: true,
            linkage,
            preloads: Vec::new(),
            audit: None,
            namespaces: Vec::new(),
            text: Text::default(),
        }
    }

    /// What two looks at one process say together.
    fn confirmed_by(mut self, second: Result<Self, VerifyError>) -> Result<Self, VerifyError> {
        match second {
            Ok(mut second) => {
                let first = &self.mismatches;
                second.settled &= self.modules == second.modules;
                second.mismatches.retain(|now| first.iter().any(|then| then.same_finding(now)));
                second.text.confirm(&self.text);
                Ok(second)
            }
            Err(VerifyError::Gone { .. } | VerifyError::NoMemory { .. })
                if self.settled && !self.is_clean() =>
            {
                self.gaps.push(Gap::Unconfirmed);
                Ok(self)
            }
            Err(error) => Err(error),
        }
    }

    fn checked(
        process: &Process,
        layout: &Layout,
        comparison: Comparison,
        preloads: Vec<ModuleRef>,
        gaps: Vec<Gap>,
    ) -> Self {
        let modules = layout.modules.iter().filter(|module| module.is_file_module()).count();
        Self {
            slots_checked: comparison.checked.total(),
            slots: comparison.checked,
            skipped: comparison.skipped,
            slots_lenient: comparison.lenient,
            slots_ifunc: comparison.ifunc,
            modules: u32::try_from(modules).unwrap_or(u32::MAX),
            mismatches: comparison.mismatches,
            settled: !comparison.unrelocated,
            preloads,
            namespaces: layout.other_namespaces(),
            ..Self::unchecked(process, layout.linkage, gaps)
        }
    }
}

#[cfg(test)]
mod tests;
