//! Records into rings: the only user of the rings and of the counters.
//!
//! `begin` counts the attempt, reserves, zeroes and fills the header; the caller fills the rest
//! and submits. Where the ring has no room the loss is counted, so that per ring
//! `emitted = consumed + lost` holds exactly.

use core::arch::asm;
use core::ops::{Deref, DerefMut};
use core::ptr::read_volatile;

use aya_ebpf::bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP};
use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::helpers::generated::{
    bpf_get_smp_processor_id, bpf_ktime_get_ns, bpf_probe_read_kernel,
};
use aya_ebpf::maps::ring_buf::RingBufEntry;
use sensor_common::record::{self, Header, Kind};
use sensor_common::{Counter, Ring, Role};
use zerocopy::{FromBytes, IntoBytes};

use crate::globals::config;
use crate::maps::{BULK, COUNTERS, PRIORITY};

/// A record that can be sent.
pub trait Record: FromBytes + IntoBytes + 'static {
    const KIND: Kind;
    fn header(&mut self) -> &mut Header;
}

macro_rules! records {
    ($($name:ident),*) => {
        $(impl Record for record::$name {
            const KIND: Kind = Kind::$name;
            #[inline(always)]
            fn header(&mut self) -> &mut Header {
                &mut self.header
            }
        })*
        /// The largest record, and the largest room to be wiped, words.
        const WORDS: usize = {
            let mut most = size_of::<crate::probe::environ::Scan>();
            $(if size_of::<record::$name>() > most {
                most = size_of::<record::$name>();
            })*
            most / 8
        };
    };
}

records!(Fork, Exec, Exit, Map, Link, Seal, Frame, Caller, Env, Sample, Opened, Modules, Write);

/// Source of zeroes for one helper call: ring memory is not zeroed by the kernel.
static ZEROES: [u64; WORDS] = [0; WORDS];

/// A reserved record. The verifier refuses a program that neither submits nor discards it.
#[must_use = "a record that is not submitted is not sent"]
pub struct Slot<T: Record> {
    entry: RingBufEntry<T>,
    wake_up: u64,
}

impl<T: Record> Deref for Slot<T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        // SAFETY: `begin` has zeroed the entry, and any bytes are a `T: FromBytes`.
        unsafe { self.entry.assume_init_ref() }
    }
}

impl<T: Record> DerefMut for Slot<T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as in `deref`.
        unsafe { self.entry.assume_init_mut() }
    }
}

impl<T: Record> Slot<T> {
    #[inline(always)]
    pub fn submit(self) {
        self.entry.submit(self.wake_up);
    }
}

/// Whether a record wakes the agent. Decided before the record is filled: a ring kept until then
/// would be twice the states to the verifier.
#[inline(always)]
fn wake_up<T: Record>(ring: Ring) -> u64 {
    let threshold = u64::from(config!(bulk_wakeup_bytes));
    match ring {
        // The kernel's own rule: if the agent waits.
        Ring::Priority => 0,
        // At most one a second of a pair of processes, of which the writer may be gone in a moment.
        Ring::Bulk if matches!(T::KIND, Kind::Write) => u64::from(BPF_RB_FORCE_WAKEUP),
        // The agent reads this ring on a timer; a wake-up per record would cost more than the
        // record.
        Ring::Bulk if BULK.query(u64::from(BPF_RB_AVAIL_DATA)) < threshold => {
            u64::from(BPF_RB_NO_WAKEUP)
        }
        Ring::Bulk => u64::from(BPF_RB_FORCE_WAKEUP),
    }
}

/// The ring for a process with this role.
#[inline(always)]
pub fn ring_for(role: Role) -> Ring {
    if role.is_none() { Ring::Bulk } else { Ring::Priority }
}

/// Reserves a record of the current task in `ring`; `None` (counted as lost) where it is full.
#[inline(always)]
pub fn begin<T: Record>(ring: Ring, role: Role) -> Option<Slot<T>> {
    let seq = add_one(ring.emitted())?;
    let wake_up = wake_up::<T>(ring);
    let reserved = match ring {
        Ring::Bulk => BULK.reserve::<T>(0),
        Ring::Priority => PRIORITY.reserve::<T>(0),
    };
    let Some(mut entry) = reserved else {
        count(ring.lost());
        return None;
    };
    zero(&mut entry);
    let mut slot = Slot { entry, wake_up };
    let pid_tgid = bpf_get_current_pid_tgid();
    *slot.header() = Header {
        ktime_ns: now(),
        seq,
        tgid: (pid_tgid >> 32) as u32,
        tid: pid_tgid as u32,
        kind: T::KIND as u16,
        cpu: cpu(),
        role: role.0,
    };
    Some(slot)
}

/// Adds one to a counter of this CPU.
#[inline(always)]
pub fn count(counter: Counter) {
    // A counter of the table is never absent.
    let _ = add_one(counter);
}

/// Adds one to a counter of this CPU and returns what it then holds.
///
/// The addition is the atomic one without a result, which kernels before 5.12 have too. A program
/// that preempts this one between the two steps makes a sequence number appear twice; the counters
/// stay exact.
#[inline(always)]
fn add_one(counter: Counter) -> Option<u64> {
    let cell = COUNTERS.get_ptr_mut(counter as u32)?;
    // SAFETY: `cell` is a live, aligned map value. (The target has no `AtomicU64::fetch_add`.)
    unsafe { asm!("lock *(u64 *)({cell} + 0) += {one}", cell = in(reg) cell, one = in(reg) 1_u64) };
    // SAFETY: as above; volatile, since the addition is invisible to the compiler.
    Some(unsafe { read_volatile(cell) })
}

/// CLOCK_MONOTONIC, ns.
#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: a helper without arguments that cannot fail.
    unsafe { bpf_ktime_get_ns() }
}

#[inline(always)]
fn cpu() -> u16 {
    // SAFETY: a helper without arguments that cannot fail.
    (unsafe { bpf_get_smp_processor_id() }) as u16
}

/// Overwrites the first `len` bytes of map memory, which the verifier must be able to bound, with
/// zeroes.
#[inline(always)]
pub fn wipe<const N: usize>(bytes: &mut [u8; N], len: usize) {
    const { assert!(N <= WORDS * 8) };
    let Some(bytes) = bytes.get_mut(..len) else { return };
    let target = bytes.as_mut_ptr().cast();
    // SAFETY: `target` is `len` bytes of a live reference and ZEROES is at least as long.
    unsafe { bpf_probe_read_kernel(target, bytes.len() as u32, (&raw const ZEROES).cast()) };
}

#[inline(always)]
fn zero<T: Record>(entry: &mut RingBufEntry<T>) {
    const { assert!(size_of::<T>() <= WORDS * 8) };
    let target = entry.as_mut_ptr().cast();
    let size = size_of::<T>() as u32;
    // SAFETY: the entry is `size` bytes of reserved ring memory and ZEROES is at least as long.
    unsafe { bpf_probe_read_kernel(target, size, (&raw const ZEROES).cast()) };
}
