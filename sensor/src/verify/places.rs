//! Where the slots of a process are: for who changes them to see whether that is found.

use super::budget::Budget;
use super::bytes::index;
use super::elf::{Relative, SlotKind};
use super::layout::{Layout, Module};
use super::link_map;
use super::loader::{self, Program};
use super::plan::ModulePlan;
use super::process::Process;
use super::resolve::Want;
use super::{Verifier, VerifyError};

/// One slot that [`Verifier::check`] compares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// What fills it.
    pub kind: SlotKind,
    /// Address in the process.
    pub addr: u64,
    /// Bytes of an address there: 4 or 8.
    pub width: usize,
    /// Path of the module it is in.
    pub module: String,
}

/// One entry of the loader's list (`struct link_map`) that [`Verifier::check`] would miss.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Path of the module's file.
    pub module: String,
    /// Address of the entry in the process.
    pub entry: u64,
}

/// What of a process is compared, and what somebody might make its slots lead to.
#[derive(Clone, Debug, Default)]
pub struct Places {
    /// Slots whose content can be told.
    pub slots: Vec<Place>,
    /// The libraries of the program's own namespace.
    pub listed: Vec<Listed>,
    /// Bytes of an address: 4 or 8; 0 without a loader.
    pub width: usize,
    /// Address of `system`, where a module has it.
    pub system: Option<u64>,
}

impl Verifier {
    /// Lists the slots; none in a process without a loader.
    ///
    /// # Errors
    /// As [`Verifier::check`].
    pub fn places(&mut self, pid: u32) -> Result<Places, VerifyError> {
        let process = Process::open(pid)?;
        let (budget, mut gaps) = (Budget::new(pid, self.limits.time), Vec::new());
        let program = loader::find(&process, &mut self.files, &mut gaps)?;
        let Program::Linked(linked) = program else { return Ok(Places::default()) };
        let bounds = self.limits.bounds();
        let maps = link_map::read_link_maps(&process, linked.debug, bounds)?;
        let loader = (&linked.loader, linked.base);
        let files = &mut self.files;
        let layout =
            Layout::build(&process, maps, loader, linked.linkage, files, budget, &mut gaps)?;
        let plan = self.plans.get(&layout, self.limits.depth, budget)?;
        let (listed, width) = (listed(&layout), layout.width.len());
        let mut places = Places { slots: Vec::new(), listed, width, system: system(&layout) };
        for module in &plan.modules {
            add(&mut places.slots, &layout, module);
        }
        Ok(places)
    }
}

fn add(places: &mut Vec<Place>, layout: &Layout, plan: &ModulePlan) {
    let Some(module) = layout.modules.get(plan.module) else { return };
    let Some(object) = module.object() else { return };
    let mut put = |kind, vaddr| {
        let (addr, width) = (module.addr(vaddr), module.width.len());
        places.push(Place { kind, addr, width, module: module.path.to_string() });
    };
    for check in &plan.checks {
        if matches!(check.want, Want::Unknown | Want::Uncertain) {
            continue;
        }
        if let Some(slot) = plan.slot(&object.elf, index(check.slot)) {
            put(slot.kind, slot.vaddr);
        }
    }
    let relocations = &object.elf.relocations;
    let own = [
        (&plan.relative, &relocations.relative, SlotKind::Relative),
        (&plan.relr, &relocations.relr, SlotKind::Relr),
    ];
    for (reads, words, kind) in own {
        let listed = reads.iter().flat_map(|read| words.get(read.slots.clone()).unwrap_or(&[]));
        listed.for_each(|word: &Relative| put(kind, word.vaddr.into()));
    }
}

/// The first entry is the program itself, which is known without the list.
fn listed(layout: &Layout) -> Vec<Listed> {
    let own = layout.namespaces.first().and_then(|range| layout.modules.get(range.clone()));
    let files = own.unwrap_or_default().iter().skip(1).filter(|module| module.object().is_some());
    let listed =
        |module: &Module| Listed { module: module.path.to_string(), entry: module.link_map };
    files.map(listed).collect()
}

fn system(layout: &Layout) -> Option<u64> {
    layout.modules.iter().find_map(|module| {
        let elf = &module.object()?.elf;
        let symbol = elf.symbols.default_definition(&elf.dynamic, "system")?;
        Some(module.addr(symbol.value))
    })
}
