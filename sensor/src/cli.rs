//! The command line: its grammar, exit codes and the failures that lead to them.

pub mod baseline;
pub mod doctor;
pub mod explain;
pub mod incidents;
pub mod libs;
pub mod logins;
mod progress;
pub mod record;
pub mod replay;
pub mod run;
mod save;
pub mod scan;
pub mod term;
pub mod upgrades;

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Termination};

use clap::{Args, Parser, Subcommand, ValueEnum};
use tracing::Level;

use crate::config::{DEFAULT_PATH, LoadError};
use crate::http::BindError;
use crate::log::LogError;
use crate::sink::StartError;

const EXIT_CODES: &str = "\
Exit codes:
  0  success, nothing found
  1  findings
  2  wrong usage or configuration
  3  missing privilege or kernel feature
  4  internal failure

Data goes to standard output, logs go to standard error.
The level of the log is taken from --log-level, -v, HALFSECOND_LOG or RUST_LOG, in this order.";

const RUN_HELP: &str = "\
Examples:
  halfsecond run                                  with /etc/halfsecond/halfsecond.toml
  halfsecond run --config ./halfsecond.toml -v    in the foreground, with a detailed log
  halfsecond run | jq -c '{severity, title}'      incidents as they come

Incidents are written to standard output as JSON, one per line, unless `output.stdout` is false.
Ctrl-C or SIGTERM ends the sensor after it has written what it has.

--record writes what the sensor sees to a file as well, for `halfsecond replay`; see
`halfsecond record --help`. Where that file cannot be written any further, the recording ends and
the sensor goes on; where it exists, FILE.1 is written, and so on.";

const SCAN_HELP: &str = "\
Examples:
  sudo halfsecond scan                    every process but this one
  sudo halfsecond scan --pid 4711         one process
  sudo halfsecond scan --json | jq -r 'select(.kind == \"process\") | .exe'
  sudo halfsecond scan --self-test        whether changes are found on this host

Compares every import slot (GOT, PLT, IFUNC) of every module with what the dynamic linker should
have written there. Nothing is attached to the processes or executed in them.
--self-test starts two children of its own that wait for input, changes slots of every kind, code
and the loader's list in them, one at a time, and ends them; exits with 1 if a change was missed.
Exits with 1 if a slot leads elsewhere, with 3 if nothing could be read for lack of privilege.";

const LIBS_HELP: &str = "\
Examples:
  sudo halfsecond libs                            every program and library that is in use
  sudo halfsecond libs liblzma                    who has it mapped
  sudo halfsecond libs liblzma --version 5.6.1 && echo not in use
  sudo halfsecond libs 'libssl*' --json | jq -r 'select(.deleted) | .pid' | sort -u
  sudo halfsecond libs --sbom host.cdx.json

NAME is the file's name, its soname, the name before .so or the package's name, in any case; with
`*` and `?` a pattern; with a `/` the path. A file that was deleted or replaced after it was mapped
is listed as well. Its package is named, but not with the version, which is that of the new file.

Needs no agent and attaches nothing. Files on network and FUSE file systems are listed, not opened.
SINCE is when the process started; the kernel does not tell when a file was mapped. Libraries that
are linked into a program statically are part of its file and not seen.

Exits with 1 if something that was asked for is in use, with 0 if not, or if nothing was asked for;
with 3 if no process could be read for lack of privilege.";

const INCIDENTS_HELP: &str = "\
Examples:
  halfsecond incidents                    all of them, newest first
  halfsecond incidents 7f3a9c21           one of them, with its story and evidence
  halfsecond incidents --json | jq -r 'select(.severity == \"critical\") | .title'
  sudo halfsecond incidents ack 7f3a9c21 --why \"ticket 4711\"
  sudo halfsecond incidents suppress 7f3a9c21 --for 30d --who alice --why \"our own tracer\"
  halfsecond incidents suppressions       what is suppressed, and what that has matched

An incident is open until it is acknowledged, suppressed or closed. Nobody's closes by itself when
nothing joins it for `detect.incident_window`; an acknowledged one stays, and is open again if it
becomes worse. `suppress` is about the same findings of the same files in the same program: another
build of either is told. What is suppressed is kept, and counts for nothing. Decisions are written
with who, why and when, by the running sensor (which a command waits for) or, where none runs, at once.

