//! How a command reaches a sensor that runs: a file in a directory that only root and the sensor's own
//! user can write.
//!
//! The command writes a request, synced and renamed into place, so that it is there whole or not at
//! all and survives a crash of either side. The sensor follows it, writes the incidents, leaves an
//! answer beside it, and only then removes the request: after a crash in between it is followed again,
//! which changes nothing. No port is opened and no word is taken for who somebody is: whoever may
//! write there may change the store itself.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

use super::{Decision, State};

/// The directory below the state directory.
const FOLDER: &str = "requests";
const REQUEST: &str = "json";
const ANSWER: &str = "answer";
/// Longer than any request or answer.
const LENGTH_MAX: u64 = 16 * 1024;
/// Files looked at in one round; the others wait for the next.
const ROUND_MAX: usize = 256;
/// After which an answer that nobody has read is removed.
const ANSWER_KEPT: Duration = Duration::from_hours(1);
/// How often a command looks for its answer.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What a command asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The incident's id.
    pub id: String,
    /// What is decided about it.
    pub decision: Decision,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    /// It is done and written; the incident stands like this.
    Done(State),
    /// It was refused, and why.
    Refused(String),
}

/// A request that was found.
#[derive(Debug)]
pub struct Pending {
    path: PathBuf,
    /// It; or why it is none.
    pub request: Result<Request, String>,
}

/// Why a request could not be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}", path.display())]
pub struct RequestError {
    /// What was tried.
    pub action: &'static str,
    /// On which file or directory.
    pub path: PathBuf,
    /// Why.
    #[source]
    pub source: io::Error,
}

/// Leaves `request` for the sensor with this state directory; where its answer is to be
/// [waited](wait) for.
pub fn submit(state_dir: &Path, request: &Request) -> Result<PathBuf, RequestError> {
    let failed = |action, path: &Path| {
        let path = path.to_owned();
        move |source| RequestError { action, path, source }
    };
    // The sensor may be another user than root, by whom this is called.
    let owner = fs::metadata(state_dir).map_err(failed("read", state_dir))?;
    let folder = state_dir.join(FOLDER);
    match DirBuilder::new().mode(0o700).create(&folder) {
        Ok(()) => open_folder(&folder)
            .and_then(|made| fchown(&made, Some(owner.uid()), Some(owner.gid())))
            .map_err(failed("give to the sensor", &folder))?,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(source) => return Err(failed("create", &folder)(source)),
    }
    let name = format!("{}-{}", request.decision.time.as_nanosecond(), std::process::id());
    let path = folder.join(&name).with_extension(REQUEST);
    let json = serde_json::to_vec(request).map_err(io::Error::from);
    let json = json.map_err(failed("write", &path))?;
    put(&folder, &path, &json, Some((owner.uid(), owner.gid()))).map_err(failed("write", &path))?;
    Ok(path)
}

/// The answer to the request that was left at `path`, if it comes within `patience`. It can be had once.
#[must_use]
pub fn wait(path: &Path, patience: Duration) -> Option<Answer> {
    let answer = path.with_extension(ANSWER);
    let deadline = Instant::now() + patience;
    loop {
        if let Ok(bytes) = read(&answer) {
            let _ = fs::remove_file(&answer);
            return serde_json::from_slice(&bytes).ok();
        }
        if Instant::now() >= deadline {
            return None;
        }
        thread::sleep(LOOK_EVERY);
    }
}

/// The requests that wait in `state_dir`, oldest first; removes answers that nobody has read. An error
/// where somebody else could have written them.
pub fn take(state_dir: &Path) -> Result<Vec<Pending>, RequestError> {
    let folder = state_dir.join(FOLDER);
    let failed = |action| {
        let path = folder.clone();
        move |source| RequestError { action, path, source }
    };
    let opened = match open_folder(&folder) {
        Ok(opened) => opened,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(failed("open")(source)),
    };
    let meta = opened.metadata().map_err(failed("read"))?;
    ours(&meta).map_err(failed("trust"))?;
    let mut found = Vec::new();
    for entry in fs::read_dir(&folder).map_err(failed("read"))?.take(ROUND_MAX) {
        let path = entry.map_err(failed("read"))?.path();
        match path.extension().and_then(OsStr::to_str) {
            Some(REQUEST) => found.push(path),
            Some(ANSWER) if outdated(&path) => {
                let _ = fs::remove_file(&path);
            }
            _ => {}
        }
    }
    found.sort();
    Ok(found.into_iter().map(|path| Pending { request: parse(&path), path }).collect())
}

// === impl Pending ===

impl Pending {
    /// Leaves the answer and removes the request: what it asks for is written.
    pub fn answer(self, answer: &Answer) -> Result<(), RequestError> {
        let path = self.path.with_extension(ANSWER);
        let folder = self.path.parent().unwrap_or(Path::new("."));
        let json = serde_json::to_vec(answer).map_err(io::Error::from);
        let told = json.and_then(|json| put(folder, &path, &json, None));
        // Without an answer the command says that it does not know; the decision stands.
        let removed = fs::remove_file(&self.path);
        told.and(removed).map_err(|source| RequestError { action: "answer", path, source })
    }
}

