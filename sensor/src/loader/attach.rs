//! Goes up a hook's ladder until a rung holds.

use std::os::fd::AsRawFd as _;
use std::path::Path;

use aya::programs::uprobe::{UProbe, UProbeScope};
use aya::programs::{Program, ProgramError};
use aya::{Btf, Ebpf, Endianness};
use rustix::fs::{MemfdFlags, memfd_create};

use super::error::{reason, uprobe_reason};
use super::probes::{Attachment, Hook, Mechanism, Need, Probe, Rung};
use super::report::{ProbeReport, ProbeState, Refusal};
use crate::kernel::btf::{KernelFunction, excerpt};
use crate::trouble::chain;

/// Present where the kernel has user-space probes for perf.
const UPROBE_PMU: &str = "/sys/bus/event_source/devices/uprobe";

/// Something to sit on.
const NOPS: &[u8] = &[0x90; 16];

/// Which rungs may be taken.
#[derive(Debug, Default)]
pub(super) struct Policy {
    /// Not these.
    pub(super) avoid: Vec<(Hook, Mechanism)>,
    /// Also those that tax every system call.
    pub(super) syscall_tracepoints: bool,
    /// Also those that need the saved user registers: they were found.
    pub(super) has_registers: bool,
}

/// Attaches programs of one object.
pub(super) struct Attacher<'a> {
    ebpf: &'a mut Ebpf,
    /// Kernel functions that exist, of those in the table.
    functions: &'a [KernelFunction],
    policy: &'a Policy,
    /// Of those functions only. Made on first use: only fentry needs it.
    btf: Option<Result<Btf, String>>,
}

impl<'a> Attacher<'a> {
    pub(super) fn new(
        ebpf: &'a mut Ebpf,
        functions: &'a [KernelFunction],
        policy: &'a Policy,
    ) -> Self {
        Self { ebpf, functions, policy, btf: None }
    }

    /// Takes the first rung that works. `before` is what became of the hooks before it.
    pub(super) fn climb(&mut self, probe: &Probe, before: &[ProbeReport]) -> ProbeReport {
        let mut refused = Vec::new();
        for rung in probe.rungs {
            match self.try_rung(probe.hook, rung, before) {
                Ok(()) => {
                    return ProbeReport {
                        hook: probe.hook,
                        mechanism: Some(rung.mechanism),
                        state: ProbeState::Attached,
                        price: rung.price,
                        unseen: "",
                        refused,
                    };
                }
                Err(reason) => refused.push(Refusal { mechanism: rung.mechanism, reason }),
            }
        }
        let reason = refused
            .iter()
            .map(|refusal| format!("{}: {}", refusal.mechanism, refusal.reason))
            .collect::<Vec<_>>()
            .join("; ");
        ProbeReport {
            hook: probe.hook,
            mechanism: None,
            state: ProbeState::Unavailable { reason },
            price: "",
            unseen: probe.unseen,
            refused,
        }
    }

    fn try_rung(&mut self, hook: Hook, rung: &Rung, before: &[ProbeReport]) -> Result<(), String> {
        if self.policy.avoid.contains(&(hook, rung.mechanism)) {
            return Err("switched off".to_owned());
        }
        if rung.on_request && !self.policy.syscall_tracepoints {
            return Err("not asked for".to_owned());
        }
        if rung.needs_registers && !self.policy.has_registers {
            return Err("this kernel's saved user registers were not found".to_owned());
        }
        if let Some(other) = rung.served_by {
            let serves = |report: &ProbeReport| {
                report.hook == other && report.mechanism == Some(rung.mechanism)
            };
            if !before.iter().any(serves) {
                return Err(format!("probe {other} does not use it"));
            }
        }
        for (index, attachment) in rung.programs.iter().enumerate() {
            if let Err(reason) = self.attach(attachment) {
                if !attachment.required {
                    tracing::debug!(program = attachment.program, reason, "left out");
                    continue;
                }
                self.undo(&rung.programs[..=index]);
                return Err(format!("{}: {reason}", attachment.program));
            }
        }
        Ok(())
    }

    /// Unloads what is loaded of these, and with it detaches.
    pub(super) fn undo(&mut self, attachments: &[Attachment]) {
        for attachment in attachments {
            let Some(program) = self.ebpf.program_mut(attachment.program) else { continue };
            if let Err(error) = unload(program)
                && !matches!(error, ProgramError::NotLoaded)
            {
                tracing::warn!(program = attachment.program, %error, "cannot unload");
            }
        }
    }