Asks the running sensor; where none runs, reads what it has stored.
Exits with 1 if there are incidents, with 2 if no incident has the ID, or a decision is refused; with 4
if a sensor runs and has not taken a decision up in time.";

const EXPLAIN_HELP: &str = "\
Examples:
  halfsecond explain 7f3a9c21
  halfsecond explain 7f3a9c21 --svg before-and-after.svg

Tells what each finding was judged by, and the arithmetic of severity and score, so that it can be done
again by hand. Where times are part of it, draws the CPU times of the logins before and after, like
`halfsecond logins --plot`.
Exits with 1, with 2 if no incident has the ID.";

const LOGINS_HELP: &str = "\
Examples:
  halfsecond logins                               the latest, newest first
  halfsecond logins --since 2h --user alice
  halfsecond logins --json | jq -r 'select(.guessing) | .peer' | sort | uniq -c
  halfsecond logins --plot --since 2026-11-21T10:00:00Z    CPU times before and after
  halfsecond logins --svg logins.svg

LINK, KEYS (key exchange), AUTH and PAM are CPU time: waiting for the client and the network is not
in it. FAULTS are minor page faults up to the last answer, of all the connection's processes. VERDICT
is the time from accept to sshd's last answer, LASTED the whole connection. --json has wall and CPU
time and page faults of each phase. `-` was not reached, or not measured.

METHOD has the type of the key that was used or looked up last (@openssh.com left out); each attempt's
is in --json (key_type). hostbased is the key of the client's host.

