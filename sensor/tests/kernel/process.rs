//! Fork, exec and exit.

use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use sensor::event::EventBody;

use crate::harness::{Bench, kernel_dev, same, skip};

fn program() -> PathBuf {
    std::fs::canonicalize("/bin/true").expect("/bin/true")
}

#[test]
fn every_required_probe_attaches() {
    let Some(bench) = Bench::start() else { return };
    for report in bench.sensor.report() {
        println!("{report:?}");
    }
    for stats in bench.sensor.program_stats() {
        println!("{stats:?}");
    }
    println!("{:?}", bench.sensor.memory());
}

#[test]
fn an_exec_tells_program_user_parent_and_time() {
    let Some(mut bench) = Bench::start() else { return };
    let program = program();
    let mut child = Command::new(&program).env_remove("LD_LIBRARY_PATH").spawn().expect("spawn");
    let status = child.wait().expect("wait");
    assert!(status.success());
    let event = bench.expect("an exec", child.id(), |event| {
        event.tgid == child.id() && matches!(event.body, EventBody::Exec(_))
    });
    let EventBody::Exec(exec) = &event.body else { unreachable!() };
    let stat = std::fs::metadata(&program).expect("stat");
    same("path", exec.path.path.as_path(), program.as_path());
    same("truncated", exec.path.truncated, false);
    same("inode", exec.exe.ino, stat.ino());
    same("device", exec.exe.dev, kernel_dev(&program));
    same("size", exec.exe.size, stat.size());
    same("ctime", i64::try_from(exec.exe.ctime_s), Ok(stat.ctime()));
    same("parent", exec.parent_tgid, std::process::id());
    same("uid", exec.uid, rustix::process::getuid().as_raw());
    same("euid", exec.euid, rustix::process::geteuid().as_raw());
    same("secure", exec.secure, false);
    same("peer", exec.peer, None);
    assert!(exec.start_ns.is_some_and(|start| start > 0), "no start time");
    let kind = rustix::fs::statfs(&program).expect("statfs").f_type;
    same("kind of file system", exec.fs_magic.map(i64::from), Some(kind));
}

#[test]
fn an_exec_tells_its_root_directory() {
    let Some(mut bench) = Bench::start() else { return };
    let mut exec_in = |script: &str| {
        let mut child = Command::new("/bin/sh").args(["-c", script]).spawn().expect("spawn");
        child.wait().expect("wait");
        let events = bench.until_exit(child.id());
        let roots = events.iter().filter_map(|event| match &event.body {
            EventBody::Exec(exec) => Some(exec.root.expect("a root")),
            _ => None,
        });
        roots.collect::<Vec<_>>().pop().expect("an exec")
    };
    let own = exec_in("exec /bin/true");
    same("inode", own.ino, std::fs::metadata("/").expect("stat").ino());
    same("device", own.dev, kernel_dev(Path::new("/")));
    // Its own root below a copy of the same mounts.
    let other = tempfile::tempdir().expect("a directory");
    let at = other.path().display();
    let script = format!(
        "unshare -m sh -c 'mount --rbind / {at} && mount -t tmpfs none {at}/mnt && \
         mkdir {at}/mnt/usr && mount --bind /usr {at}/mnt/usr && ln -s usr/lib usr/lib64 usr/bin \
         {at}/mnt && exec chroot {at}/mnt /bin/true'"
    );
    if !Command::new("sh").args(["-c", &script]).status().is_ok_and(|status| status.success()) {
        return skip("no mount namespaces here");
    }
    let apart = exec_in(&format!("exec {script}"));
    assert!(apart != own, "{apart:?}");
}

#[test]
fn a_fork_comes_before_the_childs_exec_and_names_the_child() {
    let Some(mut bench) = Bench::start() else { return };
    let mut child = Command::new(program()).spawn().expect("spawn");
    child.wait().expect("wait");
    let own = std::process::id();
    let fork = bench.expect("a fork", own, |event| {
        event.tgid == own
            && matches!(event.body, EventBody::Fork(fork) if fork.child_tgid == child.id())
    });
    let exec = bench.expect("an exec", child.id(), |event| {
        event.tgid == child.id() && matches!(event.body, EventBody::Exec(_))
    });
    assert!(fork.ktime_ns < exec.ktime_ns, "{} then {}", fork.ktime_ns, exec.ktime_ns);
}

#[test]
fn an_exit_tells_the_status_once_for_all_threads() {
    let Some(mut bench) = Bench::start() else { return };
    let shell = Path::new("/bin/sh");
    if !shell.exists() {
        crate::harness::skip("no /bin/sh");
        return;
    }
    let mut child = Command::new(shell).args(["-c", "exit 7"]).spawn().expect("spawn");
    child.wait().expect("wait");
    let events = bench.until_exit(child.id());
    let exits: Vec<u32> = events
        .iter()
        .filter_map(|event| match event.body {
            EventBody::Exit(exit) => Some(exit.exit_code),
            _ => None,
        })
        .collect();
    same("exit codes", exits, vec![7 << 8]);
}

#[test]
fn a_thread_is_neither_a_fork_nor_an_exit() {
    let Some(mut bench) = Bench::start() else { return };
    let own = std::process::id();
    std::thread::spawn(|| {}).join().expect("join");
    // Whatever the thread could have sent is in the ring before this child's exit.
    let mut child = Command::new(program()).spawn().expect("spawn");
    child.wait().expect("wait");
    bench.until_exit(child.id());
    for event in bench.seen.iter().filter(|event| event.tgid == own) {
        match event.body {
            EventBody::Fork(fork) => same("child", fork.child_tgid, child.id()),
            EventBody::Exit(_) => panic!("the test's own exit: {event:?}"),
            _ => {}
        }
    }
}

#[test]
fn a_program_with_a_connection_at_descriptor_0_tells_its_peer() {
    let Some(mut bench) = Bench::start() else { return };
    let listener = match TcpListener::bind("127.0.0.1:0") {
        Ok(listener) => listener,
        Err(error) => {
            crate::harness::skip(&format!("no loopback: {error}"));
            return;
        }
    };
    let here = listener.local_addr().expect("address");
    let client = TcpStream::connect(here).expect("connect");
    let (server, _) = listener.accept().expect("accept");
    let mut child = Command::new(program()).stdin(OwnedFd::from(server)).spawn().expect("spawn");
    child.wait().expect("wait");
    let events = bench.until_exit(child.id());
    let (peer, port) = events
        .iter()
        .find_map(|event| match &event.body {
            EventBody::Exec(exec) => Some((exec.peer, exec.local_port)),
            _ => None,
        })
        .expect("an exec");
    same("peer", peer, client.local_addr().ok());
    same("own port", port, Some(here.port()));
}
