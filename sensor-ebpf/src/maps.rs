//! Every map, with the reason for its size. The loader may override the sizes of the rings.

use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap, LruHashMap, PerCpuArray, ProgramArray, RingBuf};
use sensor_common::counters::COUNTERS as COUNTER_COUNT;
use sensor_common::record::{InodeKey, PerfEvent, SelfCheck};

use crate::probe::environ::Scan;
use crate::state::{
    FrameKey, FrameState, KnownPair, LinkState, ModulesState, Reopenings, WritePair, Writes,
};

/// Ordinary processes' records. A `make -j` makes some 2000 records a second of 700 bytes; the
/// agent reads every 100 ms.
#[map]
pub static BULK: RingBuf = RingBuf::with_byte_size(4 << 20, 0);

/// Records of guarded programs and of everything below an sshd.
#[map]
pub static PRIORITY: RingBuf = RingBuf::with_byte_size(1 << 20, 0);

/// [`sensor_common::Counter`] → count, per CPU.
#[map]
pub static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(COUNTER_COUNT, 0);

/// Guarded executables → role bits. Written by the agent: programs times the containers that
/// bring their own copy.
#[map]
pub static GUARDED: HashMap<InodeKey, u32> = HashMap::with_max_entries(1024, 0);

/// Processes with a role → its bits. Sessions leave it when the agent says so.
#[map]
pub static PROCS: HashMap<u32, u32> = HashMap::with_max_entries(8192, 0);

/// Pairs of program and mapped file that were told already. Forgetting one costs a record.
#[map]
pub static KNOWN: LruHashMap<KnownPair, u8> = LruHashMap::with_max_entries(16384, 0);

/// Processes between exec and the end of linking. A few milliseconds each, except for static
/// programs, which stay until they fork or end: the least recently used give way.
#[map]
pub static LINKING: LruHashMap<u32, LinkState> = LruHashMap::with_max_entries(512, 0);

/// Where guarded programs that are being linked have their code: a few milliseconds each.
#[map]
pub static MODULES: LruHashMap<u32, ModulesState> = LruHashMap::with_max_entries(128, 0);

/// Room to look at a new program's environment, per CPU.
#[map]
pub static ENVIRON: PerCpuArray<Scan> = PerCpuArray::with_max_entries(1, 0);

/// `process_environ`, which hands over to itself. Filled in by the agent.
#[map]
pub static NEXT: ProgramArray = ProgramArray::with_max_entries(1, 0);

/// Executables → link CPU time, ns, above which a summary is always sent. Written by the agent.
#[map]
pub static LINK_LIMITS: HashMap<InodeKey, u64> = HashMap::with_max_entries(4096, 0);

/// Executables → when their last link summary was sent (CLOCK_MONOTONIC, ns).
#[map]
pub static LINK_SENT: LruHashMap<InodeKey, u64> = LruHashMap::with_max_entries(4096, 0);

/// Monitor sockets between a frame's header and its payload.
#[map]
pub static FRAMES: LruHashMap<FrameKey, FrameState> = LruHashMap::with_max_entries(512, 0);

/// Who writes into whose memory. Forgetting a pair costs a record.
#[map]
pub static WRITES: LruHashMap<WritePair, Writes> = LruHashMap::with_max_entries(1024, 0);

/// Guarded processes that make memory writable after linking. Forgetting one costs records.
#[map]
pub static REOPENED: LruHashMap<u32, Reopenings> = LruHashMap::with_max_entries(256, 0);

/// Answer of the program `check`.
#[map]
pub static CHECK: Array<SelfCheck> = Array::with_max_entries(1, 0);

/// The only value of `CHECK`.
#[inline(always)]
pub fn check_slot() -> Option<&'static mut SelfCheck> {
    let slot = CHECK.get_ptr_mut(0)?;
    // SAFETY: a live map value of any bytes; the agent runs `check` from one thread at a time.
    Some(unsafe { &mut *slot })
}

/// Answer of the program `perf_site`.
#[map]
pub static PERF_EVENT: Array<PerfEvent> = Array::with_max_entries(1, 0);

/// The only value of `PERF_EVENT`.
#[inline(always)]
pub fn perf_event_slot() -> Option<&'static mut PerfEvent> {
    let slot = PERF_EVENT.get_ptr_mut(0)?;
    // SAFETY: a live map value of any bytes; the agent runs `perf_site` from one thread at a time.
    Some(unsafe { &mut *slot })
}

/// The state of a process that still links.
#[inline(always)]
pub fn linking(tgid: u32) -> Option<&'static mut LinkState> {
    let state = LINKING.get_ptr_mut(tgid)?;
    // SAFETY: a live map value of any bytes. A process links in one thread, so no other program
    // holds it; a value that was evicted and given to another process tells a wrong time at worst.
    Some(unsafe { &mut *state })
}

/// What was told of a pair; another CPU may count at the same time, and one of the two is lost.
#[inline(always)]
pub fn writes(pair: &WritePair) -> Option<&'static mut Writes> {
    let state = WRITES.get_ptr_mut(pair)?;
    // SAFETY: a live map value of any bytes.
    Some(unsafe { &mut *state })
}

/// What was told of a guarded process; as above.
#[inline(always)]
pub fn reopened(tgid: u32) -> Option<&'static mut Reopenings> {
    let state = REOPENED.get_ptr_mut(tgid)?;
    // SAFETY: a live map value of any bytes.
    Some(unsafe { &mut *state })
}

/// Where a guarded process that still links has its code.
#[inline(always)]
pub fn modules(tgid: u32) -> Option<&'static mut ModulesState> {
    let state = MODULES.get_ptr_mut(tgid)?;
    // SAFETY: as in `linking`.
    Some(unsafe { &mut *state })
}

/// The state behind a pointer of `FRAMES`.
#[inline(always)]
pub fn frame(state: *mut FrameState) -> &'static mut FrameState {
    // SAFETY: the only caller passes a live map value of any bytes; a descriptor is written to by
    // one thread of an sshd.
    unsafe { &mut *state }
}
