//! Runs the real kernel side, does something, and waits for the event it must cause.

use std::fmt::Debug;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use sensor::event::{Event, EventBody};
use sensor::kernel::Release;
use sensor::loader::{LoadError, Loader, LoaderConfig, Sensor};
use sensor::source::Rings;

/// How long an event may take; generous, since the machine may be emulated.
const DEADLINE: Duration = Duration::from_secs(20);
/// Between two looks at the rings.
const STEP: Duration = Duration::from_millis(5);

/// The programs are global to the kernel: two sensors at once would see each other's processes.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// A loaded and attached kernel side.
pub struct Bench {
    pub sensor: Sensor,
    pub rings: Rings,
    /// Everything seen so far, in order.
    pub seen: Vec<Event>,
    _turn: std::sync::MutexGuard<'static, ()>,
}

impl Bench {
    /// `None`, with the reason printed, where this machine cannot run the test at all.
    pub fn start() -> Option<Self> {
        Self::start_with(&LoaderConfig { leave_self_out: false, ..LoaderConfig::default() })
    }

    pub fn start_with(config: &LoaderConfig) -> Option<Self> {
        Self::start_prepared(config, |_| {})
    }

    /// `prepare` runs between load and attach.
    pub fn start_prepared(
        config: &LoaderConfig,
        prepare: impl FnOnce(&mut Sensor),
    ) -> Option<Self> {
        let turn = ONE_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut sensor = match Loader::load(config) {
            Ok(sensor) => sensor,
            Err(error @ LoadError::Privilege(_)) => {
                skip(&format!("{error}"));
                return None;
            }
            Err(error) => panic!("cannot load: {error:?}"),
        };
        prepare(&mut sensor);
        sensor.attach().unwrap_or_else(|error| panic!("cannot attach: {error:?}"));
        let rings = sensor.take_rings().expect("rings are there once");
        Some(Self { sensor, rings, seen: Vec::new(), _turn: turn })
    }

    /// Waits for an event; the failure shows everything the process named in `about` sent.
    pub fn expect(&mut self, what: &str, about: u32, wanted: impl Fn(&Event) -> bool) -> Event {
        let deadline = Instant::now() + DEADLINE;
        let mut looked_at = 0;
        loop {
            self.rings.drain(&mut self.seen);
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

/// Says what is not tried and on which kernel.
pub fn skip(reason: &str) {
    println!("not tried on {}: {reason}", Release::current());
}

/// Fails with both values.
#[track_caller]
pub fn same<T: PartialEq + Debug>(field: &str, found: T, expected: T) {
    assert!(found == expected, "{field}: found {found:?}, expected {expected:?}");
}

/// Device number in the kernel's form.
pub fn kernel_dev(path: &Path) -> u32 {
    let dev = std::fs::metadata(path).expect("stat").dev();
    rustix::fs::major(dev) << 20 | rustix::fs::minor(dev)
}
