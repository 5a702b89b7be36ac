//! One process as it is now: its memory, maps and mapped files, all read from outside.

use std::cell::RefCell;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::time::{Duration, SystemTime};

use rustix::fs::{Mode, OFlags, ResolveFlags};

use super::auxv::{Auxv, AuxvError};
use super::bytes::index;
use super::error::VerifyError;
use super::maps::{Maps, Vma};
use super::reach::Reaches;
use super::warm::Record;
use super::width::Width;

/// A maps text longer than this is refused (200 000 areas; the kernel's default limit is 65 530).
const MAX_MAPS: u64 = 32 << 20;
/// Names of link map entries are paths.
const MAX_NAME: usize = 4096;

/// Identity of a file's content as far as the kernel tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct FileKey {
    pub(crate) dev: u64,
    pub(crate) ino: u64,
    size: u64,
    ctime: (i64, i64),
}

/// Handles on one process. Both `mem` and the maps belong to the address space found at opening:
/// after an exec reads fail rather than mix two programs.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    pub(crate) maps: Maps,
    pub(crate) auxv: Result<Auxv, AuxvError>,
    mem: File,
    start_ticks: u64,
    reaches: Reaches,
    /// What was read, for who wants to know.
    record: Option<RefCell<Record>>,
}

/// A process whose address space was opened and not yet understood.
#[derive(Debug)]
pub(crate) struct Opened {
    /// Without maps and auxiliary vector.
    pub(crate) process: Process,
    /// `/proc/PID/maps`, opened before anything was read.
    pub(crate) maps: File,
    /// The auxiliary vector as the kernel gave it.
    pub(crate) auxv: Vec<u8>,
}

// === impl FileKey ===

