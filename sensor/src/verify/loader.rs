//! Finds the dynamic linker of a process and its list of modules.

use std::sync::Arc;

use super::elf::ElfError;
use super::error::VerifyError;
use super::layout::{FileError, Files, Loaded};
use super::maps::Vma;
use super::process::Process;
use super::report::{Gap, Linkage};
use super::width::Width;

/// How a program came to run.
#[derive(Debug)]
pub(crate) enum Program {
    Linked(Linked),
    Static,
    UnknownLoader,
    ThirtyTwoBit,
}

/// A program with a loader whose structures are known.
#[derive(Debug)]
pub(crate) struct Linked {
    pub(crate) linkage: Linkage,
    pub(crate) loader: Arc<Loaded>,
    /// Load address of the loader.
    pub(crate) base: u64,
    /// Address of its `struct r_debug`.
    pub(crate) debug: u64,
}

impl Program {
    pub(crate) fn linkage(&self) -> Linkage {
        match self {
            Self::Linked(linked) => linked.linkage,
            Self::Static => Linkage::Static,
            Self::UnknownLoader => Linkage::UnknownLoader,
            Self::ThirtyTwoBit => Linkage::ThirtyTwoBit,
        }
    }
}

/// `AT_BASE` names the loader; without it the program is static, or is a loader run as a command.
pub(crate) fn find(
    process: &Process,
    files: &mut Files,
    gaps: &mut Vec<Gap>,
) -> Result<Program, VerifyError> {
    let pid = process.pid;
    let auxv = process.auxv.map_err(|error| VerifyError::auxv(pid, error))?;
    let (addr, kernel_loaded) = if auxv.base == 0 { (auxv.phdr, false) } else { (auxv.base, true) };
    let vma = process.maps.find(addr).filter(|vma| vma.is_file());
    let vma = vma.ok_or(VerifyError::Malformed { pid, what: "address of the loader" })?;
    let loader = match load(process, vma, files) {
        // Of the 32-bit machines, only x86 is known.
        Err(VerifyError::Elf { source: ElfError::Unsupported(_), .. })
            if auxv.width == Width::Four =>
        {
            gaps.push(Gap::ThirtyTwoBit);
            return Ok(Program::ThirtyTwoBit);
        }
        other => other?,
    };
    if loader.elf.headers.width != auxv.width {
        return Err(VerifyError::Malformed { pid, what: "width of the loader" });
    }
    let base = if kernel_loaded { auxv.base } else { load_base(&loader, vma) };
    match debug_symbol(process, &loader, base)? {
        Some((linkage, debug)) => Ok(Program::Linked(Linked { linkage, loader, base, debug })),
        None if !kernel_loaded && !loader.elf.headers.has_interpreter => Ok(Program::Static),
        None => {
            gaps.push(Gap::UnknownLoader { path: vma.path.to_string() });
            Ok(Program::UnknownLoader)
        }
    }
}

fn load(process: &Process, vma: &Vma, files: &mut Files) -> Result<Arc<Loaded>, VerifyError> {
    let pid = process.pid;
    files.load(process, vma).map_err(|error| match error {
        FileError::Open(source) => VerifyError::proc(pid, "map_files", source),
        FileError::Elf(source) => VerifyError::Elf { pid, path: vma.path.to_string(), source },
    })
}

/// Load address of a file from one of its mappings.
fn load_base(loaded: &Loaded, vma: &Vma) -> u64 {
    let vaddr = loaded.elf.headers.loads.iter().find_map(|load| {
        // Segments are mapped from the page their first byte is in.
        let into = load.vaddr & 0xfff;
        (load.offset.wrapping_sub(into) == vma.offset).then_some(load.vaddr - into)
    });
    loaded.elf.headers.width.sub(vma.start, vaddr.unwrap_or(0))
}

/// glibc exports the structure, musl a pointer to it. The address comes from the loader's file,
/// which the process cannot forge, not from `DT_DEBUG`, which it can.
fn debug_symbol(
    process: &Process,
    loader: &Loaded,
    base: u64,
) -> Result<Option<(Linkage, u64)>, VerifyError> {
    let pid = process.pid;
    let elf = &loader.elf;
    let width = elf.headers.width;
    let find = |name| elf.symbols.default_definition(&elf.dynamic, name);
    if let Some(sym) = find("_r_debug") {
        return Ok(Some((Linkage::Glibc, width.add(base, sym.value))));
    }
    let Some(sym) = find("_dl_debug_addr") else { return Ok(None) };
    let unsettled = |_| VerifyError::NotSettled { pid };
    let debug = process.read_word(width.add(base, sym.value), width).map_err(unsettled)?;
    let vaddr = width.sub(debug, base);
    let inside = elf.headers.span().is_some_and(|(start, end)| start <= vaddr && vaddr < end);
    match (debug, inside) {
        // Before musl relocated itself.
        (0, _) => Err(VerifyError::NotSettled { pid }),
        (_, false) => Err(VerifyError::Malformed { pid, what: "pointer to the link map" }),
        _ => Ok(Some((Linkage::Musl, debug))),
    }
}
