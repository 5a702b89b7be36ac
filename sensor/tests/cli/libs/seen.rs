use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::MemfdFlags;
use rustix::process::{Pid, Signal};

use super::fixture::{Library, Running, compile, libs, row_of, wait_until};
use crate::harness::{Ended, Place};
use crate::patience::patient;

/// A control group that is removed with its test.
struct Group(PathBuf);

impl Drop for Group {
    fn drop(&mut self) {
        let deadline = Instant::now() + patient(Duration::from_secs(20));
        // Busy for as long as the kernel takes to forget the process.
        while fs::remove_dir(&self.0).is_err() && Instant::now() < deadline {
            std::thread::yield_now();
        }
    }
}

#[test]
fn a_library_deleted_after_it_was_mapped_is_still_found() {
    let library = Library::build();
    let sleeper = Running::with(&library.path);
    fs::remove_file(&library.path).unwrap();
    let row = row_of(&libs(&[&library.stem]).expect(1), sleeper.pid());
    assert_eq!(row["path"], library.path.to_str().unwrap());
    assert_eq!((&row["deleted"], &row["replaced"]), (&true.into(), &false.into()), "{row:#}");
    assert_eq!(row["build_id"], library.build_id.as_str(), "read by the kernel's own reference");
    assert_eq!(row["package_version"], serde_json::Value::Null);
}

#[test]
fn a_library_replaced_by_rename_is_told_from_the_new_one() {
    let (old, new) = (Library::build(), Library::build());
    let before = Running::with(&old.path);
    let draft = old.folder().join("draft");
    fs::copy(&new.path, &draft).unwrap();
    fs::rename(&draft, &old.path).unwrap();
    let after = Running::with(&old.path);
    let ended = libs(&[old.path.to_str().unwrap()]).expect(1);
    let row = row_of(&ended, before.pid());
    assert_eq!((&row["deleted"], &row["replaced"]), (&true.into(), &true.into()), "{row:#}");
    assert_eq!(row["build_id"], old.build_id.as_str());
    let row = row_of(&ended, after.pid());
    assert_eq!((&row["deleted"], &row["replaced"]), (&false.into(), &false.into()), "{row:#}");
    assert_eq!(row["build_id"], new.build_id.as_str());
    let text = Place::new("").run(&["libs", &old.stem]).expect(1);
    assert!(text.stdout.contains("deleted, replaced"), "{text:#?}");
}

#[test]
fn a_library_whose_file_is_called_deleted_is_not() {
    let library = Library::build();
    let path = library.folder().join("libodd.so.1 (deleted)");
    fs::copy(&library.path, &path).unwrap();
    let sleeper = Running::with_any(&path);
    let row = row_of(&libs(&["--build-id", &library.build_id]).expect(1), sleeper.pid());
    assert_eq!((&row["path"], &row["deleted"]), (&path.to_str().unwrap().into(), &false.into()));
}

#[test]
fn code_in_memory_files_is_listed_under_the_name_it_gave_itself() {
    let library = Library::build();
    let memory = in_memory(&library.path, "libplausible.so.6");
    let sleeper = Running::with(&memory.1);
    let row = row_of(&libs(&["--build-id", &library.build_id]).expect(1), sleeper.pid());
    assert_eq!(row["path"], "/memfd:libplausible.so.6", "{row:#}");
    assert_eq!((&row["memory"], &row["deleted"]), (&true.into(), &false.into()), "{row:#}");
    let named = libs(&["libplausible"]).expect(1);
    assert_eq!(row_of(&named, sleeper.pid())["soname"], format!("{}.so.1", library.stem));
}

#[test]
fn a_program_run_from_memory_is_an_application() {
    let sleep = in_memory(&find_program("sleep"), "kworker");
    let running = Running::start(Command::new(&sleep.1).arg("600"));
    let row = row_of(&libs(&["kworker"]).expect(1), running.pid());
    assert_eq!((&row["type"], &row["memory"]), (&"application".into(), &true.into()), "{row:#}");
    assert_eq!(row["exe"], "/memfd:kworker");
}