impl FileKey {
    pub(crate) fn of(metadata: &Metadata) -> Self {
        Self {
            dev: metadata.dev(),
            ino: metadata.ino(),
            size: metadata.size(),
            ctime: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Whether both may be the same file seen through different overlays, which keep all but the
    /// device.
    pub(crate) fn same_content(&self, other: &Self) -> bool {
        Self { dev: 0, ..*self } == Self { dev: 0, ..*other }
    }
}

// === impl Opened ===

impl Opened {
    pub(crate) fn new(pid: u32) -> Result<Self, VerifyError> {
        match Self::open_memory(pid) {
            // Kernel threads and zombies are there but have no address space: ESRCH as well.
            Err(VerifyError::Gone { .. }) if start_ticks(pid).is_ok() => {
                Err(VerifyError::NoMemory { pid })
            }
            other => other,
        }
    }

    fn open_memory(pid: u32) -> Result<Self, VerifyError> {
        let fail = |what| move |source| VerifyError::proc(pid, what, source);
        let mem = File::open(format!("/proc/{pid}/mem")).map_err(fail("mem"))?;
        // Only now: had the address space belonged to an earlier process of this PID, it could not
        // be read any more.
        let start_ticks = start_ticks(pid).map_err(fail("stat"))?;
        let maps = File::open(format!("/proc/{pid}/maps")).map_err(fail("maps"))?;
        let auxv = File::open(format!("/proc/{pid}/auxv")).map_err(fail("auxv"))?;
        let auxv = read_bounded(pid, "auxv", &auxv, 64 << 10)?;
        let (reaches, record) = (Reaches::default(), None);
        let unread = Err(AuxvError::Empty);
        let process =
            Process { pid, maps: Maps::default(), auxv: unread, mem, start_ticks, reaches, record };
        Ok(Self { process, maps, auxv })
    }

    /// All areas, as text.
    pub(crate) fn text(&self) -> Result<Vec<u8>, VerifyError> {
        let pid = self.process.pid;
        let text = read_bounded(pid, "maps", &self.maps, MAX_MAPS)?;
        if text.is_empty() { Err(VerifyError::NoMemory { pid }) } else { Ok(text) }
    }

    /// The process, with what is read of it noted in a record. `text` is what [`Opened::text`] gave.
    pub(crate) fn parse(self, text: &[u8], record: Option<Record>) -> Result<Process, VerifyError> {
        let Self { process, auxv, .. } = self;
        let maps = Maps::parse(text).map_err(|error| VerifyError::maps(process.pid, &error))?;
        let record = record.map(RefCell::new);
        Ok(Process { maps, auxv: Auxv::parse(&auxv), record, ..process })
    }
}

// === impl Process ===

impl Process {
    pub(crate) fn open(pid: u32) -> Result<Self, VerifyError> {
        let opened = Opened::new(pid)?;
        let text = opened.text()?;
        opened.parse(&text, None)
    }

    /// What was read of it.
    pub(crate) fn into_record(self) -> Option<Record> {
        self.record.map(RefCell::into_inner)
    }

    /// Start since boot, clock ticks: with the PID, which process this is.
    pub(crate) fn start_ticks(&self) -> u64 {
        self.start_ticks
    }

    /// Width of its addresses, as the kernel set them up.
    pub(crate) fn width(&self) -> Width {
        self.auxv.map_or(Width::Eight, |auxv| auxv.width)
    }

    /// Whether the PID still means the process that was opened.
    pub(crate) fn is_same(&self) -> bool {
        start_ticks(self.pid).is_ok_and(|now| now == self.start_ticks)
    }

    /// Reads memory of the process; all of `buf` or an error.
    pub(crate) fn read(&self, addr: u64, buf: &mut [u8]) -> io::Result<()> {
        let result = self.read_unnoted(addr, buf);
        match result {
            Ok(()) => self.note_memory(addr, buf),
            Err(_) => self.note(Record::fail),
        }
        result
    }

    /// The same for who notes itself which of the bytes count.
    pub(crate) fn read_unnoted(&self, addr: u64, buf: &mut [u8]) -> io::Result<()> {
        self.mem.read_exact_at(buf, addr)
    }

    /// Reads many pieces one after the other into `buf`; all of them or an error. Not by
    /// `process_vm_readv(2)`, which would save some 90 us for an sshd: it waits for whoever serves the
    /// page faults of a hostile process (userfaultfd), which `/proc/PID/mem` refuses to.
    pub(crate) fn read_pieces(&self, pieces: &[Range<u64>], buf: &mut [u8]) -> io::Result<()> {
        let mut rest = buf;
        for piece in pieces {
            let bytes = index(piece.end.saturating_sub(piece.start));
            let (now, later) =
                rest.split_at_mut_checked(bytes).ok_or(io::ErrorKind::InvalidInput)?;
            self.read_unnoted(piece.start, now)?;
            rest = later;
        }
        if rest.is_empty() { Ok(()) } else { Err(io::ErrorKind::InvalidInput.into()) }
    }

    /// The area that holds `addr`. Those that look on their own account for what is executable
    /// ([`Maps::iter`]) need not note it.
    pub(crate) fn area(&self, addr: u64) -> Option<&Vma> {
        let vma = self.maps.find(addr)?;
        self.note(|record| record.area(vma));
        Some(vma)
    }

    /// Notes what memory held.
    pub(crate) fn note_memory(&self, addr: u64, bytes: &[u8]) {
        self.note(|record| record.memory(addr, bytes));
    }

    /// Notes which pages of a mapping with code are private.
    pub(crate) fn note_code(&self, vma: &Vma, private: &[Range<u64>]) {
        self.note(|record| record.code(vma, private));
    }

    /// Notes that something counted which cannot be noted.
    pub(crate) fn note_unread(&self) {
        self.note(Record::fail);
    }

    fn note(&self, what: impl FnOnce(&mut Record)) {
        if let Some(record) = &self.record {
            what(&mut record.borrow_mut());
        }
    }

    /// One address.
    pub(crate) fn read_word(&self, addr: u64, width: Width) -> io::Result<u64> {
        let mut word = [0; 8];
        let buf = word.get_mut(..width.len()).ok_or(io::ErrorKind::InvalidInput)?;
        self.read(addr, buf)?;
        Ok(u64::from_le_bytes(word))
    }

    /// A NUL-terminated string, cut at the end of its memory or after a path's length.
    pub(crate) fn read_name(&self, addr: u64) -> Vec<u8> {
        let Some(vma) = self.maps.find(addr) else { return Vec::new() };
        let room = index(vma.end - addr).min(MAX_NAME);
        for size in [room.min(128), room] {
            let mut buf = vec![0; size];
            if self.read_unnoted(addr, &mut buf).is_err() {
                break;
            }
            if let Some(end) = buf.iter().position(|byte| *byte == 0) {
                self.note_memory(addr, buf.get(..=end).unwrap_or_default());
                buf.truncate(end);
                return buf;
            }
        }
        self.note_unread();
        Vec::new()
    }

    /// The environment it was started with, as it is now; cut at `limit` bytes.
    pub(crate) fn environ(&self, limit: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(format!("/proc/{}/environ", self.pid))?.take(limit).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// `stat` of the file an area maps, by the kernel's own reference to it. An error where that
    /// could take for ever.
    pub(crate) fn stat_file(&self, vma: &Vma) -> io::Result<Metadata> {
        let result = self.stat_unnoted(vma);
        self.note(|record| match &result {
            Ok(metadata) => record.file(vma, FileKey::of(metadata)),
            Err(_) => record.fail(),
        });
        result
    }

    fn stat_unnoted(&self, vma: &Vma) -> io::Result<Metadata> {
        self.reaches.check(self.pid, vma.dev)?;
        match fs::metadata(self.map_file(vma)) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                self.open_by_path(vma)?.metadata()
            }
            other => other,
        }
    }

    /// Opens the file an area maps: `/proc/PID/map_files`, else the path below the process's own
    /// root where it still is the same inode.
    /// An error where that could take for ever.
    pub(crate) fn open_file(&self, vma: &Vma) -> io::Result<File> {
        self.reaches.check(self.pid, vma.dev)?;
        match File::open(self.map_file(vma)) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => self.open_by_path(vma),
            other => other,
        }
    }