PROGRAM is sshd, or the guarded program (sudo, su, login and others) that somebody authenticated to
through libpam; FROM is then who started it, and USER is not known, so --user leaves these out: the
name is a text that an argument of pam_start points to, and what arguments of watched functions point
to (passwords, among others) is never read. AUTH is from the first
pam_authenticate to the call after the last, VERDICT the last attempt, typing included. NOTE has what
pam_end was told. Of sudo, accepted is PAM's word; what sudoers says is not seen. Where nobody had to
authenticate (cron's jobs, NOPASSWD) it is counted (halfsecond_pam_logins_total) and not listed.

OUTCOME is accepted, refused, aborted, timed_out (LoginGraceTime), or unknown with the reason. User
names of logins that were not accepted are not kept, unless `logins.failed_users` is true: people
type passwords there.

A peer guesses if ten attempts of it were refused or broken off within ten minutes (brute_force), or
it tried six names (user_enumeration); a peer is an IPv4 address, or an IPv6 network of 64 bits.

--plot and --svg draw logins that were let in at the first attempt, before and after --since; without
it, before and after the latest incident of link_time_shift or auth_cpu_shift about their programs,
which only a running sensor tells.

Asks the running sensor; where none runs, reads what it has written to logins.jsonl in `state_dir`.
Exits with 0 also where there are none; with 2 if no sensor runs and none ever did.";

const UPGRADES_HELP: &str = "\
Examples:
  halfsecond upgrades                             the latest changes of packages, newest first
  halfsecond upgrades --since 2d
  halfsecond upgrades --json | jq -r 'select(.action == \"replaced\") | .package'
  halfsecond upgrades --root /mnt                 of a system that is mounted there

Reads dpkg.log with its rotated and compressed files, apk's log (version 3), and when rpm installed
each package. A package whose files came without dpkg.log's knowledge is told by its list of files,
without the version before. What cannot be read is said on standard error.

ACTION is installed, replaced (by a newer or older version), reinstalled (the same version again) or
removed; in --json also recorded: it came, and what was there before is not recorded. TIME is when the
change began, of rpm when it was over. `-` is not recorded.

BEHAVIOUR is what the change changed in programs that have the package's files mapped, from the
baselines of this host's programs (needs root): medians of CPU times of linking, constructors and
authentication, and callers of guarded functions and libraries that are new. Builds of a program have
baselines of their own and are compared; one goes on over changes of a program's libraries, so that
only libraries first seen since are told then. `-` is no such program, or no baselines.

Needs no agent. Exits with 0 also where there are none; with 3 where there is no database of packages
that can be read.";

const DOCTOR_HELP: &str = "\
Examples:
  halfsecond doctor                       the host, and the probes of the running sensor
  sudo halfsecond doctor                  the same, trying the probes where no sensor runs
  halfsecond doctor --json | jq -r 'select(.state == \"missing\") | .check'

Exits with 3 if something is missing that the sensor needs.";

/// A runtime sensor for linker tampering, function hooks and sshd logins that take too long.
#[derive(Debug, Parser)]
#[command(name = "halfsecond", version, after_help = EXIT_CODES, propagate_version = true)]
pub struct Cli {
    /// Options of every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Args, Clone, Debug)]
pub struct Global {
    /// Configuration file [default: /etc/halfsecond/halfsecond.toml, if it exists]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Write JSON, one object per line
    #[arg(long, global = true)]
    pub json: bool,
    /// Log more; twice for everything
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// Log this and what is worse
    #[arg(long, global = true, value_name = "LEVEL", conflicts_with = "verbose")]
    pub log_level: Option<LogLevel>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the sensor
    #[command(after_help = RUN_HELP)]
    Run(record::RunArgs),
    /// Check the linkage of every process once, without daemon and eBPF
    #[command(after_help = SCAN_HELP)]
    Scan(scan::ScanArgs),
    /// List which running programs have which library loaded
    #[command(after_help = LIBS_HELP, disable_version_flag = true)]
    Libs(libs::LibsArgs),
    /// Tell what this host supports, what is attached, and what is not seen and why
    #[command(after_help = DOCTOR_HELP)]
    Doctor,
    /// List incidents, show one, or decide about one
    #[command(after_help = INCIDENTS_HELP)]
    Incidents(incidents::IncidentsArgs),
    /// Tell why an incident was told, and draw the login times before and after
    #[command(after_help = EXPLAIN_HELP)]
    Explain(explain::ExplainArgs),
    /// List logins over ssh, sudo, su with their phases, or draw how long they take
    #[command(after_help = LOGINS_HELP)]
    Logins(logins::LoginsArgs),
    /// List the latest changes of packages
    #[command(after_help = UPGRADES_HELP)]
    Upgrades(upgrades::UpgradesArgs),
    /// Show, compare, approve, forget, export or import what is normal for each program
    Baseline(baseline::BaselineArgs),
    /// Run the sensor and record what its detectors are told
    #[command(after_help = record::HELP)]
    Record(record::RecordArgs),
    /// Run the detectors over a recording
    #[command(after_help = replay::HELP)]
    Replay(replay::ReplayArgs),
}

/// Levels of the log.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum LogLevel {
    /// What failed.
    Error,
    /// What is degraded.
    Warn,
    /// What a person wants to know.
    Info,
    /// What a developer wants to know.
    Debug,
    /// Every event.
    Trace,
}

/// How the program ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Success; nothing found.
    Success = 0,
    /// Findings.
    Findings = 1,
    /// Wrong usage or configuration.
    Usage = 2,
    /// A missing privilege or kernel feature.
    Unsupported = 3,
    /// Anything that is our fault, or the machine's.
    Internal = 4,
}

