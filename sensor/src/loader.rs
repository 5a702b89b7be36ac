//! Puts the kernel programs to work: globals, load, self-check, attach, and the maps through which
//! the agent tells them what matters.

mod attach;
mod error;
mod fdinfo;
mod functions;
mod handle;
mod perf;
pub mod probes;
mod report;
mod sampling;
mod selfcheck;
mod site;
mod tables;

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use aya::programs::raw_trace_point::RawTracePoint;
use aya::programs::{Program, ProgramType};
use aya::sys::{BpfHelper, is_helper_supported};
use aya::{Ebpf, EbpfError, EbpfLoader, VerifierLogLevel};
use sensor_common::ProbeConfig;
use zerocopy::IntoBytes as _;

pub use self::error::LoadError;
pub use self::fdinfo::ProgramHandles;
pub use self::functions::{FunctionError, FunctionSite, ProbedFunction, ProbesNow, Released};
pub use self::handle::Sensor;
pub use self::perf::{PerfEvents, PerfPlace, PerfSite};
use self::probes::{Hook, Mechanism};
pub use self::report::{BpfMemory, ProbeReport, ProbeState, ProgramStats, Refusal};
pub use self::site::HitPrice;
pub use self::tables::{Counters, MapWriteError, Tables};
use crate::kernel::BTF_PATH;
use crate::kernel::offsets::{self, Resolved};

/// The kernel side, built by build.rs.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/halfsecond-ebpf"));

/// Kernel stack sizes to try where the kernel has no helper for the saved registers, bytes:
/// ordinary, with KASAN, with pages of 64 KiB.
const STACK_SIZES: [u32; 3] = [16 << 10, 32 << 10, 64 << 10];

/// What the kernel side is told.
#[derive(Clone, Debug)]
pub struct LoaderConfig {
    /// The kernel's type information.
    pub btf: PathBuf,
    /// Bulk ring, bytes; rounded up to a power of two of pages.
    pub bulk_ring_bytes: u32,
    /// Priority ring, bytes; likewise.
    pub priority_ring_bytes: u32,
    /// Fill above which a bulk record wakes the agent, bytes.
    pub bulk_wakeup_bytes: u32,
    /// Between two link summaries of one program within its limit.
    pub link_interval: Duration,
    /// Leave out the events of this process.
    pub leave_self_out: bool,
    /// Take a mechanism that taxes every system call where nothing else works.
    pub syscall_tracepoints: bool,
    /// Mechanisms not to use for a hook.
    pub avoid: Vec<(Hook, Mechanism)>,
}

impl Default for LoaderConfig {
    fn default() -> Self {
        Self {
            btf: PathBuf::from(BTF_PATH),
            bulk_ring_bytes: 2 << 20,
            priority_ring_bytes: 4 << 20,
            bulk_wakeup_bytes: 512 << 10,
            link_interval: Duration::from_mins(1),
            leave_self_out: true,
            syscall_tracepoints: false,
            avoid: Vec::new(),
        }
    }
}

/// Loads the kernel side.
#[derive(Debug)]
pub struct Loader;

impl Loader {
    /// Resolves the offsets, loads the object and tries the offsets out on this process. Nothing
    /// is attached yet: name the guarded programs first, then call [`Sensor::attach`].
    pub fn load(config: &LoaderConfig) -> Result<Sensor, LoadError> {
        let resolved = offsets::resolve_file(&config.btf, &probes::kernel_functions())?;
        for (member, reason) in &resolved.missing {
            tracing::debug!(member, %reason, "optional kernel member is absent");
        }
        lift_memory_limit();
        let mut sensor = None;
        for probe_config in probe_configs(config, &resolved)? {
            let mut object = load_object(config, &resolved, &probe_config)?;
            load_check(&mut object)?;
            let mut loaded = Sensor::new(object, config, resolved.functions.clone())?;
            let check = loaded.check(None)?;
            selfcheck::compare(&check)?;
            let has_registers = selfcheck::has_registers(&check);
            loaded.set_has_registers(has_registers);
            sensor = Some(loaded);
            if has_registers {
                break;
            }
            tracing::debug!(?probe_config, syscall = check.syscall, "no saved registers there");
        }
        sensor.ok_or(LoadError::Missing { name: "configuration to try" })
    }
}

/// The settings to try in order: more than one only where the registers must be looked for.
fn probe_configs(
    config: &LoaderConfig,
    resolved: &Resolved,
) -> Result<Vec<ProbeConfig>, LoadError> {
    let base = ProbeConfig {
        agent_tgid: if config.leave_self_out { std::process::id() } else { 0 },
        has_task_pt_regs: u32::from(has_helper(BpfHelper::BPF_FUNC_task_pt_regs)?),
        bulk_wakeup_bytes: config.bulk_wakeup_bytes,
        link_interval_ms: u32::try_from(config.link_interval.as_millis()).unwrap_or(u32::MAX),
        pt_regs_offset: 0,
        lock_write_arg: resolved.lock_write_arg.unwrap_or(0),
    };
    if base.has_task_pt_regs != 0 {
        return Ok(vec![base]);
    }
    let places = resolved.pt_regs_size.into_iter().flat_map(|registers| {
        STACK_SIZES.into_iter().map(move |stack| stack.saturating_sub(registers))
    });
    let mut all: Vec<ProbeConfig> =
        places.map(|pt_regs_offset| ProbeConfig { pt_regs_offset, ..base }).collect();
    all.push(base);
    Ok(all)
}

fn has_helper(helper: BpfHelper) -> Result<bool, LoadError> {
    is_helper_supported(ProgramType::RawTracePoint, helper)
        .map_err(|error| refused(EbpfError::ProgramError(error)))
}

fn load_object(
    config: &LoaderConfig,
    resolved: &Resolved,
    probe_config: &ProbeConfig,
) -> Result<Ebpf, LoadError> {
    EbpfLoader::new()
        // The object has nothing to relocate against the kernel's types.
        .btf(None)
        .verifier_log_level(VerifierLogLevel::DEBUG)
        .override_global("OFFSETS", resolved.offsets.as_bytes(), true)
        .override_global("CONFIG", probe_config.as_bytes(), true)
        .map_max_entries("BULK", config.bulk_ring_bytes)
        .map_max_entries("PRIORITY", config.priority_ring_bytes)
        .load(OBJECT)
        .map_err(refused)
}

fn load_check(object: &mut Ebpf) -> Result<(), LoadError> {
    check_program(object)?.load().map_err(|error| refused(EbpfError::ProgramError(error)))
}

fn check_program(object: &mut Ebpf) -> Result<&mut RawTracePoint, LoadError> {
    match object.program_mut("check") {
        Some(Program::RawTracePoint(program)) => Ok(program),
        _ => Err(LoadError::Missing { name: "check" }),
    }
}

/// Maps count against `RLIMIT_MEMLOCK` before 5.11.
fn lift_memory_limit() {
    use rustix::process::{Resource, Rlimit, setrlimit};
    let none = Rlimit { current: None, maximum: None };
    if let Err(error) = setrlimit(Resource::Memlock, none) {
        tracing::debug!(%error, "cannot lift the limit of locked memory");
    }
}

/// Tells a lack of privilege from everything else.
fn refused(error: EbpfError) -> LoadError {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(each) = cause {
        if let Some(found) = each.downcast_ref::<io::Error>()
            && found.kind() == io::ErrorKind::PermissionDenied
        {
            let code = found.raw_os_error().unwrap_or(1);
            return LoadError::Privilege(io::Error::from_raw_os_error(code));
        }
        cause = each.source();
    }
    LoadError::Object(Box::new(error))
}
