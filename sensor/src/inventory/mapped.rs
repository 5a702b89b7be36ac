//! Which areas of an address space are code from files.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use super::version;
use crate::verify::bytes::printable;
use crate::verify::maps::{Maps, Vma};

/// Files of one process that are looked at; chromium has about 200.
const MAX_FILES: usize = 4096;

/// A file of a process.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mapped<'a> {
    /// Its first area.
    pub(super) vma: &'a Vma,
    /// It is mapped executable.
    pub(super) code: bool,
    areas: u32,
}

/// The files that a program is made of, in order of address, and how many more there are.
///
/// That is what is mapped executable, and libraries of data only (libicudata): the loader maps
/// those segment by segment, while a program that merely reads the file maps it once.
pub(super) fn mapped_files(maps: &Maps) -> (Vec<Mapped<'_>>, usize) {
    let mut found: Vec<Mapped<'_>> = Vec::new();
    let mut places: HashMap<((u32, u32), u64, &str), usize> = HashMap::new();
    for vma in maps.iter().filter(|vma| vma.is_file()) {
        let at = *places.entry((vma.dev, vma.ino, &*vma.path)).or_insert(found.len());
        match found.get_mut(at) {
            Some(mapped) => {
                mapped.code |= vma.exec;
                mapped.areas += 1;
            }
            None => found.push(Mapped { vma, code: vma.exec, areas: 1 }),
        }
    }
    found.retain(|one| one.code || one.areas > 1 && is_library(&one.vma.path));
    let more = found.len().saturating_sub(MAX_FILES);
    found.truncate(MAX_FILES);
    (found, more)
}

fn is_library(path: &str) -> bool {
    let path = path.strip_suffix(" (deleted)").unwrap_or(path);
    version::is_library_name(path.rsplit('/').next().unwrap_or(path))
}

/// A path as the maps text has it after parsing (kernel: `show_map_vma` escapes line feeds only).
pub(super) fn as_in_maps(path: &OsStr) -> String {
    let mut text = Vec::with_capacity(path.len());
    for byte in path.as_bytes() {
        match byte {
            b'\n' => text.extend(b"\\012"),
            byte => text.push(*byte),
        }
    }
    printable(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &[u8] = b"\
1000-2000 r--p 00000000 fe:01 10 /usr/bin/a
2000-3000 r-xp 00001000 fe:01 10 /usr/bin/a
3000-4000 rw-p 00000000 00:00 0 [heap]
5000-6000 r--p 00000000 fe:01 11 /lib/libicudata.so.72.1
6000-7000 r--p 00001000 fe:01 11 /lib/libicudata.so.72.1
7000-8000 r--p 00000000 fe:01 12 /lib/libread.so.1
8000-9000 r--s 00000000 fe:01 13 /usr/lib/locale/archive
9000-a000 rw-s 00001000 fe:01 13 /usr/lib/locale/archive
a000-b000 r-xp 00000000 00:01 14 /memfd:jit (deleted)
b000-c000 r-xp 00000000 00:00 0
";

    #[test]
    fn code_and_libraries_of_data_count_but_not_files_that_are_read() {
        let maps = Maps::parse(TEXT).unwrap();
        let (found, more) = mapped_files(&maps);
        let found: Vec<_> = found.iter().map(|one| (&*one.vma.path, one.code)).collect();
        assert_eq!(
            found,
            [
                ("/usr/bin/a", true),
                ("/lib/libicudata.so.72.1", false),
                ("/memfd:jit (deleted)", true)
            ]
        );
        assert_eq!(more, 0);
    }

    #[test]
    fn more_files_than_the_bound_are_counted() {
        let line = |at: usize| format!("{at:x}000-{at:x}fff r-xp 0 0:9 {at} /lib/l{at}.so\n");
        let text: String = (1..=MAX_FILES + 3).map(line).collect();
        let maps = Maps::parse(text.as_bytes()).unwrap();
        let (found, more) = mapped_files(&maps);
        assert_eq!((found.len(), more), (MAX_FILES, 3));
    }

    #[test]
    fn a_path_is_compared_in_the_form_of_the_maps_text() {
        let path = OsStr::from_bytes(b"/a\nb\x1b\xff");
        assert_eq!(as_in_maps(path), "/a\\012b\u{fffd}\u{fffd}");
    }
}