/// The file, and a path by which others can open it while it is open.
fn in_memory(source: &Path, name: &str) -> (fs::File, PathBuf) {
    let memory = rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC).unwrap();
    let mut memory = fs::File::from(memory);
    memory.write_all(&fs::read(source).unwrap()).unwrap();
    let path = format!("/proc/{}/fd/{}", std::process::id(), memory.as_raw_fd());
    (memory, path.into())
}

#[test]
fn a_static_program_says_that_its_libraries_are_not_seen() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().canonicalize().unwrap();
    let (source, program) = (folder.join("a.c"), folder.join("halfsecond-static"));
    fs::write(&source, "#include <unistd.h>\nint main(void) { return (int)sleep(600); }\n")
        .unwrap();
    let arguments = [OsStr::new("-static"), OsStr::new("-o"), program.as_os_str()];
    compile(&[arguments.as_slice(), &[source.as_os_str()]].concat());
    let running = Running::start(&mut Command::new(&program));
    let ended = libs(&[program.to_str().unwrap()]).expect(1);
    let row = row_of(&ended, running.pid());
    assert_eq!((&row["type"], &row["static"]), (&"application".into(), &true.into()), "{row:#}");
    assert!(ended.lines().pop().unwrap()["static_programs"].as_u64().unwrap() > 0);
}

#[test]
fn a_process_in_a_chroot_has_its_own_paths() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: chroot needs root");
        return;
    }
    let library = Library::build();
    let jail = library.folder().join("jail");
    let sleep = find_program("sleep");
    // As ldd does, which is a script for a shell that may not be there.
    let listed = Command::new(&sleep).env("LD_TRACE_LOADED_OBJECTS", "1").output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let needed = listed.split_whitespace().filter(|word| word.starts_with('/')).map(Path::new);
    for file in needed.chain([sleep.as_path()]) {
        let inside = jail.join(file.strip_prefix("/").unwrap());
        fs::create_dir_all(inside.parent().unwrap()).unwrap();
        fs::copy(file, inside).unwrap();
    }
    fs::create_dir_all(jail.join("opt")).unwrap();
    fs::copy(&library.path, jail.join("opt/libjail.so.2")).unwrap();
    let mut command = Command::new("unshare");
    command.args(["--mount", "--root"]).arg(&jail).arg(&sleep).arg("600");
    // unshare itself has no such library outside of the jail, and says so.
    command.env("LD_PRELOAD", "/opt/libjail.so.2").stderr(Stdio::null());
    let running = Running::start(&mut command);
    let row = row_of(&libs(&["--build-id", &library.build_id]).expect(1), running.pid());
    assert_eq!(row["path"], "/opt/libjail.so.2", "{row:#}");
    assert_eq!(row["exe"], sleep.to_str().unwrap());
    assert_eq!(row["user"], serde_json::Value::Null, "the host's names are not the jail's");
    assert_eq!((&row["deleted"], &row["replaced"]), (&false.into(), &false.into()), "{row:#}");
    fs::remove_file(jail.join("opt/libjail.so.2")).unwrap();
    fs::copy(&library.path, jail.join("opt/libjail.so.2")).unwrap();
    let row = row_of(&libs(&["libjail"]).expect(1), running.pid());
    assert_eq!((&row["deleted"], &row["replaced"]), (&true.into(), &true.into()), "{row:#}");
}

#[test]
fn a_process_in_a_container_names_it() {
    let id = format!("{:064x}", std::process::id());
    let hierarchies = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd"];
    let hierarchy =
        hierarchies.map(Path::new).into_iter().find(|one| one.join("cgroup.procs").exists());
    let Some(hierarchy) = hierarchy else {
        println!("skipped: no control groups at {hierarchies:?}");
        return;
    };
    let group = hierarchy.join(format!("docker-{id}.scope"));
    if let Err(error) = fs::create_dir(&group) {
        println!("skipped: {} cannot be made: {error}", group.display());
        return;
    }
    let group = Group(group);
    let library = Library::build();
    let sleeper = Running::with(&library.path);
    if let Err(error) = fs::write(group.0.join("cgroup.procs"), sleeper.pid().to_string()) {
        println!("skipped: a process cannot be put into {}: {error}", group.0.display());
        return;
    }
    let row = row_of(&libs(&[&library.stem]).expect(1), sleeper.pid());
    assert_eq!((&row["container"], &row["user"]), (&id.as_str().into(), &().into()), "{row:#}");
    let text = Place::new("").run(&["libs", &library.stem]).expect(1);
    assert!(text.stdout.contains(&id[..12]), "{text:#?}");
}

