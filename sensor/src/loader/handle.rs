//! The loaded kernel side in the agent's hands: attach, tell it what matters, ask how it does.

use std::fmt;
use std::os::fd::{AsFd as _, BorrowedFd};

use aya::maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray, ProgramArray, RingBuf};
use aya::programs::Program;
use aya::{Ebpf, Pod};
use sensor_common::counters::COUNTERS;
use sensor_common::record::{FileKey, InodeKey, SelfCheck};
use sensor_common::{Counter, Ring, Role};
use serde::{Serialize, Serializer};
use thiserror::Error;

use super::attach::{Attacher, Policy, unmet};
use super::functions::Libraries;
use super::probes::{ENVIRONMENT, PROBES};
use super::report::{BpfMemory, ProbeReport, ProgramStats};
use super::sampling::Sampled;
use super::selfcheck::{self, Answer};
use super::{LoadError, LoaderConfig, fdinfo};
use crate::kernel::btf::KernelFunction;
use crate::source::Rings;
use crate::trouble::chain;
use crate::verify::OwnProbes;

type InodeBytes = [u8; size_of::<InodeKey>()];
type PairBytes = [u8; 2 * size_of::<FileKey>()];

/// The loaded kernel side. Dropped, everything is detached.
pub struct Sensor {
    object: Ebpf,
    functions: Vec<KernelFunction>,
    policy: Policy,
    report: Vec<ProbeReport>,
    rings: Option<Rings>,
    counters: PerCpuArray<MapData, u64>,
    guarded: HashMap<MapData, InodeBytes, u32>,
    procs: HashMap<MapData, u32, u32>,
    known: HashMap<MapData, PairBytes, u8>,
    limits: HashMap<MapData, InodeBytes, u64>,
    check: Array<MapData, Answer>,
    /// Held open: the kernel empties it with its last holder.
    next: ProgramArray<MapData>,
    libraries: Libraries,
    /// Outlives the probes: the pages they stood on stay private.
    own_probes: OwnProbes,
    sampled: Sampled,
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

impl fmt::Debug for Sensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sensor").field("report", &self.report).finish_non_exhaustive()
    }
}

impl Sensor {
    pub(super) fn new(
        mut object: Ebpf,
        config: &LoaderConfig,
        functions: Vec<KernelFunction>,
    ) -> Result<Self, LoadError> {
        let bulk: RingBuf<MapData> = take(&mut object, "BULK")?;
        let priority: RingBuf<MapData> = take(&mut object, "PRIORITY")?;
        Ok(Self {
            rings: Some(Rings::new(bulk, priority)),
            counters: take(&mut object, "COUNTERS")?,
            guarded: take(&mut object, "GUARDED")?,
            procs: take(&mut object, "PROCS")?,
            known: take(&mut object, "KNOWN")?,
            limits: take(&mut object, "LINK_LIMITS")?,
            check: take(&mut object, "CHECK")?,
            next: take(&mut object, "NEXT")?,
            object,
            functions,
            policy: Policy {
                avoid: config.avoid.clone(),
                syscall_tracepoints: config.syscall_tracepoints,
                has_registers: false,
            },
            report: Vec::new(),
            libraries: Libraries::default(),
            own_probes: OwnProbes::default(),
            sampled: Sampled::default(),
        })
    }

    pub(super) fn set_has_registers(&mut self, has_registers: bool) {
        self.policy.has_registers = has_registers;
    }

    /// Attaches every probe by the cheapest mechanism that loads.
    ///
    /// Errors: a hook nothing works without cannot be served.
    pub fn attach(&mut self) -> Result<(), LoadError> {
        let mut attacher = Attacher::new(&mut self.object, &self.functions, &self.policy);
        self.report = PROBES.iter().map(|probe| attacher.climb(probe)).collect();
        for (probe, report) in PROBES.iter().zip(&self.report) {
            if let Some(reason) = unmet(probe, report) {
                return Err(LoadError::Required { hook: probe.hook, reason });
            }
        }
        self.chain();
        Ok(())
    }

    /// Without it, what lies far back in an environment is told as not seen.
    fn chain(&mut self) {
        let Some(program) = self.object.program(ENVIRONMENT) else { return };
        let set = match program.fd() {
            Ok(program) => self.next.set(0, program, 0).map_err(|error| chain(&error)),
            Err(error) => Err(chain(&error)),
        };
        if let Err(reason) = set {
            tracing::warn!(program = ENVIRONMENT, reason, "long environments are cut");
        }
    }

    /// Detaches every probe. The rings and the counters stay readable; once they are read, per ring
    /// `emitted = consumed + lost`.
    pub fn detach(&mut self) {
        self.libraries = Libraries::default();
        self.sampled = Sampled::default();
        let mut attacher = Attacher::new(&mut self.object, &[], &self.policy);
        for rung in PROBES.iter().flat_map(|probe| probe.rungs) {
            attacher.undo(rung.programs);
        }
        self.report.clear();
    }

