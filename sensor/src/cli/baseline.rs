//! `halfsecond baseline …`: what is normal for each program, as the sensor has learned it, and what a
//! person does about it.

mod approve;
mod change;
mod diff;
mod exchange;
mod find;
mod package;
mod show;

use std::io::Write;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::incidents::ReadStore;
use super::{Exit, Failure, Global};
use crate::config::Config;

pub use approve::ApproveArgs;
pub use exchange::ImportArgs;

const HELP: &str = "\
Examples:
  halfsecond baseline show                            every program that has one, with its state
  halfsecond baseline show sshd                       all that is usual for one
  halfsecond baseline approve sshd --library /usr/lib/x.so@BUILD-ID --who alice --why 'ticket 42'
  halfsecond baseline key fleet.key                   a key to sign with
  halfsecond baseline export --key fleet.key golden.jsonl
  halfsecond baseline diff golden.jsonl               what another host has otherwise
  halfsecond baseline import golden.jsonl --trust ed25519:3d40…

SUBJECT is a program's path, its whole name as `show` writes it, or a part of that which only one has.

States: learning (its detectors are silent), settled (they speak), drifting (they speak, and times or
libraries have begun to move: evidence of a shift is worth a hundredth of what an alarm takes, or
libraries came late).

approve, forget and import need root. While a sensor runs it makes the change and the command waits
until that is on the disk; without one the command writes itself. It says when the change took effect.
What was forgotten is learned from the next start on; link times of programs that are not guarded only
from the sensor's next start on.";

const APPROVE_HELP: &str = "\
Examples:
  halfsecond baseline approve cat --library /usr/lib/x.so --who alice --why 'ticket 42'
  halfsecond baseline approve sshd --library /usr/lib/x.so@BUILD-ID --who alice --why 'ticket 42'
  halfsecond baseline approve sshd --caller RSA_public_decrypt=/usr/lib/x.so@BUILD-ID --who … --why …
  halfsecond baseline approve sshd --times link --who alice --why 'debug build on purpose'
  halfsecond baseline approve --incident 7f3a9c21 --who alice --why 'new monitoring agent'

Each option makes one exact object usual: this build of this file, this path, this variable. Callers of
guarded functions, programs that run below sshd before the login, and libraries of guarded programs have
to be named in full; an incident's id approves none of them but its libraries and times, and nothing at
all if redirected slots, changed code or the like belong to it. Those cannot be approved by any name: no
baseline holds them. Shells and interpreters are never approved below sshd.

Who, why and when are kept in the baseline and shown by `baseline show`.";

const IMPORT_HELP: &str = "\
Examples:
  halfsecond baseline import golden.jsonl --trust ed25519:3d40…
  halfsecond baseline import golden.jsonl --trust fleet.key.pub --merge

A file that is unsigned, changed since, or signed with a key that no --trust names is refused; --force
takes it all the same, which the baselines remember.

Programs that are not known here, or still learned, gain what the file has. Those that have settled here
are left as they are, unless --merge adds to them. Nothing that was learned here is lost. Files without a
build-id and the other machine's times stay behind; --times takes these, for hosts of the same kind.";

/// Arguments of the command.
#[derive(Args, Clone, Debug)]
#[command(after_help = HELP)]
pub struct BaselineArgs {
    /// What to do
    #[command(subcommand)]
    pub what: What,
}

/// What to do with baselines.
#[derive(Clone, Debug, Subcommand)]
pub enum What {
    /// List the programs that have a baseline, or show one
    #[command(after_help = HELP)]
    Show {
        /// Show this one in full
        subject: Option<String>,
    },
    /// Compare with what another host has exported; exits with 1 if something differs
    #[command(after_help = HELP)]
    Diff {
        /// The export
        file: PathBuf,
        /// Only these
        subject: Vec<String>,
    },
    /// Make something part of a baseline, with who and why
    #[command(after_help = APPROVE_HELP)]
    Approve(ApproveArgs),
    /// Forget a baseline: the program is learned anew
    #[command(after_help = HELP)]
    Forget {
        /// Which
        subject: String,
    },
    /// Write the baselines to a file for other hosts
    #[command(after_help = HELP)]
    Export {
        /// The file, replaced if it is there
        file: PathBuf,
        /// Only these
        subject: Vec<String>,
        /// Sign with this private key
        #[arg(long, value_name = "FILE")]
        key: Option<PathBuf>,
    },
    /// Take over what another host has exported
    #[command(after_help = IMPORT_HELP)]
    Import(ImportArgs),
    /// Make a key for signing: FILE with mode 0600, and FILE.pub for those who import
    #[command(after_help = HELP)]
    Key {
        /// The private key's file, which must not be there yet
        file: PathBuf,
    },
}

/// Does it, and tells it on `out`.
pub fn baseline(
    global: &Global,
    config: &Config,
    args: &BaselineArgs,
    read_store: ReadStore,
    out: &mut impl Write,
) -> Result<Exit, Failure> {
    match &args.what {
        What::Show { subject: None } => show::list(global, config, out),
        What::Show { subject: Some(subject) } => show::one(global, config, subject, out),
        What::Diff { file, subject } => diff::diff(global, config, file, subject, out),
        What::Approve(args) => approve::approve(global, config, args, read_store, out),
        What::Forget { subject } => change::forget(global, config, subject, out),
        What::Export { file, subject, key } => {
            exchange::export(global, config, file, subject, key.as_deref(), out)
        }
        What::Import(args) => exchange::import(global, config, args, out),
        What::Key { file } => exchange::key(global, file, out),
    }
}
