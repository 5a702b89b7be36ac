//! The kernel side's maps in the agent's hands: what it is told and what it has counted. Apart from
//! the programs, as attaching one may wait for a file.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aya::maps::{HashMap, MapData, MapError, PerCpuArray};
use aya::{Ebpf, Pod};
use sensor_common::counters::COUNTERS;
use sensor_common::record::{FileKey, InodeKey};
use sensor_common::{Counter, Ring, Role};
use serde::{Serialize, Serializer};
use thiserror::Error;

use super::LoadError;
use super::handle::take;

type InodeBytes = [u8; size_of::<InodeKey>()];
type PairBytes = [u8; 2 * size_of::<FileKey>()];

/// The maps; clones are the same ones.
#[derive(Clone)]
pub struct Tables(Arc<Mutex<Maps>>);

struct Maps {
    counters: PerCpuArray<MapData, u64>,
    guarded: HashMap<MapData, InodeBytes, u32>,
    procs: HashMap<MapData, u32, u32>,
    known: HashMap<MapData, PairBytes, u8>,
    limits: HashMap<MapData, InodeBytes, u64>,
}

/// The kernel refused a map operation.
#[derive(Debug, Error)]
#[error("cannot {action} in the kernel's map {map}")]
pub struct MapWriteError {
    /// Which map.
    pub map: &'static str,
    /// What was tried.
    pub action: &'static str,
    /// Why not.
    #[source]
    pub source: MapError,
}

/// The kernel side's counters, summed over CPUs. See [`Counter`].
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    values: [u64; COUNTERS as usize],
}

impl Counters {
    /// The value of one.
    pub fn get(&self, counter: Counter) -> u64 {
        usize::try_from(counter as u32)
            .ok()
            .and_then(|at| self.values.get(at))
            .copied()
            .unwrap_or(0)
    }

    /// All of them, indexed by [`Counter`].
    pub fn all(&self) -> [u64; COUNTERS as usize] {
        self.values
    }

    /// Each with its name.
    pub fn iter(&self) -> impl Iterator<Item = (Counter, u64)> {
        Counter::ALL.into_iter().zip(self.values)
    }

    /// Records that tried to enter a ring.
    pub fn emitted(&self, ring: Ring) -> u64 {
        self.get(ring.emitted())
    }

    /// Those of them that found it full.
    pub fn lost(&self, ring: Ring) -> u64 {
        self.get(ring.lost())
    }
}

impl fmt::Debug for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter().map(|(counter, value)| (counter.name(), value))).finish()
    }
}

impl Serialize for Counters {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_map(self.iter().map(|(counter, value)| (counter.name(), value)))
    }
}

impl fmt::Debug for Tables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tables")
    }
}

// === impl Tables ===

impl Tables {
    pub(super) fn take(object: &mut Ebpf) -> Result<Self, LoadError> {
        Ok(Self(Arc::new(Mutex::new(Maps {
            counters: take(object, "COUNTERS")?,
            guarded: take(object, "GUARDED")?,
            procs: take(object, "PROCS")?,
            known: take(object, "KNOWN")?,
            limits: take(object, "LINK_LIMITS")?,
        }))))
    }

    /// A thread that panicked with the lock held leaves maps that are as good as before.
    fn lock(&self) -> MutexGuard<'_, Maps> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives every later process of this executable a role; no bits: none.
    pub fn guard_inode(&self, file: InodeKey, role: Role) -> Result<(), MapWriteError> {
        let key: InodeBytes = zerocopy::transmute!(file);
        set(&mut self.lock().guarded, "GUARDED", key, (!role.is_none()).then_some(role.0))
    }

    /// Gives a running process a role.
    pub fn set_process_role(&self, tgid: u32, role: Role) -> Result<(), MapWriteError> {
        set(&mut self.lock().procs, "PROCS", tgid, (!role.is_none()).then_some(role.0))
    }

    /// Takes a running process's role away: its children get none either.
    pub fn clear_process_role(&self, tgid: u32) -> Result<(), MapWriteError> {
        set(&mut self.lock().procs, "PROCS", tgid, None)
    }

    /// The kernel side's view of a process's role.
    pub fn process_role(&self, tgid: u32) -> Role {
        // Absent means none; a failing look-up of an open map does not happen.
        Role(self.lock().procs.get(&tgid, 0).unwrap_or(0))
    }

    /// Lets the next mapping of `file` by a process of `exe` be told again.
    pub fn forget_mapping(&self, exe: FileKey, file: FileKey) -> Result<(), MapWriteError> {
        let key: PairBytes = zerocopy::transmute!([exe, file]);
        set(&mut self.lock().known, "KNOWN", key, None)
    }

    /// Lets every mapping be told again.
    pub fn forget_mappings(&self) -> Result<(), MapWriteError> {
        let mut maps = self.lock();
        let keys: Vec<PairBytes> = maps.known.keys().filter_map(Result::ok).collect();
        keys.into_iter().try_for_each(|key| set(&mut maps.known, "KNOWN", key, None))
    }

    /// Link CPU time of an executable above which every start is told, ns; `None`: no such limit.
    pub fn set_link_limit(
        &self,
        exe: InodeKey,
        limit_ns: Option<u64>,
    ) -> Result<(), MapWriteError> {
        let key: InodeBytes = zerocopy::transmute!(exe);
        set(&mut self.lock().limits, "LINK_LIMITS", key, limit_ns)
    }

    /// The counters, summed over CPUs.
    pub fn counters(&self) -> Result<Counters, MapWriteError> {
        let maps = self.lock();
        let mut counters = Counters::default();
        for (index, value) in (0..).zip(&mut counters.values) {
            let cpus = maps.counters.get(&index, 0).map_err(|source| MapWriteError {
                map: "COUNTERS",
                action: "read",
                source,
            })?;
            *value = cpus.iter().fold(0, |sum, cpu| sum.wrapping_add(*cpu));
        }
        Ok(counters)
    }
}

/// Inserts, or removes what may be absent.
fn set<K: Pod, V: Pod>(
    map: &mut HashMap<MapData, K, V>,
    name: &'static str,
    key: K,
    value: Option<V>,
) -> Result<(), MapWriteError> {
    match value {
        Some(value) => map.insert(key, value, 0).map_err(|source| MapWriteError {
            map: name,
            action: "insert",
            source,
        }),
        None => match map.remove(&key) {
            Ok(()) | Err(MapError::KeyNotFound) => Ok(()),
            Err(source) if is_absent(&source) => Ok(()),
            Err(source) => Err(MapWriteError { map: name, action: "remove", source }),
        },
    }
}

fn is_absent(error: &MapError) -> bool {
    const ENOENT: i32 = 2;
    matches!(error, MapError::SyscallError(error) if error.io_error.raw_os_error() == Some(ENOENT))
}
