//! `halfsecond record`: the sensor, with everything that its analysis is told in a file.

use std::fs::{self, File, OpenOptions};
use std::future::Future;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use jiff::Timestamp;
use tokio::sync::watch;
use tracing::info;

use super::progress::Progress;
use super::run::{Surroundings, run};
use super::{Exit, Failure, Global, ended};
use crate::config::units::{format_duration, parse_duration};
use crate::config::{Config, host_name};
use crate::http::client;
use crate::record::{self, Header, Recorder, Recording, Redactor};

pub(super) const HELP: &str = "\
Examples:
  sudo halfsecond record --for 10min
  sudo halfsecond record --out attack.rec --with-arguments
  sudo halfsecond run --record host.rec           in the sensor that runs anyway

Runs the sensor, without outputs and HTTP, and writes to a file all that its detectors are told:
what was observed, what slot checks answered, what the baselines of `state_dir` said, the rules
of [[suppress]], and what people decide about incidents. What it learns and finds is kept there as
always. Ctrl-C or SIGTERM ends it. The service of `deploy/` may write below `state_dir` only.

Arguments, values of loader variables, the names of users who were not let in, and who decided
what and why are replaced, unless --with-arguments is given; paths of files, addresses of clients,
and what a suppression matches by are not. The file is for root alone.

A file that was cut, by a full disk or a sensor that was killed, replays up to the cut.
Exits with 2 if a sensor runs already (restart it with `halfsecond run --record FILE`) or FILE
exists.";

/// Recordings of one name beside each other.
const NUMBERED_MAX: u32 = 999;
/// What the file gets to be written after the sensor has ended.
const CLOSING: Duration = Duration::from_secs(10);
/// How often a person sees how far it is.
const SHOWN_EVERY: Duration = Duration::from_secs(1);

/// Arguments of the command.
#[derive(Args, Clone, Debug)]
pub struct RecordArgs {
    /// Write to this file, which must not exist [default: halfsecond-HOST-TIME.rec]
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// End after this time, such as `90s`, `10min` or `2h`, counted from the start of the command
    #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
    pub lasting: Option<Duration>,
    /// Record arguments, values of variables, names of users who were not let in, and who decided what
    /// and why
    #[arg(long)]
    pub with_arguments: bool,
}

/// Arguments of `run`.
#[derive(Args, Clone, Debug, Default)]
pub struct RunArgs {
    /// Record to this file for `halfsecond replay`; to FILE.1, FILE.2 and so on where it exists
    #[arg(long, value_name = "FILE")]
    pub record: Option<PathBuf>,
    /// Record arguments, values of variables, names of users who were not let in, and who decided what
    /// and why
    #[arg(long, requires = "record")]
    pub with_arguments: bool,
}

/// Runs the sensor until SIGINT or SIGTERM, with a recording where one is asked for.
pub fn run_recorded<F>(
    config: Config,
    args: &RunArgs,
    stations: impl FnOnce(Surroundings, Option<Recorder>) -> F + Send + 'static,
) -> Result<Exit, Failure>
where
    F: Future<Output = Result<(), Failure>> + Send + 'static,
{
    let Some(path) = &args.record else {
        return run(config, move |around| stations(around, None));
    };
    // A service that is started again must not fail for what it has recorded before.
    let path = fresh(path);
    let (recorder, recording) = begin(&path, &config, args.with_arguments)?;
    info!(path = %path.display(), "recording");
    let outcome = run(config, move |around| stations(around, Some(recorder)));
    let told = recording.wait(CLOSING);
    drop_empty(&path, &outcome, &told);
    let (observations, bytes) = (told.observations, told.bytes);
    info!(path = %path.display(), observations, bytes, failure = told.failure, "recorded");
    outcome
}

