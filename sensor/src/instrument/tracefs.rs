//! What tracefs and debugfs tell: uprobes and kprobes that somebody defined, every kprobe and ftrace
//! hook there is, the tracers. Every parser is total; lines it does not know are left out.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::FsWord;

use super::ftrace::{self, Hook, ListedKprobe};
use super::mounted::Mounted;
use super::text::{bounded, digest, shown};
use super::{Instrument, Source, Uprobe, What};

/// Bytes read of one file.
const FILE_MAX: u64 = 16 << 20;
/// Lines believed of one file: more than there are kernel functions.
const LINES_MAX: usize = 131_072;
/// Instances of the tracer looked at.
const INSTANCES_MAX: usize = 64;

const COVERED: &str = "something else is mounted over it";

/// Where tracefs may be mounted.
const PLACES: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];
/// Below it, every kprobe, registered by whatever interface.
const DEBUGFS: &str = "/sys/kernel/debug";
/// Any of these says that the kernel has kprobes.
const HAS_KPROBES: [&str; 2] =
    ["/sys/bus/event_source/devices/kprobe", "/proc/sys/debug/kprobes-optimization"];
/// `include/uapi/linux/magic.h`: whatever else lies there tells what somebody wants.
const TRACEFS_MAGIC: FsWord = 0x7472_6163;
const DEBUGFS_MAGIC: FsWord = 0x6462_6720;

/// What stands there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Told {
    /// What somebody defined, and tracers.
    pub(super) instruments: Vec<Instrument>,
    /// Every kprobe, the sensor's own among them.
    pub(super) kprobes: Vec<ListedKprobe>,
    /// Every hooked function, the sensor's own among them.
    pub(super) hooks: Vec<Hook>,
}

/// Where to look.
struct Places {
    tracefs: Vec<PathBuf>,
    debugfs: PathBuf,
    /// Any of these says that there are kprobes.
    has_kprobes: Vec<PathBuf>,
    /// Kinds of file system that may stand there. Nothing is opened that is of no such kind.
    is_tracefs: fn(&Mounted, &Path) -> bool,
    is_debugfs: fn(&Mounted, &Path) -> bool,
    is_kernels: fn(&Mounted, &Path) -> bool,
}

/// One of those places, as it is mounted.
#[derive(Clone, Copy)]
struct Place<'a> {
    mounted: &'a Mounted,
    root: &'a Path,
}

/// Reads everything that can be read.
pub(super) fn read(mounted: &Mounted, sources: &mut Vec<Source>) -> Told {
    let places = Places {
        tracefs: PLACES.map(PathBuf::from).to_vec(),
        debugfs: PathBuf::from(DEBUGFS),
        has_kprobes: HAS_KPROBES.map(PathBuf::from).to_vec(),
        is_tracefs,
        is_debugfs,
        is_kernels: |mounted, place| mounted.is_of(place, &["sysfs", "proc"]),
    };
    places.read(mounted, sources)
}

fn is_tracefs(mounted: &Mounted, place: &Path) -> bool {
    let readme = place.join("README");
    // Debugfs mounts it below itself when it is opened.
    mounted.is_of(place, &["tracefs", "debugfs"])
        && is_of(place, TRACEFS_MAGIC)
        // Only the top has one: a part of it, mounted there, would hide the rest.
        && mounted.is_same(place, &readme)
        && readme.exists()
}

fn is_debugfs(mounted: &Mounted, place: &Path) -> bool {
    mounted.is_of(place, &["debugfs"]) && is_of(place, DEBUGFS_MAGIC)
}

/// Asks the file system itself: the list of mounts may have changed meanwhile.
fn is_of(place: &Path, magic: FsWord) -> bool {
    File::open(place)
        .is_ok_and(|file| rustix::fs::fstatfs(&file).is_ok_and(|stat| stat.f_type == magic))
}

impl Places {
    fn read(&self, mounted: &Mounted, sources: &mut Vec<Source>) -> Told {
        let mut told = Told::default();
        let root = self.tracefs.iter().find(|place| (self.is_tracefs)(mounted, place.as_path()));
        let place = root.map(|root| Place { mounted, root });
        let mut reason = None;
        if let Some(place) = place {
            read_tracefs(place, &mut told, sources);
        } else {
            let text = "no tracefs is mounted at /sys/kernel/tracing, or it may not be read: no \
                        probes of tracefs, no ftrace hooks, no tracers";
            reason = Some(text.to_owned());
        }
        sources.push(Source { name: "tracefs", reason });
        self.read_debugfs(mounted, place, &mut told, sources);
        told
    }

