//! Reads the slots of a process and compares them with a plan.

use std::time::SystemTime;

use super::budget::Budget;
use super::bytes::index;
use super::elf::{Relative, Skipped, Slot, SlotCounts, SlotKind};
use super::error::VerifyError;
use super::explain::{Explainer, Verdict};
use super::ifunc::{self, Seen, Vdso};
use super::layout::{Layout, Module};
use super::plan::{ModulePlan, Plan, Read};
use super::process::Process;
use super::report::{Category, Gap, SlotMismatch};
use super::resolve::{Resolver, Want};

/// What one comparison saw.
#[derive(Debug, Default)]
pub(crate) struct Comparison {
    /// Slots compared.
    pub(crate) checked: SlotCounts,
    /// Relocations left out by rule.
    pub(crate) skipped: Skipped,
    pub(crate) lenient: u64,
    pub(crate) ifunc: u64,
    pub(crate) mismatches: Vec<SlotMismatch>,
    /// A slot that the loader has not relocated yet.
    pub(crate) unrelocated: bool,
}

/// One pass over all slots.
#[derive(Debug)]
pub(crate) struct Comparer<'a> {
    process: &'a Process,
    layout: &'a Layout,
    plan: &'a Plan,
    explainer: Explainer<'a>,
    gaps: &'a mut Vec<Gap>,
    outcome: Comparison,
    /// IFUNC slots with a plausible content, for the agreement rule.
    ifuncs: Vec<Seen>,
    buffer: Vec<u8>,
    budget: Budget,
    /// Of the module at hand.
    missed: Missed,
}

/// Slots of one module that say nothing.
#[derive(Clone, Copy, Debug, Default)]
struct Missed {
    unread: u64,
    unverifiable: u64,
    uncertain: u64,
}

/// A slot with where it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct At<'a> {
    pub(crate) module: usize,
    pub(crate) place: &'a Module,
    pub(crate) slot: &'a Slot,
}

impl<'a> Comparer<'a> {
    pub(crate) fn new(
        process: &'a Process,
        layout: &'a Layout,
        plan: &'a Plan,
        vdso: &'a Vdso,
        budget: Budget,
        gaps: &'a mut Vec<Gap>,
    ) -> Self {
        let resolver = Resolver { layout, scopes: &plan.scopes };
        let explainer = Explainer::new(process, resolver, vdso);
        let (outcome, ifuncs, buffer) = (Comparison::default(), Vec::new(), Vec::new());
        let missed = Missed::default();
        Self { process, layout, plan, explainer, gaps, outcome, ifuncs, buffer, budget, missed }
    }

    pub(crate) fn run(mut self) -> Result<Comparison, VerifyError> {
        let plan = self.plan;
        for module in &plan.modules {
            self.check_module(module)?;
        }
        self.check_agreement()?;
        if !self.outcome.mismatches.is_empty() {
            self.mark_changed_files();
        }
        if self.explainer.is_order_unknown() {
            self.gaps.push(Gap::SearchOrder);
        }
        Ok(self.outcome)
    }

    fn check_module(&mut self, plan: &ModulePlan) -> Result<(), VerifyError> {
        let layout = self.layout;
        let Some(module) = layout.modules.get(plan.module) else { return Ok(()) };
        let Some(object) = module.object() else { return Ok(()) };
        self.budget.check()?;
        self.missed = Missed::default();
        let relocations = &object.elf.relocations;
        self.outcome.skipped.merge(&relocations.skipped);
        for read in &plan.reads {
            self.check_slots(plan, module, read)?;
        }
        let own = [
            (&plan.relative, &relocations.relative, SlotKind::Relative),
            (&plan.relr, &relocations.relr, SlotKind::Relr),
        ];
        for (reads, words, kind) in own {
            for read in reads {
                let words = words.get(read.slots.clone()).unwrap_or(&[]);
                self.check_relative(plan.module, module, read, words, kind)?;
            }
        }
        let path = || module.path.to_string();
        let Missed { unread, unverifiable, uncertain } = self.missed;
        if unread > 0 {
            self.gaps.push(Gap::SlotsUnread { path: path(), slots: unread });
        }
        if unverifiable > 0 {
            self.gaps.push(Gap::Unverifiable { path: path(), slots: unverifiable });
        }
        if uncertain > 0 {
            self.gaps.push(Gap::Uncertain { path: path(), slots: uncertain });
        }
        Ok(())
    }

