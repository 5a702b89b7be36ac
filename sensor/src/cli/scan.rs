//! `halfsecond scan`: one check of the linkage slots, of the code and of the loader's audit state of
//! every process, without daemon and eBPF.

mod code;
mod code_swap;
mod found;
mod mutate;
mod self_test;
mod show;
mod trial;
mod who;

use std::io::{self, Write};
use std::process;

use clap::Args;
use tracing::warn;

use super::progress::Progress;
use super::term::Style;
use super::{Exit, Failure, Global, ended};
use crate::verify::{self, Limits, Verifier, VerifyError};
use found::{Findings, Tally};

/// Arguments of the command.
#[derive(Args, Clone, Debug)]
pub struct ScanArgs {
    /// Check this process only; may be given more than once
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub pid: Vec<u32>,
    /// Change slots, code and lists of own children, and see that each change is found
    #[arg(long, conflicts_with = "pid")]
    pub self_test: bool,
    /// Write what is read, as the child of --self-test
    #[arg(long, hide = true, conflicts_with_all = ["pid", "self_test"])]
    pub echo: bool,
}

/// Checks, and writes what was found to `out`.
pub fn scan(global: &Global, args: &ScanArgs, out: &mut impl Write) -> Result<Exit, Failure> {
    if args.self_test {
        return self_test::run(global, out);
    }
    if args.echo {
        return ended(io::copy(&mut io::stdin(), &mut io::stdout()).map(|_| ()), Exit::Success);
    }
    let one_by_one = !args.pid.is_empty();
    let pids = if one_by_one { args.pid.clone() } else { all_processes()? };
    let mut progress = Progress::new("checking processes", one_by_one);
    let mut left = pids.len();
    let mut verifier = Verifier::new(Limits::default());
    let mut tally = Tally::default();
    let mut found = Vec::new();
    let mut refused = None;
    let mut written = Ok(());
    for pid in pids {
        let outcome = verifier.check(pid);
        left = left.saturating_sub(1);
        progress.left(left);
        let mut findings = tally.add(pid, &outcome);
        if let Err(error) = outcome {
            // Its code at least can be compared without its help.
            if error.is_refusal() {
                let report = match error {
                    VerifyError::TooSlow { .. } => verifier.insist_on_code(pid),
                    _ => verifier.insist(pid),
                };
                findings.extend(report.iter().flat_map(|report| tally.add_anyway(report)));
            }
            if one_by_one {
                refused.get_or_insert(error);
            }
        }
        for findings in &findings {
            if global.json && written.is_ok() {
                written = line(out, findings);
            }
        }
        found.extend(findings);
    }
    progress.clear();
    let exit = tally.exit();
    if let Some(error) = refused {
        if !error.is_refusal() {
            return Err(not_checked(error));
        }
        let exit = ended(finish(global, out, &found, &tally, written), exit)?;
        return if exit == Exit::Findings { Ok(exit) } else { Err(not_checked(error)) };
    }
    if exit == Exit::Unsupported {
        let text = format!("no process could be read: {}; run as root", tally.why_denied());
        return ended(finish(global, out, &found, &tally, written), exit)
            .and(Err(Failure::Unsupported(text)));
    }
    if tally.denied > 0 {
        let reason = tally.why_denied();
        warn!(processes = tally.denied, reason, "not everything could be read");
    }
    ended(finish(global, out, &found, &tally, written), exit)
}

fn finish(
    global: &Global,
    out: &mut impl Write,
    found: &[Findings],
    tally: &Tally,
    written: io::Result<()>,
) -> io::Result<()> {
    written?;
    if global.json {
        return line(out, &tally.summary());
    }
    show::text(out, found, tally, Style::stdout())
}

fn line(out: &mut impl Write, value: &impl serde::Serialize) -> io::Result<()> {
    writeln!(out, "{}", serde_json::to_string(value)?)
}

/// Every process but this one.
fn all_processes() -> Result<Vec<u32>, Failure> {
    let mut pids = verify::list_processes().map_err(|source| Failure::Internal {
        what: "cannot list /proc".to_owned(),
        source: Box::new(source),
    })?;
    pids.retain(|pid| *pid != process::id());
    Ok(pids)
}

/// A process that was asked for by its number and could not be checked.
fn not_checked(error: VerifyError) -> Failure {
    match error {
        VerifyError::Gone { pid } => Failure::Usage(format!("there is no process {pid}")),
        error @ VerifyError::NoMemory { .. } => {
            Failure::Usage(format!("{error}: a kernel thread or a zombie has no slots"))
        }
        error @ VerifyError::Permission { .. } => {
            Failure::Unsupported(format!("{error}; run as root"))
        }
        error => Failure::Internal { what: error.to_string(), source: Box::new(error) },
    }
}
