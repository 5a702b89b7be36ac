//! Where mapped code comes from: what the kernel knows of the file at that moment.

use std::fs::{self, File};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{MemfdFlags, memfd_create};
use sensor::event::{Event, EventBody, Map};
use sensor::loader::probes::Hook;

use crate::harness::{Bench, same, skip};

/// include/uapi/linux/magic.h `TMPFS_MAGIC`: where a memfd lies.
const TMPFS_MAGIC: u32 = 0x0102_1994;

/// The C library of this machine, with the program that is to load it.
fn libc(bench: &mut Bench, program: &Path) -> Option<Map> {
    let mut child = Command::new(program).spawn().expect("spawn");
    child.wait().expect("wait");
    let events = bench.until_exit(child.id());
    let found = maps(&events).into_iter().find(|map| name(map).starts_with("libc."));
    if found.is_none() {
        skip(&format!("{} has no C library of its own: {events:#?}", program.display()));
    }
    found
}

fn maps(events: &[Event]) -> Vec<Map> {
    events
        .iter()
        .filter_map(|event| match &event.body {
            EventBody::Map(map) => Some((**map).clone()),
            _ => None,
        })
        .collect()
}

fn name(map: &Map) -> String {
    map.path.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Runs `program` with this descriptor's file in front of its libraries; gives its mapping.
fn preload(bench: &mut Bench, program: &Path, file: &OwnedFd) -> Map {
    // Kept open across the exec: the loader opens it by the descriptor's name.
    rustix::io::fcntl_setfd(file, rustix::io::FdFlags::empty()).expect("no close-on-exec");
    let stat = rustix::fs::fstat(file).expect("stat");
    let mut child = Command::new(program)
        .env_clear()
        .env("LD_PRELOAD", format!("/proc/self/fd/{}", file.as_raw_fd()))
        .spawn()
        .expect("spawn");
    child.wait().expect("wait");
    let events = bench.until_exit(child.id());
    maps(&events)
        .into_iter()
        .find(|map| map.file.ino == stat.st_ino)
        .unwrap_or_else(|| panic!("inode {} is not among {events:#?}", stat.st_ino))
}

fn program() -> PathBuf {
    fs::canonicalize("/bin/true").expect("/bin/true")
}

#[test]
fn a_library_is_told_with_owner_links_times_and_file_system() {
    let Some(mut bench) = Bench::start() else { return };
    if !bench.serves(Hook::Memory) {
        return;
    }
    let Some(map) = libc(&mut bench, &program()) else { return };
    let file = File::open(&map.path.path).expect("the path exists");
    let stat = file.metadata().expect("stat");
    same("owner", map.facts.owner, Some(stat.uid()));
    same("links", map.facts.links.map(u64::from), Some(stat.nlink()));
    // An initramfs may know no times.
    same("modified", map.facts.mtime_s.unwrap_or(0), u64::try_from(stat.mtime()).unwrap_or(0));
    same("mode", map.mode, stat.permissions().mode());
    let kind = rustix::fs::fstatfs(&file).expect("statfs").f_type;
    same("file system", map.facts.fs_magic, u32::try_from(kind).ok());
}

#[test]
fn a_library_whose_last_name_is_gone_has_no_links() {
    let Some(mut bench) = Bench::start() else { return };
    if !bench.serves(Hook::Memory) {
        return;
    }
    let program = program();
    let Some(map) = libc(&mut bench, &program) else { return };
    let copy = std::env::temp_dir().join(format!("halfsecond-deleted-{}.so", std::process::id()));
    fs::copy(&map.path.path, &copy).expect("copy");
    let file = OwnedFd::from(File::open(&copy).expect("open"));
    fs::remove_file(&copy).expect("remove");
    let map = preload(&mut bench, &program, &file);
    same("links", map.facts.links, Some(0));
    same("name", name(&map), copy.file_name().expect("name").to_string_lossy().into_owned());
}

#[test]
fn code_from_a_memfd_keeps_the_name_it_was_given() {
    let Some(mut bench) = Bench::start() else { return };
    if !bench.serves(Hook::Memory) {
        return;
    }
    let program = program();
    let Some(map) = libc(&mut bench, &program) else { return };
    let file = memfd_create("libc.so.6", MemfdFlags::empty()).expect("memfd");
    let mut source = File::open(&map.path.path).expect("open");
    let mut target = File::from(file.try_clone().expect("clone"));
    std::io::copy(&mut source, &mut target).expect("copy");
    let map = preload(&mut bench, &program, &file);
    same("links", map.facts.links, Some(0));
    same("file system", map.facts.fs_magic, Some(TMPFS_MAGIC));
    same("path", map.path.path, PathBuf::from("/memfd:libc.so.6"));
}
