//! [`Outside`] by the real `/proc` and the real files, every read bounded.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Statx, StatxFlags, major, minor, open,
    openat2, statx,
};

use super::commands::Commands;
use super::coverage::Uncovered;
use super::mounts::{self, RootMount};
use super::outside::{BuildId, Outside, RootView, Stat, Unanswered};
use super::variable::FoundLibrary;
use super::{build_id, root};
use crate::event::{FileKey, InodeKey};
use crate::symbol::find_entry;

/// Bytes of one small `/proc` file.
const SMALL: u64 = 4096;
/// Bytes of one `maps` or `mountinfo` file: about 10,000 mappings.
const MAPS: u64 = 1 << 20;
/// Whose root is the host's.
const INIT: u32 = 1;
/// Bytes of one environment: no exec takes more (fs/exec.c `_STK_LIM / 4 * 3`).
const ENVIRON: u64 = 6 << 20;
/// Arguments shown, and bytes of all of them together.
const ARGUMENTS: usize = 64;

/// The `/proc` of this host.
#[derive(Clone, Copy, Debug, Default)]
pub struct Procfs;

// === impl Procfs ===

impl Outside for Procfs {
    fn processes(&self) -> Vec<u32> {
        let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
        entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
    }

    fn stat(&self, tgid: u32) -> Option<Stat> {
        let stat = read_bounded(format!("/proc/{tgid}/stat"), SMALL)?;
        let status = read_bounded(format!("/proc/{tgid}/status"), SMALL)?;
        parse_stat(&String::from_utf8_lossy(&stat), &String::from_utf8_lossy(&status))
    }

    fn exe(&self, tgid: u32) -> Option<(PathBuf, FileKey)> {
        let link = format!("/proc/{tgid}/exe");
        let path = fs::read_link(&link).ok()?;
        Some((without_deleted(path), look_at(Path::new(&link))?))
    }

    fn cmdline(&self, tgid: u32) -> Vec<String> {
        let bytes = read_bounded(format!("/proc/{tgid}/cmdline"), SMALL).unwrap_or_default();
        parse_cmdline(&bytes)
    }