    /// Where something else stands in its place, there may be.
    fn has_kprobes(&self, mounted: &Mounted, tracefs: Option<Place<'_>>) -> bool {
        let is_sign = |path: &PathBuf| !(self.is_kernels)(mounted, path) || path.exists();
        self.has_kprobes.iter().any(is_sign)
            || tracefs
                .is_some_and(|place| place.has("kprobe_events").is_some_and(|path| path.exists()))
    }

    /// Without debugfs the kernel's own list of kprobes is missing.
    fn read_debugfs(
        &self,
        mounted: &Mounted,
        tracefs: Option<Place<'_>>,
        told: &mut Told,
        sources: &mut Vec<Source>,
    ) {
        let has_kprobes = self.has_kprobes(mounted, tracefs);
        let reason = if (self.is_debugfs)(mounted, &self.debugfs) {
            let debugfs = Place { mounted, root: &self.debugfs };
            match debugfs.lines("kprobes/list") {
                Ok((list, reason)) => {
                    let lines = list.iter().map(|line| String::from_utf8_lossy(line));
                    told.kprobes = lines.filter_map(|line| ftrace::kprobe(&line)).collect();
                    told.kprobes.sort();
                    reason
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound && !has_kprobes => None,
                Err(error) => Some(error.to_string()),
            }
        } else if has_kprobes {
            let text = "no debugfs is mounted at /sys/kernel/debug, or it may not be read: no \
                        kprobes of kernel modules";
            Some(text.to_owned())
        } else {
            None
        };
        sources.push(Source { name: "kprobes", reason });
    }
}

type Lines = Vec<Vec<u8>>;

fn read_tracefs(place: Place<'_>, told: &mut Told, sources: &mut Vec<Source>) {
    let mut file = |name: &'static str| {
        let (found, reason) = match place.lines(name) {
            Ok(found) => found,
            // The kernel is built without that feature: nothing to see.
            Err(error) if error.kind() == io::ErrorKind::NotFound => (Lines::new(), None),
            Err(error) => (Lines::new(), Some(error.to_string())),
        };
        sources.push(Source { name, reason });
        found
    };
    let uprobes = file("uprobe_events");
    told.instruments.extend(uprobes.iter().filter_map(|line| uprobe_event(line)));
    let kprobes = file("kprobe_events");
    told.instruments.extend(kprobes.iter().filter_map(|line| kprobe_event(line)));
    let dynamic = file("dynamic_events");
    told.instruments.extend(dynamic.iter().filter_map(|line| other_event(line)));
    let hooks = file("enabled_functions");
    let texts: Vec<_> = hooks.iter().map(|line| String::from_utf8_lossy(line)).collect();
    told.hooks = ftrace::hooks(texts.iter().map(AsRef::as_ref));
    let tracer = file("current_tracer");
    told.instruments.extend(tracer.first().and_then(|line| current_tracer(line, None)));
    let (found, reason) = instances(place);
    told.instruments.extend(found);
    sources.push(Source { name: "instances", reason });
}

/// Tracers of instances, each of which traces by itself.
fn instances(place: Place<'_>) -> (Vec<Instrument>, Option<String>) {
    let entries = match place.reach("instances").and_then(fs::read_dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return (Vec::new(), None),
        Err(error) => return (Vec::new(), Some(error.to_string())),
    };
    let (mut found, mut reason) = (Vec::new(), None);
    for (count, entry) in entries.flatten().enumerate() {
        if count >= INSTANCES_MAX {
            reason = Some(format!("more than {INSTANCES_MAX} instances"));
            break;
        }
        let name = entry.file_name();
        match place.lines(Path::new("instances").join(&name).join("current_tracer")) {
            Ok((lines, _)) => {
                let name = shown(&name.to_string_lossy());
                found.extend(lines.first().and_then(|line| current_tracer(line, Some(&name))));
            }
            // Removed meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => reason = Some(error.to_string()),
        }
    }
    (found, reason)
}

// === impl Place ===