/// Runs the sensor only to record it, until SIGINT, SIGTERM or the time is over.
pub fn record<F>(
    global: &Global,
    mut config: Config,
    args: &RecordArgs,
    stations: impl FnOnce(Surroundings, Option<Recorder>) -> F + Send + 'static,
    out: &mut impl Write,
) -> Result<Exit, Failure>
where
    F: Future<Output = Result<(), Failure>> + Send + 'static,
{
    refuse_beside_a_sensor(&config)?;
    // Nobody is to take it for the service: it only writes the file, and keeps what it learns.
    config.http.listen = None;
    config.output.stdout = false;
    config.output.file = None;
    let path = args.out.clone().unwrap_or_else(default_path);
    let (recorder, recording) = begin(&path, &config, args.with_arguments)?;
    let (watched, lasting) = (recording.watch(), args.lasting);
    let mut progress = Progress::new("recording", global.json);
    let outcome = run(config, move |mut around| async move {
        let (stop, stopped) = watch::channel(false);
        let told = std::mem::replace(&mut around.stop, stopped);
        let ending = ending(told, lasting, move || {
            let now = watched();
            progress.doing(&format!("{} observations, {} bytes", now.observations, now.bytes));
            let over = now.failure.is_some();
            if over {
                progress.clear();
            }
            over
        });
        let stopping = async {
            ending.await;
            stop.send_replace(true);
            // The stations end by themselves now.
            std::future::pending::<Result<(), Failure>>().await
        };
        tokio::select! {
            ended = stations(around, Some(recorder)) => ended,
            never = stopping => never,
        }
    });
    let told = recording.wait(CLOSING);
    drop_empty(&path, &outcome, &told);
    outcome?;
    tell(global, &path, &told, args.with_arguments, out)
}

/// The first of FILE, FILE.1, FILE.2 and so on that is not there.
fn fresh(path: &Path) -> PathBuf {
    let numbered = (1..=NUMBERED_MAX).map(|number| {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{number}"));
        PathBuf::from(name)
    });
    let mut all = std::iter::once(path.to_owned()).chain(numbered);
    all.find(|path| path.symlink_metadata().is_err()).unwrap_or_else(|| path.to_owned())
}

/// A recording of a sensor that did not come to see anything would only be in the way of the next try.
fn drop_empty<T>(path: &Path, outcome: &Result<T, Failure>, told: &record::Progress) {
    if outcome.is_err() && told.observations == 0 {
        let _ = fs::remove_file(path);
    }
}

/// Done when the sensor is told to end, the time is over, or `over` says so, which is asked every
/// second.
async fn ending(
    mut told: watch::Receiver<bool>,
    lasting: Option<Duration>,
    mut over: impl FnMut() -> bool,
) {
    let time = async {
        match lasting {
            Some(lasting) => tokio::time::sleep(lasting).await,
            None => std::future::pending().await,
        }
    };
    let looks = async {
        while !over() {
            tokio::time::sleep(SHOWN_EVERY).await;
        }
    };
    tokio::select! {
        () = time => {}
        () = looks => {}
        _ = told.wait_for(|told| *told) => {}
    }
}

/// Begins a recording of the sensor with this configuration.
fn begin(
    path: &Path,
    config: &Config,
    with_arguments: bool,
) -> Result<(Recorder, Recording), Failure> {
    let failed = |source| cannot(path, source);
    let redactor = if with_arguments { None } else { Some(Redactor::new().map_err(failed)?) };
    let header = Header::now(config, redactor.is_some());
    let file = create(path)?;
    Recorder::start(Box::new(file), &header, redactor).map_err(failed)
}

/// For its user only: it tells what runs here.
fn create(path: &Path) -> Result<File, Failure> {
    let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    opened.map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => Failure::Usage(format!(
            "{} exists already; remove it, or record to another file",
            path.display()
        )),
        std::io::ErrorKind::NotFound => {
            Failure::Usage(format!("{} cannot be made: there is no such directory", path.display()))
        }
        _ => cannot(path, error),
    })
}

fn cannot(path: &Path, source: std::io::Error) -> Failure {
    let what = format!("cannot record to {}", path.display());
    Failure::Internal { what, source: Box::new(source) }
}

/// Two sensors would share the state and see each other's probes.
fn refuse_beside_a_sensor(config: &Config) -> Result<(), Failure> {
    let Some(listen) = config.http.listen else { return Ok(()) };
    if client::get(listen, "/healthz").is_err() {
        return Ok(());
    }
    Err(Failure::Usage(format!(
        "a sensor runs already (on {listen}); restart it with `halfsecond run --record FILE`, or \
         stop it first"
    )))
}

