//! `halfsecond run`: everything around the stations; they themselves are given.

use std::fs::{self, DirBuilder};
use std::future::Future;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::{Access, AtFlags, CWD, accessat};
use tokio::runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tracing::{error, info};

use super::{Exit, Failure};
use crate::config::Config;
use crate::http::Server;
use crate::metrics::Metrics;
use crate::notify::Notifier;
use crate::sink::{Incidents, Outputs};
use crate::status::Status;

/// What a slow output gets to write what it still has.
const CLOSING: Duration = Duration::from_secs(5);
/// What the stations get to end when they are told to: while programs load, they cannot be told.
const ENDING: Duration = Duration::from_secs(8);

/// As the service has it: nine times the share of a program that nobody has asked to be nice.
const NICENESS: i32 = -10;

/// What the stations find around them.
#[derive(Debug)]
pub struct Surroundings {
    /// What the sensor is told.
    pub config: Config,
    /// What the sensor tells.
    pub metrics: Metrics,
    /// Takes incidents, never waits.
    pub incidents: Incidents,
    /// To be told when the probes are attached and when a station stops.
    pub status: Arc<Status>,
    /// Becomes true when the sensor is to end.
    pub stop: watch::Receiver<bool>,
}

/// Runs the sensor until SIGINT or SIGTERM, or until `stations` end by themselves.
///
/// The listener and the outputs are open before the stations start: a port in use or a state
/// directory that cannot be written is told before any probe is attached.
pub fn run<F>(
    config: Config,
    stations: impl FnOnce(Surroundings) -> F + Send + 'static,
) -> Result<Exit, Failure>
where
    F: Future<Output = Result<(), Failure>> + Send + 'static,
{
    let started = Instant::now();
    become_urgent();
    let runtime = runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|source| internal("cannot start the runtime", source))?;
    // As a task, so that the worker that waits for the rings also reads them: another thread, that
    // of `block_on` for one, would have to be woken for each record.
    let ended = runtime
        .block_on(runtime.spawn(around(started, config, stations)))
        .unwrap_or_else(|error| Err(internal("a station has panicked", error)));
    // An HTTP request that waits for the disk must not hold up the end.
    runtime.shutdown_timeout(Duration::from_secs(1));
    ended.map(|()| Exit::Success)
}

/// Whoever logs in a hundred times at once must not keep the sensor from the processors: the rings
/// would overflow. Threads inherit it. An administrator's choice stands, and where it may not be had
/// (in a container, without `CAP_SYS_NICE`) the control group's share must do.
fn become_urgent() {
    use rustix::process::{getpriority_process, setpriority_process};
    if getpriority_process(None) != Ok(0) {
        return;
    }
    if let Err(error) = setpriority_process(None, NICENESS) {
        tracing::debug!(%error, "the sensor runs with the niceness of everybody");
    }
}

async fn around<F>(
    started: Instant,
    config: Config,
    stations: impl FnOnce(Surroundings) -> F,
) -> Result<(), Failure>
where
    F: Future<Output = Result<(), Failure>>,
{
    let server = match config.http.listen {
        Some(listen) => Some(Server::bind(listen).await?),
        None => None,
    };
    make_state_dir(&config.state_dir)?;
    let metrics = Metrics::new().map_err(|source| internal("cannot define the metrics", source))?;
    let outputs = Outputs::start(&config.output, &metrics)?;
    let status = Arc::new(Status::new(started, metrics.clone(), Notifier::from_environment()));
    let stop = stop_on_signal(Arc::clone(&status))?;
    if let Some(server) = server {
        serve(server, Arc::clone(&status), metrics.clone(), stop.clone());
    }
    let overdue = overdue(stop.clone());
    let incidents = outputs.incidents();
    let surroundings =
        Surroundings { config, metrics, incidents, status: Arc::clone(&status), stop };
    let ended = tokio::select! {
        ended = stations(surroundings) => ended,
        () = overdue => {
            error!("the stations do not end in time; ending without them");
            Ok(())
        }
    };
    status.stopping();
    let unwritten = spawn_blocking(move || outputs.close(CLOSING)).await.unwrap_or_default();
    if unwritten > 0 {
        error!(unwritten, "incidents could not be written before the end");
    }
    ended
}

