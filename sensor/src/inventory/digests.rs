//! What the mapped files hold: their SHA-256, and whether they are what their packages brought.
//!
//! Read by the hasher of the package databases, on its thread, within its bounds: a file that is too
//! large, or on a file system that does not answer, has a reason in place of a digest.

use std::collections::HashMap;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use super::collect::Inventory;
use super::file::File;
use super::root::ProcRoot;
use crate::package::Content;
use crate::package::digest::{Algorithm, Answer, Digest, Hasher, Job, Limits, Outcome, Source};

/// Files handed to the hasher at once.
const AHEAD: usize = 64;
/// Processes tried for one file, should the first have ended.
const PROCESSES_MAX: usize = 4;
/// How often the hasher is looked after.
const LOOK: Duration = Duration::from_secs(1);
/// Somebody waits for the answer, unlike for the sensor's.
const STUCK_AFTER: Duration = Duration::from_secs(10);
const BYTES_PER_SECOND: u64 = 1 << 40;

/// What came of a wish.
type Told = Result<Digest, String>;

/// A file to be read.
struct Wish {
    algorithm: Algorithm,
    /// Files that are one, by number.
    files: Vec<usize>,
}

/// What tells that two files with one path and build-id are the same, seen through two overlays:
/// these a process cannot choose.
#[derive(PartialEq, Eq, Hash)]
struct Same<'a> {
    path: &'a std::path::Path,
    build_id: Option<&'a str>,
    ino: u64,
    size: Option<u64>,
    changed: Option<(i64, i64)>,
    dev: Option<u64>,
}

impl Inventory {
    /// Reads the SHA-256 of every file that may be read. `progress` is told how many are left.
    ///
    /// # Errors
    /// The system has no thread to give.
    pub fn hash(&mut self, progress: &mut dyn FnMut(usize)) -> io::Result<()> {
        let mut wishes: HashMap<Same<'_>, Vec<usize>> = HashMap::new();
        for (at, file) in self.files.iter().enumerate().filter(|(_, file)| file.unread.is_none()) {
            wishes.entry(same(file)).or_default().push(at);
        }
        let algorithm = Algorithm::Sha256;
        let wishes: Vec<Wish> =
            wishes.into_values().map(|files| Wish { algorithm, files }).collect();
        let told = self.read(&wishes, progress)?;
        for file in &mut self.files {
            file.sha256 = file.unread.as_ref().map(|unread| Err(unread.to_string()));
        }
        for (at, told) in told {
            if let Some(file) = self.files.get_mut(at) {
                file.sha256 = Some(told);
            }
        }
        Ok(())
    }

    /// Compares the files that are wanted with what their packages record.
    ///
    /// # Errors
    /// The system has no thread to give.
    pub fn compare(
        &mut self,
        wanted: &dyn Fn(&File) -> bool,
        progress: &mut dyn FnMut(usize),
    ) -> io::Result<()> {
        let mut wishes = Vec::new();
        for (at, file) in self.files.iter_mut().enumerate().filter(|(_, file)| wanted(file)) {
            let Some(package) = file.owner.package() else { continue };
            file.content = Some(match (&file.unread, &package.recorded) {
                (Some(unread), _) => Content::Unread(unread.to_string()),
                // What the package records is of the file that came after it.
                (None, _) if file.is_stale() => {
                    Content::Unread("the file is no longer at its path".to_owned())
                }
                (None, None) => Content::NotRecorded,
                (None, Some(recorded)) => {
                    wishes.push(Wish { algorithm: recorded.algorithm(), files: vec![at] });
                    continue;
                }
            });
        }
        for (at, told) in self.read(&wishes, progress)? {
            let Some(file) = self.files.get_mut(at) else { continue };
            let recorded = file.owner.package().and_then(|package| package.recorded);
            file.content = Some(match (told, recorded) {
                (Ok(found), Some(recorded)) if found == recorded => Content::Matches,
                (Ok(found), Some(recorded)) => Content::Differs { recorded, found },
                (Ok(_), None) => Content::NotRecorded,
                (Err(reason), _) => Content::Unread(reason),
            });
        }
        Ok(())
    }

    fn read(
        &self,
        wishes: &[Wish],
        progress: &mut dyn FnMut(usize),
    ) -> io::Result<Vec<(usize, Told)>> {
        if wishes.is_empty() {
            return Ok(Vec::new());
        }
        let limits = Limits {
            queue: AHEAD,
            stuck_after: STUCK_AFTER,
            bytes_per_second: BYTES_PER_SECOND,
            ..Limits::default()
        };
        let (send, answers) = channel();
        let hasher = Hasher::start(limits, move |answer| {
            // Nobody waits any more.
            let _ = send.send(answer);
        })?;
        let users = self.users();
        let (mut told, mut given, mut answered) = (HashMap::new(), 0, 0);
        while answered < wishes.len() {
            while given < wishes.len() && given - answered < AHEAD {
                if let Some(wish) = wishes.get(given) {
                    self.submit(&hasher, given, wish, &users, &mut told);
                }
                given += 1;
            }
            answered = told.len();
            if answered == wishes.len() || !next(&hasher, &answers, &mut told) {
                break;
            }
            answered = told.len();
            progress(wishes.len() - answered);
        }
        let stuck = || Err("reading it, or one before it, does not end".to_owned());
        let all = wishes.iter().enumerate().flat_map(|(at, wish)| {
            let told = told.get(&at).cloned().unwrap_or_else(stuck);
            wish.files.iter().map(move |file| (*file, told.clone()))
        });
        Ok(all.collect())
    }