/// Why a command did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The configuration is wrong or cannot be read.
    #[error(transparent)]
    Config(#[from] LoadError),
    /// The environment asks for a log that cannot be.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The HTTP listener cannot be opened.
    #[error(transparent)]
    Http(#[from] BindError),
    /// An output cannot be started.
    #[error(transparent)]
    Output(#[from] StartError),
    /// The state directory cannot be used.
    #[error("`state_dir` = \"{}\" cannot be used; make it a writable directory, or set another", path.display())]
    StateDir {
        /// The key's value.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The command line asks for what is not there.
    #[error("{0}")]
    Usage(String),
    /// A privilege or kernel feature is missing.
    #[error("{0}")]
    Unsupported(String),
    /// Standard output cannot be written.
    #[error("cannot write to standard output")]
    Stdout(#[source] io::Error),
    /// Anything else.
    #[error("{what}")]
    Internal {
        /// What was being done.
        what: String,
        /// Why it failed.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
}

// === impl Global ===

impl Global {
    /// The level asked for; `None` leaves it to the environment.
    #[must_use]
    pub fn level(&self) -> Option<Level> {
        match (self.log_level, self.verbose) {
            (Some(level), _) => Some(level.into()),
            (None, 0) => None,
            (None, 1) => Some(Level::DEBUG),
            (None, _) => Some(Level::TRACE),
        }
    }

    /// The file that is, or would be, read.
    #[must_use]
    pub fn config_path(&self) -> &Path {
        self.config.as_deref().unwrap_or(Path::new(DEFAULT_PATH))
    }
}

// === impl Command ===

impl Command {
    /// The level where nobody asks for one: what answers at once does not log what goes well.
    #[must_use]
    pub fn default_level(&self) -> Level {
        match self {
            Self::Run(_) => Level::INFO,
            Self::Scan(_)
            | Self::Libs(_)
            | Self::Doctor
            | Self::Incidents(_)
            | Self::Explain(_)
            | Self::Logins(_)
            | Self::Upgrades(_)
            | Self::Baseline(_)
            | Self::Record(_)
            | Self::Replay(_) => Level::WARN,
        }
    }
}

// === impl LogLevel ===

impl From<LogLevel> for Level {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Error => Self::ERROR,
            LogLevel::Warn => Self::WARN,
            LogLevel::Info => Self::INFO,
            LogLevel::Debug => Self::DEBUG,
            LogLevel::Trace => Self::TRACE,
        }
    }
}

// === impl Exit ===

impl Termination for Exit {
    fn report(self) -> ExitCode {
        ExitCode::from(self as u8)
    }
}

// === impl Failure ===

impl Failure {
    /// What the program ends with.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Self::Config(LoadError::Read { source, .. })
                if source.kind() == io::ErrorKind::PermissionDenied =>
            {
                Exit::Unsupported
            }
            Self::StateDir { source, .. } => match source.kind() {
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                    Exit::Unsupported
                }
                io::ErrorKind::NotADirectory | io::ErrorKind::NotFound => Exit::Usage,
                _ => Exit::Internal,
            },
            Self::Http(BindError::Denied { .. }) | Self::Unsupported(_) => Exit::Unsupported,
            Self::Http(BindError::Other { .. })
            | Self::Output(StartError::Thread { .. })
            | Self::Stdout(_)
            | Self::Internal { .. } => Exit::Internal,
            Self::Config(_) | Self::Log(_) | Self::Http(_) | Self::Output(_) | Self::Usage(_) => {
                Exit::Usage
            }
        }
    }

    /// The failure and everything behind it, on one line per cause.
    #[must_use]
    pub fn told(&self) -> String {
        let mut text = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }
}

/// Ends a command that has written its answer: a reader that has read enough is no failure.
pub(crate) fn ended(written: io::Result<()>, exit: Exit) -> Result<Exit, Failure> {
    match written {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::Stdout(error)),
        _ => Ok(exit),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_grammar_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn options_of_every_command_stand_before_or_after_it() {
        for line in ["halfsecond --json --config /x doctor", "halfsecond doctor --json --config /x"]
        {
            let cli = Cli::try_parse_from(line.split(' ')).unwrap();
            assert!(cli.global.json, "{line}");
            assert_eq!(cli.global.config_path(), Path::new("/x"), "{line}");
        }
    }

    #[test]
    fn a_failure_tells_its_causes_once() {
        let failure = Failure::Internal {
            what: "cannot open the store".to_owned(),
            source: Box::new(io::Error::other("disk on fire")),
        };
        assert_eq!(failure.told(), "cannot open the store: disk on fire");
        assert_eq!(failure.exit(), Exit::Internal);
    }

    #[test]
    fn a_reader_that_has_read_enough_is_no_failure() {
        let gone = Err(io::ErrorKind::BrokenPipe.into());
        assert!(matches!(ended(gone, Exit::Findings), Ok(Exit::Findings)));
        let full = Err(io::ErrorKind::StorageFull.into());
        assert_eq!(ended(full, Exit::Findings).unwrap_err().exit(), Exit::Internal);
    }
}
