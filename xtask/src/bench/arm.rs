//! What runs while the workloads do: nothing, halfsecond, or a peer that watches the same three
//! things, namely exec, executable mappings, and the loader's mprotect of each module's RELRO.

mod auditd;
mod bpftrace;
mod halfsecond;

use std::time::Duration;

use anyhow::Result;

pub(super) use auditd::{Auditd, NAME as AUDITD, Silence};
pub(super) use bpftrace::Bpftrace;
pub(super) use halfsecond::Halfsecond;

/// One way for the machine to be while a workload runs.
pub(super) trait Arm {
    fn name(&self) -> &'static str;

    /// Returns once it watches.
    fn start(&mut self) -> Result<()>;

    /// Leaves the machine as `start` found it.
    fn stop(&mut self) -> Result<()>;

    /// The process whose time and memory are its price, while it runs.
    fn pid(&self) -> Option<u32>;

    /// How long each start took until it watched.
    fn starts(&self) -> &[Duration] {
        &[]
    }
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Kind {
    Halfsecond,
    Auditd,
    Bpftrace,
}

/// The bare machine.
pub(super) struct Off(pub(super) &'static str);

impl Arm for Off {
    fn name(&self) -> &'static str {
        self.0
    }

    fn start(&mut self) -> Result<()> {
        Ok(())
    }

    fn stop(&mut self) -> Result<()> {
        Ok(())
    }

    fn pid(&self) -> Option<u32> {
        None
    }
}
