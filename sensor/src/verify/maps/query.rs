//! Asks the kernel for areas one by one (`PROCMAP_QUERY`, since 6.11), which spares it to write out
//! those that nobody looks at, and their names: an sshd's text costs 0.15 ms.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use rustix::io::Errno;

use super::super::bytes::index;
use super::Area;

/// `PROCMAP_QUERY` of include/uapi/linux/fs.h: `_IOWR('f', 17, struct procmap_query)`.
const REQUEST: u32 = 0xc068_6611;
/// `PROCMAP_QUERY_VMA_EXECUTABLE`, `.._COVERING_OR_NEXT_VMA`, `.._FILE_BACKED_VMA`.
const EXECUTABLE: u64 = 4;
const NEXT: u64 = 16;
const FILE_BACKED: u64 = 32;
/// Those bits of `vma_flags` that say what is allowed.
const ACCESS: u64 = 7;
/// Longest name asked for, as in the kernel (`PATH_MAX`).
const NAME_MAX: usize = 4096;
/// Answers about one process; one with more executable areas is asked for its text.
const AREAS_MAX: usize = 8192;

/// `struct procmap_query` as words: size, flags, address; start, end, access, page size, offset,
/// inode, device (major, minor); lengths of name and build-id, the addresses of both.
type Words = [u64; 13];
const _: () = assert!(size_of::<Words>() == 0x68, "the request holds the length");

/// Asks about one address space.
#[derive(Debug)]
pub(crate) struct Query<'a> {
    maps: &'a File,
    name: Vec<u8>,
}

// === impl Query ===

impl<'a> Query<'a> {
    /// `maps` is an open `/proc/PID/maps`.
    pub(crate) fn new(maps: &'a File) -> Self {
        Self { maps, name: vec![0; NAME_MAX] }
    }

    /// Hands over all executable areas with their names, ascending. Any error, also the lack of the
    /// call ([`Query::is_missing`]), means to read the text.
    pub(crate) fn code(&mut self, mut take: impl FnMut(&Area, &[u8])) -> io::Result<()> {
        let mut from = 0;
        for _ in 0..AREAS_MAX {
            let found = self.ask(EXECUTABLE | NEXT, from, NAME_MAX)?;
            let Some((area, length)) = found else { return Ok(()) };
            if area.end <= from || area.start >= area.end {
                return Err(io::ErrorKind::InvalidData.into());
            }
            let name = self.name.get(..length).unwrap_or_default();
            take(&area, escaped(name).as_deref().unwrap_or(name));
            from = area.end;
        }
        Err(io::ErrorKind::OutOfMemory.into())
    }

    /// The area that maps a file at an address.
    pub(crate) fn file_at(&mut self, addr: u64) -> io::Result<Option<Area>> {
        Ok(self.ask(FILE_BACKED, addr, 0)?.map(|(area, _)| area))
    }

    /// Whether the kernel does not know the call.
    pub(crate) fn is_missing(error: &io::Error) -> bool {
        error.raw_os_error() == Some(Errno::NOTTY.raw_os_error())
    }

    /// One area, and how long its name is; none where there is none.
    fn ask(&mut self, flags: u64, addr: u64, room: usize) -> io::Result<Option<(Area, usize)>> {
        let mut words: Words = [0; 13];
        (words[0], words[1], words[2]) = (size_of::<Words>() as u64, flags, addr);
        let name = self.name.get_mut(..room).unwrap_or_default();
        if !name.is_empty() {
            words[10] = name.len() as u64;
            let address = u64::try_from(name.as_mut_ptr().expose_provenance());
            words[11] = address.map_err(io::Error::other)?;
        }
        match call(self.maps, &mut words) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(Errno::NOENT.raw_os_error()) => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        }
        let [_, _, _, start, end, access, _, offset, ino, dev, length, ..] = words;
        let access = u8::try_from(access & ACCESS).unwrap_or(0);
        let dev = (low(dev), low(dev >> 32));
        // With the NUL at its end; nothing where there is no name.
        let length = index(low(length)).saturating_sub(1);
        Ok(Some((Area { start, end, access, offset, dev, ino }, length)))
    }
}

/// The name as the text would have it (`seq_path`); none where that is no other.
fn escaped(name: &[u8]) -> Option<Vec<u8>> {
    if !name.contains(&b'\n') {
        return None;
    }
    let parts: Vec<&[u8]> = name.split(|byte| *byte == b'\n').collect();
    Some(parts.join(&b"\\012"[..]))
}