/// A FUSE file system whose daemon is stopped: whoever touches it waits.
struct Hanging {
    daemon: Child,
    mount: PathBuf,
}

impl Hanging {
    /// Shows `source` at `mount`; answers until [`Self::hang`].
    fn mount(source: &Path, mount: &Path) -> Option<Self> {
        let mut command = Command::new("bindfs");
        let daemon = match command
            .args(["-f", "--no-allow-other", "-o", "nonempty"])
            .arg(source)
            .arg(mount)
            .spawn()
        {
            Ok(daemon) => daemon,
            Err(error) => {
                println!("skipped: bindfs (package bindfs): {error}");
                return None;
            }
        };
        let mut hanging = Self { daemon, mount: mount.to_owned() };
        let mut ended = None;
        wait_until("bindfs has mounted or given up", || {
            ended = hanging.daemon.try_wait().unwrap();
            let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
            ended.is_some() || mounts.contains(mount.to_str().unwrap())
        });
        if let Some(status) = ended {
            println!("skipped: bindfs cannot mount here: {status}");
            return None;
        }
        Some(hanging)
    }

    fn hang(&self) {
        rustix::process::kill_process(self.pid(), Signal::STOP).unwrap();
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.daemon)
    }
}

impl Drop for Hanging {
    fn drop(&mut self) {
        let _ = rustix::process::kill_process(self.pid(), Signal::CONT);
        let _ = Command::new("umount").arg("--lazy").arg(&self.mount).status();
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

#[test]
fn a_file_system_that_hangs_stalls_nothing() {
    let (on_it, below_it) = (Library::build(), Library::build());
    let mount = below_it.folder();
    let source = tempfile::tempdir().unwrap();
    fs::copy(&on_it.path, source.path().join(on_it.file_name())).unwrap();
    // Mapped before its folder is hidden: its file is at hand, but not by way of its path.
    let hidden = Running::with(&below_it.path);
    let Some(hanging) = Hanging::mount(source.path(), &mount) else { return };
    let remote = Running::with(mount.join(on_it.file_name()));
    hanging.hang();
    let place = Place::new("");
    let mut command = place.command(&["libs", "libhalfsecond*", "--json"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let deadline = Instant::now() + patient(Duration::from_mins(1));
    while child.try_wait().unwrap().is_none() && Instant::now() < deadline {
        std::thread::yield_now();
    }
    let ended = child.try_wait().unwrap().is_some();
    drop(hanging);
    let output = child.wait_with_output().unwrap();
    assert!(ended, "it waited for the daemon: {output:#?}");
    let ended = Ended {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    };
    let ended = ended.expect(1);
    let row = row_of(&ended, remote.pid());
    assert_eq!(row["path"], mount.join(on_it.file_name()).to_str().unwrap());
    assert!(row["unread"].as_str().unwrap().contains("fuse"), "{row:#}");
    assert_eq!((&row["build_id"], &row["size"]), (&().into(), &().into()), "{row:#}");
    let row = row_of(&ended, hidden.pid());
    assert_eq!(row["build_id"], below_it.build_id.as_str(), "{row:#}");
    assert_eq!((&row["deleted"], &row["replaced"]), (&false.into(), &().into()), "{row:#}");
}

fn find_program(name: &str) -> PathBuf {
    let folders = std::env::var_os("PATH").unwrap();
    let found = std::env::split_paths(&folders).map(|folder| folder.join(name));
    found.filter(|path| path.exists()).find_map(|path| path.canonicalize().ok()).unwrap()
}