    fn check_slots(
        &mut self,
        plan: &ModulePlan,
        module: &'a Module,
        read: &Read,
    ) -> Result<(), VerifyError> {
        let Some(object) = module.object() else { return Ok(()) };
        let checks = plan.checks.get(read.slots.clone()).unwrap_or(&[]);
        let slots = checks.iter().filter_map(|check| plan.slot(&object.elf, index(check.slot)));
        if !self.fill(module, read, slots.map(|slot| slot.vaddr)) {
            return Ok(());
        }
        for check in checks {
            let number = index(check.slot);
            let Some(slot) = plan.slot(&object.elf, number) else { continue };
            let into = index(slot.vaddr - read.vaddr);
            let Some(actual) = module.width.word_at(&self.buffer, into) else { continue };
            let at = At { module: plan.module, place: module, slot };
            self.outcome.checked.add(slot.kind, 1);
            if !self.holds(check.want, &at, number, actual) {
                self.budget.check()?;
                self.explain(&at, check.want, actual);
            }
        }
        Ok(())
    }

    /// Addresses of the file itself: nine tenths of all slots.
    fn check_relative(
        &mut self,
        number: usize,
        module: &'a Module,
        read: &Read,
        words: &[Relative],
        kind: SlotKind,
    ) -> Result<(), VerifyError> {
        if !self.fill(module, read, words.iter().map(|word| word.vaddr.into())) {
            return Ok(());
        }
        self.outcome.checked.add(kind, words.len() as u64);
        let differs = |word: &&Relative| {
            let into = index(u64::from(word.vaddr) - read.vaddr);
            let actual = module.width.word_at(&self.buffer, into);
            actual.is_some_and(|actual| actual != module.addr(word.addend.into()))
        };
        let odd: Vec<Relative> = words.iter().filter(differs).copied().collect();
        for word in odd {
            let (vaddr, addend) = (u64::from(word.vaddr), u64::from(word.addend));
            let actual = module.width.word_at(&self.buffer, index(vaddr - read.vaddr));
            let Some(actual) = actual else { continue };
            self.budget.check()?;
            let slot = Slot { vaddr, addend, file_word: addend, symbol: 0, kind };
            let at = At { module: number, place: module, slot: &slot };
            let own = u32::try_from(number).unwrap_or(u32::MAX);
            self.explain(&at, Want::Address { module: own, vaddr: addend }, actual);
        }
        Ok(())
    }

    /// Reads a stretch of slots. Between slots in memory that the process can write to may be
    /// anything, so of those each counts for itself.
    fn fill(&mut self, module: &Module, read: &Read, slots: impl Iterator<Item = u64>) -> bool {
        // It only grows: what is behind a shorter read is not looked at.
        if self.buffer.len() < read.bytes {
            self.buffer.resize(read.bytes, 0);
        }
        let process = self.process;
        let addr = module.addr(read.vaddr);
        let Some(buffer) = self.buffer.get_mut(..read.bytes) else { return false };
        if process.read_unnoted(addr, buffer).is_err() {
            process.note_unread();
            self.missed.unread += read.slots.len() as u64;
            return false;
        }
        let end = addr.saturating_add(read.bytes as u64);
        if process.area(addr).is_some_and(|vma| !vma.write && end <= vma.end) {
            process.note_memory(addr, buffer);
            return true;
        }
        for vaddr in slots {
            let at = index(vaddr - read.vaddr);
            let word = buffer.get(at..at.saturating_add(module.width.len()));
            process.note_memory(module.addr(vaddr), word.unwrap_or_default());
        }
        true
    }

