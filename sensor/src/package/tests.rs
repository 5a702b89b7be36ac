//! Whole answers: on this machine's own Debian, and in roots made for the purpose.

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;

use tempfile::TempDir;

use super::*;

/// A root below a temporary directory.
pub(super) struct Fixture {
    pub(super) folder: TempDir,
}

impl Fixture {
    pub(super) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    pub(super) fn write(&self, path: &str, text: &str) {
        let path = self.folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub(super) fn root(&self) -> Root {
        Root::from_fd(OwnedFd::from(File::open(self.folder.path()).unwrap())).unwrap()
    }

    pub(super) fn owner(&self, path: &str) -> Result<Option<Owned>, PackageError> {
        Packages::default().owner(&self.root(), Path::new(path))
    }
}

/// The host's root, or why there is nothing to test with.
fn debian() -> Option<Root> {
    let root = Root::host().unwrap();
    if root.stamp(Path::new("var/lib/dpkg/status")).unwrap().is_none() {
        println!("skipped: this machine has no dpkg");
        return None;
    }
    Some(root)
}

fn digest(file: impl std::io::Read, owned: &Owned) -> Digest {
    let algorithm = owned.recorded.expect("a recorded digest").algorithm();
    Digest::of(algorithm, file, u64::MAX, |_| true).unwrap().unwrap()
}

#[test]
fn the_host_tells_who_owns_its_shell_and_that_it_is_whole() {
    let Some(root) = debian() else { return };
    let mut packages = Packages::default();
    let shell = root.resolve(Path::new("/bin/sh"));
    let owned = packages.owner(&root, &shell).unwrap().expect("the shell belongs to a package");
    println!("{}: {} {:?} {:?}", shell.display(), owned.purl(), owned.installed, owned.recorded);
    assert!(["dash", "bash", "busybox"].contains(&&*owned.package), "{owned:?}");
    assert_eq!(owned.manager, Manager::Dpkg);
    assert!(owned.installed.is_some() && !owned.config);
    let file = root.open(&shell).unwrap();
    assert_eq!(owned.verdict(&digest(file, &owned)), Verdict::Matches);
    let mut copy = Vec::new();
    std::io::Read::read_to_end(&mut root.open(&shell).unwrap(), &mut copy).unwrap();
    copy[4000] ^= 1;
    assert_eq!(owned.verdict(&digest(&copy[..], &owned)), Verdict::Differs);
}

#[test]
fn both_names_of_a_library_on_a_merged_usr_lead_to_its_package() {
    let Some(root) = debian() else { return };
    let folder = format!("lib/{}-linux-gnu/liblzma.so.5", std::env::consts::ARCH);
    let library = root.resolve(&Path::new("/").join(&folder));
    let Ok(below) = library.strip_prefix("/usr") else {
        println!("skipped: /lib is no link to /usr/lib here, or there is no liblzma");
        return;
    };
    let mut packages = Packages::default();
    for path in [library.clone(), Path::new("/").join(below), Path::new("/usr/../").join(below)] {
        let owned = packages.owner(&root, &path).unwrap().expect("liblzma belongs to a package");
        assert!(owned.package.starts_with("liblzma5"), "{owned:?}");
        assert!(owned.purl().starts_with("pkg:deb/"), "{}", owned.purl());
        let file = root.open(&path).unwrap();
        assert_eq!(owned.verdict(&digest(file, &owned)), Verdict::Matches, "{path:?}");
    }
}

#[test]
fn what_no_package_brought_has_no_owner() {
    let Some(root) = debian() else { return };
    let mut packages = Packages::default();
    let folder = tempfile::tempdir().unwrap();
    for path in [&folder.path().join("liblzma.so.5.4.1"), Path::new("/usr/lib/no/such.so")] {
        assert_eq!(packages.owner(&root, path).unwrap(), None);
    }
}

#[test]
fn a_diverted_file_belongs_to_whom_it_was_taken_from() {
    let fixture = Fixture::new();
    fixture.write(
        "var/lib/dpkg/status",
        "Package: coreutils\nStatus: install ok installed\nArchitecture: amd64\nVersion: 9\n\n\
         Package: wrapper\nStatus: install ok installed\nArchitecture: all\nVersion: 1\n\n",
    );
    fixture.write(
        "var/lib/dpkg/info/coreutils.list",
        "/.\n/usr\n/usr/bin\n/usr/bin/ls\n/usr/bin/cp\n",
    );
    fixture.write("var/lib/dpkg/info/wrapper.list", "/.\n/usr\n/usr/bin\n/usr/bin/ls\n");
    fixture.write(
        "var/lib/dpkg/info/coreutils.md5sums",
        "900150983cd24fb0d6963f7d28e17f72  usr/bin/ls\n",
    );
    fixture.write(
        "var/lib/dpkg/diversions",
        "/usr/bin/ls\n/usr/bin/ls.real\nwrapper\n/usr/bin/cp\n/usr/bin/cp.orig\n:\n",
    );
    let ls = fixture.owner("/usr/bin/ls").unwrap().unwrap();
    assert_eq!((&*ls.package, ls.diverted_from, ls.recorded), ("wrapper", None, None));
    let real = fixture.owner("/usr/bin/ls.real").unwrap().unwrap();
    assert_eq!((&*real.package, real.diverted_from.as_deref()), ("coreutils", Some("/usr/bin/ls")));
    assert_eq!(real.recorded.unwrap().to_string(), "900150983cd24fb0d6963f7d28e17f72");
    // The administrator's own file is nobody's, what it replaced still is.
    assert_eq!(fixture.owner("/usr/bin/cp").unwrap(), None);
    assert_eq!(fixture.owner("/usr/bin/cp.orig").unwrap().unwrap().package, "coreutils");
}

#[test]
fn a_container_whose_database_leads_out_of_it_is_not_followed() {
    let fixture = Fixture::new();
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("status"), "Package: a\n").unwrap();
    fs::create_dir_all(fixture.folder.path().join("var/lib/dpkg")).unwrap();
    let link = fixture.folder.path().join("var/lib/dpkg/status");
    symlink(outside.path().join("status"), &link).unwrap();
    assert!(matches!(fixture.owner("/bin/sh"), Err(PackageError::NoDatabase)));
    fs::remove_file(&link).unwrap();
    symlink("/dev/zero", &link).unwrap();
    assert!(matches!(fixture.owner("/bin/sh"), Err(PackageError::NoDatabase)));
    fs::remove_file(&link).unwrap();
    fs::create_dir(&link).unwrap();
    assert!(matches!(fixture.owner("/bin/sh"), Err(PackageError::Unreadable { .. })));
}

