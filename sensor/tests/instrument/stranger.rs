//! A process that instruments the host until it is told to end.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use sensor::loader::{FunctionSite, Loader, LoaderConfig};
use sensor::symbol::find_symbol_offset;

/// What it prints when everything is in place.
const READY: &str = "everything is in place";
/// A library on which it puts a probe, and the function.
const LIBRARY: &str = "HALFSECOND_TEST_LIBRARY";
const FUNCTION: &str = "HALFSECOND_TEST_FUNCTION";
const EVENTS: &str = "/sys/kernel/tracing/uprobe_events";

/// Running; killed when dropped.
pub struct Stranger(Child);

/// A uprobe of tracefs that is defined and never switched on; removed when dropped.
pub struct Defined(String);

// === impl Stranger ===

impl Stranger {
    /// Loads and attaches BPF programs; with a probe on a function where one is given.
    pub fn start(program: &Path, function: Option<(&Path, &str)>) -> Self {
        let mut command = Command::new(program);
        command.args(["--exact", "stranger::stranger", "--ignored", "--nocapture"]);
        if let Some((library, function)) = function {
            command.env(LIBRARY, library).env(FUNCTION, function);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let is_ready = lines.map_while(Result::ok).any(|line| line.contains(READY));
        assert!(is_ready, "the other process has ended");
        Self(child)
    }

    /// This program under another name.
    pub fn disguise(folder: &Path, name: &str) -> PathBuf {
        let path = folder.join(name);
        fs::copy(std::env::current_exe().unwrap(), &path).unwrap();
        path
    }

    pub fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let _ = (self.0.kill(), self.0.wait());
    }
}

// === impl Defined ===

impl Defined {
    /// `None` where this kernel has no such file.
    pub fn new(library: &Path, function: &str) -> Option<Self> {
        let mut events = File::options().append(true).open(EVENTS).ok()?;
        let file = File::open(library).unwrap();
        let offset = find_symbol_offset(&file, function).unwrap().unwrap().0;
        let name = format!("halfsecond_e2e_{}/{function}", std::process::id());
        let line = format!("p:{name} {}:{offset:#x}\n", library.display());
        // One write is one command.
        events.write_all(line.as_bytes()).unwrap();
        Some(Self(name))
    }
}

impl Drop for Defined {
    fn drop(&mut self) {
        if let Ok(mut events) = File::options().append(true).open(EVENTS) {
            let _ = events.write_all(format!("-:{}\n", self.0).as_bytes());
        }
    }
}

/// Not a test of its own: what [`Stranger::start`] starts.
#[test]
#[ignore = "instruments the host for another test until its input ends"]
fn stranger() {
    let mut sensor = Loader::load(&LoaderConfig::default()).unwrap();
    sensor.attach().unwrap();
    if let (Some(library), Ok(symbol)) = (std::env::var_os(LIBRARY), std::env::var(FUNCTION)) {
        let file = File::open(library).unwrap();
        let offset = find_symbol_offset(&file, &symbol).unwrap().unwrap().0;
        sensor.attach_functions(&file, &[FunctionSite { symbol, offset }]).unwrap();
    }
    println!("{READY}");
    let mut rest = Vec::new();
    std::io::stdin().read_to_end(&mut rest).unwrap();
}
