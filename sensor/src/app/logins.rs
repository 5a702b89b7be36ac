//! The record of logins at work: from the analysis' observations to memory, a file and metrics.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tracing::{error, warn};

use crate::config::Config;
use crate::host::Observation;
use crate::logins::{self, FILE, Kept, Login, LoginId, Recorder, Told};
use crate::metrics::Metrics;
use crate::sink::Outputs;
use crate::status::Status;
use crate::trouble::chain;

/// Label of the file's metrics.
const SINK: &str = "logins";
/// What the file may take for each login that is kept; a usual one takes a little less.
const BYTES_EACH: u64 = 1024;
/// The file is rotated at this size at the earliest, bytes.
const BYTES_MIN: u64 = 64 * 1024;
/// What the file gets to take what it has not taken yet.
const CLOSING: Duration = Duration::from_secs(2);

pub(super) struct Logins {
    recorder: Recorder,
    kept: Arc<Kept>,
    /// None where nothing is kept, or there is no thread for it.
    file: Option<Outputs>,
    metrics: Metrics,
    /// Open ones that are counted as a guessing peer's; no more than the recorder follows.
    flagged: BTreeSet<LoginId>,
    /// Lines are told apart by it.
    written: u64,
}

// === impl Logins ===

impl Logins {
    /// With what an earlier run has written. Nothing depends on the file: what is wrong with it is
    /// said, and logins are kept in memory.
    pub(super) fn start(config: &Config, metrics: &Metrics, status: &Status) -> Self {
        let keep = config.logins.keep;
        let past = if keep > 0 { past(config) } else { Vec::new() };
        let kept = Arc::new(Kept::new(keep, past));
        status.set_logins(Arc::clone(&kept));
        let recorder = Recorder::new(config.logins.failed_users);
        let file = if keep > 0 { journal(config, metrics) } else { None };
        Self {
            recorder,
            kept,
            file,
            metrics: metrics.clone(),
            flagged: BTreeSet::new(),
            written: 0,
        }
    }

    pub(super) fn note(&mut self, seen: &Observation) {
        for told in self.recorder.note(seen) {
            match told {
                Told::Begun(id, login) => {
                    self.metrics.observe_login(&login);
                    if login.guessing.is_some() {
                        self.flagged.insert(id);
                    }
                    self.kept.begun(id, login);
                }
                Told::Ended { id, login, begun } => {
                    let flagged = self.flagged.remove(&id);
                    if !begun {
                        self.metrics.observe_login(&login);
                    } else if !flagged {
                        self.metrics.observe_guessing(&login);
                    }
                    if !login.is_routine() {
                        self.write(&login);
                        self.kept.ended(id, login);
                    }
                }
            }
        }
    }

    pub(super) fn on_loss(&mut self) {
        self.recorder.on_loss();
    }

    /// Lets the file take what it has not taken yet.
    pub(super) fn end(&mut self) {
        let Some(file) = self.file.take() else { return };
        let unwritten = file.close(CLOSING);
        if unwritten > 0 {
            error!(unwritten, "logins could not be written before the end");
        }
    }

    fn write(&mut self, login: &Login) {
        let Some(file) = &self.file else { return };
        self.written = self.written.wrapping_add(1);
        if let Err(error) = file.incidents().send(&self.written.to_string(), login) {
            warn!(%error, "a login cannot be written as JSON");
        }
    }
}

fn past(config: &Config) -> Vec<Login> {
    match logins::read(&config.state_dir, config.logins.keep, |_| true) {
        Ok(past) => {
            let unreadable = past.unreadable;
            if unreadable > 0 {
                warn!(unreadable, "lines of {FILE} that are no logins");
            }
            past.logins.into()
        }
        Err(error) => {
            if error.kind() != io::ErrorKind::NotFound {
                warn!(%error, "earlier logins cannot be read");
            }
            Vec::new()
        }
    }
}