fn parse(path: &Path) -> Result<Request, String> {
    let bytes = read(path).map_err(|error| error.to_string())?;
    serde_json::from_slice(&bytes).map_err(|error| format!("it is no request: {error}"))
}

/// A regular file of root or of this process' user that nobody else can write.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path)?;
    let meta = file.metadata()?;
    ours(&meta)?;
    if !meta.is_file() || meta.len() > LENGTH_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is no small file"));
    }
    let mut bytes = Vec::new();
    file.take(LENGTH_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn ours(meta: &fs::Metadata) -> io::Result<()> {
    let own = rustix::process::geteuid().as_raw();
    // Root reads what the sensor's user has written: it is that user's store.
    let owned = meta.uid() == own || meta.uid() == 0 || own == 0;
    if owned && meta.mode() & 0o022 == 0 {
        return Ok(());
    }
    let text = "it belongs to another user, or others can write to it";
    Err(io::Error::new(io::ErrorKind::PermissionDenied, text))
}

fn open_folder(folder: &Path) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::DIRECTORY;
    OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(folder)
}

/// Writes a file that is there whole or not at all.
fn put(folder: &Path, path: &Path, bytes: &[u8], owner: Option<(u32, u32)>) -> io::Result<()> {
    let unfinished = path.with_extension("unfinished");
    // Left by a crash.
    let _ = fs::remove_file(&unfinished);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished)?;
    if let Some((uid, gid)) = owner {
        fchown(&file, Some(uid), Some(gid))?;
    }
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&unfinished, path)?;
    open_folder(folder)?.sync_all()
}

fn outdated(path: &Path) -> bool {
    let written = fs::symlink_metadata(path).and_then(|meta| meta.modified());
    let age = written.map(|written| SystemTime::now().duration_since(written).unwrap_or_default());
    age.is_ok_and(|age| age > ANSWER_KEPT)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;
    use crate::incident::Verb;

    fn request(id: &str) -> Request {
        let decision = Decision {
            verb: Verb::Acknowledge,
            time: "2026-11-22T15:00:00Z".parse().unwrap(),
            who: "alice".to_owned(),
            why: String::new(),
            uid: 0,
            until: None,
        };
        Request { id: id.to_owned(), decision }
    }

    #[test]
    fn a_request_is_taken_once_it_is_answered_and_its_answer_is_had_once() {
        let dir = tempfile::tempdir().unwrap();
        assert!(take(dir.path()).unwrap().is_empty());
        let left = submit(dir.path(), &request("a1")).unwrap();
        assert_eq!(wait(&left, Duration::ZERO), None, "nobody has answered");
        // Found again until it is answered: the sensor may have crashed.
        assert_eq!(take(dir.path()).unwrap().len(), 1);
        let mut found = take(dir.path()).unwrap();
        let pending = found.pop().unwrap();
        assert_eq!(pending.request, Ok(request("a1")));
        pending.answer(&Answer::Done(State::Acknowledged)).unwrap();
        assert!(take(dir.path()).unwrap().is_empty());
        assert_eq!(wait(&left, Duration::ZERO), Some(Answer::Done(State::Acknowledged)));
        assert_eq!(wait(&left, Duration::ZERO), None);
    }

    #[test]
    fn what_is_no_request_is_told_and_can_be_answered() {
        let dir = tempfile::tempdir().unwrap();
        submit(dir.path(), &request("a1")).unwrap();
        let folder = dir.path().join(FOLDER);
        let large = "x".repeat(usize::try_from(LENGTH_MAX).unwrap() + 1);
        for (name, text) in [("1.json", "{}"), ("2.json", ""), ("3.json", large.as_str())] {
            fs::write(folder.join(name), text).unwrap();
        }
        fs::create_dir(folder.join("4.json")).unwrap();
        symlink("/etc/passwd", folder.join("5.json")).unwrap();
        fs::write(folder.join("6.json"), serde_json::to_vec(&request("b2")).unwrap()).unwrap();
        fs::set_permissions(folder.join("6.json"), fs::Permissions::from_mode(0o666)).unwrap();
        let found = take(dir.path()).unwrap();
        assert_eq!(found.len(), 7);
        let good: Vec<_> = found.iter().filter_map(|one| one.request.as_ref().ok()).collect();
        assert_eq!(good, [&request("a1")], "{found:#?}");
    }

    #[test]
    fn a_directory_that_others_can_write_is_not_trusted() {
        let dir = tempfile::tempdir().unwrap();
        submit(dir.path(), &request("a1")).unwrap();
        let folder = dir.path().join(FOLDER);
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).unwrap();
        assert_eq!(take(dir.path()).unwrap_err().action, "trust");
        assert_eq!(fs::metadata(&folder).unwrap().mode() & 0o777, 0o777);
    }
}
