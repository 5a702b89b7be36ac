//! What is inside a guest: our PID 1, the test programs with what they look for, a few real
//! dynamically linked programs for them to start, and the compiler that makes the others.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::BufWriter;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::archive::Archive;
use super::cpio::Cpio;
use super::kernel::Arch;
use super::strip;
use super::{Program, Tree};
use crate::repo;

/// The release the guest's programs come from, the same for every kernel.
const SUITE: &str = "bookworm";

/// Packages with the programs below and every library they load.
const PACKAGES: [&str; 44] = [
    "binutils",
    "coreutils",
    "cpp-12",
    "dash",
    "e2fsprogs",
    "gcc",
    "gcc-12",
    "libacl1",
    "libattr1",
    "libbinutils",
    "libblkid1",
    "libc-bin",
    "libc6",
    "libc6-dev",
    "libcap-ng0",
    "libcap2",
    "libcom-err2",
    "libctf-nobfd0",
    "libctf0",
    "libext2fs2",
    "libgcc-12-dev",
    "libgcc-s1",
    "libgmp10",
    "libisl23",
    "libjansson4",
    "libmount1",
    "libmpc3",
    "libmpfr6",
    "libpcre2-8-0",
    "libselinux1",
    "libsmartcols1",
    "libssl3",
    "libtinfo6",
    "libudev1",
    "libuuid1",
    "libzstd1",
    "linux-libc-dev",
    "mount",
    "musl",
    "musl-dev",
    "musl-tools",
    "openssl",
    "util-linux",
    "zlib1g",
];

/// Programs kept: small and large sets of libraries, with and without children; what tests make
/// roots and namespaces with; the compiler's parts, which have a prefix or a version in their names.
const PROGRAMS: &str = "as cat chroot cp dash env gcc head ld ld.bfd ldconfig ln ls mkdir mke2fs \
                        mount mountpoint musl-gcc mv nm nsenter objcopy openssl readelf rm seq \
                        setpriv sha256sum sleep touch true umount unshare wc";

/// Not needed to compile C, and large; parts of names below `lib` and `lib/gcc`.
const LEFT_OUT: [&str; 11] = [
    "asan", "gcov", "gomp", "gprofng", "itm", "lsan", "lto1", "plugin/", "quadmath", "tsan",
    "ubsan",
];

/// Folders that a merged /usr turns into links, in the order they are made.
const MERGED: [&str; 4] = ["bin", "lib", "lib64", "sbin"];

enum Content {
    File(PathBuf),
    Text(String),
    Folder,
    Link(String),
}

/// What is put into a guest beside the packages.
pub(super) struct Parts<'a> {
    pub(super) arch: Arch,
    pub(super) init: &'a Path,
    /// Kernel modules in folders named after their releases.
    pub(super) modules: &'a [PathBuf],
    pub(super) tests: &'a [Program],
    /// Files that lie there where they lie here.
    pub(super) placed: &'a [PathBuf],
    /// The same for folders, which are empty there.
    pub(super) folders: &'a [PathBuf],
    pub(super) trees: &'a [Tree],
}

/// The folder with the unpacked packages for `arch`, downloaded unless it is here already.
pub(super) fn provide(arch: Arch, archive: &mut Archive) -> Result<PathBuf> {
    let folder = repo::target().join(format!("vm/guests/{}", arch.debian()));
    let stamp = folder.join("packages");
    let binutils = format!("binutils-{}-linux-gnu", arch.name());
    let packages: Vec<&str> = PACKAGES.into_iter().chain([binutils.as_str()]).collect();
    let wanted = packages.join(" ");
    if fs::read_to_string(&stamp).is_ok_and(|packages| packages == wanted) {
        return Ok(folder);
    }
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(&folder)?;
    let packages = archive.in_suite(&packages, arch.debian(), SUITE)?;
    archive.unpack(&packages, &folder)?;
    fs::write(stamp, wanted)?;
    Ok(folder)
}

/// Writes the initramfs: `init` as PID 1 and the tests below /tests, to be run in that order.
pub(super) fn assemble(path: &Path, packages: &Path, parts: &Parts<'_>) -> Result<()> {
    let mut files = selected(packages)?;
    files.insert("init".to_owned(), Content::File(parts.init.to_owned()));
    for module in parts.modules {
        let name: Vec<_> = module.iter().map(|part| part.to_string_lossy()).collect();
        let [.., release, name] = name.as_slice() else { continue };
        files.insert(format!("modules/{release}/{name}"), Content::File(module.clone()));
    }
    for (name, to) in [("sh", "dash"), ("cc", "gcc")] {
        files.insert(format!("usr/bin/{name}"), Content::Link(to.to_owned()));
    }
    for folder in MERGED {
        files.insert(folder.to_owned(), Content::Link(format!("usr/{folder}")));
    }
    for (order, Program { name, binary, args, .. }) in parts.tests.iter().enumerate() {
        files.insert(format!("tests/{order}-{name}"), Content::File(binary.clone()));
        files.insert(format!("tests/{order}-{name}.args"), Content::Text(args.join("\n")));
    }
    // Where the tests were told at their build that it lies.
    for path in parts.placed {
        let lean = strip::stripped(path, parts.arch)?;
        files.insert(absolute(path)?, Content::File(lean));
    }
    for path in parts.folders {
        files.insert(absolute(path)?, Content::Folder);
    }
    for tree in parts.trees {
        plant(tree, &mut files)?;
    }
    let out = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
    write(&files, BufWriter::new(out)).with_context(|| format!("cannot write {}", path.display()))
}

