//! A FUSE file system whose server never answers.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

use crate::event::FileKey;

const DEADLINE: Duration = Duration::from_secs(20);

/// A copy of a program, run from a FUSE file system that then hangs.
pub(crate) struct Hanging {
    server: Child,
    pub(crate) program: Child,
    folder: tempfile::TempDir,
    pub(crate) file: FileKey,
}

impl Hanging {
    /// `None`, with the reason printed, where there is no FUSE.
    pub(crate) fn start() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let (below, mount) = (folder.path().join("below"), folder.path().join("mount"));
        fs::create_dir(&below).unwrap();
        fs::create_dir(&mount).unwrap();
        fs::copy(fs::canonicalize("/bin/sleep").unwrap(), below.join("sshd")).unwrap();
        let mut bindfs = Command::new("bindfs");
        let started = bindfs.args(["-f", "--no-allow-other"]).arg(&below).arg(&mount).spawn();
        let mut server = match started {
            Ok(server) => server,
            Err(error) => {
                println!("not tried: bindfs (package bindfs): {error}");
                return None;
            }
        };
        let program = mount.join("sshd");
        let end = Instant::now() + DEADLINE;
        while !program.exists() {
            if let Some(status) = server.try_wait().unwrap() {
                println!("not tried: bindfs cannot mount here: {status}");
                return None;
            }
            assert!(Instant::now() < end, "bindfs does not mount");
            std::thread::yield_now();
        }
        let metadata = fs::metadata(&program).unwrap();
        let dev = metadata.dev();
        let file = FileKey {
            ino: metadata.ino(),
            dev: (rustix::fs::major(dev) << 20) | rustix::fs::minor(dev),
            generation: 0,
            ctime_s: 0,
            size: metadata.size(),
        };
        let program = Command::new(program).arg("1000").stdout(Stdio::null()).spawn().unwrap();
        rustix::process::kill_process(Pid::from_child(&server), Signal::STOP).unwrap();
        Some(Self { server, program, folder, file })
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("mount/sshd")
    }
}

impl Drop for Hanging {
    fn drop(&mut self) {
        let _ = rustix::process::kill_process(Pid::from_child(&self.server), Signal::CONT);
        let _ = self.program.kill();
        let _ = self.program.wait();
        let _ = Command::new("umount").arg("--lazy").arg(self.folder.path().join("mount")).status();
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}