    fn attach(&mut self, attachment: &Attachment) -> Result<(), String> {
        let needs_function = matches!(
            self.ebpf.program(attachment.program),
            Some(Program::FEntry(_) | Program::KProbe(_))
        );
        let exists = |target| self.functions.iter().any(|function| function.name == target);
        let targets: Vec<&str> = attachment
            .targets
            .iter()
            .copied()
            .filter(|target| !needs_function || exists(*target))
            .collect();
        if targets.is_empty() && !attachment.targets.is_empty() {
            return Err(format!("no kernel function {}", attachment.targets.join(" or ")));
        }
        if matches!(self.ebpf.program(attachment.program), Some(Program::FEntry(_))) {
            self.parse_btf();
        }
        let Some(program) = self.ebpf.program_mut(attachment.program) else {
            return Err("not in the kernel object".to_owned());
        };
        load(program, &targets, self.btf.as_ref())?;
        if attachment.targets.is_empty() {
            return Ok(());
        }
        let mut last = String::new();
        for target in targets {
            match attach_to(program, target) {
                Ok(()) => return Ok(()),
                Err(error) => last = format!("{target}: {}", reason(&error)),
            }
        }
        Err(last)
    }

    fn parse_btf(&mut self) {
        self.btf.get_or_insert_with(|| {
            Btf::parse(&excerpt(self.functions), Endianness::default())
                .map_err(|error| chain(&error))
        });
    }
}

/// The state of a hook that the sensor cannot start without is an error.
pub(super) fn unmet(probe: &Probe, report: &ProbeReport) -> Option<String> {
    match &report.state {
        ProbeState::Unavailable { reason } if probe.need == Need::Required => Some(reason.clone()),
        ProbeState::Unavailable { .. } | ProbeState::Attached => None,
    }
}

fn load(
    program: &mut Program,
    targets: &[&str],
    btf: Option<&Result<Btf, String>>,
) -> Result<(), String> {
    let loaded = match program {
        Program::RawTracePoint(program) => program.load(),
        Program::TracePoint(program) => program.load(),
        Program::PerfEvent(program) => program.load(),
        Program::KProbe(program) => program.load(),
        Program::UProbe(_) if !Path::new(UPROBE_PMU).exists() => {
            return Err("the kernel has no user-space probes (CONFIG_UPROBE_EVENTS)".to_owned());
        }
        Program::UProbe(program) => {
            program.load().map_err(|error| reason(&error))?;
            return try_out(program);
        }
        Program::FEntry(program) => {
            let btf = match btf {
                Some(Ok(btf)) => btf,
                Some(Err(reason)) => return Err(reason.clone()),
                None => return Err("no type information".to_owned()),
            };
            let target = targets.first().ok_or("no kernel function")?;
            program.load(target, btf)
        }
        _ => return Err("a kind of program the loader does not know".to_owned()),
    };
    loaded.map_err(|error| reason(&error))
}

/// Attaches to a file that nobody runs and detaches again: whether libraries can be probed is known
/// before the first one is seen.
fn try_out(program: &mut UProbe) -> Result<(), String> {
    let file = memfd_create("halfsecond-trial", MemfdFlags::CLOEXEC)
        .map_err(|error| format!("memfd_create: {error}"))?;
    rustix::io::write(&file, NOPS).map_err(|error| format!("write: {error}"))?;
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let link = program
        .attach(0, path, UProbeScope::AllProcesses)
        .map_err(|error| uprobe_reason(&error))?;
    program.detach(link).map_err(|error| reason(&error))
}

fn attach_to(program: &mut Program, target: &str) -> Result<(), ProgramError> {
    match program {
        Program::RawTracePoint(program) => program.attach(target).map(|_| ()),
        Program::TracePoint(program) => {
            let (category, name) = target.split_once('/').unwrap_or(("syscalls", target));
            program.attach(category, name).map(|_| ())
        }
        Program::KProbe(program) => program.attach(target, 0).map(|_| ()),
        Program::FEntry(program) => program.attach().map(|_| ()),
        _ => Err(ProgramError::UnexpectedProgramType),
    }
}

fn unload(program: &mut Program) -> Result<(), ProgramError> {
    match program {
        Program::RawTracePoint(program) => program.unload(),
        Program::TracePoint(program) => program.unload(),
        Program::KProbe(program) => program.unload(),
        Program::FEntry(program) => program.unload(),
        Program::UProbe(program) => program.unload(),
        Program::PerfEvent(program) => program.unload(),
        _ => Ok(()),
    }
}