    fn cgroup(&self, tgid: u32) -> Option<String> {
        let bytes = read_bounded(format!("/proc/{tgid}/cgroup"), SMALL)?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn libraries(&self, tgid: u32) -> Vec<(PathBuf, FileKey)> {
        let Some(maps) = read_bounded(format!("/proc/{tgid}/maps"), MAPS) else {
            return Vec::new();
        };
        let maps = String::from_utf8_lossy(&maps);
        let mut found: Vec<(PathBuf, FileKey)> = Vec::new();
        let mut known = HashSet::new();
        for (range, path) in maps.lines().filter_map(executable_mapping) {
            if known.contains(&path) {
                continue;
            }
            // The handle leads to the file that is mapped, whatever its path leads to now.
            let mapped = format!("/proc/{tgid}/map_files/{range}");
            if let Some(key) = look_at(Path::new(&mapped)).or_else(|| look_at(&path)) {
                known.insert(path.clone());
                found.push((path, key));
            }
        }
        found
    }

    fn file(&self, path: &Path) -> Option<FileKey> {
        file_key(&fs::metadata(path).ok()?)
    }

    fn is_roots_own(&self, holder: u32, tgid: u32, path: &Path, file: &FileKey) -> bool {
        let own = |metadata: &fs::Metadata| {
            metadata.is_file()
                && metadata.ino() == file.ino
                && metadata.uid() == 0
                && metadata.mode() & 0o022 == 0
        };
        let inside = path.strip_prefix("/").unwrap_or(path);
        let here = below_root(holder, inside).and_then(|file| File::from(file).metadata().ok());
        // Replaced while it runs, as by an upgrade of itself: its name leads elsewhere already.
        let gone = || fs::metadata(format!("/proc/{tgid}/exe")).ok().filter(|m| m.nlink() == 0);
        here.as_ref().is_some_and(own) || gone().as_ref().is_some_and(own)
    }

    fn entry(&self, tgid: u32, path: &Path, inode: InodeKey) -> Option<u64> {
        let places = [PathBuf::from(format!("/proc/{tgid}/exe")), path.to_owned()];
        let opened = |path: PathBuf| open_regular(&path).filter(|(_, key)| key.ino == inode.ino);
        let (handle, _) = places.into_iter().find_map(opened)?;
        find_entry(&handle).ok()
    }

    fn build_id(&self, tgid: u32, path: &Path, file: &FileKey) -> BuildId {
        let Some(handle) = meant(tgid, path, file) else { return BuildId::Unread };
        match build_id::try_read(&handle) {
            Ok(Some(id)) => BuildId::Id(id),
            Ok(None) => BuildId::None,
            Err(_) => BuildId::Unread,
        }
    }

    fn uncovered(&self, tgid: u32, path: &Path, file: &FileKey) -> Option<Uncovered> {
        Uncovered::of(&meant(tgid, path, file)?)
    }

    fn environ(&self, tgid: u32) -> Option<Vec<u8>> {
        read_bounded(format!("/proc/{tgid}/environ"), ENVIRON)
    }

    fn write_target(&self, writer: u32, by_mem: bool, asked: u32) -> Option<u32> {
        let status = read_bounded(format!("/proc/{writer}/status"), SMALL)?;
        let status = String::from_utf8_lossy(&status).into_owned();
        // Numbers of another PID namespace would lead to somebody else.
        if status_field(&status, "NSpid")?.split_ascii_whitespace().count() != 1 {
            return None;
        }
        if !by_mem {
            let status = read_bounded(format!("/proc/{asked}/status"), SMALL)?;
            return status_field(&String::from_utf8_lossy(&status), "Tgid")?.parse().ok();
        }
        let link = fs::read_link(format!("/proc/{writer}/fd/{asked}")).ok()?;
        let inside = link.strip_prefix("/proc").ok()?;
        (inside.file_name()? == "mem").then(|| inside.iter().next()?.to_str()?.parse().ok())?
    }

    fn look_inside(
        &self,
        tgid: u32,
        on_host: bool,
        path: &str,
    ) -> Result<Option<FoundLibrary>, Unanswered> {
        root::look(tgid, on_host, path)
    }

    fn sshd_commands(&self, tgid: u32, arguments: &[String]) -> Result<Commands, Unanswered> {
        Commands::read(tgid, arguments).ok_or(Unanswered)
    }

    fn host_devices(&self) -> Vec<u32> {
        let mountinfo = mountinfo(INIT).unwrap_or_default();
        mounts::devices(&mountinfo, &["/", "/usr"])
    }

    fn root(&self, tgid: u32) -> Option<RootView> {
        let (link, host) = (format!("/proc/{tgid}/root"), format!("/proc/{INIT}/root"));
        let directory = |path: &str| {
            let stat = stat_at(Path::new(path))?;
            Some((stat.stx_dev_major, stat.stx_dev_minor, stat.stx_ino))
        };
        let own = directory(&link)?;
        // What shares the sensor's own root is at home as well, wherever that is.
        if [host.as_str(), "/proc/self/root"].iter().any(|home| directory(home) == Some(own)) {
            return Some(RootView::Host);
        }
        if fs::read_link(&link).ok()? != Path::new("/") {
            return Some(RootView::Chroot);
        }
        let (own, of_host) = (mountinfo(tgid)?, mountinfo(INIT).unwrap_or_default());
        let Some(root) = RootMount::parse(&own) else { return Some(RootView::Own { image: None }) };
        if RootMount::parse(&of_host).is_some_and(|host| host.same(&root)) {
            return Some(RootView::Host);
        }
        // What Docker puts there tells its own layer from those of the image.
        let is_init = |layer: &str| {
            let layer = layer.strip_prefix('/').unwrap_or(layer);
            fs::symlink_metadata(Path::new(&host).join(layer).join(".dockerenv")).is_ok()
        };
        Some(RootView::Own { image: root.image(is_init) })
    }
}

fn mountinfo(tgid: u32) -> Option<String> {
    let bytes = read_bounded(format!("/proc/{tgid}/mountinfo"), MAPS)?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// The file with this identity at the path as the host sees it, as the process sees it, or among
/// what it has mapped: a mount of its own may hide the file from everyone else.
fn meant(tgid: u32, path: &Path, file: &FileKey) -> Option<File> {
    let inside = path.strip_prefix("/").unwrap_or(path);
    let places = [
        PathBuf::from(format!("/proc/{tgid}/exe")),
        path.to_owned(),
        PathBuf::from(format!("/proc/{tgid}/root")).join(inside),
    ];
    let opened = |path: PathBuf| {
        open_regular(&path).filter(|(_, key)| key.ino == file.ino && key.size == file.size)
    };
    let found =
        places.into_iter().find_map(opened).or_else(|| opened(mapping_of(tgid, file.ino)?))?;
    Some(found.0)
}

/// The value of a line of `/proc/PID/status`.
fn status_field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    let of = |line: &'a str| line.strip_prefix(name)?.strip_prefix(':').map(str::trim);
    status.lines().find_map(of)
}

/// A file below the root of a process, through no link that leads out of it.
fn below_root(holder: u32, inside: &Path) -> Option<OwnedFd> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let root = open(format!("/proc/{holder}/root"), flags, Mode::empty()).ok()?;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    openat2(root, inside, flags, Mode::empty(), resolve).ok()
}

