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

    fn root(&self, path: &str) -> Arc<Root> {
        let folder = File::open(self.folder.path().join(path)).unwrap();
        Arc::new(Root::from_fd(OwnedFd::from(folder)).unwrap())
    }

    fn ask(&self, minutes: i64, on_host: bool) -> Evidence {
        self.look(minutes, on_host, Question::look)
    }

    /// What `look` finds in answer to a question about a process on the host, or in a container.
    fn look(
        &self,
        minutes: i64,
        on_host: bool,
        look: impl FnOnce(&Question, &Arc<Root>) -> Option<Looked>,
    ) -> Evidence {
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
            id: ProcessId { tgid: u32::MAX, start_ticks: 0 },
            on_host,
            sshd: true,
            pam: true,
            ..Question::new(&seen, &dated)
        };
        let looked = look(&question, &self.root("."));
        evidence(&mut Packages::default(), &seen, &dated, looked)
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

#[test]
fn a_process_in_an_empty_directory_of_the_host_has_the_hosts_packages() {
    let fixture = Fixture::new();
    let change = "upgrade liblzma5:amd64 5.4.1-0.2 5.6.1-1";
    fixture.write("var/log/dpkg.log", &fixture.log(20, change));
    fs::create_dir_all(fixture.folder.path().join("run/sshd")).unwrap();
    let told = |place: &'static str, on_host: bool| {
        let empty = fixture.root("run/sshd");
        let look = |question: &Question, host: &Arc<Root>| {
            Some(question.look_below(empty, Some(PathBuf::from(place)), host))
        };
        let Evidence::Since { packages, not_told, .. } = fixture.look(30, on_host, look) else {
            panic!("no such evidence");
        };
        (packages.len(), not_told)
    };
    assert_eq!(told("/run/sshd", true), (1, Vec::new()));
    for (place, on_host) in [("/run", true), ("/run/sshd", false)] {
        let (count, not_told) = told(place, on_host);
        assert_eq!(count, 0, "{place} is no place of it on the host");
        assert!(not_told[0].contains("no package database"), "{not_told:?}");
    }
}

#[test]
fn a_process_whose_number_another_has_now_is_not_looked_at() {
    let tgid = std::process::id();
    let stat = Procfs.stat(tgid).unwrap();
    let mut question = Question {
        id: ProcessId { tgid, start_ticks: stat.start_ticks },
        on_host: false,
        sshd: false,
        pam: false,
        from: Timestamp::MIN,
        until: Timestamp::MAX,
    };
    let host = Arc::new(Root::host().unwrap());
    assert!(question.own_root(&host).is_some_and(|root| root.key() == host.key()));
    question.id.start_ticks += 1;
    assert!(question.own_root(&host).is_none() && question.look(&host).is_none());
}

#[test]
fn configuration_that_is_mounted_there_is_left_out_and_gives_no_reason() {
    let root = Root::from_fd(OwnedFd::from(File::open("/").unwrap())).unwrap();
    let path = Path::new("proc/version");
    assert!(root.changed(path).is_err_and(|error| error.is_elsewhere()));
    let dated = Dated { question: 1, modules: Vec::new(), usual: None, answer: None };
    let question = Question::new(&mapped(&std::env::current_exe().unwrap()), &dated);
    let (mut files, mut reasons) = (Vec::new(), Vec::new());
    question.file(&root, path, &mut files, &mut reasons);
    assert!(files.is_empty() && reasons.is_empty(), "{files:?} {reasons:?}");
    let folder = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink("loop", folder.path().join("loop")).unwrap();
    let root = Root::from_fd(OwnedFd::from(File::open(folder.path()).unwrap())).unwrap();
    question.file(&root, Path::new("loop"), &mut files, &mut reasons);
    assert_eq!(reasons.len(), 1, "what cannot be read is said");
}

#[test]
fn files_that_are_not_looked_up_in_time_are_said() {
    let fixture = Fixture::new();
    let modules = ["/usr/sbin/sshd".to_owned()];
    let look = |until: Instant| {
        let (mut packages, mut reasons) = (Packages::default(), Vec::new());
        let root = fixture.root(".");
        let owned = owned(&mut packages, &root, None, &modules, until, &mut reasons);
        (owned.len(), reasons)
    };
    assert_eq!(look(Instant::now() + Duration::from_mins(1)), (1, Vec::new()));
    assert_eq!(look(Instant::now()), (0, vec!["not all files were looked at".to_owned()]));
}

#[test]
fn a_history_that_is_cut_short_is_said() {
    let fixture = Fixture::new();
    let line = fixture.log(5, "upgrade vim:amd64 8 9");
    fixture.write("var/log/dpkg.log", &line.repeat(CHANGES_MAX + 1));
    let Evidence::Since { not_told, .. } = fixture.ask(30, true) else {
        panic!("no such evidence");
    };
    assert_eq!(not_told, ["not all changes of packages were looked at"]);
}

#[test]
fn packages_of_one_name_are_told_apart_by_their_architecture() {
    let fixture = Fixture::new();
    let log = [
        fixture.log(20, "upgrade liblzma5:i386 5.4.1-0.2 5.6.1-1"),
        fixture.log(10, "upgrade liblzma5:amd64 5.4.1-0.2 5.6.1-1"),
    ];
    fixture.write("var/log/dpkg.log", &log.concat());
    let Evidence::Since { packages, .. } = fixture.ask(30, true) else {
        panic!("no such evidence");
    };
    let archs: Vec<_> = packages.iter().map(|one| one.change.arch.as_deref()).collect();
    assert_eq!(archs, [Some("amd64")]);
}
