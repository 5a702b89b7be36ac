//! The station's thread: asks the packages' records at once, and the hasher for what is to be
//! compared.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use tracing::debug;

use super::dates::{self, Question};
use super::line::Line;
use super::place::{self, Place};
use super::variables::{Slot, Variables};
use super::{Counts, Found};
use crate::event::FileKey;
use crate::host::{Aside, Body, Clock, Dated, Library, Observation, Owners, Traced};
use crate::package::digest::{Answer, Hasher, Job, Limits, Outcome, Source};
use crate::package::{
    Bounds, Content, Origin, Owned, Owner, PackageError, Packages, Root, RootKey, Verdict,
};
use crate::search::{self, Explained, FileId, Gatherer, Remains, Unexplained};
use crate::trouble::chain;
use crate::verify::cache::Lru;

/// Origins remembered.
const REMEMBERED: usize = 4096;
/// Programs that write into others.
const WRITERS: usize = 64;
/// What a look for changes may take.
const CHANGES_PATIENCE: Duration = Duration::from_millis(1500);
/// How often the hasher is looked after.
const LOOK: Duration = Duration::from_secs(1);
/// A library whose package manager is at work is asked about again after this time, so often, and so many
/// of them at once.
const AGAIN_AFTER: Duration = Duration::from_secs(2);
const AGAIN_TIMES: u32 = 4;
const AGAIN_MAX: usize = 256;

pub(super) enum Message {
    /// Where did this library come from?
    Ask(Box<Observation>),
    /// The hasher's.
    Hashed(Answer),
    /// No more.
    End,
}

pub(super) struct Worker {
    host: Arc<Root>,
    /// Finds them: a path may lead to a mount that hangs.
    files: Aside<()>,
    /// Reads what changed below a root, which may lie on one.
    changes: Aside<()>,
    packages: Packages,
    hasher: Hasher,
    /// By the tag of the job.
    hashing: HashMap<u64, Hashing>,
    tag: u64,
    known: Lru<Key, Arc<Origin>>,
    /// Where the files of debuggers were found.
    writers: Lru<FileKey, RootKey>,
    variables: Variables,
    /// In the order in which they are due.
    again: VecDeque<Again>,
    searches: Gatherer,
    counts: Arc<Counts>,
    found: Found,
}

/// A question to be asked again.
struct Again {
    due: Instant,
    times: u32,
    place: Place,
    file: FileKey,
    asker: Asker,
}

/// One file below one root.
type Key = (FileKey, RootKey);

/// A question that waits for a digest.
struct Hashing {
    key: Key,
    owned: Box<Owned>,
    /// All that asked meanwhile.
    asked: Vec<Asker>,
}

/// For whom a file is looked at.
enum Asker {
    Library { seen: Box<Observation>, way: Result<Arc<Explained>, Arc<str>> },
    Variable(Slot),
    Writer(Box<Observation>),
}

impl Worker {
    pub(super) fn start(
        messages: Sender<Message>,
        inbox: Receiver<Message>,
        counts: Arc<Counts>,
        found: Found,
    ) -> io::Result<()> {
        let mut worker = Self::new(messages, counts, found)?;
        let thread = thread::Builder::new().name("provenance".to_owned());
        thread.spawn(move || worker.run(Line::new(inbox))).map(drop)
    }

    fn new(messages: Sender<Message>, counts: Arc<Counts>, found: Found) -> io::Result<Self> {
        let answer = move |answer| {
            // The worker has ended: nobody asks any more.
            let _ = messages.send(Message::Hashed(answer));
        };
        Ok(Self {
            host: Arc::new(Root::host()?),
            files: Aside::new("traced-files", || ()),
            changes: Aside::new("changes", || ()).with_patience(CHANGES_PATIENCE),
            packages: Packages::new(Bounds::default()),
            hasher: Hasher::start(Limits::default(), answer)?,
            hashing: HashMap::new(),
            tag: 0,
            known: Lru::new(REMEMBERED, REMEMBERED),
            writers: Lru::new(WRITERS, WRITERS),
            variables: Variables::default(),
            again: VecDeque::new(),
            searches: Gatherer::new(),
            counts,
            found,
        })
    }

    fn run(&mut self, mut line: Line) {
        loop {
            match line.next(LOOK) {
                Ok(Message::Ask(seen)) => self.ask(seen),
                Ok(Message::Hashed(answer)) => self.hashed(answer),
                Ok(Message::End) | Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {}
            }
            self.ask_again();
            // A worker that hangs is replaced.
            self.hasher.health();
        }
    }