fn tell(
    global: &Global,
    path: &Path,
    told: &record::Progress,
    with_arguments: bool,
    out: &mut impl Write,
) -> Result<Exit, Failure> {
    let shown = path.display();
    if let Some(reason) = &told.failure {
        return Err(Failure::Internal {
            what: format!(
                "the recording ended early, after {} observations; what is in {shown} is whole",
                told.observations
            ),
            source: reason.clone().into(),
        });
    }
    let written = if global.json {
        let line = serde_json::json!({
            "file": path, "observations": told.observations, "steps": told.steps,
            "bytes": told.bytes, "redacted": !with_arguments,
        });
        writeln!(out, "{line}")
    } else {
        writeln!(
            out,
            "Recorded {} observations to {shown} ({} bytes{}).\nSee `halfsecond replay {shown}`.",
            told.observations,
            told.bytes,
            if with_arguments { ", with arguments" } else { "" }
        )
    };
    ended(written, Exit::Success)
}

fn default_path() -> PathBuf {
    let host: String = host_name()
        .chars()
        .map(|letter| if letter.is_ascii_alphanumeric() || letter == '-' { letter } else { '_' })
        .take(64)
        .collect();
    let time = Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string();
    PathBuf::from(format!("halfsecond-{host}-{time}.rec"))
}

fn duration(text: &str) -> Result<Duration, String> {
    let some = |duration: &Duration| !duration.is_zero();
    parse_duration(text).filter(some).ok_or_else(|| {
        let example = format_duration(Duration::from_mins(10));
        format!("is not a duration; give a number and a unit, such as {example}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_exists_is_not_written_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.rec");
        fs::write(&path, "precious").unwrap();
        let failure = begin(&path, &Config::default(), false).unwrap_err();
        assert_eq!(failure.exit(), Exit::Usage, "{failure}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
        let nowhere = folder.path().join("none/a.rec");
        assert_eq!(begin(&nowhere, &Config::default(), false).unwrap_err().exit(), Exit::Usage);
    }

    #[test]
    fn a_service_that_is_started_again_records_to_another_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.rec");
        assert_eq!(fresh(&path), path);
        for next in ["a.rec.1", "a.rec.2"] {
            fs::write(fresh(&path), "").unwrap();
            assert_eq!(fresh(&path), folder.path().join(next));
        }
        // And one that cannot be started leaves nothing behind.
        let state_dir = folder.path().join("a.rec");
        let mut config = Config { state_dir, ..Config::default() };
        (config.http.listen, config.output.stdout, config.output.file) = (None, false, None);
        let args = RunArgs { record: Some(path.clone()), with_arguments: true };
        let failure = run_recorded(config, &args, |_, _| async { Ok(()) }).unwrap_err();
        assert_eq!(failure.exit(), Exit::Usage, "{failure}");
        assert!(!folder.path().join("a.rec.2").exists());
    }

    #[test]
    fn a_recording_is_for_its_user_and_ends_with_the_time() {
        use std::os::unix::fs::PermissionsExt;

        let folder = tempfile::tempdir().unwrap();
        let mut config = Config { state_dir: folder.path().join("state"), ..Config::default() };
        // A port where nothing listens.
        config.http.listen = Some(([127, 0, 0, 1], 1).into());
        let args = RecordArgs {
            out: Some(folder.path().join("a.rec")),
            lasting: Some(Duration::from_millis(1)),
            with_arguments: false,
        };
        let global = Global { config: None, json: true, verbose: 0, log_level: None };
        let mut out = Vec::new();
        let stations = |mut around: Surroundings, recorder: Option<Recorder>| async move {
            let recorder = recorder.unwrap();
            recorder.tell(|| record::Step::Tick(7));
            around.stop.wait_for(|stop| *stop).await.unwrap();
            Ok(())
        };
        let exit = record(&global, config, &args, stations, &mut out).unwrap();
        assert_eq!(exit, Exit::Success);
        let told: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!((&told["steps"], &told["redacted"]), (&1.into(), &true.into()));
        let path = args.out.unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let mut reader = record::Reader::open(File::open(path).unwrap()).unwrap();
        assert!(matches!(reader.step().unwrap(), Some(record::Step::Tick(7))));
        assert!(reader.step().unwrap().is_none());
        assert_eq!(reader.ended(), Some(record::Ended::Whole));
    }

    #[test]
    fn names_of_recordings_are_plain() {
        let name = default_path().into_os_string().into_string().unwrap();
        let plain = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
        assert!(name.chars().all(plain) && name.ends_with("Z.rec"), "{name}");
    }

    #[test]
    fn a_time_of_nothing_is_none() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert!(duration("0s").is_err() && duration("soon").is_err());
    }
}