/// One file in use and one rotated: between them at least what is kept in memory.
fn journal(config: &Config, metrics: &Metrics) -> Option<Outputs> {
    let path = config.state_dir.join(FILE);
    let keep = u64::try_from(config.logins.keep).unwrap_or(u64::MAX);
    let max_bytes = keep.saturating_mul(BYTES_EACH).max(BYTES_MIN);
    let started = Outputs::journal(SINK, path, max_bytes, 1, metrics);
    started.inspect_err(|error| warn!(reason = chain(error), "logins are kept in memory only")).ok()
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::config::Config;
    use crate::host::Pipeline;
    use crate::host::testing::{BELOW, Fake, Login as Made, World, clock};
    use crate::http::Backend;
    use crate::logins::Query;
    use crate::notify::Notifier;

    struct Bench {
        config: Config,
        world: World,
        station: Pipeline,
    }

    impl Bench {
        fn new(config: Config) -> Self {
            let world = World::new();
            let fake: Fake = world.fake.clone();
            let mut station =
                Pipeline::new(&config, clock(), Box::new(fake.clone()), Box::new(fake));
            station.start(world.now);
            Self { config, world, station }
        }

        fn run(&mut self, logins: &mut Logins) {
            for event in self.world.take() {
                self.station.on_event(event, &mut |seen| logins.note(&seen));
            }
        }

        fn start(&self) -> (Logins, Status, Metrics) {
            let metrics = Metrics::new().unwrap();
            let status = Status::new(Instant::now(), metrics.clone(), Notifier::default());
            (Logins::start(&self.config, &metrics, &status), status, metrics)
        }
    }

    fn in_folder(folder: &tempfile::TempDir) -> Config {
        Config { state_dir: folder.path().to_owned(), ..Config::default() }
    }

    #[test]
    fn logins_survive_a_restart_and_a_torn_line() {
        let folder = tempfile::tempdir().unwrap();
        let mut bench = Bench::new(in_folder(&folder));
        let (mut logins, status, metrics) = bench.start();
        for method in ["publickey", "password"] {
            bench.world.login(&Made::new(method));
        }
        bench.run(&mut logins);
        let before = status.logins(&Query::all()).logins;
        assert_eq!(before.len(), 2);
        let counted = metrics.logins.with_label_values(&["password", "accepted"]).get();
        assert_eq!(counted, 1, "at the session's begin, and not again at the end");
        logins.end();
        assert_eq!(metrics.sink_written.with_label_values(&[SINK]).get(), 2);
        let path = folder.path().join(FILE);
        let mut text = std::fs::read_to_string(&path).unwrap();
        text.push_str("{\"start\":\"2026");
        std::fs::write(&path, text).unwrap();
        let (_, status, _) = bench.start();
        assert_eq!(status.logins(&Query::all()).logins, before);
    }

    #[test]
    fn a_session_of_a_peer_that_guesses_meanwhile_is_counted_once() {
        let folder = tempfile::tempdir().unwrap();
        let mut bench = Bench::new(in_folder(&folder));
        let (mut logins, _, metrics) = bench.start();
        let counted = || {
            let of = |outcome| metrics.login_guessing.with_label_values(&["brute_force", outcome]);
            (of("accepted").get(), of("refused").get())
        };
        let monitor = bench.world.login(&Made::new("password"));
        bench.world.events.pop().expect("the monitor's exit");
        bench.run(&mut logins);
        for _ in 0..10 {
            bench.world.login(&Made { succeeds: false, ..Made::new("password") });
        }
        bench.run(&mut logins);
        assert_eq!(counted(), (0, 1), "the tenth is one too many");
        bench.world.exit(monitor, BELOW, 30_000_000);
        bench.run(&mut logins);
        assert_eq!(counted(), (1, 1));
        bench.world.login(&Made::new("password"));
        bench.run(&mut logins);
        assert_eq!(counted(), (2, 1), "flagged when it begins, and not again at the end");
    }

    #[test]
    fn logins_through_libpam_are_counted_by_program_and_kept_if_somebody_was_asked() {
        let folder = tempfile::tempdir().unwrap();
        let mut bench = Bench::new(in_folder(&folder));
        let (mut logins, status, metrics) = bench.start();
        bench.world.pam("/usr/sbin/cron", 0, "acct_mgmt setcred open_session end:0");
        bench.world.pam("/usr/bin/su", 1000, "authenticate end:7");
        let calls = "authenticate acct_mgmt setcred open_session end:0";
        bench.world.pam("/usr/bin/sudo", 1000, calls);
        bench.run(&mut logins);
        let kept = status.logins(&Query::all()).logins;
        let programs: Vec<&str> = kept.iter().map(|login| &*login.program).collect();
        assert_eq!(programs, ["sudo", "su"], "newest first");
        for labels in [["cron", "accepted"], ["su", "refused"], ["sudo", "accepted"]] {
            assert_eq!(metrics.pam_logins.with_label_values(&labels).get(), 1, "{labels:?}");
        }
        let measured = metrics.pam_auth_cpu.with_label_values(&["su", "refused"]);
        assert_eq!(measured.get_sample_count(), 1);
        let page = metrics.render().unwrap();
        assert!(!page.contains("method=\"pam\""), "sshd's series stay what they were");
        logins.end();
        assert_eq!(metrics.sink_written.with_label_values(&[SINK]).get(), 2);
    }

    #[test]
    fn nothing_is_kept_where_nothing_is_to_be_kept_but_counted() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = in_folder(&folder);
        config.logins.keep = 0;
        let mut bench = Bench::new(config);
        let (mut logins, status, metrics) = bench.start();
        bench.world.login(&Made::new("publickey"));
        bench.run(&mut logins);
        logins.end();
        assert!(status.logins(&Query::all()).logins.is_empty());
        assert!(!folder.path().join(FILE).exists());
        assert_eq!(metrics.logins.with_label_values(&["publickey", "accepted"]).get(), 1);
    }
}