fn serve(server: Server, status: Arc<Status>, metrics: Metrics, mut stop: watch::Receiver<bool>) {
    info!(address = %server.local_addr(), "listening");
    let told = Arc::clone(&status);
    tokio::spawn(async move {
        let stopped = async move {
            // The sender lives as long as the signals are awaited.
            let _ = stop.wait_for(|stop| *stop).await;
        };
        if let Err(error) = server.run(status, metrics, stopped).await {
            told.failed("http", &error.to_string());
        }
    });
}

fn stop_on_signal(status: Arc<Status>) -> Result<watch::Receiver<bool>, Failure> {
    let listen = |kind| signal(kind).map_err(|source| internal("cannot await signals", source));
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut terminate = listen(SignalKind::terminate())?;
    let (stop, stopped) = watch::channel(false);
    tokio::spawn(async move {
        let name = tokio::select! {
            _ = interrupt.recv() => "SIGINT",
            _ = terminate.recv() => "SIGTERM",
        };
        info!(signal = name, "ending");
        status.stopping();
        stop.send_replace(true);
        // Dropping the sender would look like a second wish; there is none.
        stop.closed().await;
    });
    Ok(stopped)
}

/// Done some time after the sensor was told to end.
async fn overdue(mut stop: watch::Receiver<bool>) {
    // An error means that nobody awaits signals any more: nor will this.
    if stop.wait_for(|stop| *stop).await.is_ok() {
        tokio::time::sleep(ENDING).await;
    } else {
        std::future::pending::<()>().await;
    }
}

/// For its user only: it tells what the sensor knows and what it does not.
fn make_state_dir(path: &Path) -> Result<(), Failure> {
    let fail = |source| Failure::StateDir { path: path.to_owned(), source };
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => info!(path = %path.display(), "state directory created"),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            if !fs::metadata(path).map_err(fail)?.is_dir() {
                return Err(fail(io::ErrorKind::NotADirectory.into()));
            }
        }
        Err(error) => return Err(fail(error)),
    }
    accessat(CWD, path, Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS)
        .map_err(|errno| fail(errno.into()))
}

fn internal(what: &str, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Failure {
    Failure::Internal { what: what.to_owned(), source: source.into() }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::unix::fs::PermissionsExt;

    use tempfile::TempDir;

    use super::*;
    use crate::http::client;

    fn in_folder(folder: &TempDir) -> Config {
        let mut config = Config { state_dir: folder.path().join("state"), ..Config::default() };
        config.output.stdout = false;
        config.output.file = Some(config.state_dir.join("incidents.jsonl"));
        config.http.listen = Some(([127, 0, 0, 1], 0).into());
        config
    }

    #[test]
    fn an_incident_sent_by_a_station_is_in_the_file_when_the_sensor_ends() {
        let folder = tempfile::tempdir().unwrap();
        let config = in_folder(&folder);
        let file = config.output.file.clone().unwrap();
        let exit = run(config, |around| async move {
            around.incidents.send("a", &serde_json::json!({"id": "a"})).unwrap();
            Ok(())
        });
        assert_eq!(exit.unwrap(), Exit::Success);
        assert_eq!(fs::read_to_string(file).unwrap(), "{\"id\":\"a\"}\n");
        let mode = fs::metadata(folder.path().join("state")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }

    #[test]
    fn stations_that_fail_end_the_sensor_with_their_failure() {
        let folder = tempfile::tempdir().unwrap();
        let failure =
            run(in_folder(&folder), |_| async { Err(Failure::Unsupported("no BTF".to_owned())) });
        assert_eq!(failure.unwrap_err().exit(), Exit::Unsupported);
    }

    #[test]
    fn readiness_is_served_while_the_stations_start() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = in_folder(&folder);
        // A port that was free a moment ago.
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        config.http.listen = Some(free);
        let ended = run(config, move |around| async move {
            let ask = || spawn_blocking(move || client::get(free, "/readyz").unwrap().status);
            assert_eq!(ask().await.unwrap(), 503);
            around.status.armed(Vec::new());
            assert_eq!(ask().await.unwrap(), 200);
            Ok(())
        });
        assert_eq!(ended.unwrap(), Exit::Success);
    }

    #[test]
    fn a_state_directory_that_cannot_be_is_named() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("state"), b"").unwrap();
        let failure = run(in_folder(&folder), |_| async { Ok(()) }).unwrap_err();
        assert!(failure.told().contains("`state_dir`"), "{}", failure.told());
        assert_eq!(failure.exit(), Exit::Usage);
    }
}