    fn ask(&mut self, seen: Box<Observation>) {
        match &seen.body {
            Body::Library(library) => {
                let tgid = seen.process.id.tgid;
                let (path, file) = (PathBuf::from(&library.module.path), library.file);
                let host = Arc::clone(&self.host);
                let find = move |(): &mut ()| place::find(&host, tgid, &path, &file);
                let place = self.files.ask(find).flatten();
                let way = self.way(&seen, library);
                self.trace(place.map(|place| (place, file)), Asker::Library { seen, way });
            }
            Body::Environment(_) => {
                for slot in self.variables.hold(*seen) {
                    let place = self.variables.get(slot).and_then(|(seen, library)| {
                        let on_host = seen.process.shown.container.is_none();
                        let (host, tgid) = (Arc::clone(&self.host), seen.process.id.tgid);
                        let library = library.clone();
                        let find =
                            move |(): &mut ()| place::of_library(&host, tgid, on_host, &library);
                        self.files.ask(find).flatten()
                    });
                    self.trace(place, Asker::Variable(slot));
                }
            }
            Body::LoaderConfig(_) => {
                for slot in self.variables.hold(*seen) {
                    let place = self.variables.module(slot).and_then(|(root, module)| {
                        let (host, root) = (Arc::clone(&self.host), root.clone());
                        let (path, file) = (PathBuf::from(&module.path), module.file?);
                        let find = move |(): &mut ()| place::of_module(&host, &root, &path, file);
                        self.files.ask(find).flatten()
                    });
                    self.trace(place, Asker::Variable(slot));
                }
            }
            Body::Written(written) => {
                let (tgid, program) = (written.writer.id.tgid, &written.writer.program);
                let (path, file) = (PathBuf::from(&program.module.path), program.file);
                let host = Arc::clone(&self.host);
                let find = move |(): &mut ()| place::find(&host, tgid, &path, &file);
                let place = self.files.ask(find).flatten();
                self.writer(place, file, seen);
            }
            Body::Dated(_) => self.date(*seen),
            _ => self.done(),
        }
    }

    /// What changed before a shift in time. No answer on a library: not counted as one.
    fn date(&mut self, mut seen: Observation) {
        // Whoever asked longer ago has gone on without an answer.
        let waited_ns = Clock::ktime_ns().saturating_sub(seen.ktime_ns);
        if waited_ns > Dated::PATIENCE_NS {
            debug!(
                waited_ns,
                "what changed before a shift is not looked at: it was asked too long ago"
            );
            return self.done();
        }
        if let Body::Dated(dated) = &seen.body {
            let question = Question::new(&seen, dated);
            let host = Arc::clone(&self.host);
            let looked = self.changes.ask(move |(): &mut ()| question.look(&host)).flatten();
            let mut dated = dated.clone();
            dated.answer = Some(dates::evidence(&mut self.packages, &seen, &dated, looked));
            seen.body = Body::Dated(dated);
            (self.found)(seen);
        }
        self.done();
    }

    /// How the loader found the library; of a process that has ended there are the files.
    fn way(&mut self, seen: &Observation, library: &Library) -> Result<Arc<Explained>, Arc<str>> {
        let id = |file: &FileKey| FileId { ino: file.ino, size: file.size };
        let process = &seen.process;
        let variables = &*process.variables;
        let question =
            search::Question { pid: process.id.tgid, file: id(&library.file), variables };
        let program = &process.program;
        let remains = Remains {
            program: (Path::new(&program.module.path), id(&program.file)),
            library: (Path::new(&library.module.path), id(&library.file)),
            variables,
            euid: process.euid,
            secure: process.secure,
        };
        let told = match self.searches.explain(&question) {
            Err(Unexplained::Process(_)) if process.shown.container.is_none() => {
                self.searches.explain_remains(&remains)
            }
            other => other,
        };
        told.map(Arc::new).map_err(|error| error.to_string().into())
    }

    fn ask_again(&mut self) {
        let now = Instant::now();
        while self.again.front().is_some_and(|again| again.due <= now) {
            let Some(Again { times, place, file, asker, .. }) = self.again.pop_front() else {
                return;
            };
            self.trace_again(Some((place, file)), asker, times);
        }
    }

    fn trace(&mut self, place: Option<(Place, FileKey)>, asker: Asker) {
        self.trace_again(place, asker, 0);
    }

