//! Which pages of a mapping are the process's own and not its file's any more.
//!
//! `PAGEMAP_SCAN` (6.7) finds the same pages 10 to 25 % faster and needs an `ioctl`; reading works
//! on every kernel.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use super::super::bytes::index;

/// Bytes of an entry (Documentation/admin-guide/mm/pagemap.rst).
const ENTRY: u64 = 8;
/// Entries read at once.
const STEP: u64 = 8192;
/// The page is a file's or shared memory.
const FILE: u64 = 1 << 61;
const SWAPPED: u64 = 1 << 62;
const PRESENT: u64 = 1 << 63;

/// `/proc/PID/pagemap`.
#[derive(Debug)]
pub(crate) struct Pagemap {
    file: File,
    page: u64,
    buffer: Vec<u8>,
    /// Pages that may still be looked at.
    left: u64,
}

/// What was found of one stretch.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    /// Stretches of private pages, ascending.
    pub(crate) private: Vec<Range<u64>>,
    /// False where the stretch was too long to look at all of it.
    pub(crate) complete: bool,
}

impl Pagemap {
    /// Needs the right to inspect the process, nothing else: page frame numbers are not used.
    pub(crate) fn open(pid: u32, pages_max: u64) -> io::Result<Self> {
        let file = File::open(format!("/proc/{pid}/pagemap"))?;
        let page = rustix::param::page_size() as u64;
        Ok(Self { file, page, buffer: Vec::new(), left: pages_max })
    }

    pub(crate) fn page(&self) -> u64 {
        self.page
    }

    /// Looks at the pages from `range.start` to `range.end`, both at page boundaries.
    pub(crate) fn private(&mut self, range: Range<u64>) -> io::Result<Found> {
        let mut found = Found { private: Vec::new(), complete: true };
        let (mut at, end) = (range.start / self.page, range.end / self.page);
        while at < end {
            let count = (end - at).min(STEP).min(self.left);
            if count == 0 {
                found.complete = false;
                break;
            }
            self.left -= count;
            self.buffer.resize(index(count * ENTRY), 0);
            self.file.read_exact_at(&mut self.buffer, at * ENTRY)?;
            for (number, entry) in (at..).zip(self.buffer.as_chunks::<8>().0) {
                if is_private(u64::from_le_bytes(*entry)) {
                    let start = number * self.page;
                    match found.private.last_mut().filter(|last| last.end == start) {
                        Some(last) => last.end += self.page,
                        None => found.private.push(start..start + self.page),
                    }
                }
            }
            at += count;
        }
        Ok(found)
    }
}

/// Anonymous memory; a page of a file is never in swap.
fn is_private(entry: u64) -> bool {
    entry & (PRESENT | SWAPPED) != 0 && entry & FILE == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::process::Process;

    #[test]
    fn only_pages_that_left_their_file_are_private() {
        for (entry, private) in [
            (0, false),
            (PRESENT | FILE, false),
            (PRESENT | FILE | 1 << 56, false),
            (PRESENT | 1 << 56, true),
            (SWAPPED, true),
            (SWAPPED | FILE, false),
            (1 << 55, false),
        ] {
            assert_eq!(is_private(entry), private, "{entry:#x}");
        }
    }

    #[test]
    fn the_own_stack_is_private_and_the_own_text_is_not() {
        let process = Process::open(std::process::id()).unwrap();
        let mut pagemap = Pagemap::open(process.pid, 1 << 20).unwrap();
        let here = 7_u64;
        let stack = std::ptr::from_ref(&here).addr() as u64;
        let page = stack / pagemap.page() * pagemap.page();
        let range = page..page + pagemap.page();
        assert_eq!(pagemap.private(range.clone()).unwrap().private, [range]);
        let text = is_private as fn(u64) -> bool as usize as u64;
        let vma = process.maps.find(text).unwrap();
        let found = pagemap.private(vma.start..vma.end).unwrap();
        assert_eq!(found, Found { private: Vec::new(), complete: true });
    }

    #[test]
    fn an_endless_mapping_is_cut_and_said_so() {
        let mut pagemap = Pagemap::open(std::process::id(), 3).unwrap();
        let page = pagemap.page();
        assert!(!pagemap.private(0..8 * page).unwrap().complete);
        assert!(!pagemap.private(0..page).unwrap().complete);
    }
}
