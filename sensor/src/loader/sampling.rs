//! The CPU clock of single processes, for a moment: what a start is busy with when it takes longer
//! than usual.

use std::collections::BTreeMap;

use aya::programs::perf_event::{
    PerfEventConfig, PerfEventLinkId, PerfEventScope, SamplePolicy, SoftwareEvent,
};
use aya::programs::{PerfEvent, Program, ProgramError};

use super::error::reason;
use super::handle::Sensor;

const PROGRAM: &str = "sample";
/// CPU time between two samples, ns.
const PERIOD_NS: u64 = 1_000_000;
/// Processes sampled at once; more start slowly together only on a machine in trouble.
const PROCESSES_MAX: usize = 16;

/// Links by process.
#[derive(Debug, Default)]
pub(super) struct Sampled(BTreeMap<u32, PerfEventLinkId>);

impl Sensor {
    /// Samples a process until told otherwise.
    ///
    /// Errors: too many are being sampled, or the kernel refuses.
    pub fn sample_process(&mut self, tgid: u32) -> Result<(), String> {
        let (object, sampled) = self.sampling_mut();
        if sampled.0.contains_key(&tgid) {
            return Ok(());
        }
        if sampled.0.len() >= PROCESSES_MAX {
            return Err(format!("{PROCESSES_MAX} processes are being sampled already"));
        }
        let program = program(object).map_err(|error| reason(&error))?;
        let config = PerfEventConfig::Software(SoftwareEvent::CpuClock);
        let scope = PerfEventScope::OneProcess { pid: tgid, cpu: None };
        let link = program
            .attach(config, scope, SamplePolicy::Period(PERIOD_NS), false)
            .map_err(|error| reason(&error))?;
        sampled.0.insert(tgid, link);
        Ok(())
    }

    /// Ends it; absent already is as good.
    pub fn stop_sampling(&mut self, tgid: u32) -> Result<(), String> {
        let (object, sampled) = self.sampling_mut();
        let Some(link) = sampled.0.remove(&tgid) else { return Ok(()) };
        program(object).and_then(|program| program.detach(link)).map_err(|error| reason(&error))
    }
}

fn program(object: &mut aya::Ebpf) -> Result<&mut PerfEvent, ProgramError> {
    match object.program_mut(PROGRAM) {
        Some(Program::PerfEvent(program)) => Ok(program),
        _ => Err(ProgramError::UnexpectedProgramType),
    }
}