#[test]
fn a_database_that_is_a_link_inside_the_root_is_read() {
    let fixture = Fixture::new();
    fixture.write("usr/lib/dpkg-db/status", "Package: a\nArchitecture: all\nVersion: 1\n");
    fixture.write("usr/lib/dpkg-db/info/a.list", "/lib/a.so\n");
    fs::create_dir_all(fixture.folder.path().join("var/lib")).unwrap();
    symlink("/usr/lib/dpkg-db", fixture.folder.path().join("var/lib/dpkg")).unwrap();
    symlink("usr/lib", fixture.folder.path().join("lib")).unwrap();
    assert_eq!(fixture.owner("/usr/lib/a.so").unwrap().unwrap().package, "a");
}

#[test]
fn an_upgrade_is_noticed_once_and_told_with_its_time() {
    let fixture = Fixture::new();
    let status = |version: &str| {
        format!(
            "Package: liblzma5\nStatus: install ok installed\nMulti-Arch: same\n\
             Architecture: amd64\nVersion: {version}\n\n\
             Package: sed\nStatus: install ok installed\nArchitecture: amd64\nVersion: 4.9\n\n"
        )
    };
    fixture.write("var/lib/dpkg/status", &status("5.6.0-0.2"));
    fixture.write("var/lib/dpkg/info/liblzma5:amd64.list", "/usr/lib/liblzma.so.5.6.0\n");
    fixture.write("etc/os-release", "ID=debian\nVERSION_ID=13\n");
    let (root, mut packages) = (fixture.root(), Packages::default());
    let old = packages.owner(&root, Path::new("/usr/lib/liblzma.so.5.6.0")).unwrap().unwrap();
    assert_eq!(old.purl(), "pkg:deb/debian/liblzma5@5.6.0-0.2?arch=amd64&distro=debian-13");
    assert!(packages.take_changes().is_empty());

    fixture.write("var/lib/dpkg/status", &status("5.6.1-1"));
    fixture.write("var/lib/dpkg/info/liblzma5:amd64.list", "/usr/lib/liblzma.so.5.6.1\n");
    fixture.write(
        "var/log/dpkg.log",
        "2024-03-25 10:00:00 upgrade liblzma5:amd64 5.6.0-0.2 5.6.1-1\n",
    );
    // Not read again so soon, and not answered wrongly either.
    let early = packages.owner(&root, Path::new("/usr/lib/liblzma.so.5.6.1"));
    assert!(matches!(early, Err(PackageError::Changing { manager: Manager::Dpkg })), "{early:?}");
    packages.rest();
    let new = packages.owner(&root, Path::new("/usr/lib/liblzma.so.5.6.1")).unwrap().unwrap();
    let at: Timestamp = "2024-03-25T10:00:00Z".parse().unwrap();
    assert_eq!((new.installed, new.previous.as_deref()), (Some(at), Some("5.6.0-0.2")));
    assert_eq!(
        packages.take_changes(),
        [Change {
            root: root.key(),
            manager: Manager::Dpkg,
            package: "liblzma5".to_owned(),
            arch: "amd64".to_owned(),
            old: Some("5.6.0-0.2".to_owned()),
            new: Some("5.6.1-1".to_owned()),
            at: Some(at),
        }]
    );
    assert!(packages.take_changes().is_empty());
}