/// Where the process has a file with this inode mapped.
fn mapping_of(tgid: u32, ino: u64) -> Option<PathBuf> {
    let maps = read_bounded(format!("/proc/{tgid}/maps"), MAPS)?;
    let maps = String::from_utf8_lossy(&maps);
    let wanted = ino.to_string();
    let line = maps.lines().find(|line| line.split_ascii_whitespace().nth(4) == Some(&wanted))?;
    let range = line.split_ascii_whitespace().next()?;
    Some(PathBuf::from(format!("/proc/{tgid}/map_files/{range}")))
}

/// Opens without following a last symbolic link's surprises: no device, no FIFO is waited for.
fn open_regular(path: &Path) -> Option<(File, FileKey)> {
    let flags = i32::try_from((OFlags::NONBLOCK | OFlags::NOCTTY).bits()).ok()?;
    let handle = fs::OpenOptions::new().read(true).custom_flags(flags).open(path).ok()?;
    let key = file_key(&handle.metadata().ok()?)?;
    Some((handle, key))
}

/// What a link leads to, as far as this machine knows it: nobody else is asked.
fn stat_at(path: &Path) -> Option<Statx> {
    statx(CWD, path, AtFlags::STATX_DONT_SYNC, StatxFlags::BASIC_STATS).ok()
}

/// The same, if it is a file.
fn look_at(path: &Path) -> Option<FileKey> {
    let stat = stat_at(path)?;
    let regular = FileType::from_raw_mode(stat.stx_mode.into()) == FileType::RegularFile;
    regular.then(|| FileKey {
        ino: stat.stx_ino,
        dev: (stat.stx_dev_major << 20) | (stat.stx_dev_minor & 0xf_ffff),
        generation: 0,
        ctime_s: u64::try_from(stat.stx_ctime.tv_sec).unwrap_or(0),
        size: stat.stx_size,
    })
}

fn file_key(metadata: &fs::Metadata) -> Option<FileKey> {
    let device = metadata.dev();
    metadata.is_file().then(|| FileKey {
        ino: metadata.ino(),
        dev: (major(device) << 20) | (minor(device) & 0xf_ffff),
        generation: 0,
        ctime_s: u64::try_from(metadata.ctime()).unwrap_or(0),
        size: metadata.size(),
    })
}

fn read_bounded(path: String, limit: u64) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(limit).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// The kernel appends ` (deleted)` to the link of an unlinked executable.
fn without_deleted(path: PathBuf) -> PathBuf {
    match path.to_str().and_then(|text| text.strip_suffix(" (deleted)")) {
        Some(kept) => PathBuf::from(kept),
        None => path,
    }
}

/// The name in field 2 may hold anything, blanks and parentheses included: the last `)` ends it.
fn parse_stat(stat: &str, status: &str) -> Option<Stat> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let parent_tgid = fields.nth(1)?.parse().ok()?;
    let start_ticks = fields.nth(17)?.parse().ok()?;
    let mut users =
        status.lines().find_map(|line| line.strip_prefix("Uid:"))?.split_ascii_whitespace();
    let uid = users.next()?.parse().ok()?;
    let euid = users.next()?.parse().ok()?;
    Some(Stat { parent_tgid, start_ticks, uid, euid })
}