/// Regular files, folders and links of a tree; it has no need of others.
fn plant(tree: &Tree, files: &mut BTreeMap<String, Content>) -> Result<()> {
    let mut folders = vec![tree.from.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
            let path = entry?.path();
            let name = path.strip_prefix(&tree.from)?.to_str().context("a path that is no text")?;
            let content = if path.is_symlink() {
                Content::Link(fs::read_link(&path)?.to_string_lossy().into_owned())
            } else if path.is_dir() {
                if !tree.without.contains(&name) {
                    folders.push(path.clone());
                }
                Content::Folder
            } else if path.is_file() {
                Content::File(path.clone())
            } else {
                continue;
            };
            files.insert(format!("{}/{name}", tree.to), content);
        }
    }
    Ok(())
}

/// Its name in the archive.
fn absolute(path: &Path) -> Result<String> {
    Ok(path.strip_prefix("/")?.to_str().context("a path that is no text")?.to_owned())
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
            // Made before everything else.
            Content::Folder => {}
            Content::Text(text) => cpio.executable(name, text.as_bytes())?,
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
        ["dev", "etc", "mnt", "proc", "run", "sys", "tmp", "usr", "usr/sbin"]
            .map(str::to_owned)
            .into();
    for (name, content) in files {
        let itself = usize::from(!matches!(content, Content::Folder));
        let parents = Path::new(name).ancestors().skip(itself);
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

/// A program's name without the prefix and the suffix that the compiler's parts have.
fn plain(name: &str) -> &str {
    let name = name.strip_suffix("-12").unwrap_or(name);
    ["x86_64-linux-gnu-", "x86_64-linux-", "aarch64-linux-gnu-", "aarch64-linux-"]
        .iter()
        .find_map(|prefix| name.strip_prefix(prefix))
        .unwrap_or(name)
}

/// The name in a guest with a merged /usr, or nothing for a file that is not wanted there.
fn guest_name(path: &str) -> Option<String> {
    let path = path.strip_prefix("usr/").unwrap_or(path);
    let (folder, name) = path.rsplit_once('/')?;
    let linked = |name: &str| [".so", ".a", ".o", ".specs"].iter().any(|part| name.contains(part));
    let wanted = match folder.split_once('/').unwrap_or((folder, "")) {
        ("bin" | "sbin", "") => PROGRAMS.split(' ').any(|wanted| wanted == plain(name)),
        ("include", _) => true,
        (lib, "") => {
            lib.starts_with("lib") && (name.starts_with("ld-linux") || name.starts_with("ld-musl"))
        }
        ("lib", rest) if rest.starts_with("gcc/") => true,
        // Directly in lib/TRIPLET, not in its folders of plugins.
        ("lib", rest) => !rest.contains('/') && linked(name),
        _ => false,
    };
    let left_out = folder.starts_with("lib") && LEFT_OUT.iter().any(|part| path.contains(part));
    (wanted && !left_out).then(|| format!("usr/{path}"))
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
        assert_eq!(guest_name("usr/lib/gcc/x86_64-linux-gnu/12/lto1"), None);
        assert_eq!(guest_name("usr/bin/x86_64-linux-gnu-lto-dump-12"), None);
    }

    #[test]
    fn the_compiler_keeps_its_names() {
        for path in [
            "usr/bin/gcc-12",
            "usr/bin/x86_64-linux-gnu-ld.bfd",
            "usr/lib/gcc/x86_64-linux-gnu/12/cc1",
            "usr/lib/x86_64-linux-gnu/crt1.o",
            "usr/lib/x86_64-linux-musl/musl-gcc.specs",
            "usr/include/linux/io_uring.h",
        ] {
            assert_eq!(guest_name(path).as_deref(), Some(path));
        }
    }

    #[test]
    fn a_tree_keeps_its_links_and_loses_what_is_left_out() {
        let folder = std::env::temp_dir().join(format!("xtask-tree-{}", std::process::id()));
        fs::create_dir_all(folder.join("usr/share/doc")).unwrap();
        fs::write(folder.join("usr/share/doc/readme"), "").unwrap();
        fs::write(folder.join("usr/program"), "").unwrap();
        std::os::unix::fs::symlink("usr", folder.join("bin")).unwrap();
        let mut files = BTreeMap::new();
        let without = vec!["usr/share/doc"];
        plant(&Tree { from: folder.clone(), to: "root".to_owned(), without }, &mut files).unwrap();
        fs::remove_dir_all(folder).unwrap();
        let names: Vec<&str> = files.keys().map(String::as_str).collect();
        let all =
            ["root/bin", "root/usr", "root/usr/program", "root/usr/share", "root/usr/share/doc"];
        assert_eq!(names, all);
        assert!(matches!(&files["root/bin"], Content::Link(to) if to == "usr"));
        assert!(matches!(files["root/usr/program"], Content::File(_)));
        assert!(matches!(files["root/usr/share/doc"], Content::Folder));
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