impl Packages {
    /// As if every database had been read long ago.
    pub(crate) fn rest(&mut self) {
        for slot in self.views.values_mut().flat_map(|view| &mut view.slots) {
            slot.built = slot.built.checked_sub(REST * 100).unwrap();
        }
    }
}

#[test]
fn roots_are_forgotten_before_memory_runs_out() {
    let bounds = Bounds { roots: 3, ..Bounds::default() };
    let mut packages = Packages::new(bounds);
    let fixtures: Vec<_> = (0..6).map(|_| Fixture::new()).collect();
    for fixture in &fixtures {
        fixture.write("var/lib/dpkg/status", "Package: a\nArchitecture: all\nVersion: 1\n");
        fixture.write("var/lib/dpkg/info/a.list", "/lib/a.so\n");
        assert!(packages.owner(&fixture.root(), Path::new("/lib/a.so")).unwrap().is_some());
    }
    let held = packages.held();
    assert_eq!((held.roots, held.indexes, held.paths), (3, 3, 3));
}

/// An overlay, taken down when dropped.
struct Overlay(TempDir);

impl Overlay {
    /// An overlay over `lower`; `None`, said why, where none can be mounted.
    fn mount(lower: &Path) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        for name in ["upper", "work", "merged"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        let place = folder.path().display();
        let options =
            format!("lowerdir={},upperdir={place}/upper,workdir={place}/work", lower.display());
        let mut mount = std::process::Command::new("mount");
        mount.args(["-t", "overlay", "overlay", "-o", &options]).arg(folder.path().join("merged"));
        let output = mount.output().unwrap();
        if !output.status.success() {
            println!("skipped: no overlay: {}", String::from_utf8_lossy(&output.stderr));
            return None;
        }
        Some(Self(folder))
    }

    fn merged(&self) -> PathBuf {
        self.0.path().join("merged")
    }

    fn root(&self) -> Root {
        Root::from_fd(OwnedFd::from(File::open(self.merged()).unwrap())).unwrap()
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg(self.merged()).status();
    }
}

