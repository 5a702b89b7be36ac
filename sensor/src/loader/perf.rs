//! Where perf events of other processes sit, read by the kernel side through a copy of their
//! descriptor.

use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::{fmt, fs};

use aya::maps::{Array, MapData};
use aya::programs::raw_trace_point::RawTracePoint;
use aya::programs::{Program, RawTracePointRunOptions, TestRun as _};
use sensor_common::record::{PERF_NAME_MAX, PerfEvent};
use zerocopy::FromBytes as _;

use super::error::reason;
use super::handle::{Sensor, take};
use crate::event::FileKey;
use crate::trouble::chain;

const PROGRAM: &str = "perf_site";
const MAP: &str = "PERF_EVENT";
const SOURCES: &str = "/sys/bus/event_source/devices";

/// Asks the kernel side about perf events: a handle of its own, as it is asked on another thread
/// than the probes are put on files.
pub struct PerfEvents {
    program: RawTracePoint,
    answer: Array<MapData, [u8; size_of::<PerfEvent>()]>,
    uprobe: Option<u32>,
    kprobe: Option<u32>,
}

/// What a perf event is, as far as it instruments something.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PerfSite {
    /// Where it sits.
    pub place: PerfPlace,
    /// BPF program it runs.
    pub program: Option<u32>,
}

/// Where a perf event sits.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PerfPlace {
    /// In a file that processes map.
    Uprobe {
        /// The file, as the kernel identifies it; `None` where this kernel's type information does
        /// not lead there.
        file: Option<FileKey>,
        /// Its path as it was given; cut at 255 bytes.
        path: String,
        /// Where in the file, bytes.
        offset: u64,
        /// Where in the file its semaphore lies, bytes: a USDT probe.
        semaphore: Option<u64>,
        /// It fires on the return.
        is_return: bool,
    },
    /// In a kernel function.
    Kprobe {
        /// The function; empty where an address was given.
        function: String,
        /// How far in it, bytes.
        offset: u64,
        /// It fires on the return.
        is_return: bool,
    },
    /// Neither: a counter, a clock, a tracepoint. The number is its `perf_event_attr.type`.
    Other(u32),
}

impl fmt::Debug for PerfEvents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PerfEvents").finish_non_exhaustive()
    }
}

impl Sensor {
    /// Loads the program that looks at perf events, once.
    ///
    /// Errors: a sentence that says why it cannot be had.
    pub fn perf_events(&mut self) -> Result<PerfEvents, String> {
        let object = self.object_mut();
        let answer = take(object, MAP).map_err(|error| chain(&error))?;
        let Some(Program::RawTracePoint(program)) = object.program_mut(PROGRAM) else {
            return Err(format!("the kernel object has no program {PROGRAM}"));
        };
        program.load().map_err(|error| reason(&error))?;
        let info = program.info().map_err(|error| reason(&error))?;
        let program = RawTracePoint::from_program_info(info, PROGRAM.into());
        let program = program.map_err(|error| reason(&error))?;
        Ok(PerfEvents { program, answer, uprobe: kind("uprobe"), kprobe: kind("kprobe") })
    }
}

// === impl PerfEvents ===

impl PerfEvents {
    /// Where the perf event behind `file` sits. The descriptor has to be one of this process;
    /// `is_link` says that it is a BPF link to the event. `None` where it is no such thing.
    ///
    /// Errors: a sentence that says why it cannot be told.
    pub fn ask(&self, file: BorrowedFd<'_>, is_link: bool) -> Result<Option<PerfSite>, String> {
        let number = |kind: Option<u32>| kind.map_or(u64::MAX, u64::from);
        let mut options = RawTracePointRunOptions::new();
        options.args[0] = u64::try_from(file.as_raw_fd()).unwrap_or(u64::MAX);
        options.args[1] = number(self.uprobe);
        options.args[2] = number(self.kprobe);
        options.args[3] = u64::from(is_link);
        self.program.test_run(options).map_err(|error| reason(&error))?;
        let bytes = self.answer.get(&0, 0).map_err(|error| error.to_string())?;
        let answer = PerfEvent::read_from_bytes(&bytes).map_err(|error| error.to_string())?;
        Ok(site(&answer, self.uprobe, self.kprobe))
    }
}

fn site(answer: &PerfEvent, uprobe: Option<u32>, kprobe: Option<u32>) -> Option<PerfSite> {
    if answer.found == 0 {
        return None;
    }
    // perf_event_attr.config of both: bit 0 is `PERF_PROBE_CONFIG_IS_RETPROBE`.
    let is_return = answer.config & 1 == 1;
    let place = if Some(answer.kind) == uprobe {
        PerfPlace::Uprobe {
            file: Some(answer.file).filter(|file| file.ino != 0),
            path: name(answer),
            offset: answer.offset,
            semaphore: Some(answer.ref_ctr_offset).filter(|offset| *offset != 0),
            is_return,
        }
    } else if Some(answer.kind) == kprobe {
        PerfPlace::Kprobe { function: name(answer), offset: answer.offset, is_return }
    } else {
        PerfPlace::Other(answer.kind)
    };
    Some(PerfSite { place, program: Some(answer.program).filter(|id| *id != 0) })
}

fn name(answer: &PerfEvent) -> String {
    let len = usize::try_from(answer.name_len).unwrap_or(0).min(PERF_NAME_MAX);
    let bytes = answer.name.get(..len.saturating_sub(1)).unwrap_or_default();
    String::from_utf8_lossy(bytes).into_owned()
}

/// The number of a kind of perf events; `None` where this kernel has none of it.
fn kind(name: &str) -> Option<u32> {
    fs::read_to_string(format!("{SOURCES}/{name}/type")).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(kind: u32, config: u64, text: &[u8]) -> PerfEvent {
        let mut answer = PerfEvent { found: 1, kind, config, offset: 0x40, ..PerfEvent::NONE };
        answer.name[..text.len()].copy_from_slice(text);
        answer.name_len = u32::try_from(text.len() + 1).unwrap();
        answer
    }

    #[test]
    fn an_answer_is_a_uprobe_a_kprobe_or_none_of_both_by_its_kind() {
        let uprobe = site(&answer(8, 1, b"/lib/libpam.so.0"), Some(8), Some(7)).unwrap();
        let PerfPlace::Uprobe { path, offset, is_return, file, semaphore } = uprobe.place else {
            panic!("{uprobe:?}")
        };
        assert_eq!((path.as_str(), offset, is_return), ("/lib/libpam.so.0", 0x40, true));
        assert_eq!((file, semaphore, uprobe.program), (None, None, None));
        let kprobe = site(&answer(7, 0, b"vfs_read"), Some(8), Some(7)).unwrap();
        let function = "vfs_read".to_owned();
        assert_eq!(kprobe.place, PerfPlace::Kprobe { function, offset: 0x40, is_return: false });
        let counter = site(&answer(0, 0, b""), Some(8), None).unwrap();
        assert_eq!(counter.place, PerfPlace::Other(0));
        assert_eq!(site(&PerfEvent::NONE, Some(8), Some(7)), None);
    }

    #[test]
    fn a_length_that_is_too_long_is_cut() {
        let mut long = answer(8, 0, b"x");
        long.name_len = u32::MAX;
        assert_eq!(name(&long).len(), PERF_NAME_MAX - 1);
        long.name_len = 0;
        assert_eq!(name(&long), "");
    }
}
