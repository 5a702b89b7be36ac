//! Differing bytes as patches: what accounts for them, and how they read.

use std::cell::OnceCell;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use super::super::bytes::index;
use super::super::elf::{FunctionTable, Machine, Relocated, Segment, read_function_table};
use super::super::layout::Loaded;
use super::super::process::FileKey;
use super::super::report::{Gap, ModuleRef, Target};
use super::super::target;
use super::disasm::{Code, LEAD_MAX, Leads, TAIL};
use super::owners::Site;
use super::report::{Explanation, Patch};
use super::site::{self, Set};
use super::{Look, diff};

/// Patches told.
const PATCHES_MAX: usize = 64;
/// Bytes of a patch that are told.
const BYTES_MAX: usize = 64;
/// Where the kernel's probes call to (arch/x86/kernel/uprobes.c).
const TRAMPOLINE: &str = "[uprobes-trampoline]";

/// What code is compared with.
#[derive(Debug)]
pub(super) struct Source<'a> {
    pub(super) origin: Origin<'a>,
    pub(super) loaded: Option<Arc<Loaded>>,
    pub(super) module: ModuleRef,
    pub(super) key: Option<FileKey>,
    pub(super) relocated: Relocated,
    /// The file was written to after the process started.
    pub(super) changed: bool,
    /// Names, once one is asked for.
    pub(super) functions: OnceCell<FunctionTable>,
}

#[derive(Debug)]
pub(super) enum Origin<'a> {
    File(File),
    /// The sensor's own vDSO.
    Vdso(&'a [u8]),
}

/// Why a difference is none of ours to report.
#[derive(Clone, Debug)]
enum Reason {
    /// The loader writes there.
    Relocated,
    OwnProbe,
    Known(Explanation),
}

/// A stretch of both texts.
#[derive(Clone, Copy, Debug)]
struct Texts<'a> {
    /// Address of the first byte.
    addr: u64,
    /// Its offset in the file.
    offset: u64,
    expected: &'a [u8],
    actual: &'a [u8],
}

// === impl Source ===

impl<'a> Source<'a> {
    pub(super) fn vdso(bytes: &'a [u8], module: ModuleRef) -> Self {
        Self {
            origin: Origin::Vdso(bytes),
            loaded: None,
            module,
            key: None,
            relocated: Relocated::default(),
            changed: false,
            functions: OnceCell::new(),
        }
    }

    pub(super) fn read(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        match &self.origin {
            Origin::File(file) => super::read_padded(file, offset, len),
            Origin::Vdso(bytes) => {
                let start = index(offset).min(bytes.len());
                let mut part = bytes.get(start..).unwrap_or_default().to_vec();
                part.resize(len, 0);
                Ok(part)
            }
        }
    }

    /// Whether the file says that this is code that is not written to. A file mapped executable as
    /// a whole has other parts, which are not written to either unless the file says so.
    pub(super) fn is_code(&self, offset: u64) -> bool {
        let Some(loaded) = &self.loaded else { return !self.relocated.is_writable(offset) };
        let page = rustix::param::page_size() as u64;
        // Segments are mapped in whole pages.
        let on_page = |load: &&Segment| {
            let end = load.offset.saturating_add(load.filesz).saturating_add(page - 1);
            load.offset - load.offset % page <= offset && offset < end - end % page
        };
        let loads = || loaded.elf.headers.loads.iter().filter(on_page);
        let code = loads().any(|load| load.exec && !load.write);
        code || loads().next().is_some() && loads().all(|load| !load.write)
    }

    fn machine(&self) -> Machine {
        self.loaded.as_ref().map_or_else(super::native, |loaded| loaded.elf.headers.machine)
    }

    fn vaddr(&self, offset: u64) -> Option<u64> {
        match (&self.loaded, &self.origin) {
            (Some(loaded), _) => loaded.elf.headers.vaddr_of(offset, true),
            (None, Origin::Vdso(_)) => Some(offset),
            (None, Origin::File(_)) => None,
        }
    }

    /// Nearest function at or below, with the distance.
    fn function(&self, vaddr: u64) -> Option<(String, u64)> {
        let elf = &self.loaded.as_ref()?.elf;
        let Origin::File(file) = &self.origin else { return None };
        let read = || read_function_table(file, &elf.headers, &elf.symbols);
        self.functions.get_or_init(read).nearest(&elf.dynamic, vaddr)
    }

    /// Whether the instruction set is one that can be decoded.
    fn is_decodable(&self) -> bool {
        self.loaded.is_some() || matches!(self.origin, Origin::Vdso(_))
    }
}

// === impl Look ===

