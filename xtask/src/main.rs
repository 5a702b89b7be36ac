//! Every developer verb of halfsecond, as `cargo xtask VERB`.

#![expect(clippy::print_stdout, reason = "a developer's tool reports on stdout")]

mod arl;
mod background;
mod bench;
mod build;
mod corpus;
mod debian;
mod fuzz;
mod lint;
mod logins;
mod random;
mod repo;
mod sensor;
mod setup;
mod sh;
mod test;
mod vm;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// halfsecond's developer verbs.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Install what building, running and testing need and this machine lacks.
    Setup(SetupArgs),
    /// Build the agent with its kernel object.
    Build(build::Args),
    /// Set up what is missing, build, and start the sensor as root.
    Run(build::RunArgs),
    /// Run the tests: all tiers, or those named.
    Test(test::Args),
    /// Measure what the sensor costs, interleaved with its peers.
    Bench(bench::Args),
    /// The child of one of bench's workloads.
    #[command(name = bench::CALLER, hide = true)]
    BenchGetppid,
    /// Run a corpus of ordinary software under the sensor, which must find nothing in it.
    Corpus(corpus::Args),
    /// Log in, fail and break off at servers of every OpenSSH, and check what the sensor tells of each.
    Logins(logins::Args),
    /// Feed the readers of hostile input what they have never seen, under a sanitizer.
    Fuzz(fuzz::Args),
    /// Replay millions of logins through the detector of shifts: its false alarms and its delays.
    Arl(arl::Args),
    /// Formatting, lints and house rules.
    Lint,
    /// Kernels and guests of the virtual machine tests.
    #[command(subcommand)]
    Vm(vm::Verb),
}

#[derive(clap::Args)]
struct SetupArgs {
    /// Only what building and running need, not the test tools.
    #[arg(long)]
    run_only: bool,
}

fn main() -> ExitCode {
    match dispatch(Cli::parse().verb) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(verb: Verb) -> Result<ExitCode> {
    match verb {
        Verb::Setup(args) => {
            let scope = if args.run_only { setup::Scope::Run } else { setup::Scope::Test };
            setup::ensure(scope, true)?;
        }
        Verb::Build(args) => build::build(&args)?,
        Verb::Run(args) => return build::run(&args),
        Verb::Test(args) => return test::test(&args),
        Verb::Bench(args) => bench::bench(&args)?,
        Verb::BenchGetppid => bench::call()?,
        Verb::Corpus(args) => corpus::corpus(&args)?,
        Verb::Logins(args) => return logins::logins(&args),
        Verb::Fuzz(args) => fuzz::fuzz(&args)?,
        Verb::Arl(args) => return arl::arl(&args),
        Verb::Lint => lint::lint()?,
        Verb::Vm(verb) => vm::dispatch(verb)?,
    }
    Ok(ExitCode::SUCCESS)
}