    fn submit(
        &self,
        hasher: &Hasher,
        at: usize,
        wish: &Wish,
        users: &HashMap<u32, Vec<u32>>,
        told: &mut HashMap<usize, Told>,
    ) {
        let file = wish.files.first().and_then(|first| self.files.get(*first));
        let number = wish.files.first().and_then(|first| u32::try_from(*first).ok());
        let users = number.and_then(|number| users.get(&number)).map(Vec::as_slice);
        let source = file.map(|file| source(file, users.unwrap_or_default()));
        let tag = u64::try_from(at).unwrap_or(u64::MAX);
        let algorithm = wish.algorithm;
        let job = source.map(|source| Job { tag, source, algorithm, urgent: false });
        if !job.is_some_and(|job| hasher.submit(job)) {
            told.insert(at, Err("too many files wait to be read".to_owned()));
        }
    }

    /// Processes that have each file mapped.
    fn users(&self) -> HashMap<u32, Vec<u32>> {
        let mut users: HashMap<u32, Vec<u32>> = HashMap::new();
        for one in &self.uses {
            let Some((process, _)) = self.of(one) else { continue };
            let of_file = users.entry(one.file).or_default();
            if of_file.len() < PROCESSES_MAX {
                of_file.push(process.pid);
            }
        }
        users
    }
}

/// Takes the next answer; false where none comes any more.
fn next(hasher: &Hasher, answers: &Receiver<Answer>, told: &mut HashMap<usize, Told>) -> bool {
    match answers.recv_timeout(LOOK) {
        Ok(answer) => {
            let outcome = match answer.outcome {
                Outcome::Digest(digest) => Ok(digest),
                Outcome::Refused(refusal) => Err(refusal.to_string()),
                Outcome::Failed(error) => Err(error.to_string()),
                Outcome::Stuck => Err("reading it does not end".to_owned()),
            };
            told.insert(usize::try_from(answer.tag).unwrap_or(usize::MAX), outcome);
            true
        }
        // A worker that hangs is replaced, but not for ever.
        Err(RecvTimeoutError::Timeout) => hasher.health().stuck.is_none(),
        Err(RecvTimeoutError::Disconnected) => false,
    }
}

fn same(file: &File) -> Same<'_> {
    // Without a build-id nothing says that two files are one.
    let dev = file.build_id().is_none().then_some(file.dev);
    Same {
        path: &file.path,
        build_id: file.build_id(),
        ino: file.ino,
        size: file.size,
        changed: file.changed,
        dev,
    }
}

/// The kernel's own reference to the file, else its path in a process that has it mapped, as long as
/// that leads to the same inode.
fn source(file: &File, users: &[u32]) -> Source {
    let (dev, ino) = (file.dev, file.ino);
    let link = file.link.clone().map(PathBuf::from);
    let (path, users) = (file.path.clone(), users.to_vec());
    Source::with(move || {
        let is_it = |metadata: &Metadata| metadata.dev() == dev && metadata.ino() == ino;
        let checked = |opened: io::Result<std::fs::File>| {
            opened.ok().filter(|file| file.metadata().is_ok_and(|metadata| is_it(&metadata)))
        };
        let by_link = link.and_then(|link| checked(std::fs::File::open(link)));
        let by_path = || {
            users.iter().find_map(|pid| {
                let root = ProcRoot::read(*pid).ok()?;
                checked(root.open_file(&path))
            })
        };
        let gone = || io::Error::new(io::ErrorKind::NotFound, "nobody has it mapped any more");
        by_link.or_else(by_path).ok_or_else(gone)
    })
}

#[cfg(test)]
mod tests {
    use super::super::collect::collect;
    use super::super::owner::NoOwners;
    use super::*;

    #[test]
    fn what_is_mapped_has_the_digest_of_its_file() {
        let mut inventory = collect(&mut NoOwners, &mut |_| {}).unwrap();
        inventory.files.truncate(40);
        let mut lefts = Vec::new();
        inventory.hash(&mut |left| lefts.push(left)).unwrap();
        assert!(lefts.is_sorted_by(|a, b| a >= b) && lefts.last() == Some(&0), "{lefts:?}");
        let hashed: Vec<_> = inventory
            .files
            .iter()
            .filter_map(|file| Some((file, file.sha256.as_ref()?.as_ref().ok()?)))
            .collect();
        assert!(!hashed.is_empty(), "{:?}", inventory.tally);
        for (file, digest) in hashed {
            if file.is_stale() || file.memory {
                continue;
            }
            // Of a process in another root the path leads elsewhere here.
            let Ok(here) = std::fs::metadata(&file.path) else { continue };
            if here.ino() != file.ino {
                continue;
            }
            let Ok(bytes) = std::fs::read(&file.path) else { continue };
            let again = <sha2::Sha256 as sha2::Digest>::digest(&bytes);
            let again = Digest::from_bytes(Algorithm::Sha256, &again).unwrap();
            assert_eq!(digest, &again, "{}", file.path.display());
        }
    }

    #[test]
    fn a_file_that_nobody_has_mapped_any_more_has_a_reason() {
        let mut inventory = collect(&mut NoOwners, &mut |_| {}).unwrap();
        inventory.files.truncate(1);
        inventory.uses.clear();
        let file = &mut inventory.files[0];
        (file.link, file.unread, file.ino) = (Some("/proc/self/exe".to_owned()), None, 0);
        inventory.hash(&mut |_| {}).unwrap();
        let told = inventory.files[0].sha256.clone().unwrap();
        assert!(told.is_err_and(|reason| reason.contains("any more")));
    }
}
