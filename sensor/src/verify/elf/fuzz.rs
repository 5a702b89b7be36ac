//! The readers of this module for the fuzz targets `elf` and `eh_frame`: all of them, whether the
//! file would come to them or not.

use super::super::width::Width;
use super::unwind::read_fde_starts;
use super::{
    Depth, Dynamic, ElfError, Headers, Machine, ReadAt, Relocations, Segment, read_exports,
    read_step, read_text_relocations,
};

/// Functions whose frames are asked for, of those that a file has.
const FRAMES: usize = 32;

/// Reads a whole file; how many functions its unwind tables tell.
pub(crate) fn read_everything<R: ReadAt + ?Sized>(source: &R) -> Result<usize, ElfError> {
    let _ = (read_text_relocations(source).is_ok(), read_exports(source).is_ok());
    let headers = Headers::read(source)?;
    let told = read_tables(source, &headers, headers.entry);
    let dynamic = Dynamic::read(source, &headers)?;
    let _ = Relocations::read(source, &headers, &dynamic, Depth::Got)?;
    Ok(told)
}

/// Reads `bytes` as the one segment of a file, at address 0, that begins with `.eh_frame_hdr`; how
/// many functions it tells, and frames.
pub(crate) fn read_frames(bytes: &[u8], machine: Machine, vaddr: u64) -> usize {
    let size = u64::try_from(bytes.len()).unwrap_or(0);
    let load = Segment { vaddr: 0, offset: 0, filesz: size, memsz: size, exec: true, write: false };
    let headers = Headers {
        machine,
        width: Width::Eight,
        fixed: false,
        loads: vec![load],
        dynamic: None,
        relro: None,
        has_interpreter: false,
        entry: 0,
        build_id: None,
        eh_frame_hdr: Some((0, size)),
        sections: (0, 0),
    };
    read_tables(bytes, &headers, vaddr)
}

fn read_tables<R: ReadAt + ?Sized>(source: &R, headers: &Headers, vaddr: u64) -> usize {
    let starts = read_fde_starts(source, headers).unwrap_or_default();
    let asked = starts.iter().take(FRAMES).flat_map(|start| [*start, start.wrapping_add(4)]);
    let asked = [vaddr, u64::MAX].into_iter().chain(asked);
    starts.len() + asked.filter(|vaddr| read_step(source, headers, *vaddr).is_some()).count()
}
