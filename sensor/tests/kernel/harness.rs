//! Runs the real kernel side, does something, and waits for the event it must cause.

use std::fmt::Debug;
use std::fs::File;
use std::ops::{Deref, DerefMut};
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sensor::event::{Event, EventBody, InodeKey, Role};
use sensor::kernel::Release;
use sensor::loader::probes::Hook;
use sensor::loader::{LoadError, Loader, LoaderConfig, Sensor};
use sensor::source::Rings;

use crate::patience::patient;

/// How long an event may take.
const DEADLINE: Duration = Duration::from_secs(20);
/// Between two looks at the rings.
const STEP: Duration = Duration::from_millis(5);

/// Loading takes most of a test's time, so all that need nothing special share one kernel side;
/// and since its programs see the whole machine, one test runs at a time.
static SHARED: Mutex<Option<Inner>> = Mutex::new(None);

/// A loaded and attached kernel side, for one test.
pub struct Bench {
    shared: MutexGuard<'static, Option<Inner>>,
    own: Option<Inner>,
}

pub struct Inner {
    pub sensor: Sensor,
    pub rings: Rings,
    /// Everything seen so far, in order.
    pub seen: Vec<Event>,
    guarded: Vec<InodeKey>,
}

impl Deref for Bench {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        self.own.as_ref().or(self.shared.as_ref()).expect("started")
    }
}

impl DerefMut for Bench {
    fn deref_mut(&mut self) -> &mut Inner {
        self.own.as_mut().or(self.shared.as_mut()).expect("started")
    }
}

impl Bench {
    /// `None`, with the reason printed, where this machine cannot run the test at all.
    pub fn start() -> Option<Self> {
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if shared.is_none() {
            let config = LoaderConfig { leave_self_out: false, ..LoaderConfig::default() };
            *shared = Some(Inner::start(&config)?);
        }
        let mut bench = Self { shared, own: None };
        bench.forget();
        Some(bench)
    }

    /// The same with a kernel side of its own.
    pub fn start_with(config: &LoaderConfig) -> Option<Self> {
        let shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        Some(Self { own: Some(Inner::start(config)?), shared })
    }
}

impl Inner {
    fn start(config: &LoaderConfig) -> Option<Self> {
        let mut sensor = match Loader::load(config) {
            Ok(sensor) => sensor,
            Err(error @ LoadError::Privilege(_)) if !rustix::process::geteuid().is_root() => {
                skip(&format!("{error}"));
                return None;
            }
            Err(error) => panic!("cannot load: {error:?}"),
        };
        sensor.attach().unwrap_or_else(|error| panic!("cannot attach: {error:?}"));
        let rings = sensor.take_rings().expect("rings are there once");
        Some(Self { sensor, rings, seen: Vec::new(), guarded: Vec::new() })
    }

    /// Undoes what tests before have told the kernel side.
    fn forget(&mut self) {
        for inode in std::mem::take(&mut self.guarded) {
            self.sensor.guard_inode(inode, Role::NONE).expect("unguard");
        }
        self.sensor.forget_mappings().expect("forget");
        while self.drain() {}
        self.seen.clear();
    }

    /// Reads what is there; true if there may be more.
    pub fn drain(&mut self) -> bool {
        self.rings.drain(&mut self.seen)
    }

    /// Gives every later process of an executable a role.
    pub fn guard(&mut self, program: &Path, role: Role) {
        let inode = inode_of(&self.sensor, program);
        self.guarded.push(inode);
        self.sensor.guard_inode(inode, role).expect("guard");
    }

    /// True if a hook is attached; says so if it is not.
    pub fn serves(&self, hook: Hook) -> bool {
        let report = self.sensor.report().iter().find(|report| report.hook == hook);
        let report = report.expect("the hook is in the table");
        if report.mechanism.is_none() {
            skip(&format!("{hook}: {:?}", report.state));
        }
        report.mechanism.is_some()
    }

    /// Waits for an event; the failure shows everything the process named in `about` sent.
    pub fn expect(&mut self, what: &str, about: u32, wanted: impl Fn(&Event) -> bool) -> Event {
        let deadline = Instant::now() + patient(DEADLINE);
        let mut looked_at = 0;
        loop {
            self.drain();
            if let Some(found) = self.seen[looked_at..].iter().find(|event| wanted(event)) {
                return found.clone();
            }
            looked_at = self.seen.len();
            if Instant::now() > deadline {
                let of_process: Vec<&Event> =
                    self.seen.iter().filter(|event| event.tgid == about).collect();
                panic!(
                    "expected {what} of process {about}; it sent {of_process:#?}; \
                     {} events in all, {:?}, counters {:?}",
                    self.seen.len(),
                    self.rings.stats(),
                    self.sensor.counters()
                );
            }
            std::thread::sleep(STEP);
        }
    }

    /// Everything of one process up to its exit.
    pub fn until_exit(&mut self, tgid: u32) -> Vec<Event> {
        self.expect("an exit", tgid, |event| {
            event.tgid == tgid && matches!(event.body, EventBody::Exit(_))
        });
        self.seen.iter().filter(|event| event.tgid == tgid).cloned().collect()
    }
}

/// The identity of a file as the kernel side sees it.
pub fn inode_of(sensor: &Sensor, path: &Path) -> InodeKey {
    let file = File::open(path).expect("open");
    let (key, _) = sensor.identify(file.as_fd()).expect("identify");
    InodeKey { ino: key.ino, dev: key.dev, reserved: 0 }
}

/// Says what is not tried and on which kernel.
pub fn skip(reason: &str) {
    println!("not tried on {}: {reason}", Release::current());
}

/// Fails with both values.
#[track_caller]
#[expect(clippy::needless_pass_by_value, reason = "reads like an assertion at every caller")]
pub fn same<T: PartialEq + Debug>(field: &str, found: T, expected: T) {
    assert!(found == expected, "{field}: found {found:?}, expected {expected:?}");
}

/// Device number in the kernel's form.
pub fn kernel_dev(path: &Path) -> u32 {
    let dev = std::fs::metadata(path).expect("stat").dev();
    rustix::fs::major(dev) << 20 | rustix::fs::minor(dev)
}
