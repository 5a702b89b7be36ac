//! The few facts of an ELF file that name it: bounded reads, 32 and 64 bits, nothing believed.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::host::build_id;

const PT_LOAD: u32 = 1;
const PT_DYNAMIC: u32 = 2;
const PT_INTERP: u32 = 3;
const DT_NULL: u64 = 0;
const DT_STRTAB: u64 = 5;
const DT_SONAME: u64 = 14;
/// Program headers looked at; real files have about a dozen.
const MAX_HEADERS: usize = 64;
/// Bytes of the dynamic section looked at: 1024 entries.
const MAX_DYNAMIC: u64 = 16 << 10;
/// Longest soname, bytes: that of a file name.
const MAX_SONAME: usize = 255;

/// What an ELF file says about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ElfFacts {
    /// GNU build-id, hex.
    pub build_id: Option<String>,
    /// `DT_SONAME`, invalid UTF-8 replaced.
    pub soname: Option<String>,
    /// It names a program interpreter; a program without one is static.
    pub interpreter: bool,
}

type ReadAt<'a> = &'a dyn Fn(u64, &mut [u8]) -> io::Result<usize>;

#[derive(Clone, Copy)]
struct Segment {
    kind: u32,
    offset: u64,
    vaddr: u64,
    filesz: u64,
}

struct Reader<'a> {
    read_at: ReadAt<'a>,
    wide: bool,
}

impl ElfFacts {
    /// Reads a file; `None` for one that is not ELF. Parts that contradict themselves are left out.
    pub(crate) fn read(file: &File) -> io::Result<Option<Self>> {
        let read_at = |offset, buffer: &mut [u8]| file.read_at(buffer, offset);
        let Some(facts) = find(&read_at)? else { return Ok(None) };
        Ok(Some(Self { build_id: build_id::read(file), ..facts }))
    }
}

fn find(read_at: ReadAt<'_>) -> io::Result<Option<ElfFacts>> {
    let head = bytes(read_at, 0, 64)?;
    if head.get(..4) != Some(b"\x7fELF") {
        return Ok(None);
    }
    let little = head.get(5) == Some(&1);
    let wide = head.get(4) == Some(&2);
    let reader = Reader { read_at, wide };
    let facts = little.then(|| reader.facts(&head)).flatten();
    Ok(Some(facts.unwrap_or_default()))
}

impl Reader<'_> {
    fn facts(&self, head: &[u8]) -> Option<ElfFacts> {
        let (at, size, count) = if self.wide {
            (number(head, 32, 8)?, number(head, 54, 2)?, number(head, 56, 2)?)
        } else {
            (number(head, 28, 4)?, number(head, 42, 2)?, number(head, 44, 2)?)
        };
        let size = usize::try_from(size).ok()?;
        if size != if self.wide { 56 } else { 32 } {
            return None;
        }
        let count = usize::try_from(count).ok()?.min(MAX_HEADERS);
        let table = bytes(self.read_at, at, count * size).ok()?;
        let segments: Vec<Segment> =
            table.chunks_exact(size).filter_map(|header| self.segment(header)).collect();
        Some(ElfFacts {
            build_id: None,
            soname: self.soname(&segments),
            interpreter: segments.iter().any(|segment| segment.kind == PT_INTERP),
        })
    }

    fn segment(&self, header: &[u8]) -> Option<Segment> {
        let kind = u32::try_from(number(header, 0, 4)?).ok()?;
        let (offset, vaddr, filesz) = if self.wide {
            (number(header, 8, 8)?, number(header, 16, 8)?, number(header, 32, 8)?)
        } else {
            (number(header, 4, 4)?, number(header, 8, 4)?, number(header, 16, 4)?)
        };
        Some(Segment { kind, offset, vaddr, filesz })
    }

    fn soname(&self, segments: &[Segment]) -> Option<String> {
        let dynamic = segments.iter().find(|segment| segment.kind == PT_DYNAMIC)?;
        let length = usize::try_from(dynamic.filesz.min(MAX_DYNAMIC)).ok()?;
        let table = bytes(self.read_at, dynamic.offset, length).ok()?;
        let width = if self.wide { 8 } else { 4 };
        let (mut strings, mut name) = (None, None);
        for entry in table.chunks_exact(width * 2) {
            let (tag, value) = (number(entry, 0, width)?, number(entry, width, width)?);
            match tag {
                DT_NULL => break,
                DT_STRTAB => strings = Some(value),
                DT_SONAME => name = Some(value),
                _ => {}
            }
        }
        let vaddr = strings?.checked_add(name?)?;
        let load = segments.iter().find(|segment| {
            let into = vaddr.checked_sub(segment.vaddr);
            segment.kind == PT_LOAD && into.is_some_and(|into| into < segment.filesz)
        })?;
        let at = load.offset.checked_add(vaddr - load.vaddr)?;
        let text = bytes(self.read_at, at, MAX_SONAME + 1).ok()?;
        let end = text.iter().position(|byte| *byte == 0).filter(|end| *end > 0)?;
        Some(String::from_utf8_lossy(text.get(..end)?).into_owned())
    }
}