    /// Whether the slot holds exactly what is wanted; notes IFUNC answers.
    fn holds(&mut self, want: Want, at: &At<'_>, number: usize, actual: u64) -> bool {
        match want {
            Want::Address { module, vaddr } => {
                let module = self.layout.modules.get(index(module));
                module.is_some_and(|module| actual == module.addr(vaddr))
            }
            Want::Fixed(value) => actual == value,
            Want::LinkMap => actual == at.place.link_map || actual == at.slot.file_word,
            Want::Table(value) => actual == value || actual == at.place.addr(value),
            Want::Resolver => {
                actual == at.slot.file_word || self.explainer.is_entry_point(at, actual)
            }
            Want::TlsDesc => self.explainer.is_entry_point(at, actual),
            Want::Unknown | Want::Uncertain => false,
            Want::Ifunc { module: definer, resolver } => {
                let pending =
                    at.slot.kind == SlotKind::JumpSlot && self.explainer.is_lazy(at, actual);
                if pending {
                    return true;
                }
                self.outcome.ifunc += 1;
                // glibc's pseudo-IFUNC `__x86_cpu_features` answers NULL, which nobody calls.
                if actual == 0 && at.slot.kind == SlotKind::Irelative {
                    return true;
                }
                let plausible = self.explainer.is_plausible(index(definer), actual);
                if plausible {
                    let module = at.module;
                    self.ifuncs.push(Seen { definer, resolver, actual, module, slot: number });
                }
                plausible
            }
        }
    }

    /// Judges a slot that does not hold what is wanted.
    fn explain(&mut self, at: &At<'_>, want: Want, actual: u64) {
        match self.explainer.judge(at, want, actual) {
            Verdict::Lazy => {}
            Verdict::Lenient => self.outcome.lenient += 1,
            Verdict::Unrelocated => self.outcome.unrelocated = true,
            Verdict::Unverifiable => self.missed.unverifiable += 1,
            Verdict::Uncertain => self.missed.uncertain += 1,
            Verdict::Wrong => {
                let mismatch = self.explainer.describe(at, want, actual, None);
                self.outcome.mismatches.extend(mismatch);
            }
        }
    }

    fn check_agreement(&mut self) -> Result<(), VerifyError> {
        let layout = self.layout;
        for (odd, other) in ifunc::disagreeing(std::mem::take(&mut self.ifuncs)) {
            self.budget.check()?;
            let Some(place) = layout.modules.get(odd.module) else { continue };
            let slot = place.object().and_then(|object| {
                // Copied slots have no IFUNCs, so these are the file's own.
                object.elf.relocations.slots.get(odd.slot)
            });
            let Some(slot) = slot else { continue };
            let at = At { module: odd.module, place, slot };
            let want = Want::Ifunc { module: odd.definer, resolver: odd.resolver };
            let mismatch = self.explainer.describe(&at, want, odd.actual, Some(other));
            self.outcome.mismatches.extend(mismatch);
        }
        Ok(())
    }

    /// A file written to after program start no longer tells what the loader saw.
    fn mark_changed_files(&mut self) {
        let started: Option<SystemTime> = self.process.started();
        let changed: Vec<_> = self
            .layout
            .modules
            .iter()
            .filter_map(|module| module.object())
            .filter(|object| object.changed_since(started))
            .map(|object| (object.key.dev, object.key.ino))
            .collect();
        for mismatch in &mut self.outcome.mismatches {
            let expected = mismatch.expected.module.iter();
            if expected
                .chain([&mismatch.module])
                .any(|file| changed.contains(&(file.dev, file.ino)))
            {
                mismatch.category = Category::FileChanged;
            }
        }
    }
}
