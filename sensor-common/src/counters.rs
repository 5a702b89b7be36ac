//! Names of the per-CPU counters the kernel programs keep.
//!
//! The law that holds at every moment the programs are quiet, summed over CPUs, per ring:
//! `emitted = consumed + lost`.

/// Which ring a record travels in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Ring {
    /// Events of ordinary processes; read in batches.
    Bulk = 0,
    /// Events of guarded programs and of everything below an sshd; wakes the agent at once, and
    /// a flood of ordinary events cannot push them out.
    Priority = 1,
}

/// Index into the per-CPU array `COUNTERS` (values: u64).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Counter {
    /// Records that a program tried to put into the bulk ring.
    BulkEmitted = 0,
    /// Those of them for which the ring had no room.
    BulkLost = 1,
    /// Records that a program tried to put into the priority ring.
    PriorityEmitted = 2,
    /// Those of them for which the ring had no room.
    PriorityLost = 3,
    /// Executable mappings left out because the pair of program and file is known.
    MapFiltered = 4,
    /// Link summaries left out because the program's link time is known and unremarkable.
    LinkFiltered = 5,
    /// A helper or a kernel read failed; the record was sent with what could be had, or not at all.
    ReadFailed = 6,
    /// A per-process map was full; the process is not followed.
    StateFull = 7,
    /// Environment longer than the scan's bound.
    EnvTruncated = 8,
    /// More seals in one start-up than a link summary holds.
    SealOverflow = 9,
    /// A guarded process made memory writable or executable too often in one second; the rest was not told.
    ProtectFiltered = 10,
}

/// How many counters there are.
pub const COUNTERS: u32 = 11;

impl Counter {
    /// Every counter, in index order.
    pub const ALL: [Self; COUNTERS as usize] = [
        Self::BulkEmitted,
        Self::BulkLost,
        Self::PriorityEmitted,
        Self::PriorityLost,
        Self::MapFiltered,
        Self::LinkFiltered,
        Self::ReadFailed,
        Self::StateFull,
        Self::EnvTruncated,
        Self::SealOverflow,
        Self::ProtectFiltered,
    ];

    /// Its name in output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::BulkEmitted => "bulk_emitted",
            Self::BulkLost => "bulk_lost",
            Self::PriorityEmitted => "priority_emitted",
            Self::PriorityLost => "priority_lost",
            Self::MapFiltered => "map_filtered",
            Self::LinkFiltered => "link_filtered",
            Self::ReadFailed => "read_failed",
            Self::StateFull => "state_full",
            Self::EnvTruncated => "env_truncated",
            Self::SealOverflow => "seal_overflow",
            Self::ProtectFiltered => "protect_filtered",
        }
    }
}

const _: () = {
    let mut index = 0;
    while index < Counter::ALL.len() {
        assert!(Counter::ALL[index] as usize == index);
        index += 1;
    }
};

impl Ring {
    /// The counter of records that tried to enter this ring.
    #[must_use]
    pub const fn emitted(self) -> Counter {
        match self {
            Self::Bulk => Counter::BulkEmitted,
            Self::Priority => Counter::PriorityEmitted,
        }
    }

    /// The counter of records that found this ring full.
    #[must_use]
    pub const fn lost(self) -> Counter {
        match self {
            Self::Bulk => Counter::BulkLost,
            Self::Priority => Counter::PriorityLost,
        }
    }
}
