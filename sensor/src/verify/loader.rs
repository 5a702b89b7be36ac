//! Finds the dynamic linker of a process and its list of modules.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use super::bytes::printable;
use super::elf::{ElfError, Segment};
use super::error::VerifyError;
use super::layout::{FileError, Files, Loaded, is_mapped};
use super::maps::Vma;
use super::process::Process;
use super::report::{Gap, Linkage};
use super::text::native;
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
    let malformed = |what| VerifyError::Malformed { pid, what };
    let (addr, kernel_loaded) = if auxv.base == 0 { (auxv.phdr, false) } else { (auxv.base, true) };
    let Some(vma) = process.area(addr).filter(|vma| vma.is_file()) else {
        if kernel_loaded || names_loader(process, files) {
            return Err(malformed("address of the loader"));
        }
        gaps.push(Gap::Packed);
        return Ok(Program::UnknownLoader);
    };
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
        return Err(malformed("width of the loader"));
    }
    let base = if kernel_loaded { auxv.base } else { load_base(&loader, vma) };
    if kernel_loaded && !has_its_code(process, vma, &loader, base) {
        return Err(malformed("loader"));
    }
    match debug_symbol(process, &loader, base)? {
        Some((linkage, debug)) => Ok(Program::Linked(Linked { linkage, loader, base, debug })),
        None if kernel_loaded => {
            gaps.push(Gap::UnknownLoader { path: vma.path.to_string() });
            Ok(Program::UnknownLoader)
        }
        None if loader.elf.headers.has_interpreter || names_loader(process, files) => {
            Err(malformed("auxiliary vector"))
        }
        None => Ok(Program::Static),
    }
}

/// Whether the code of the file at the loader's address is mapped where that file has it. What the
/// kernel has mapped always is; what somebody mapped over its first page is executable nowhere.
fn has_its_code(process: &Process, own: &Vma, loader: &Loaded, base: u64) -> bool {
    let headers = &loader.elf.headers;
    let mut code = headers.loads.iter().filter(|load| load.exec && load.filesz > 0).peekable();
    // Only tests look at what an emulator runs, to which code is data.
    let emulated = cfg!(test) && headers.machine != native();
    let in_place = |load: &Segment| {
        let addr = headers.width.add(base, load.vaddr);
        let runs = |vma: &Vma| vma.exec || emulated;
        is_mapped(process, own, addr, load) && process.area(addr).is_some_and(runs)
    };
    code.peek().is_some() && code.all(in_place)
}

/// Whether the program's file says that it needs a loader, so that the kernel has loaded one: the
/// auxiliary vector can be written to (`PR_SET_MM_AUXV`, `PR_SET_MM_MAP`).
fn names_loader(process: &Process, files: &mut Files) -> bool {
    let Ok(exe) = fs::read_link(format!("/proc/{}/exe", process.pid)) else { return false };
    let exe = printable(exe.as_os_str().as_bytes());
    let vma = process.maps.iter().find(|vma| vma.is_file() && *vma.path == *exe);
    let loaded = vma.and_then(|vma| files.load(process, vma).ok());
    loaded.is_some_and(|loaded| loaded.elf.headers.has_interpreter)
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