#[test]
fn containers_of_one_image_share_their_index_until_one_is_changed() {
    let image = Fixture::new();
    image.write("var/lib/dpkg/status", "Package: a\nArchitecture: all\nVersion: 1\n");
    image.write("var/lib/dpkg/info/a.list", "/lib/a.so\n");
    let Some(one) = Overlay::mount(image.folder.path()) else { return };
    let Some(other) = Overlay::mount(image.folder.path()) else { return };
    let Some(hostile) = Overlay::mount(image.folder.path()) else { return };
    // Asked first, so that what it says could be believed of the others.
    fs::write(hostile.merged().join("var/lib/dpkg/info/a.list"), "/nothing\n").unwrap();
    let mut packages = Packages::default();
    let path = Path::new("/lib/a.so");
    assert_eq!(packages.owner(&hostile.root(), path).unwrap(), None);
    for container in [&one, &other] {
        let owned = packages.owner(&container.root(), path).unwrap().expect("an owner");
        assert_eq!(owned.package, "a");
    }
    let held = packages.held();
    assert_eq!((held.roots, held.indexes), (3, 2), "{held:?}");
}

#[test]
fn an_image_without_packages_is_no_place_without_owners() {
    let fixture = Fixture::new();
    fixture.write("app", "static");
    assert!(matches!(fixture.owner("/app"), Err(PackageError::NoDatabase)));
    fixture.write("usr/lib/sysimage/rpm/Packages.db", "RpmP");
    let error = fixture.owner("/app").unwrap_err();
    assert!(matches!(error, PackageError::Unsupported { format: "ndb", .. }), "{error}");
}

#[test]
fn an_alpine_root_tells_package_and_digest() {
    let fixture = Fixture::new();
    fixture.write("etc/os-release", "ID=alpine\nVERSION_ID=3.20.3\n");
    fixture.write(
        "lib/apk/db/installed",
        "C:Q1=\nP:musl\nV:1.2.5-r1\nA:x86_64\nF:lib\nR:ld-musl-x86_64.so.1\n\
         Z:Q1qZk+NkcGgWq6PiVxeFDCbJzQ2J0=\n\n",
    );
    let owned = fixture.owner("/lib/ld-musl-x86_64.so.1").unwrap().unwrap();
    assert_eq!(owned.purl(), "pkg:apk/alpine/musl@1.2.5-r1?arch=x86_64&distro=alpine-3.20.3");
    assert_eq!(owned.verdict(&digest(&b"abc"[..], &owned)), Verdict::Matches);
    assert_eq!((owned.manager, owned.installed), (Manager::Apk, None));
}

#[test]
fn every_file_of_some_packages_of_this_machine_is_found_again() {
    let Some(root) = debian() else { return };
    let mut packages = Packages::default();
    let mut checked = 0;
    for name in ["libc6", "coreutils", "base-files", "bash", "openssh-server"] {
        let output = std::process::Command::new("dpkg-query").args(["-L", name]).output().unwrap();
        for path in String::from_utf8(output.stdout).unwrap().lines() {
            let path = Path::new(path);
            // `diverted by` lines, directories and links aside.
            if !path.is_absolute() || !fs::symlink_metadata(path).is_ok_and(|it| it.is_file()) {
                continue;
            }
            let owned = packages.owner(&root, path).unwrap();
            let owned = owned.unwrap_or_else(|| panic!("{} has no owner", path.display()));
            checked += 1;
            assert_eq!(owned.package, name, "{}", path.display());
            if checked % 16 == 0 && owned.recorded.is_some() && !owned.config {
                let found = digest(root.open(path).unwrap(), &owned);
                assert_eq!(owned.verdict(&found), Verdict::Matches, "{}", path.display());
            }
        }
    }
    println!("{checked} files");
    assert!(checked > 100);
}

/// Prints, for the documentation; asserts nothing of time.
#[test]
fn the_index_of_this_machine_is_measured() {
    let Some(root) = debian() else { return };
    let (before, mut packages) = (resident(), Packages::default());
    let start = Instant::now();
    packages.owner(&root, Path::new("/none")).unwrap();
    let took = start.elapsed();
    println!("index: {took:?}, {:?}, resident {} KiB more", packages.held(), resident() - before);
    let path = root.resolve(Path::new("/bin/sh"));
    let start = Instant::now();
    for _ in 0..100 {
        assert!(packages.owner(&root, &path).unwrap().is_some());
    }
    println!("a question: {:?}", start.elapsed() / 100);
    assert!(packages.held().paths > 1000);
}

fn resident() -> i64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_ascii_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn packages_can_move_to_a_worker_thread() {
    fn is_send<T: Send>() {}
    is_send::<Packages>();
    is_send::<Root>();
    is_send::<PackageError>();
}
