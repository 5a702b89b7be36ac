//! The loaded kernel side in the agent's hands: attach, tell it what matters, ask how it does.

use std::collections::BTreeSet;
use std::fmt;
use std::os::fd::{AsFd as _, BorrowedFd};

use aya::Ebpf;
use aya::maps::{Array, Map, MapData, MapError, ProgramArray, RingBuf};
use aya::programs::Program;
use sensor_common::Role;
use sensor_common::record::{FileKey, InodeKey, SelfCheck};

use super::attach::{Attacher, Policy, unmet};
use super::fdinfo::ProgramHandles;
use super::functions::Libraries;
use super::probes::{ENVIRONMENT, PROBES};
use super::report::{BpfMemory, ProbeReport, ProgramStats};
use super::sampling::Sampled;
use super::selfcheck::{self, Answer};
use super::tables::{Counters, MapWriteError, Tables};
use super::{LoadError, LoaderConfig, fdinfo};
use crate::kernel::btf::KernelFunction;
use crate::source::Rings;
use crate::trouble::chain;
use crate::verify::OwnProbes;

/// The loaded kernel side. Dropped, everything is detached.
pub struct Sensor {
    object: Ebpf,
    functions: Vec<KernelFunction>,
    policy: Policy,
    report: Vec<ProbeReport>,
    rings: Option<Rings>,
    tables: Tables,
    check: Array<MapData, Answer>,
    /// Held open: the kernel empties it with its last holder.
    next: ProgramArray<MapData>,
    libraries: Libraries,
    /// Outlives the probes: the pages they stood on stay private.
    own_probes: OwnProbes,
    sampled: Sampled,
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
            tables: Tables::take(&mut object)?,
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
        self.report.clear();
        for probe in PROBES {
            let report = attacher.climb(probe, &self.report);
            self.report.push(report);
        }
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

    /// Ids of the programs that are loaded: attached ones, and those that are only run to ask the
    /// kernel something.
    pub fn program_ids(&self) -> BTreeSet<u32> {
        let infos = self.object.programs().filter_map(|(_, program)| program.info().ok());
        infos.map(|info| info.id()).collect()
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

    pub(super) fn object_mut(&mut self) -> &mut Ebpf {
        &mut self.object
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

    /// The maps, to be told and asked while the programs are being attached.
    pub fn tables(&self) -> &Tables {
        &self.tables
    }

    /// See [`Tables::guard_inode`].
    pub fn guard_inode(&self, file: InodeKey, role: Role) -> Result<(), MapWriteError> {
        self.tables.guard_inode(file, role)
    }

    /// See [`Tables::set_process_role`].
    pub fn set_process_role(&self, tgid: u32, role: Role) -> Result<(), MapWriteError> {
        self.tables.set_process_role(tgid, role)
    }

    /// See [`Tables::clear_process_role`].
    pub fn clear_process_role(&self, tgid: u32) -> Result<(), MapWriteError> {
        self.tables.clear_process_role(tgid)
    }

    /// See [`Tables::process_role`].
    pub fn process_role(&self, tgid: u32) -> Role {
        self.tables.process_role(tgid)
    }

    /// See [`Tables::forget_mapping`].
    pub fn forget_mapping(&self, exe: FileKey, file: FileKey) -> Result<(), MapWriteError> {
        self.tables.forget_mapping(exe, file)
    }

    /// See [`Tables::forget_mappings`].
    pub fn forget_mappings(&self) -> Result<(), MapWriteError> {
        self.tables.forget_mappings()
    }

    /// See [`Tables::set_link_limit`].
    pub fn set_link_limit(
        &self,
        exe: InodeKey,
        limit_ns: Option<u64>,
    ) -> Result<(), MapWriteError> {
        self.tables.set_link_limit(exe, limit_ns)
    }

    /// See [`Tables::counters`].
    pub fn counters(&self) -> Result<Counters, MapWriteError> {
        self.tables.counters()
    }

    /// Kernel memory of all maps and programs of this process.
    pub fn memory(&self) -> BpfMemory {
        fdinfo::memory()
    }

    /// Size and run statistics of every loaded program, by name.
    pub fn program_stats(&self) -> Vec<ProgramStats> {
        self.program_handles().stats()
    }

    /// The same for as long as they are asked, whatever becomes of this.
    pub fn program_handles(&self) -> ProgramHandles {
        let handle = |(name, program): (&str, &Program)| {
            Some((name.to_owned(), program.fd().ok()?.as_fd().try_clone_to_owned().ok()?))
        };
        ProgramHandles::new(self.object.programs().filter_map(handle))
    }
}

pub(super) fn take<T: TryFrom<Map, Error = MapError>>(
    object: &mut Ebpf,
    name: &'static str,
) -> Result<T, LoadError> {
    let map = object.take_map(name).ok_or(LoadError::Missing { name })?;
    T::try_from(map).map_err(|source| LoadError::Map { name, source })
}
