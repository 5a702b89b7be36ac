//! States of a dpkg database in roots made for the purpose.

use super::super::tests::Fixture;
use super::super::{PackageError, Verdict};
use crate::package::digest::Digest;

const ABC: &str = "900150983cd24fb0d6963f7d28e17f72";

fn abc() -> Digest {
    Digest::from_hex(crate::package::digest::Algorithm::Md5, ABC.as_bytes()).unwrap()
}

#[test]
fn architectures_of_one_package_are_told_apart() {
    let fixture = Fixture::new();
    let stanza = |arch: &str| {
        format!(
            "Package: libx\nStatus: install ok installed\nMulti-Arch: same\nArchitecture: {arch}\n\
             Version: 1-{arch}\n\n"
        )
    };
    fixture.write("var/lib/dpkg/status", &(stanza("amd64") + &stanza("i386")));
    for arch in ["amd64", "i386"] {
        let list = format!("/.\n/usr\n/usr/lib\n/usr/lib/{arch}\n/usr/lib/{arch}/libx.so\n");
        fixture.write(&format!("var/lib/dpkg/info/libx:{arch}.list"), &list);
        let sums = format!("{ABC}  usr/lib/{arch}/libx.so\n");
        fixture.write(&format!("var/lib/dpkg/info/libx:{arch}.md5sums"), &sums);
    }
    for arch in ["amd64", "i386"] {
        let owned = fixture.owner(&format!("/usr/lib/{arch}/libx.so")).unwrap().unwrap();
        assert_eq!((owned.arch.as_str(), &owned.version), (arch, &format!("1-{arch}")));
        assert_eq!(owned.verdict(&abc()), Verdict::Matches);
    }
    assert_eq!(fixture.owner("/usr/lib/armhf/libx.so").unwrap(), None);
}

#[test]
fn a_package_whose_configuration_alone_is_left_owns_nothing() {
    let fixture = Fixture::new();
    fixture.write(
        "var/lib/dpkg/status",
        "Package: gone\nStatus: deinstall ok config-files\nArchitecture: all\nVersion: 1\n",
    );
    fixture.write("var/lib/dpkg/info/gone.list", "/etc/gone.conf\n");
    assert_eq!(fixture.owner("/etc/gone.conf").unwrap(), None);
}

#[test]
fn a_configuration_file_may_be_changed() {
    let fixture = Fixture::new();
    fixture.write(
        "var/lib/dpkg/status",
        &format!(
            "Package: ssh\nStatus: install ok installed\nConffiles:\n /etc/pam.d/sshd {ABC}\n \
             /etc/ssh/new newconffile\nArchitecture: all\nVersion: 1\nDescription: x\n \
             /etc/fake {ABC}\n\nPackage: other\nStatus: install ok installed\n\
             Architecture: all\nVersion: 1\nConffiles:\n /etc/fake {ABC}\n"
        ),
    );
    fixture.write("var/lib/dpkg/info/ssh.list", "/etc/pam.d/sshd\n/etc/ssh/new\n/etc/fake\n");
    let owned = fixture.owner("/etc/pam.d/sshd").unwrap().unwrap();
    assert!(owned.config);
    assert_eq!(owned.verdict(&abc()), Verdict::Matches);
    assert_eq!(owned.verdict(&Digest::Md5([0; 16])), Verdict::Changed);
    let new = fixture.owner("/etc/ssh/new").unwrap().unwrap();
    assert!(new.config && new.recorded.is_none());
    let none = fixture.owner("/etc/fake").unwrap().unwrap();
    assert!(!none.config && none.recorded.is_none(), "a description is no list of files");
}

#[test]
fn the_journal_is_newer_than_the_status_file() {
    let fixture = Fixture::new();
    fixture.write(
        "var/lib/dpkg/status",
        "Package: a\nStatus: install ok installed\nArchitecture: all\nVersion: 1\n\n\
         Package: b\nStatus: install ok installed\nArchitecture: all\nVersion: 1\n",
    );
    let journal = |state: &str, name: &str| {
        format!("Package: {name}\nStatus: install ok {state}\nArchitecture: all\nVersion: 2\n")
    };
    fixture.write("var/lib/dpkg/updates/0000", &journal("unpacked", "a"));
    fixture.write("var/lib/dpkg/updates/0001", &journal("not-installed", "b"));
    fixture.write("var/lib/dpkg/updates/0002", &journal("unpacked", "c"));
    fixture.write("var/lib/dpkg/updates/tmp.i", "nonsense");
    for name in ["a", "b", "c"] {
        fixture.write(&format!("var/lib/dpkg/info/{name}.list"), &format!("/lib/{name}.so\n"));
    }
    assert_eq!(fixture.owner("/lib/a.so").unwrap().unwrap().version, "2");
    assert_eq!(fixture.owner("/lib/b.so").unwrap(), None);
    assert_eq!(fixture.owner("/lib/c.so").unwrap().unwrap().version, "2");
}

#[test]
fn an_image_without_a_package_manager_is_read_from_its_digests() {
    let fixture = Fixture::new();
    fixture.write(
        "var/lib/dpkg/status.d/libssl3",
        "Package: libssl3\nArchitecture: amd64\nVersion: 3.0.15-1\nMulti-Arch: same\n",
    );
    let sums = format!("{ABC}  usr/lib/libssl.so.3\n{ABC}  ./usr/lib/libcrypto.so.3\n");
    fixture.write("var/lib/dpkg/status.d/libssl3.md5sums", &sums);
    fixture.write(
        "var/lib/dpkg/status.d/libpython3.11",
        "Package: libpython3.11\nArchitecture: amd64\nVersion: 3.11\n",
    );
    fixture
        .write("var/lib/dpkg/status.d/libpython3.11.md5sums", &format!("{ABC}  usr/lib/py.so\n"));
    for path in ["/usr/lib/libssl.so.3", "/usr/lib/libcrypto.so.3"] {
        let owned = fixture.owner(path).unwrap().unwrap();
        assert_eq!((owned.package.as_str(), owned.verdict(&abc())), ("libssl3", Verdict::Matches));
    }
    assert_eq!(fixture.owner("/usr/lib/py.so").unwrap().unwrap().package, "libpython3.11");
    assert_eq!(fixture.owner("/usr/lib/other.so").unwrap(), None);
}

#[test]
fn a_package_named_like_a_path_reads_no_file_elsewhere() {
    let fixture = Fixture::new();
    fixture.write(
        "var/lib/dpkg/status",
        "Package: ../../../tmp/evil\nStatus: install ok installed\nArchitecture: all\nVersion: 1\n",
    );
    fixture.write("tmp/evil.list", "/lib/a.so\n");
    assert_eq!(fixture.owner("/lib/a.so").unwrap(), None);
}

#[test]
fn a_list_that_is_a_pipe_is_an_error_that_names_it() {
    let fixture = Fixture::new();
    fixture.write(
        "var/lib/dpkg/status",
        "Package: a\nStatus: install ok installed\nArchitecture: all\nVersion: 1\n",
    );
    let info = fixture.folder.path().join("var/lib/dpkg/info");
    std::fs::create_dir_all(&info).unwrap();
    let kind = rustix::fs::FileType::Fifo;
    let mode = rustix::fs::Mode::RWXU;
    rustix::fs::mknodat(rustix::fs::CWD, info.join("a.list"), kind, mode, 0).unwrap();
    match fixture.owner("/lib/a.so") {
        Err(PackageError::Unreadable { reason, .. }) => {
            assert!(reason.contains("a.list"), "{reason}");
        }
        other => panic!("{other:?}"),
    }
}
