//! The `halfsecond` binary: arguments, log, configuration, command, exit code.

use std::io::{self, Write};
use std::process::{ExitCode, Termination};

use clap::Parser;

use sensor::app;
use sensor::cli::term::{Style, Tone};
use sensor::cli::{
    Cli, Command, Exit, Failure, baseline, doctor, explain, incidents, libs, logins, record,
    replay, scan, upgrades,
};
use sensor::config::Config;
use sensor::inventory::Databases;
use sensor::{heap, log, probe};

fn main() -> ExitCode {
    // Help and version end here with 0, wrong usage with 2.
    let cli = Cli::parse();
    let exit = dispatch(&cli).unwrap_or_else(|failure| {
        let error = Style::stderr().paint(Tone::Bad, "error");
        for line in failure.told().lines() {
            // Nobody is left to be told where standard error cannot be written.
            let _ = writeln!(io::stderr(), "{error}: {line}");
        }
        failure.exit()
    });
    exit.report()
}

fn dispatch(cli: &Cli) -> Result<Exit, Failure> {
    log::start(cli.global.level(), cli.command.default_level())?;
    if !heap::give_back() {
        tracing::warn!("the allocator refused its limits: memory may be held longer than needed");
    }
    let config = Config::load(cli.global.config.as_deref());
    // Not locked: `run` hands standard output to the outputs' threads.
    let mut out = io::stdout();
    match &cli.command {
        Command::Run(args) => record::run_recorded(config?, args, app::stations),
        Command::Scan(args) => {
            // It needs no configuration, and still a wrong one is said.
            config?;
            scan::scan(&cli.global, args, &mut out)
        }
        Command::Libs(args) => {
            config?;
            libs::libs(&cli.global, args, &mut Databases::new(), &mut out)
        }
        Command::Doctor => doctor::doctor(&cli.global, &config, probe::try_out, &mut out),
        Command::Incidents(args) => {
            incidents::incidents(&cli.global, &config?, args, &app::ACCESS, &mut out)
        }
        Command::Explain(args) => {
            explain::explain(&cli.global, &config?, args, app::read_store, &mut out)
        }
        Command::Logins(args) => logins::logins(&cli.global, &config?, args, &mut out),
        Command::Upgrades(args) => upgrades::upgrades(&cli.global, &config?, args, &mut out),
        Command::Baseline(args) => {
            baseline::baseline(&cli.global, &config?, args, app::read_store, &mut out)
        }
        Command::Record(args) => {
            record::record(&cli.global, config?, args, app::stations, &mut out)
        }
        // By the configuration that the recording was made with, or that is named.
        Command::Replay(args) => replay::replayed(&cli.global, args, &mut out),
    }
}
