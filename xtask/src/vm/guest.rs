//! What is inside a guest: our PID 1, the test programs, and a few real dynamically linked
//! programs for them to start.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::BufWriter;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::Program;
use super::archive::Archive;
use super::cpio::Cpio;
use super::kernel::Arch;
use crate::repo;

/// The release the guest's programs come from, the same for every kernel.
const SUITE: &str = "bookworm";

/// Packages with the programs below and every library they load.
const PACKAGES: [&str; 11] = [
    "coreutils",
    "dash",
    "libacl1",
    "libattr1",
    "libc6",
    "libgmp10",
    "libpcre2-8-0",
    "libselinux1",
    "libssl3",
    "openssl",
    "zlib1g",
];

/// Programs kept: small and large sets of libraries, with and without children.
const PROGRAMS: [&str; 8] = ["cat", "dash", "env", "ls", "openssl", "sleep", "touch", "true"];

/// Folders that a merged /usr turns into links, in the order they are made.
const MERGED: [&str; 4] = ["bin", "lib", "lib64", "sbin"];

enum Content {
    File(PathBuf),
    Link(String),
}

/// The folder with the unpacked packages for `arch`, downloaded unless it is here already.
pub(super) fn provide(arch: Arch, archive: &mut Archive) -> Result<PathBuf> {
    let folder = repo::target().join(format!("vm/guests/{}", arch.debian()));
    let stamp = folder.join("packages");
    let wanted = PACKAGES.join(" ");
    if fs::read_to_string(&stamp).is_ok_and(|packages| packages == wanted) {
        return Ok(folder);
    }
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(&folder)?;
    for name in PACKAGES {
        let package = archive.in_suite(name, arch.debian(), SUITE)?;
        archive.unpack(&package, &folder)?;
    }
    fs::write(stamp, wanted)?;
    Ok(folder)
}

/// Writes the initramfs: `init` as PID 1 and `tests` below /tests, to be run in that order.
pub(super) fn assemble(path: &Path, packages: &Path, init: &Path, tests: &[Program]) -> Result<()> {
    let mut files = selected(packages)?;
    files.insert("init".to_owned(), Content::File(init.to_owned()));
    files.insert("usr/bin/sh".to_owned(), Content::Link("dash".to_owned()));
    for folder in MERGED {
        files.insert(folder.to_owned(), Content::Link(format!("usr/{folder}")));
    }
    for (order, (name, binary)) in tests.iter().enumerate() {
        files.insert(format!("tests/{order}-{name}"), Content::File(binary.clone()));
    }
    let out = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
    write(&files, BufWriter::new(out)).with_context(|| format!("cannot write {}", path.display()))
}

fn write(files: &BTreeMap<String, Content>, out: BufWriter<File>) -> Result<()> {
    let mut cpio = Cpio::new(out);
    for folder in folders(files) {
        cpio.directory(&folder)?;
    }
    // The kernel gives this one to PID 1 as its standard streams.
    cpio.device("dev/console", 5, 1)?;
    for (name, content) in files {
        match content {
            Content::Link(to) => cpio.symlink(name, to)?,
            Content::File(from) => {
                let bytes =
                    fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
                cpio.executable(name, &bytes)?;
            }
        }
    }
    cpio.finish()?;
    Ok(())
}

/// Every folder of `files`, parents first, and the mount points of PID 1.
fn folders(files: &BTreeMap<String, Content>) -> Vec<String> {
    let mut folders: Vec<String> =
        ["dev", "etc", "proc", "run", "sys", "tmp", "usr", "usr/sbin"].map(str::to_owned).into();
    for name in files.keys() {
        let parents = Path::new(name).ancestors().skip(1);
        folders.extend(parents.map(|folder| folder.display().to_string()));
    }
    folders.retain(|folder| !folder.is_empty());
    // A folder's name is a prefix of those of the folders in it.
    folders.sort();
    folders.dedup();
    folders
}

/// The programs and libraries we keep, by their name in the guest.
fn selected(packages: &Path) -> Result<BTreeMap<String, Content>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![packages.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            let meta = fs::symlink_metadata(&path)?;
            if meta.is_dir() {
                folders.push(path);
                continue;
            }
            let Some(name) = path.strip_prefix(packages)?.to_str().and_then(guest_name) else {
                continue;
            };
            let content = if meta.is_symlink() {
                Content::Link(fs::read_link(&path)?.to_string_lossy().into_owned())
            } else {
                Content::File(path)
            };
            files.insert(name, content);
        }
    }
    Ok(files)
}

/// The name in a guest with a merged /usr, or nothing for a file that is not wanted there.
fn guest_name(path: &str) -> Option<String> {
    let path = path.strip_prefix("usr/").unwrap_or(path);
    let (folder, name) = path.rsplit_once('/')?;
    let wanted = match folder.split_once('/') {
        None if folder == "bin" => PROGRAMS.contains(&name),
        None => folder.starts_with("lib") && name.starts_with("ld-linux"),
        // Directly in lib/TRIPLET, not in its folders of plugins.
        Some(("lib", rest)) => !rest.contains('/') && name.contains(".so"),
        Some(_) => false,
    };
    wanted.then(|| format!("usr/{path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_and_programs_move_below_usr() {
        let name = |path| guest_name(path);
        let libc = "usr/lib/x86_64-linux-gnu/libc.so.6".to_owned();
        assert_eq!(name("lib/x86_64-linux-gnu/libc.so.6"), Some(libc.clone()));
        assert_eq!(name("usr/lib/x86_64-linux-gnu/libc.so.6"), Some(libc));
        assert_eq!(name("bin/true"), Some("usr/bin/true".to_owned()));
        assert_eq!(
            name("lib64/ld-linux-x86-64.so.2"),
            Some("usr/lib64/ld-linux-x86-64.so.2".to_owned())
        );
        assert_eq!(
            name("lib/ld-linux-aarch64.so.1"),
            Some("usr/lib/ld-linux-aarch64.so.1".to_owned())
        );
    }

    #[test]
    fn plugins_documentation_and_other_programs_stay_out() {
        assert_eq!(guest_name("usr/lib/x86_64-linux-gnu/gconv/ISO8859-1.so"), None);
        assert_eq!(guest_name("usr/share/doc/libc6/copyright"), None);
        assert_eq!(guest_name("bin/chmod"), None);
    }

    #[test]
    fn folders_come_before_what_is_in_them() {
        let link = || Content::Link(String::new());
        let files = BTreeMap::from([("usr/lib/x/libc.so".to_owned(), link())]);
        let folders = folders(&files);
        let at = |name: &str| folders.iter().position(|folder| folder == name).unwrap();
        assert!(at("usr") < at("usr/lib") && at("usr/lib") < at("usr/lib/x"));
    }
}