fn parse_cmdline(bytes: &[u8]) -> Vec<String> {
    bytes
        .strip_suffix(b"\0")
        .unwrap_or(bytes)
        .split(|byte| *byte == 0)
        .take(ARGUMENTS)
        .map(|argument| {
            String::from_utf8_lossy(argument)
                .chars()
                .map(|c| if c.is_control() { '\u{fffd}' } else { c })
                .collect()
        })
        .filter(|argument: &String| !argument.is_empty() || bytes.len() > 1)
        .collect()
}

/// `address range, path` of a line that maps a file executable.
fn executable_mapping(line: &str) -> Option<(&str, PathBuf)> {
    let (range, rest) = line.split_once(' ')?;
    let (permissions, rest) = rest.split_once(' ')?;
    let path = rest.get(rest.find('/')?..)?;
    let path = path.strip_suffix(" (deleted)").unwrap_or(path);
    (permissions.as_bytes().get(2) == Some(&b'x')).then(|| (range, PathBuf::from(path)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn own_process_is_described_as_the_kernel_has_it() {
        let own = std::process::id();
        let stat = Procfs.stat(own).unwrap();
        assert_eq!(stat.parent_tgid, std::os::unix::process::parent_id());
        let (path, key) = Procfs.exe(own).unwrap();
        assert_eq!(path, std::env::current_exe().unwrap());
        assert_eq!(Procfs.file(&path), Some(key));
        assert_eq!(Procfs.cmdline(own)[0], std::env::args().next().unwrap());
        assert!(Procfs.processes().contains(&own));
        assert!(matches!(Procfs.build_id(own, &path, &key), BuildId::Id(_)));
        let libraries = Procfs.libraries(own);
        assert!(libraries.iter().any(|(path, _)| path.to_string_lossy().contains("libc.so")));
    }

    #[test]
    fn a_write_is_followed_to_its_target() {
        use std::os::fd::AsRawFd as _;
        let own = std::process::id();
        let status = fs::read_to_string("/proc/self/status").unwrap();
        if status_field(&status, "NSpid").unwrap().split_ascii_whitespace().count() != 1 {
            println!("not tried: this process has another PID namespace than /proc");
            return;
        }
        let thread = rustix::thread::gettid().as_raw_nonzero().get().cast_unsigned();
        assert_eq!(Procfs.write_target(own, false, thread), Some(own));
        let fd = |file: &File| u32::try_from(file.as_raw_fd()).unwrap();
        let memory = File::open("/proc/self/mem").unwrap();
        assert_eq!(Procfs.write_target(own, true, fd(&memory)), Some(own));
        let other = File::open("/proc/self/maps").unwrap();
        assert_eq!(Procfs.write_target(own, true, fd(&other)), None);
        assert_eq!(Procfs.write_target(u32::MAX, true, 0), None);
    }

    #[test]
    fn a_process_that_is_gone_has_no_answers() {
        let gone = u32::MAX;
        assert_eq!(Procfs.stat(gone), None);
        assert_eq!(Procfs.exe(gone), None);
        assert!(Procfs.cmdline(gone).is_empty() && Procfs.libraries(gone).is_empty());
    }

    #[test]
    fn a_name_made_to_confuse_does_not() {
        let stat = "7 (a) S 1 (b) R 42 7 7 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 4711 0 0";
        let found = parse_stat(stat, "Name:\tx\nUid:\t1000\t0\t0\t0\n").unwrap();
        assert_eq!(found, Stat { parent_tgid: 42, start_ticks: 4711, uid: 1000, euid: 0 });
    }

    #[test]
    fn arguments_lose_control_characters() {
        assert_eq!(parse_cmdline(b"sshd: a\x1b[31m\0-R\0"), ["sshd: a\u{fffd}[31m", "-R"]);
        assert!(parse_cmdline(b"").is_empty());
    }

    #[test]
    fn a_build_id_is_only_taken_from_the_file_meant() {
        let own = std::process::id();
        let (path, key) = Procfs.exe(own).unwrap();
        let other = FileKey { ino: key.ino + 1, ..key };
        assert_eq!(Procfs.build_id(own, &path, &other), BuildId::Unread);
    }

    proptest! {
        #[test]
        fn any_text_parses_without_panic(a in ".{0,200}", b in ".{0,200}", c: Vec<u8>) {
            let _ = parse_stat(&a, &b);
            let _ = executable_mapping(&a);
            let _ = parse_cmdline(&c);
        }
    }
}
