//! What of a program's linking is out of sight, told by its file: a few bounded reads, nothing
//! believed.

use std::fmt;
use std::fs::File;
use std::os::unix::fs::FileExt;

use serde::{Deserialize, Serialize};

use super::build_id::{bytes, long, short, word};

/// `ET_DYN`, `EM_386`, `PT_DYNAMIC`, `PT_INTERP`, `DT_NULL`, `DT_FLAGS_1` and `DF_1_PIE` of glibc's
/// elf.h.
const ET_DYN: u16 = 3;
const EM_386: u16 = 3;
const PT_DYNAMIC: u32 = 2;
const PT_INTERP: u32 = 3;
const DT_NULL: u64 = 0;
const DT_FLAGS_1: u64 = 0x6fff_fffb;
const DF_1_PIE: u64 = 0x0800_0000;
/// Program headers looked at; real files have about a dozen.
const MAX_HEADERS: u16 = 64;
/// Bytes of the dynamic section looked at: 256 entries.
const MAX_DYNAMIC: u64 = 4096;

/// Why a program's linking is not seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Uncovered {
    /// No loader is at work in it.
    Static,
    /// For x86: its slots are compared; no probe is put into it, and what audits it and where its
    /// loader looked is read of 64-bit loaders only.
    ThirtyTwoBit,
    /// For another machine (ARM, x32): its slots and its loader's state are not read either.
    ForeignThirtyTwoBit,
}

// === impl Uncovered ===

impl Uncovered {
    /// Of an executable; `None` where all is seen, and for what is no little-endian ELF file.
    pub(crate) fn of(file: &File) -> Option<Self> {
        find(&|offset, buffer| file.read_at(buffer, offset).ok())
    }
}

impl fmt::Display for Uncovered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Static => {
                "linked statically: it has no loader, its libraries are not seen, and there are no \
                 slots to check"
            }
            Self::ThirtyTwoBit => {
                "a 32-bit program: its link times, who audits it and why its loader found a library \
                 are not seen"
            }
            Self::ForeignThirtyTwoBit => {
                "a 32-bit program, and not for x86: its slots, its loader's state and its link times \
                 are not checked"
            }
        })
    }
}

type ReadAt<'a> = &'a dyn Fn(u64, &mut [u8]) -> Option<usize>;

fn find(read_at: ReadAt<'_>) -> Option<Uncovered> {
    let head = bytes(read_at, 0, 64)?;
    if head.get(..4)? != b"\x7fELF" || *head.get(5)? != 1 {
        return None;
    }
    match *head.get(4)? {
        1 if short(&head, 18) == Some(EM_386) => return Some(Uncovered::ThirtyTwoBit),
        1 => return Some(Uncovered::ForeignThirtyTwoBit),
        2 => {}
        _ => return None,
    }
    let (kind, table) = (short(&head, 16)?, long(&head, 32)?);
    let (size, count) = (short(&head, 54)?, short(&head, 56)?);
    let mut pie = None;
    for index in 0..count.min(MAX_HEADERS) {
        let at = table.checked_add(u64::from(index) * u64::from(size))?;
        let header = bytes(read_at, at, 56)?;
        match word(&header, 0)? {
            PT_INTERP => return None,
            PT_DYNAMIC => {
                let length = usize::try_from(long(&header, 32)?.min(MAX_DYNAMIC)).ok()?;
                pie = Some(is_pie(&bytes(read_at, long(&header, 8)?, length)?));
            }
            _ => {}
        }
    }
    // A shared object that is executed and names no loader is one itself, unless it was linked to
    // be an executable.
    (kind != ET_DYN || pie == Some(true)).then_some(Uncovered::Static)
}

/// An executable, by `DT_FLAGS_1`, which ld sets for a static one too (binutils 2.26 on).
fn is_pie(dynamic: &[u8]) -> bool {
    dynamic
        .chunks_exact(16)
        .filter_map(|entry| Some((long(entry, 0)?, long(entry, 8)?)))
        .take_while(|(tag, _)| *tag != DT_NULL)
        .any(|(tag, value)| tag == DT_FLAGS_1 && value & DF_1_PIE != 0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(image: &[u8]) -> Option<Uncovered> {
        find(&|offset, buffer| {
            let rest = image.get(usize::try_from(offset).ok()?..).unwrap_or_default();
            let length = rest.len().min(buffer.len());
            buffer[..length].copy_from_slice(&rest[..length]);
            Some(length)
        })
    }

    /// A 64-bit file with these segments; the dynamic section behind them says these flags.
    fn image(kind: u16, segments: &[u32], flags: u64) -> Vec<u8> {
        let count = u16::try_from(segments.len()).unwrap();
        let end = 64 + 56 * u64::from(count);
        let mut image = vec![0; 64];
        image[..6].copy_from_slice(b"\x7fELF\x02\x01");
        image[16..18].copy_from_slice(&kind.to_le_bytes());
        image[32] = 64;
        image[54] = 56;
        image[56..58].copy_from_slice(&count.to_le_bytes());
        for segment in segments {
            let mut header = [0; 56];
            header[..4].copy_from_slice(&segment.to_le_bytes());
            header[8..16].copy_from_slice(&end.to_le_bytes());
            header[32..40].copy_from_slice(&32_u64.to_le_bytes());
            image.extend(header);
        }
        for value in [DT_FLAGS_1, flags, DT_NULL, 0] {
            image.extend(value.to_le_bytes());
        }
        image
    }

    #[test]
    fn a_program_without_interpreter_is_static_but_a_loader_is_none() {
        const ET_EXEC: u16 = 2;
        assert_eq!(of(&image(ET_EXEC, &[], 0)), Some(Uncovered::Static));
        assert_eq!(of(&image(ET_DYN, &[PT_DYNAMIC], DF_1_PIE)), Some(Uncovered::Static));
        assert_eq!(of(&image(ET_DYN, &[PT_DYNAMIC], 0)), None, "a loader");
        assert_eq!(of(&image(ET_EXEC, &[PT_INTERP], 0)), None);
        assert_eq!(of(&image(ET_DYN, &[PT_DYNAMIC, PT_INTERP], DF_1_PIE)), None);
    }

    #[test]
    fn a_32_bit_program_is_told_and_a_script_is_none_of_ours() {
        let narrow = |machine: u8| {
            let mut image = vec![0; 64];
            image[..6].copy_from_slice(b"\x7fELF\x01\x01");
            image[18] = machine;
            of(&image)
        };
        assert_eq!(narrow(3), Some(Uncovered::ThirtyTwoBit));
        assert_eq!(narrow(62), Some(Uncovered::ForeignThirtyTwoBit), "x32");
        assert_eq!(of(b"#!/bin/sh\n"), None);
        assert_eq!(of(b""), None);
    }

    #[test]
    fn this_machines_own_loader_and_shell_are_covered() {
        let loaders = ["/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1", "/bin/sh"];
        for file in loaders.into_iter().filter_map(|path| File::open(path).ok()) {
            assert_eq!(Uncovered::of(&file), None, "{file:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_never_panic(
            changes in prop::collection::vec((0_usize..220, any::<u8>()), 0..12),
            noise: Vec<u8>,
        ) {
            let mut image = image(ET_DYN, &[PT_DYNAMIC, 1], DF_1_PIE);
            for (at, value) in changes {
                if let Some(byte) = image.get_mut(at) {
                    *byte = value;
                }
            }
            let _ = (of(&image), of(&noise));
        }
    }
}
