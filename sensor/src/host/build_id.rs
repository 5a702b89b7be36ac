//! The GNU build-id of a file: a few bounded reads, never a mapping, and nothing is believed.

use std::cell::Cell;
use std::fmt::Write;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

const PT_NOTE: u32 = 4;
const NT_GNU_BUILD_ID: u32 = 3;
/// Program headers looked at; real files have about a dozen.
const MAX_HEADERS: u16 = 64;
/// Bytes of one note segment looked at.
const MAX_NOTES: u64 = 4096;
/// Longest build-id, bytes.
const MAX_ID: usize = 64;

/// Hex build-id; `None` for anything but a little-endian ELF file that has one.
pub(crate) fn read(file: &File) -> Option<String> {
    try_read(file).ok().flatten()
}

/// The same, with what kept it from being read.
pub(crate) fn try_read(file: &File) -> io::Result<Option<String>> {
    let failure = Cell::new(None);
    let found = find(&|offset, buffer| {
        file.read_at(buffer, offset).map_err(|error| failure.set(Some(error))).ok()
    });
    failure.into_inner().map_or(Ok(found), Err)
}

type ReadAt<'a> = &'a dyn Fn(u64, &mut [u8]) -> Option<usize>;

fn find(read_at: ReadAt<'_>) -> Option<String> {
    let head = bytes(read_at, 0, 64)?;
    if head.get(..4)? != b"\x7fELF" || *head.get(5)? != 1 {
        return None;
    }
    let wide = *head.get(4)? == 2;
    let (table, size, count) = if wide {
        (long(&head, 32)?, short(&head, 54)?, short(&head, 56)?)
    } else {
        (u64::from(word(&head, 28)?), short(&head, 42)?, short(&head, 44)?)
    };
    (0..count.min(MAX_HEADERS)).find_map(|index| {
        let at = table.checked_add(u64::from(index) * u64::from(size))?;
        let header = bytes(read_at, at, if wide { 56 } else { 32 })?;
        if word(&header, 0)? != PT_NOTE {
            return None;
        }
        let (offset, length) = if wide {
            (long(&header, 8)?, long(&header, 32)?)
        } else {
            (u64::from(word(&header, 4)?), u64::from(word(&header, 16)?))
        };
        in_notes(&bytes(read_at, offset, usize::try_from(length.min(MAX_NOTES)).ok()?)?)
    })
}

fn in_notes(mut notes: &[u8]) -> Option<String> {
    loop {
        let name_len = usize::try_from(word(notes, 0)?).ok()?;
        let id_len = usize::try_from(word(notes, 4)?).ok()?;
        let kind = word(notes, 8)?;
        let id_at = 12_usize.checked_add(name_len.checked_next_multiple_of(4)?)?;
        let end = id_at.checked_add(id_len)?;
        if kind == NT_GNU_BUILD_ID && notes.get(12..16)? == b"GNU\0" && name_len == 4 {
            let id = notes.get(id_at..end).filter(|id| !id.is_empty() && id.len() <= MAX_ID)?;
            return Some(id.iter().fold(String::new(), |mut text, byte| {
                let _ = write!(text, "{byte:02x}");
                text
            }));
        }
        notes = notes.get(end.checked_next_multiple_of(4)?..)?;
    }
}

/// Up to `length` bytes; fewer at the end of the file.
pub(super) fn bytes(read_at: ReadAt<'_>, offset: u64, length: usize) -> Option<Vec<u8>> {
    let mut buffer = vec![0; length];
    let read = read_at(offset, &mut buffer)?;
    buffer.truncate(read);
    Some(buffer)
}

pub(super) fn short(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

pub(super) fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

pub(super) fn long(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(image: &[u8]) -> Option<String> {
        find(&|offset, buffer| {
            let rest = image.get(usize::try_from(offset).ok()?..).unwrap_or_default();
            let length = rest.len().min(buffer.len());
            buffer[..length].copy_from_slice(&rest[..length]);
            Some(length)
        })
    }

    /// A 64-bit file with one note segment: a foreign note first, then the build-id.
    fn image() -> Vec<u8> {
        let mut image = vec![0; 64 + 56];
        image[..6].copy_from_slice(b"\x7fELF\x02\x01");
        image[32..40].copy_from_slice(&64_u64.to_le_bytes());
        image[54..56].copy_from_slice(&56_u16.to_le_bytes());
        image[56..58].copy_from_slice(&1_u16.to_le_bytes());
        image[64..68].copy_from_slice(&PT_NOTE.to_le_bytes());
        image[72..80].copy_from_slice(&120_u64.to_le_bytes());
        image[96..104].copy_from_slice(&(24_u64 + 20).to_le_bytes());
        for (name, kind, id) in
            [(b"stap", 3_u32, &b"12345678"[..]), (b"GNU\0", 3, b"\xab\xcd\x01\x02")]
        {
            image.extend_from_slice(&4_u32.to_le_bytes());
            image.extend_from_slice(&u32::try_from(id.len()).unwrap().to_le_bytes());
            image.extend_from_slice(&kind.to_le_bytes());
            image.extend_from_slice(name);
            image.extend_from_slice(id);
        }
        image
    }

    #[test]
    fn build_id_is_found_behind_another_note() {
        assert_eq!(of(&image()).as_deref(), Some("abcd0102"));
    }

    #[test]
    fn a_real_program_has_the_build_id_of_its_own_notes() {
        let own = File::open(std::env::current_exe().unwrap()).unwrap();
        let id = read(&own).expect("the linker adds a build-id");
        assert!(id.len() >= 16 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
    }

    #[test]
    fn a_truncated_file_has_none() {
        let image = image();
        for length in 0..image.len() {
            assert_eq!(of(&image[..length]), None, "{length} bytes");
        }
    }

    proptest! {
        #[test]
        fn damaged_files_never_panic(changes in prop::collection::vec((0_usize..168, any::<u8>()), 0..12)) {
            let mut image = image();
            for (at, value) in changes {
                if let Some(byte) = image.get_mut(at) {
                    *byte = value;
                }
            }
            let _ = of(&image);
        }

        #[test]
        fn any_bytes_never_panic(image in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = of(&image);
        }
    }
}
