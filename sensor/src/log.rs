//! Logging to standard error: coloured on a terminal, with priorities under systemd's journal.

use std::env::{self, VarError};
use std::fmt;
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;

use rustix::fs::fstat;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::{Format, Full, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Looked at in this order, after the command line.
const VARIABLES: [&str; 2] = ["HALFSECOND_LOG", "RUST_LOG"];

/// Why nothing would be logged.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// A variable holds no filter.
    #[error("{variable}={value:?} is no log filter ({reason}); set it to a level such as `debug`")]
    Filter {
        /// Its name.
        variable: &'static str,
        /// Its value.
        value: String,
        /// What the filter's parser says.
        reason: String,
    },
    /// Somebody has set up logging already.
    #[error("logging is set up already")]
    Twice,
}

/// The journal takes the priority from the line's start: sd-daemon(3).
struct Prefixed(Format<Full, ()>);

// === impl Prefixed ===

impl<S, N> FormatEvent<S, N> for Prefixed
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        writer.write_str(match *event.metadata().level() {
            Level::ERROR => "<3>",
            Level::WARN => "<4>",
            Level::INFO => "<6>",
            Level::DEBUG | Level::TRACE => "<7>",
        })?;
        self.0.format_event(context, writer, event)
    }
}

/// Starts logging at `level`, or where none is given at what the environment says, or at
/// `default`. Levels are for the sensor's own code; its libraries stay at warnings.
pub fn start(level: Option<Level>, default: Level) -> Result<(), LogError> {
    let filter = match level {
        Some(level) => own(level),
        None => from_environment()?.unwrap_or_else(|| own(default)),
    };
    let colour =
        io::stderr().is_terminal() && env::var_os("NO_COLOR").is_none_or(|it| it.is_empty());
    let base = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    let started = if stderr_is_journal() {
        let format = Format::default().without_time().with_ansi(false).with_level(false);
        base.with_ansi(false).event_format(Prefixed(format)).try_init()
    } else {
        base.with_ansi(colour).try_init()
    };
    started.map_err(|_| LogError::Twice)
}

fn own(level: Level) -> EnvFilter {
    EnvFilter::new(format!("warn,sensor={level},halfsecond={level}"))
}

fn from_environment() -> Result<Option<EnvFilter>, LogError> {
    for variable in VARIABLES {
        let value = match env::var(variable) {
            Ok(value) if !value.is_empty() => value,
            Err(VarError::NotUnicode(value)) => value.to_string_lossy().into_owned(),
            _ => continue,
        };
        let parsed = match value.parse::<Level>() {
            Ok(level) => Ok(own(level)),
            Err(_) => EnvFilter::try_new(&value),
        };
        return parsed.map(Some).map_err(|error| LogError::Filter {
            variable,
            value,
            reason: error.to_string(),
        });
    }
    Ok(None)
}

/// `JOURNAL_STREAM` names device and inode of the stream the journal reads: systemd.exec(5). A
/// redirected child inherits the variable and not the stream.
fn stderr_is_journal() -> bool {
    let Ok(stream) = env::var("JOURNAL_STREAM") else { return false };
    let Ok(stat) = fstat(io::stderr().as_fd()) else { return false };
    stream == format!("{}:{}", stat.st_dev, stat.st_ino)
}
