//! Reads the slots of a process and compares them with a plan.

use std::time::SystemTime;

use super::budget::Budget;
use super::bytes::{index, u64_at};
use super::elf::{Slot, SlotKind};
use super::error::VerifyError;
use super::explain::{Explainer, Verdict};
use super::ifunc::{self, Seen, Vdso};
use super::layout::Layout;
use super::plan::{ModulePlan, Plan, Read};
use super::process::Process;
use super::report::{Category, Gap, SlotMismatch};
use super::resolve::{Resolver, Want};

/// What one comparison saw.
#[derive(Debug, Default)]
pub(crate) struct Comparison {
    pub(crate) checked: u64,
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
}

/// A slot with where it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct At<'a> {
    pub(crate) module: usize,
    pub(crate) base: u64,
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
        Self { process, layout, plan, explainer, gaps, outcome, ifuncs, buffer, budget }
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
        let (mut unread, mut unverifiable) = (0, 0);
        for read in &plan.reads {
            if !self.fill(module.base, read) {
                unread += read.slots.len() as u64;
                continue;
            }
            for number in read.slots.clone() {
                let (Some(slot), Some(want)) =
                    (object.elf.slots.get(number), plan.wants.get(number))
                else {
                    continue;
                };
                let Some(actual) = u64_at(&self.buffer, index(slot.vaddr - read.vaddr)) else {
                    continue;
                };
                self.outcome.checked += 1;
                let at = At { module: plan.module, base: module.base, slot };
                if !self.holds(*want, &at, number, actual) {
                    self.budget.check()?;
                    unverifiable += u64::from(self.explain(&at, *want, actual));
                }
            }
        }
        let path = || module.path.to_string();
        if unread > 0 {
            self.gaps.push(Gap::SlotsUnread { path: path(), slots: unread });
        }
        if unverifiable > 0 {
            self.gaps.push(Gap::Unverifiable { path: path(), slots: unverifiable });
        }
        Ok(())
    }

    fn fill(&mut self, base: u64, read: &Read) -> bool {
        self.buffer.resize(read.bytes, 0);
        self.process.read(base.wrapping_add(read.vaddr), &mut self.buffer).is_ok()
    }

    /// Whether the slot holds exactly what is wanted; notes IFUNC answers.
    fn holds(&mut self, want: Want, at: &At<'_>, number: usize, actual: u64) -> bool {
        match want {
            Want::Address { module, vaddr } => {
                let base = self.layout.modules.get(index(module)).map_or(0, |module| module.base);
                actual == base.wrapping_add(vaddr)
            }
            Want::Fixed(value) => actual == value,
            Want::Unknown => false,
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

    /// Judges a slot that does not hold what is wanted; true if nothing can be said about it.
    fn explain(&mut self, at: &At<'_>, want: Want, actual: u64) -> bool {
        match self.explainer.judge(at, want, actual) {
            Verdict::Lazy => {}
            Verdict::Lenient => self.outcome.lenient += 1,
            Verdict::Unrelocated => self.outcome.unrelocated = true,
            Verdict::Unverifiable => return true,
            Verdict::Wrong => {
                let mismatch = self.explainer.describe(at, want, actual, None);
                self.outcome.mismatches.extend(mismatch);
            }
        }
        false
    }

    fn check_agreement(&mut self) -> Result<(), VerifyError> {
        let layout = self.layout;
        for (odd, other) in ifunc::disagreeing(std::mem::take(&mut self.ifuncs)) {
            self.budget.check()?;
            let Some(module) = layout.modules.get(odd.module) else { continue };
            let slot = module.object().and_then(|object| object.elf.slots.get(odd.slot));
            let Some(slot) = slot else { continue };
            let at = At { module: odd.module, base: module.base, slot };
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