    fn map_file(&self, vma: &Vma) -> String {
        format!("/proc/{}/map_files/{:x}-{:x}", self.pid, vma.start, vma.end)
    }

    /// Without `CAP_CHECKPOINT_RESTORE`. The path is the process's choice, so it is resolved inside
    /// its root, must not block (a FIFO would) and must be the inode that is mapped.
    fn open_by_path(&self, vma: &Vma) -> io::Result<File> {
        let root = File::open(format!("/proc/{}/root", self.pid))?;
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let opened = rustix::fs::openat2(&root, &*vma.path, flags, Mode::empty(), resolve)?;
        let file = File::from(opened);
        let metadata = file.metadata()?;
        let dev = (rustix::fs::major(metadata.dev()), rustix::fs::minor(metadata.dev()));
        if !metadata.is_file() || metadata.ino() != vma.ino || dev != vma.dev {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                "the path is another file now, and map_files needs CAP_CHECKPOINT_RESTORE",
            ));
        }
        Ok(file)
    }

    /// When the process started, by the wall clock; the error is below a second.
    pub(crate) fn started(&self) -> Option<SystemTime> {
        let uptime = fs::read_to_string("/proc/uptime").ok()?;
        let uptime: f64 = uptime.split(' ').next()?.parse().ok()?;
        let hertz = rustix::param::clock_ticks_per_second();
        let since_boot =
            Duration::from_millis(self.start_ticks.checked_mul(1000)?.checked_div(hertz)?);
        let uptime = Duration::try_from_secs_f64(uptime).ok()?;
        SystemTime::now().checked_sub(uptime.checked_sub(since_boot)?)
    }
}

/// Start time of a process in clock ticks since boot: field 22 of `/proc/PID/stat`.
fn start_ticks(pid: u32) -> io::Result<u64> {
    // One line, which the kernel gives at once: 52 numbers and a name of at most 64 characters.
    let mut stat = [0; 2048];
    let length = File::open(format!("/proc/{pid}/stat"))?.read(&mut stat)?;
    parse_start_ticks(stat.get(..length).unwrap_or_default())
        .ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// The name in field 2 may hold spaces and parentheses: count from its last one.
fn parse_start_ticks(stat: &[u8]) -> Option<u64> {
    let after = stat.iter().rposition(|byte| *byte == b')')?;
    let fields = std::str::from_utf8(stat.get(after + 1..)?).ok()?;
    fields.split_ascii_whitespace().nth(19)?.parse().ok()
}

fn read_bounded(
    pid: u32,
    what: &'static str,
    file: &File,
    limit: u64,
) -> Result<Vec<u8>, VerifyError> {
    let fail = |source| VerifyError::proc(pid, what, source);
    let mut bytes = Vec::with_capacity(index(limit.min(32 << 10)));
    file.take(limit + 1).read_to_end(&mut bytes).map_err(fail)?;
    if bytes.len() as u64 > limit {
        return Err(VerifyError::Malformed { pid, what });
    }
    Ok(bytes)
}

/// PIDs of all processes at this moment, ascending; kernel threads included.
pub fn list_processes() -> io::Result<Vec<u32>> {
    let entries = fs::read_dir("/proc")?;
    let mut pids: Vec<u32> =
        entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
    pids.sort_unstable();
    Ok(pids)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_start_time_is_found_behind_a_hostile_name() {
        let fields: Vec<String> = (3..=52).map(|number| number.to_string()).collect();
        let stat = format!("17 (a) 1 (b) {}\n", fields.join(" "));
        assert_eq!(parse_start_ticks(stat.as_bytes()), Some(22));
        assert_eq!(parse_start_ticks(b"17 (a"), None);
    }

    #[test]
    fn a_child_that_ended_is_gone() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        assert!(matches!(Process::open(child.id()), Err(VerifyError::Gone { .. })));
    }

    #[test]
    fn the_own_memory_reads_back() {
        let process = Process::open(std::process::id()).unwrap();
        let text = b"a name\0".to_vec();
        let addr = text.as_ptr().addr() as u64;
        assert_eq!(process.read_name(addr), b"a name");
        assert!(process.read_word(8, Width::Eight).is_err());
        let word = process.read_word(addr, Width::Four).unwrap();
        assert_eq!(word, u64::from(u32::from_le_bytes(*b"a na")));
        assert!(process.is_same());
    }

    #[test]
    fn the_path_fallback_opens_only_the_mapped_inode() {
        let process = Process::open(std::process::id()).unwrap();
        let vma = process.maps.iter().find(|vma| vma.is_file() && vma.exec).unwrap();
        let opened = process.open_by_path(vma).unwrap().metadata().unwrap();
        assert_eq!(opened.ino(), vma.ino);
        let other = Vma { path: "/dev/null".into(), ..vma.clone() };
        assert!(process.open_by_path(&other).is_err());
    }

    proptest! {
        #[test]
        fn any_stat_text_is_total(text in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse_start_ticks(&text);
        }
    }
}