impl Look<'_> {
    /// Finds, explains and describes every difference of two texts.
    pub(super) fn patches(
        &mut self,
        source: &Source<'_>,
        addr: u64,
        offset: u64,
        expected: &[u8],
        actual: &[u8],
    ) {
        let texts = Texts { addr, offset, expected, actual };
        for run in diff::runs(expected, actual, |at| self.explain(source, texts, at)) {
            let explanation = match run.reason {
                Some(Reason::Relocated) => continue,
                Some(Reason::OwnProbe) => {
                    self.text.own_probes += 1;
                    continue;
                }
                Some(Reason::Known(explanation)) => Some(explanation),
                None if source.changed => Some(Explanation::FileChanged),
                None if !source.is_code(offset.wrapping_add(run.start as u64)) => continue,
                None => None,
            };
            self.add(source, texts, run.start..run.end, explanation);
        }
    }

    /// Where what accounts for a difference ends, and what it is.
    fn explain(
        &mut self,
        source: &Source<'_>,
        texts: Texts<'_>,
        at: usize,
    ) -> Option<(usize, Reason)> {
        let offset = texts.offset.wrapping_add(at as u64);
        if let Some(end) = source.relocated.end_of(offset) {
            return Some((at.saturating_add(index(end - offset)), Reason::Relocated));
        }
        let set = site::find(source.machine(), texts.expected, texts.actual, at, texts.addr)?;
        let (start, end, by_kernel) = match set {
            Set::Trap { start, end } => (start, end, false),
            // Only the kernel makes an area of that name.
            Set::Call { end, target } => {
                let area = self.process.area(target);
                area.filter(|vma| &*vma.path == TRAMPOLINE && !vma.is_file())?;
                (at, end, true)
            }
        };
        let offset = texts.offset.wrapping_add(start as u64);
        let site = source.key.map(|key| Site { key, offset });
        if site.is_some_and(|site| self.own.has(site)) {
            return Some((end, Reason::OwnProbe));
        }
        let mut owner = site.and_then(|site| self.owners.of(site));
        if by_kernel {
            owner.get_or_insert_with(|| "somebody".to_owned());
        }
        if let Some(owner) = owner {
            return Some((end, Reason::Known(Explanation::Probe { owner })));
        }
        if let Some((tracer, name)) = self.tracer() {
            return Some((end, Reason::Known(Explanation::Breakpoint { tracer, name })));
        }
        if let Some(reason) = self.owners.unread() {
            let gap = Gap::ProbesUnread { reason: reason.to_owned() };
            if !self.gaps.contains(&gap) {
                self.gaps.push(gap);
            }
        }
        None
    }

    fn add(
        &mut self,
        source: &Source<'_>,
        texts: Texts<'_>,
        run: Range<usize>,
        explanation: Option<Explanation>,
    ) {
        if self.text.patches.len() >= PATCHES_MAX {
            self.text.patches_left_out += 1;
            return;
        }
        let start = run.start as u64;
        let (addr, offset) = (texts.addr.wrapping_add(start), texts.offset.wrapping_add(start));
        let shown = run.start..run.end.min(run.start + BYTES_MAX);
        let bytes = |text: &[u8]| text.get(shown.clone()).unwrap_or_default().to_vec();
        let vaddr = source.vaddr(offset);
        let function = vaddr.and_then(|vaddr| source.function(vaddr));
        let mut patch = Patch {
            module: source.module.clone(),
            addr,
            offset,
            vaddr,
            symbol: function.as_ref().map(|(name, _)| name.clone()),
            symbol_offset: function.as_ref().map(|(_, distance)| *distance),
            length: (run.end - run.start) as u64,
            expected: bytes(texts.expected),
            actual: bytes(texts.actual),
            expected_code: Vec::new(),
            actual_code: Vec::new(),
            leads_to: None,
            explanation,
        };
        if source.is_decodable() {
            self.disassemble(source, &mut patch);
        }
        self.text.patches.push(patch);
    }

    /// The instructions around a patch, from where the file has one beginning.
    fn disassemble(&self, source: &Source<'_>, patch: &mut Patch) {
        let vaddr = patch.vaddr.unwrap_or(patch.offset);
        let lead = patch.symbol_offset.filter(|lead| *lead <= LEAD_MAX).unwrap_or(0);
        let lead = lead.min(patch.offset).min(patch.addr).min(vaddr);
        let length = patch.length.min(BYTES_MAX as u64);
        let len = index(lead + length + TAIL);
        let Ok(expected) = source.read(patch.offset - lead, len) else { return };
        let mut actual = vec![0; len];
        if self.process.read(patch.addr - lead, &mut actual).is_err() {
            return;
        }
        let (machine, first, end) = (source.machine(), vaddr - lead, vaddr.saturating_add(length));
        let file = Code { machine, bytes: &expected, addr: first };
        let start = file.instruction_of(vaddr);
        patch.expected_code = file.part(start, u64::MAX).listing(end);
        let memory = Code { machine, bytes: &actual, addr: first }.part(start, u64::MAX);
        patch.actual_code = memory.listing(end);
        let bias = patch.addr.wrapping_sub(vaddr);
        let memory = Code { addr: memory.addr.wrapping_add(bias), ..memory };
        let leads = memory.leads(end.wrapping_add(bias));
        patch.leads_to = leads.and_then(|leads| self.target(leads));
    }

    fn target(&self, leads: Leads) -> Option<Target> {
        let addr = match leads {
            Leads::To(addr) => addr,
            Leads::Through(slot) => self.process.read_word(slot, self.process.width()).ok()?,
        };
        Some(target::name(self.process, self.layout, addr))
    }
}