    /// The same where it was asked so many times before.
    fn trace_again(&mut self, place: Option<(Place, FileKey)>, asker: Asker, times: u32) {
        let Some((place, file)) = place else {
            let reason = "the file is not at its path any more, or cannot be had".to_owned();
            return self.answer(asker, &Arc::new(Origin::unknown(reason)));
        };
        let key = (file, place.root.key());
        if let Some(origin) = self.known.get(&key) {
            return self.answer(asker, &origin);
        }
        if let Some(waiting) = self.hashing.values_mut().find(|waiting| waiting.key == key) {
            return waiting.asked.push(asker);
        }
        match self.packages.owner(&place.root, &place.path) {
            Ok(Some(owned)) => self.compare(asker, key, place, owned),
            Ok(None) => {
                let origin = Origin { owner: Owner::Nobody, content: Content::NotRecorded };
                self.settle(key, origin, asker);
            }
            Err(PackageError::Changing { .. })
                if matches!(asker, Asker::Library { .. })
                    && times < AGAIN_TIMES
                    && self.again.len() < AGAIN_MAX =>
            {
                let (due, times) = (Instant::now() + AGAIN_AFTER, times + 1);
                self.again.push_back(Again { due, times, place, file, asker });
            }
            // May be another answer next time.
            Err(error) => self.answer(asker, &Arc::new(Origin::unknown(chain(&error)))),
        }
    }

    /// One that ran before is known by its file: it may be gone, and with it the root it was in.
    fn writer(&mut self, place: Option<Place>, file: FileKey, seen: Box<Observation>) {
        if let Some(place) = &place {
            self.writers.insert(file, place.root.key(), 1);
        }
        let before = self.writers.get(&file).filter(|_| place.is_none());
        match before.and_then(|root| self.known.get(&(file, root))) {
            Some(origin) => self.answer(Asker::Writer(seen), &origin),
            None => self.trace(place.map(|place| (place, file)), Asker::Writer(seen)),
        }
    }

    fn compare(&mut self, asker: Asker, key: Key, place: Place, owned: Owned) {
        let Some(recorded) = &owned.recorded else {
            let origin =
                Origin { owner: Owner::Package(Box::new(owned)), content: Content::NotRecorded };
            return self.settle(key, origin, asker);
        };
        self.tag += 1;
        let source = Source::below(place.root, place.path);
        let urgent = matches!(asker, Asker::Writer(_));
        let job = Job { tag: self.tag, source, algorithm: recorded.algorithm(), urgent };
        let owned = Box::new(owned);
        if self.hasher.submit(job) {
            self.hashing.insert(self.tag, Hashing { key, owned, asked: vec![asker] });
        } else {
            let content = Content::Unread("too many files wait to be read".to_owned());
            self.answer(asker, &Arc::new(Origin { owner: Owner::Package(owned), content }));
        }
    }

    fn hashed(&mut self, answer: Answer) {
        let Some(Hashing { key, owned, asked }) = self.hashing.remove(&answer.tag) else { return };
        let (content, keep) = match answer.outcome {
            Outcome::Digest(found) => match (owned.verdict(&found), owned.recorded) {
                (Verdict::Differs, Some(recorded)) => (Content::Differs { recorded, found }, true),
                (Verdict::Unknown, _) => (Content::NotRecorded, true),
                (Verdict::Matches | Verdict::Changed | Verdict::Differs, _) => {
                    (Content::Matches, true)
                }
            },
            Outcome::Refused(refusal) => (Content::Unread(refusal.to_string()), true),
            Outcome::Failed(error) => (Content::Unread(error.to_string()), false),
            Outcome::Stuck => (Content::Unread("reading it does not end".to_owned()), true),
        };
        let origin = Arc::new(Origin { owner: Owner::Package(owned), content });
        if keep {
            self.known.insert(key, Arc::clone(&origin), 1);
        }
        for asker in asked {
            self.answer(asker, &origin);
        }
    }

    fn settle(&mut self, key: Key, origin: Origin, asker: Asker) {
        let origin = Arc::new(origin);
        self.known.insert(key, Arc::clone(&origin), 1);
        self.answer(asker, &origin);
    }

    /// With the time and process of what was asked about: what was found holds for that moment.
    fn answer(&mut self, asker: Asker, origin: &Arc<Origin>) {
        match asker {
            Asker::Library { seen, way } => {
                if let Body::Library(library) = &seen.body {
                    let (library, origin) = (Library::clone(library), Arc::clone(origin));
                    let traced = Traced { library, origin, way, judged: None };
                    self.tell(Observation { body: Body::Traced(traced), ..*seen });
                }
            }
            Asker::Writer(mut seen) => {
                if let Body::Written(written) = &mut seen.body {
                    written.owners = Owners::Answered;
                    written.origin = Some(Arc::clone(origin));
                }
                self.tell(*seen);
            }
            Asker::Variable(slot) => {
                if let Some(seen) = self.variables.fill(slot, origin) {
                    self.tell(seen);
                }
            }
        }
    }

    fn tell(&mut self, seen: Observation) {
        self.counts.answered.fetch_add(1, Ordering::Relaxed);
        (self.found)(seen);
        self.done();
    }

    fn done(&self) {
        self.counts.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
