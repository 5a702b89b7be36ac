//! A database that rpm itself wrote, of packages that rpmbuild made.

use std::fmt::Write as _;
use std::fs;
use std::process::Command;

use super::super::tests::Fixture;
use super::super::{Manager, PackageError, Verdict};
use crate::package::digest::{Algorithm, Digest};

const SUBPACKAGES: usize = 40;
const FILES: usize = 30;

/// Runs a command; `None`, said why, where there is no such program.
fn run(command: &mut Command) -> Option<()> {
    let Ok(output) = command.output() else {
        println!("skipped: no {:?} on this machine", command.get_program());
        return None;
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(())
}

/// One source package of many binary packages, enough for a b-tree of several levels.
fn spec() -> String {
    let mut spec = "Name: halfsecond-test\nVersion: 5.6.1\nRelease: 3%{?none}\nEpoch: 2\n\
        Summary: x\nLicense: MIT\nBuildArch: noarch\n%description\nx\n%files\n\
        /usr/lib64/libhello.so.1\n/usr/lib64/libhello.so\n%config(noreplace) /etc/hello.conf\n"
        .to_owned();
    let mut install = "%install\nmkdir -p %{buildroot}/usr/lib64 %{buildroot}/etc\n\
        printf abc > %{buildroot}/usr/lib64/libhello.so.1\n\
        ln -s libhello.so.1 %{buildroot}/usr/lib64/libhello.so\n\
        printf conf > %{buildroot}/etc/hello.conf\n"
        .to_owned();
    for package in 0..SUBPACKAGES {
        let _ = write!(
            spec,
            "%package -n sub{package}\nSummary: x\n%description -n sub{package}\nx\n\
             %files -n sub{package}\n/opt/sub{package}\n"
        );
        let _ = writeln!(
            install,
            "mkdir -p %{{buildroot}}/opt/sub{package}; for i in $(seq {FILES}); do \
             printf {package}-$i > %{{buildroot}}/opt/sub{package}/file-$i; done"
        );
    }
    spec + &install
}

fn installed() -> Option<Fixture> {
    let (fixture, build) = (Fixture::new(), tempfile::tempdir().unwrap());
    let spec_file = build.path().join("test.spec");
    fs::write(&spec_file, spec()).unwrap();
    let top = format!("_topdir {}", build.path().display());
    run(Command::new("rpmbuild").args(["-bb", "--define", &top]).arg(&spec_file))?;
    let database = fixture.folder.path().join("usr/lib/sysimage/rpm");
    fs::create_dir_all(&database).unwrap();
    let packages = fs::read_dir(build.path().join("RPMS/noarch")).unwrap();
    let mut rpm = Command::new("rpm");
    rpm.args(["-i", "--justdb", "--nodeps", "--define", "_db_backend sqlite", "--dbpath"]);
    rpm.arg(&database);
    rpm.args(packages.map(|package| package.unwrap().path()));
    // Debian's rpm asks whether alien was meant.
    run(rpm.arg("--force-debian"))?;
    fixture.write("etc/os-release", "ID=fedora\nVERSION_ID=42\n");
    Some(fixture)
}

#[test]
fn a_database_that_rpm_wrote_is_read() {
    let Some(fixture) = installed() else { return };
    let library = fixture.owner("/usr/lib64/libhello.so.1").unwrap().unwrap();
    assert_eq!(
        library.purl(),
        "pkg:rpm/fedora/halfsecond-test@5.6.1-3?arch=noarch&distro=fedora-42&epoch=2"
    );
    let abc = Digest::of(Algorithm::Sha256, &b"abc"[..], 99, |_| true).unwrap().unwrap();
    assert_eq!(library.verdict(&abc), Verdict::Matches);
    assert_eq!(library.manager, Manager::Rpm);
    assert!(library.installed.is_some() && !library.config);
    let link = fixture.owner("/usr/lib64/libhello.so").unwrap().unwrap();
    assert_eq!(link.recorded, None);
    assert!(fixture.owner("/etc/hello.conf").unwrap().unwrap().config);
    for package in 0..SUBPACKAGES {
        for file in [1, FILES] {
            let path = format!("/opt/sub{package}/file-{file}");
            let owned = fixture.owner(&path).unwrap().unwrap();
            assert_eq!(owned.package, format!("sub{package}"), "{path}");
            let text = format!("{package}-{file}");
            let digest = Digest::of(Algorithm::Sha256, text.as_bytes(), 99, |_| true);
            assert_eq!(owned.verdict(&digest.unwrap().unwrap()), Verdict::Matches, "{path}");
        }
    }
    assert_eq!(fixture.owner("/usr/lib64/libother.so.1").unwrap(), None);
}

#[test]
fn a_file_that_is_no_database_is_said_to_be_none() {
    let fixture = Fixture::new();
    fixture.write("var/lib/rpm/rpmdb.sqlite", &"no database ".repeat(100));
    let error = fixture.owner("/bin/sh").unwrap_err();
    assert!(error.to_string().contains("no SQLite file"), "{error}");
    let fixture = Fixture::new();
    fixture.write("var/lib/rpm/Packages", "x");
    let error = fixture.owner("/bin/sh").unwrap_err();
    assert!(matches!(error, PackageError::Unsupported { format: "Berkeley DB", .. }), "{error}");
}
