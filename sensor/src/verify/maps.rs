//! `/proc/PID/maps`: the address space of a process as a sorted list.

mod query;

use std::sync::Arc;

pub(crate) use self::query::Query;

use super::bytes::printable;

/// One line of `/proc/PID/maps` (kernel: `fs/proc/task_mmu.c`, `show_map_vma`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Vma {
    /// First address.
    pub(crate) start: u64,
    /// First address after the area.
    pub(crate) end: u64,
    /// Readable.
    pub(crate) read: bool,
    /// Writable.
    pub(crate) write: bool,
    /// Executable.
    pub(crate) exec: bool,
    /// Offset of `start` in the mapped file, bytes.
    pub(crate) offset: u64,
    /// Major and minor device number as the kernel prints them (of the inode's superblock,
    /// which on btrfs and overlayfs differs from `st_dev`).
    pub(crate) dev: (u32, u32),
    /// Inode number; 0 for memory without a file.
    pub(crate) ino: u64,
    /// Path or pseudo name (`[heap]`, `[vdso]`); empty for anonymous memory.
    pub(crate) path: Arc<str>,
}

/// One area as the kernel gives it, in a line of text or as the answer to a [`Query`]; its name goes
/// beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Area {
    pub(crate) start: u64,
    pub(crate) end: u64,
    /// [`READ`], [`WRITE`], [`EXEC`].
    pub(crate) access: u8,
    /// Of memory without a file it means nothing.
    pub(crate) offset: u64,
    pub(crate) dev: (u32, u32),
    pub(crate) ino: u64,
}

/// Bits of [`Area::access`], those of `enum procmap_query_flags` (include/uapi/linux/fs.h).
pub(crate) const READ: u8 = 1;
pub(crate) const WRITE: u8 = 2;
pub(crate) const EXEC: u8 = 4;

/// The areas of one process, ascending and disjoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Maps {
    areas: Vec<Vma>,
}

/// A maps text that the kernel would not have written.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("line {line} of the maps text is not a mapping")]
pub(crate) struct MapsError {
    /// 1-based line number.
    pub(crate) line: usize,
}

impl Vma {
    /// Whether the area maps a file (not `[heap]`, `[stack]` or anonymous memory).
    pub(crate) fn is_file(&self) -> bool {
        self.ino != 0
    }

    /// Whether `addr` lies inside.
    pub(crate) fn contains(&self, addr: u64) -> bool {
        self.start <= addr && addr < self.end
    }

    /// Name and permissions for people: `[heap] rw-`, `anonymous rwx`.
    pub(crate) fn describe(&self) -> String {
        let name = if self.path.is_empty() { "anonymous" } else { &self.path };
        let flag = |set, letter| if set { letter } else { '-' };
        let (r, w, x) = (flag(self.read, 'r'), flag(self.write, 'w'), flag(self.exec, 'x'));
        format!("{name} {r}{w}{x}")
    }

    /// Whether two areas map the same inode.
    pub(crate) fn same_file(&self, other: &Self) -> bool {
        self.is_file() && self.ino == other.ino && self.dev == other.dev
    }
}

impl Maps {
    /// Parses the whole text; areas must ascend and not overlap, as the kernel guarantees.
    pub(crate) fn parse(text: &[u8]) -> Result<Self, MapsError> {
        let mut areas: Vec<Vma> = Vec::with_capacity(text.len() / 90);
        for (number, area) in self::areas(text).enumerate() {
            let previous = areas.last();
            let (area, name) = area.ok_or(MapsError { line: number + 1 })?;
            if previous.is_some_and(|before| before.end > area.start) {
                return Err(MapsError { line: number + 1 });
            }
            areas.push(area.to_vma(name, previous));
        }
        Ok(Self { areas })
    }

    /// The area that holds `addr`.
    pub(crate) fn find(&self, addr: u64) -> Option<&Vma> {
        let after = self.areas.partition_point(|vma| vma.start <= addr);
        let vma = self.areas.get(after.checked_sub(1)?)?;
        vma.contains(addr).then_some(vma)
    }

    /// The first area that begins behind `addr`.
    pub(crate) fn after(&self, addr: u64) -> Option<&Vma> {
        self.areas.get(self.areas.partition_point(|vma| vma.start <= addr))
    }

    /// All areas, ascending.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Vma> {
        self.areas.iter()
    }

    /// Number of areas.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.areas.len()
    }

    /// Whether there is no area at all (kernel threads, zombies).
    pub(crate) fn is_empty(&self) -> bool {
        self.areas.is_empty()
    }
}

/// The areas of a maps text with their names, one after the other; `None` for a line that is none. A
/// line feed in a name is written `\012`.
pub(crate) fn areas(text: &[u8]) -> impl Iterator<Item = Option<(Area, &[u8])>> {
    text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(parse_line)
}