/// A little-endian number of `width` bytes, at most 8.
fn number(bytes: &[u8], at: usize, width: usize) -> Option<u64> {
    let bytes = bytes.get(at..at.checked_add(width)?)?;
    Some(bytes.iter().rev().fold(0, |value, byte| (value << 8) | u64::from(*byte)))
}

/// Up to `length` bytes; fewer at the end of the file.
fn bytes(read_at: ReadAt<'_>, offset: u64, length: usize) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; length];
    let mut filled = 0_usize;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        let at = offset.checked_add(filled as u64).ok_or(io::ErrorKind::InvalidData)?;
        match read_at(at, rest) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    buffer.truncate(filled);
    Ok(buffer)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(image: &[u8]) -> Option<ElfFacts> {
        find(&|offset, buffer| {
            let rest = usize::try_from(offset).ok().and_then(|at| image.get(at..));
            let rest = rest.unwrap_or_default();
            let length = rest.len().min(buffer.len());
            buffer[..length].copy_from_slice(&rest[..length]);
            Ok(length)
        })
        .unwrap()
    }

    /// One segment that maps the whole file at 0x1000, an interpreter and a dynamic section.
    fn image(wide: bool) -> Vec<u8> {
        let (head, size, width) = if wide { (64, 56, 8) } else { (52, 32, 4) };
        let mut image = vec![0; head];
        image[..6].copy_from_slice(&[0x7f, b'E', b'L', b'F', if wide { 2 } else { 1 }, 1]);
        let (at, count) = if wide { (32, 54) } else { (28, 42) };
        image[at] = u8::try_from(head).unwrap();
        image[count] = u8::try_from(size).unwrap();
        image[count + 2] = 3;
        let dynamic = head + 3 * size;
        let strings = dynamic + 3 * 2 * width;
        for (kind, offset, vaddr, filesz) in [
            (PT_LOAD, 0, 0x1000, 0x800),
            (PT_INTERP, 0, 0, 0),
            (PT_DYNAMIC, dynamic, 0x1000 + dynamic, 3 * 2 * width),
        ] {
            let mut header = vec![0; size];
            header[..4].copy_from_slice(&kind.to_le_bytes());
            let places = if wide { [8, 16, 32] } else { [4, 8, 16] };
            for (place, value) in places.into_iter().zip([offset, vaddr, filesz]) {
                header[place..place + 4]
                    .copy_from_slice(&u32::try_from(value).unwrap().to_le_bytes());
            }
            image.extend(header);
        }
        for value in [DT_STRTAB, 0x1000 + strings as u64, DT_SONAME, 1, DT_NULL, 0] {
            image.extend(&value.to_le_bytes()[..width]);
        }
        image.extend(b"\0libx.so.1\0");
        image
    }

    #[test]
    fn both_widths_tell_soname_and_interpreter() {
        for wide in [true, false] {
            let facts = of(&image(wide)).unwrap();
            assert_eq!(facts.soname.as_deref(), Some("libx.so.1"), "wide: {wide}");
            assert!(facts.interpreter);
        }
    }

    #[test]
    fn another_file_is_none_and_a_cut_one_has_less() {
        assert_eq!(of(b"#!/bin/sh\n"), None);
        assert_eq!(of(b""), None);
        let image = image(true);
        for length in 4..image.len() {
            let facts = of(&image[..length]).unwrap();
            assert_eq!(facts.soname, None, "{length} bytes");
        }
    }

    #[test]
    fn this_program_has_what_the_linker_gave_it() {
        let own = File::open(std::env::current_exe().unwrap()).unwrap();
        let facts = ElfFacts::read(&own).unwrap().unwrap();
        assert!(facts.build_id.is_some() && facts.soname.is_none(), "{facts:?}");
    }

    proptest! {
        #[test]
        fn damaged_files_never_panic(
            wide: bool,
            changes in prop::collection::vec((0_usize..330, any::<u8>()), 0..12),
        ) {
            let mut image = image(wide);
            for (at, value) in changes {
                if let Some(byte) = image.get_mut(at) {
                    *byte = value;
                }
            }
            let _ = of(&image);
        }
    }
}