impl Place<'_> {
    /// The path of a file of it; none where something else is mounted there.
    fn has(&self, name: impl AsRef<Path>) -> Option<PathBuf> {
        let path = self.root.join(name);
        self.mounted.is_same(self.root, &path).then_some(path)
    }

    fn reach(&self, name: impl AsRef<Path>) -> io::Result<PathBuf> {
        self.has(name).ok_or_else(|| io::Error::other(COVERED))
    }

    /// The lines of a file, and why not all of them.
    fn lines(&self, name: impl AsRef<Path>) -> io::Result<(Lines, Option<String>)> {
        let mut bytes = Vec::new();
        let file = File::open(self.reach(name)?)?;
        // It may have been mounted this moment.
        if file.metadata()?.dev() != fs::metadata(self.root)?.dev() {
            return Err(io::Error::other(COVERED));
        }
        let read = file.take(FILE_MAX).read_to_end(&mut bytes)?;
        let mut all = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let lines: Lines = all.by_ref().take(LINES_MAX).map(<[u8]>::to_vec).collect();
        let is_cut = read as u64 >= FILE_MAX || all.next().is_some();
        Ok((lines, is_cut.then(|| "longer than is read".to_owned())))
    }
}

/// `p:GROUP/NAME PATH:OFFSET[%return][(SEMAPHORE)] ARGUMENTS`
/// (Documentation/trace/uprobetracer.rst); `r` is a probe on the return. The kernel splits at blanks,
/// so the path has none.
fn uprobe_event(line: &[u8]) -> Option<Instrument> {
    let (head, place) = definition(line, b"pr")?;
    let at = place.windows(3).rposition(|bytes| bytes == b":0x")?;
    let (path, rest) = (place.get(..at)?, place.get(at + 3..)?);
    let end = rest.iter().position(|digit| !digit.is_ascii_hexdigit()).unwrap_or(rest.len());
    let offset = std::str::from_utf8(rest.get(..end)?).ok()?;
    let after = rest.get(end..)?;
    let uprobe = Uprobe {
        file: None,
        path: PathBuf::from(std::ffi::OsStr::from_bytes(path)),
        offset: u64::from_str_radix(offset, 16).ok()?,
        is_return: head.first() == Some(&b'r') || after.starts_with(b"%return"),
        is_usdt: after.contains(&b'('),
        by: "tracefs",
        program: None,
    };
    Some(defined(line, What::Uprobe(uprobe)))
}

/// `p:GROUP/NAME [MODULE:]FUNCTION+OFFSET ARGUMENTS`.
fn kprobe_event(line: &[u8]) -> Option<Instrument> {
    let (_, place) = definition(line, b"pr")?;
    let place = function(&String::from_utf8_lossy(place));
    Some(defined(line, What::Kprobe { place, by: "tracefs" }))
}

/// `f:GROUP/NAME FUNCTION[%return] ARGUMENTS` and `t:GROUP/NAME TRACEPOINT ARGUMENTS`
/// (Documentation/trace/fprobetrace.rst), which stand in no list of their own.
fn other_event(line: &[u8]) -> Option<Instrument> {
    let (head, place) = definition(line, b"ft")?;
    let place = String::from_utf8_lossy(place);
    let what = match head.first()? {
        b'f' => {
            let by = if place.contains("%return") { "fprobe on return" } else { "fprobe" };
            What::Kprobe { place: function(&place), by }
        }
        _ => What::Kprobe { place: format!("tracepoint {}", shown(&place)), by: "tracefs" },
    };
    Some(defined(line, what))
}

/// Head and place of a definition whose first letter is one of these.
fn definition<'a>(line: &'a [u8], letters: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let mut words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    let head =
        words.next().filter(|head| letters.iter().any(|letter| head.starts_with(&[*letter])))?;
    Some((head, words.next()?))
}

/// Told apart by all of the line, however long: a name can be of any length.
fn defined(line: &[u8], what: What) -> Instrument {
    instrument(format!("tracefs {}", digest(line)), what)
}

fn current_tracer(line: &[u8], instance: Option<&str>) -> Option<Instrument> {
    let name = bounded(String::from_utf8_lossy(line).trim());
    if name.is_empty() || name == "nop" {
        return None;
    }
    let name = instance.map_or(name.clone(), |instance| format!("{name} in {instance}"));
    Some(instrument(format!("tracer {name}"), What::Tracer(name)))
}

/// Without the offset, which differs between builds of a kernel.
fn function(place: &str) -> String {
    let end = place.find(['+', '%']).unwrap_or(place.len());
    shown(place.get(..end).unwrap_or_default())
}

fn instrument(id: String, what: What) -> Instrument {
    Instrument { id, what, holders: Vec::new() }
}

#[cfg(test)]
mod tests;