/// `start-end perms offset major:minor inode   path`
fn parse_line(line: &[u8]) -> Option<(Area, &[u8])> {
    let (range, rest) = split_space(line)?;
    let (perms, rest) = split_space(rest)?;
    let (offset, rest) = split_space(rest)?;
    let (dev, rest) = split_space(rest)?;
    let (ino, name) = split_space(rest).unwrap_or((rest, &[]));
    let dash = range.iter().position(|byte| *byte == b'-')?;
    let colon = dev.iter().position(|byte| *byte == b':')?;
    let [r, w, x, _] = *perms.first_chunk::<4>()?;
    let (start, end) = (hex(range.get(..dash)?)?, hex(range.get(dash + 1..)?)?);
    if start >= end {
        return None;
    }
    let bit = |set, bit| if set { bit } else { 0 };
    let area = Area {
        start,
        end,
        access: bit(r == b'r', READ) | bit(w == b'w', WRITE) | bit(x == b'x', EXEC),
        offset: hex(offset)?,
        dev: (
            u32::try_from(hex(dev.get(..colon)?)?).ok()?,
            u32::try_from(hex(dev.get(colon + 1..)?)?).ok()?,
        ),
        ino: std::str::from_utf8(ino).ok()?.parse().ok()?,
    };
    Some((area, name.get(name.iter().position(|byte| *byte != b' ').unwrap_or(name.len())..)?))
}

impl Area {
    /// What an area was, as far as anybody looked at it.
    pub(crate) fn of(vma: &Vma) -> Self {
        let bit = |set, bit| if set { bit } else { 0 };
        let access = bit(vma.read, READ) | bit(vma.write, WRITE) | bit(vma.exec, EXEC);
        let Vma { start, end, offset, dev, ino, .. } = *vma;
        Self { start, end, access, offset, dev, ino }
    }

    /// Whether it is the kernel's own page that every text ends with (`[vsyscall]`), which is no part
    /// of any address space.
    pub(crate) fn is_gate(&self) -> bool {
        self.start >> 63 == 1
    }

    pub(crate) fn is_executable(&self) -> bool {
        self.access & EXEC != 0
    }

    fn to_vma(self, name: &[u8], previous: Option<&Vma>) -> Vma {
        let Self { start, end, access, offset, dev, ino } = self;
        Vma {
            start,
            end,
            read: access & READ != 0,
            write: access & WRITE != 0,
            exec: access & EXEC != 0,
            offset,
            dev,
            ino,
            path: share_path(name, previous),
        }
    }
}

/// Neighbouring areas usually map the same file: reuse its text.
fn share_path(path: &[u8], previous: Option<&Vma>) -> Arc<str> {
    match previous {
        Some(vma) if vma.path.as_bytes() == path => Arc::clone(&vma.path),
        _ => printable(path).into(),
    }
}

fn split_space(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = text.iter().position(|byte| *byte == b' ')?;
    Some((text.get(..at)?, text.get(at + 1..)?))
}

fn hex(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 16 {
        return None;
    }
    text.iter().try_fold(0_u64, |value, byte| {
        let digit = char::from(*byte).to_digit(16)?;
        Some((value << 4) | u64::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TEXT: &[u8] =
        b"55d0c0a00000-55d0c0a02000 r--p 00000000 fe:01 1442                       /usr/bin/cat\n\
          55d0c0a02000-55d0c0a07000 r-xp 00002000 fe:01 1442                       /usr/bin/cat\n\
          55d0c1000000-55d0c1021000 rw-p 00000000 00:00 0                          [heap]\n\
          7f0000000000-7f0000001000 rw-p 00000000 00:00 0 \n\
          7f0000002000-7f0000003000 r--p 00000000 00:2b 77 /tmp/a b (deleted)\n";

    #[test]
    fn every_field_of_a_line_is_read() {
        let maps = Maps::parse(TEXT).unwrap();
        assert_eq!(maps.len(), 5);
        let text = maps.find(0x55d0_c0a0_2010).unwrap();
        assert_eq!((text.exec, text.write, text.offset), (true, false, 0x2000));
        assert_eq!((text.dev, text.ino, &*text.path), ((0xfe, 1), 1442, "/usr/bin/cat"));
        assert_eq!(&*maps.find(0x55d0_c100_0000).unwrap().path, "[heap]");
        assert_eq!(&*maps.find(0x7f00_0000_0000).unwrap().path, "");
        assert_eq!(&*maps.find(0x7f00_0000_2000).unwrap().path, "/tmp/a b (deleted)");
    }

    #[test]
    fn addresses_between_areas_have_no_area() {
        let maps = Maps::parse(TEXT).unwrap();
        for addr in [0, 0x55d0_c0a0_7000, 0x7f00_0000_1000, u64::MAX] {
            assert_eq!(maps.find(addr), None);
        }
    }

    #[test]
    fn a_broken_line_is_named_by_its_number() {
        let text = b"1000-2000 r--p 0 0:0 0\nnonsense\n";
        assert_eq!(Maps::parse(text), Err(MapsError { line: 2 }));
        assert_eq!(Maps::parse(b"2000-1000 r--p 0 0:0 0\n"), Err(MapsError { line: 1 }));
        let overlap = b"1000-3000 r--p 0 0:0 0\n2000-4000 r--p 0 0:0 0\n";
        assert_eq!(Maps::parse(overlap), Err(MapsError { line: 2 }));
    }

    #[test]
    fn the_own_address_space_parses() {
        let maps = Maps::parse(&std::fs::read("/proc/self/maps").unwrap()).unwrap();
        assert!(maps.iter().any(|vma| vma.exec && vma.is_file()));
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused_or_give_sorted_areas(text in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = Maps::parse(&text);
        }

        #[test]
        fn mutated_real_text_never_breaks_the_order(at in 0..TEXT.len(), byte in any::<u8>()) {
            let mut text = TEXT.to_vec();
            text[at] = byte;
            if let Ok(maps) = Maps::parse(&text) {
                for pair in maps.areas.windows(2) {
                    prop_assert!(pair[0].start < pair[0].end && pair[0].end <= pair[1].start);
                }
            }
        }
    }
}