    /// What is attached and what is not.
    pub fn report(&self) -> &[ProbeReport] {
        &self.report
    }

    /// The rings, once.
    pub fn take_rings(&mut self) -> Option<Rings> {
        self.rings.take()
    }

    pub(super) fn functions_mut(&mut self) -> (&mut Ebpf, &mut Libraries) {
        (&mut self.object, &mut self.libraries)
    }

    pub(super) fn sampling_mut(&mut self) -> (&mut Ebpf, &mut Sampled) {
        (&mut self.object, &mut self.sampled)
    }

    /// Where user-space probes are or were set; goes on being filled.
    pub fn own_probes(&self) -> OwnProbes {
        self.own_probes.clone()
    }

    pub(super) fn libraries(&self) -> &Libraries {
        &self.libraries
    }

    /// Identity of an open file of this process, and its mode, as the programs see it: on overlayfs
    /// and btrfs `stat` shows other numbers.
    pub fn identify(&self, file: BorrowedFd<'_>) -> Result<(FileKey, u32), LoadError> {
        let answer = self.check(Some(file))?;
        Ok((answer.file, answer.mode))
    }

    /// What the programs read of this process.
    pub(super) fn check(&self, file: Option<BorrowedFd<'_>>) -> Result<SelfCheck, LoadError> {
        match self.object.program("check") {
            Some(Program::RawTracePoint(program)) => selfcheck::run(program, &self.check, file),
            _ => Err(LoadError::Missing { name: "check" }),
        }
    }

    /// Gives every later process of this executable a role; no bits: none.
    pub fn guard_inode(&mut self, file: InodeKey, role: Role) -> Result<(), MapWriteError> {
        let key: InodeBytes = zerocopy::transmute!(file);
        set(&mut self.guarded, "GUARDED", key, (!role.is_none()).then_some(role.0))
    }

    /// Gives a running process a role.
    pub fn set_process_role(&mut self, tgid: u32, role: Role) -> Result<(), MapWriteError> {
        set(&mut self.procs, "PROCS", tgid, (!role.is_none()).then_some(role.0))
    }

    /// Takes a running process's role away: its children get none either.
    pub fn clear_process_role(&mut self, tgid: u32) -> Result<(), MapWriteError> {
        set(&mut self.procs, "PROCS", tgid, None)
    }

    /// The kernel side's view of a process's role.
    pub fn process_role(&self, tgid: u32) -> Role {
        // Absent means none; a failing look-up of an open map does not happen.
        Role(self.procs.get(&tgid, 0).unwrap_or(0))
    }

    /// Lets the next mapping of `file` by a process of `exe` be told again.
    pub fn forget_mapping(&mut self, exe: FileKey, file: FileKey) -> Result<(), MapWriteError> {
        let key: PairBytes = zerocopy::transmute!([exe, file]);
        set(&mut self.known, "KNOWN", key, None)
    }

    /// Lets every mapping be told again.
    pub fn forget_mappings(&mut self) -> Result<(), MapWriteError> {
        let keys: Vec<PairBytes> = self.known.keys().filter_map(Result::ok).collect();
        keys.into_iter().try_for_each(|key| set(&mut self.known, "KNOWN", key, None))
    }

    /// Link CPU time of an executable above which every start is told, ns; `None`: no such limit.
    pub fn set_link_limit(
        &mut self,
        exe: InodeKey,
        limit_ns: Option<u64>,
    ) -> Result<(), MapWriteError> {
        let key: InodeBytes = zerocopy::transmute!(exe);
        set(&mut self.limits, "LINK_LIMITS", key, limit_ns)
    }

    /// The counters, summed over CPUs.
    pub fn counters(&self) -> Result<Counters, MapWriteError> {
        let mut counters = Counters::default();
        for (index, value) in (0..).zip(&mut counters.values) {
            let cpus = self.counters.get(&index, 0).map_err(|source| MapWriteError {
                map: "COUNTERS",
                action: "read",
                source,
            })?;
            *value = cpus.iter().fold(0, |sum, cpu| sum.wrapping_add(*cpu));
        }
        Ok(counters)
    }

    /// Kernel memory of all maps and programs of this process.
    pub fn memory(&self) -> BpfMemory {
        fdinfo::memory()
    }

    /// Size and run statistics of every loaded program, by name.
    pub fn program_stats(&self) -> Vec<ProgramStats> {
        let mut stats: Vec<ProgramStats> = self
            .object
            .programs()
            .filter_map(|(name, program)| {
                let fd = program.fd().ok()?;
                fdinfo::program(name, fd.as_fd())
            })
            .collect();
        stats.sort_by(|a, b| a.name.cmp(&b.name));
        stats
    }
}

fn take<T: TryFrom<Map, Error = MapError>>(
    object: &mut Ebpf,
    name: &'static str,
) -> Result<T, LoadError> {
    let map = object.take_map(name).ok_or(LoadError::Missing { name })?;
    T::try_from(map).map_err(|source| LoadError::Map { name, source })
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
