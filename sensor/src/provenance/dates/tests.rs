//! Roots made for the purpose, in which something has changed just now.

use std::fs::{self, File};
use std::os::fd::OwnedFd;

use tempfile::TempDir;

use super::super::tests::mapped;
use super::*;

const STATUS: &str = "Package: openssh-server\nStatus: install ok installed\nArchitecture: amd64\n\
    Version: 1:9.2p1-2+deb12u6\n\nPackage: liblzma5\nStatus: install ok installed\n\
    Architecture: amd64\nMulti-Arch: same\nVersion: 5.6.1-1\n\nPackage: vim\n\
    Status: install ok installed\nArchitecture: amd64\nVersion: 9\n\n";

struct Fixture {
    folder: TempDir,
    now: Timestamp,
}

impl Fixture {
    fn new() -> Self {
        let fixture = Self { folder: tempfile::tempdir().unwrap(), now: Timestamp::now() };
        fixture.write("var/lib/dpkg/status", STATUS);
        for (name, files) in [
            ("openssh-server", "/usr/sbin/sshd\n"),
            ("liblzma5:amd64", "/usr/lib/liblzma.so.5\n/usr/lib/liblzma.so.5.6.1\n"),
            ("vim", "/usr/bin/vim\n"),
        ] {
            fixture.write(&format!("var/lib/dpkg/info/{name}.list"), files);
            // Long before: only the log tells.
            let list = fixture.folder.path().join(format!("var/lib/dpkg/info/{name}.list"));
            let file = File::options().write(true).open(list).unwrap();
            file.set_modified(std::time::UNIX_EPOCH).unwrap();
        }
        fixture
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// A line of the log, so many minutes ago.
    fn log(&self, minutes: i64, what: &str) -> String {
        let time = self.now - SignedDuration::from_mins(minutes);
        format!("{} {what}\n", time.strftime("%F %T"))
    }

    fn ask(&self, minutes: i64, on_host: bool) -> Evidence {
        let dated = Dated {
            question: 1,
            modules: ["/usr/lib/liblzma.so.5.6.1", "/usr/sbin/sshd", "/usr/lib/libother.so"]
                .map(str::to_owned)
                .to_vec(),
            usual: Some(self.now - SignedDuration::from_mins(minutes)),
            answer: None,
        };
        let mut seen = mapped(&std::env::current_exe().unwrap());
        seen.time = Timestamp::now();
        let question = Question {
            // No process has this number: its root is the host's, or unknown.
            tgid: u32::MAX,
            on_host,
            sshd: true,
            pam: true,
            ..Question::new(&seen, &dated)
        };
        let folder = File::open(self.folder.path()).unwrap();
        let root = Arc::new(Root::from_fd(OwnedFd::from(folder)).unwrap());
        evidence(&mut Packages::default(), &seen, &dated, question.look(&root))
    }
}

#[test]
fn packages_of_the_programs_files_and_its_configuration_are_told_newest_first() {
    let fixture = Fixture::new();
    let log = [
        fixture.log(300, "upgrade openssh-server:amd64 1:9.2p1-2+deb12u4 1:9.2p1-2+deb12u5"),
        fixture.log(120, "upgrade openssh-server:amd64 1:9.2p1-2+deb12u5 1:9.2p1-2+deb12u6"),
        fixture.log(60, "upgrade vim:amd64 8 9"),
        fixture.log(50, "upgrade liblzma5:amd64 5.4.1-0.2 5.6.1-1"),
    ];
    fixture.write("var/log/dpkg.log", &log.concat());
    fixture.write("etc/pam.d/sshd", "auth required pam_unix.so\n");
    fixture.write("etc/vimrc", "");
    let Evidence::Since { usual, packages, files, omitted, not_told, .. } = fixture.ask(180, true)
    else {
        panic!("no such evidence");
    };
    assert!(usual && omitted == 0 && not_told.is_empty(), "{not_told:?}");
    let told: Vec<_> =
        packages.iter().map(|one| (one.change.clause(str::to_owned), one.files.clone())).collect();
    let (xz, ssh) = (
        "liblzma5 5.4.1-0.2 was replaced by 5.6.1-1",
        "openssh-server \
        1:9.2p1-2+deb12u5 was replaced by 1:9.2p1-2+deb12u6",
    );
    assert_eq!(
        told,
        [
            (xz.to_owned(), vec!["/usr/lib/liblzma.so.5.6.1".to_owned()]),
            (ssh.to_owned(), vec!["/usr/sbin/sshd".to_owned()]),
        ]
    );
    let files: Vec<_> = files.iter().map(|one| one.file.as_str()).collect();
    assert_eq!(files, ["/etc/pam.d/sshd"]);
}

#[test]
fn what_changed_before_the_time_was_usual_is_not_told() {
    let fixture = Fixture::new();
    let change = "upgrade liblzma5:amd64 5.4.1-0.2 5.6.1-1";
    fixture.write("var/log/dpkg.log", &fixture.log(60, change));
    let Evidence::Since { packages, files, not_told, .. } = fixture.ask(30, true) else {
        panic!("no such evidence");
    };
    assert_eq!((packages, files, not_told), (Vec::new(), Vec::new(), Vec::new()));
}

#[test]
fn many_changes_are_counted_and_an_entry_that_went_is_its_folders_change() {
    let fixture = Fixture::new();
    let lines = (0..9).map(|at| fixture.log(20 - at, "upgrade liblzma5:amd64 1 2"));
    fixture.write("var/log/dpkg.log", &lines.collect::<String>());
    fixture.write("etc/pam.d/x", "");
    fs::remove_file(fixture.folder.path().join("etc/pam.d/x")).unwrap();
    let Evidence::Since { packages, files, omitted, .. } = fixture.ask(30, true) else {
        panic!("no such evidence");
    };
    assert_eq!((packages.len(), omitted), (TOLD_MAX, 5));
    assert_eq!(files.iter().map(|one| one.file.as_str()).collect::<Vec<_>>(), ["/etc/pam.d"]);
}

#[test]
fn a_root_that_is_gone_or_has_no_packages_is_said() {
    let fixture = Fixture::new();
    let Evidence::Since { not_told, .. } = fixture.ask(30, false) else {
        panic!("no such evidence");
    };
    assert!(not_told[0].contains("root was gone"), "{not_told:?}");
    fs::remove_file(fixture.folder.path().join("var/lib/dpkg/status")).unwrap();
    let Evidence::Since { not_told, .. } = fixture.ask(30, true) else {
        panic!("no such evidence");
    };
    assert!(not_told[0].contains("no package database"), "{not_told:?}");
}