#[expect(unsafe_code, reason = "a system call without a safe wrapper")]
fn call(maps: &File, words: &mut Words) -> io::Result<()> {
    let request = libc::c_ulong::from(REQUEST);
    // SAFETY: `words` is as long as it says, and where it names a buffer, that is as long as it says
    // and outlives the call.
    let result =
        unsafe { libc::syscall(libc::SYS_ioctl, maps.as_raw_fd(), request, words.as_mut_ptr()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn low(word: u64) -> u32 {
    u32::try_from(word & u64::from(u32::MAX)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::super::areas;
    use super::*;

    type Listed = Vec<(Area, Vec<u8>)>;

    /// All executable areas by question and by text, and all areas of files; `None` if the process
    /// went away, never rests, or the kernel has no such call.
    fn both(pid: u32) -> Option<(Listed, Listed)> {
        let path = format!("/proc/{pid}/maps");
        for _ in 0..100 {
            let before = std::fs::read(&path).ok()?;
            let maps = File::open(&path).ok()?;
            let text: Listed = areas(&before)
                .map(|area| area.map(|(area, name)| (area, name.to_vec())).unwrap())
                .filter(|(area, _)| !area.is_gate() && (area.ino != 0 || area.is_executable()))
                .collect();
            let (mut asked, mut query) = (Listed::new(), Query::new(&maps));
            let code = query.code(|area, name| asked.push((*area, name.to_vec())));
            if code.as_ref().is_err_and(Query::is_missing) {
                println!("this kernel has no PROCMAP_QUERY: not tried");
                return None;
            }
            for (area, name) in text.iter().filter(|(area, _)| !area.is_executable()) {
                for addr in [area.start, area.end - 1] {
                    let found = query.file_at(addr).ok()?;
                    asked.extend(found.map(|found| (found, name.clone())));
                }
                assert_eq!(asked.pop(), asked.last().cloned());
            }
            if before != std::fs::read(&path).ok()? || before.is_empty() {
                continue;
            }
            code.unwrap();
            asked.sort_by_key(|(area, _)| area.start);
            return Some((plain(asked), plain(text)));
        }
        println!("process {pid} never rests");
        None
    }

    /// What an area of no file has for an offset depends on who is asked.
    fn plain(all: Listed) -> Listed {
        let offset = |area: &Area| if area.ino == 0 { 0 } else { area.offset };
        all.into_iter().map(|(area, name)| (Area { offset: offset(&area), ..area }, name)).collect()
    }

    #[test]
    fn the_kernel_answers_as_its_text_reads_for_whatever_runs_here() {
        let mut compared = 0;
        for pid in crate::verify::list_processes().unwrap() {
            let Some((asked, text)) = both(pid) else { continue };
            assert_eq!(asked, text, "process {pid}");
            compared += asked.len();
        }
        println!("{compared} areas are the same");
    }

    #[test]
    fn names_that_the_text_escapes_are_escaped() {
        assert_eq!(escaped(b"/lib/libc.so.6"), None);
        assert_eq!(escaped(b"/a\nb\n").unwrap(), b"/a\\012b\\012");
        let dir = tempfile::tempdir().unwrap();
        let odd = dir.path().join("an odd\nname");
        std::fs::copy("/bin/sleep", &odd).unwrap();
        let mut child = Command::new(&odd).arg("600").stdout(Stdio::null()).spawn().unwrap();
        // A process that is being started has a stack and no program yet.
        let maps = format!("/proc/{}/maps", child.id());
        while !std::fs::read_to_string(&maps).unwrap().contains("libc") {
            assert_eq!(child.try_wait().unwrap(), None);
            std::thread::yield_now();
        }
        if let Some((asked, text)) = both(child.id()) {
            assert_eq!(asked, text);
            let found = asked.iter().any(|(_, name)| name.ends_with(b"an odd\\012name"));
            assert!(found, "{asked:?}");
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn where_no_file_is_mapped_there_is_no_answer() {
        let maps = File::open("/proc/self/maps").unwrap();
        let here = std::ptr::from_ref(&maps).addr() as u64;
        match Query::new(&maps).file_at(here) {
            Err(error) if Query::is_missing(&error) => println!("no PROCMAP_QUERY: not tried"),
            stack => assert_eq!(stack.unwrap(), None),
        }
    }

    #[test]
    fn a_file_that_is_no_maps_file_knows_no_such_call() {
        let file = File::open("/proc/self/stat").unwrap();
        let error = Query::new(&file).file_at(0).unwrap_err();
        assert!(Query::is_missing(&error), "{error}");
    }
}
