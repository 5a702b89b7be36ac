//! The station's thread: asks the packages' records at once, and the hasher for what is to be
//! compared.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use super::place::{self, Place};
use super::{Counts, Found};
use crate::event::FileKey;
use crate::host::{Aside, Body, Library, Observation, Traced};
use crate::package::digest::{Answer, Hasher, Job, Limits, Outcome, Source};
use crate::package::{Bounds, Content, Origin, Owned, Owner, Packages, Root, RootKey, Verdict};
use crate::trouble::chain;
use crate::verify::cache::Lru;

/// Origins remembered.
const REMEMBERED: usize = 4096;
/// How often the hasher is looked after.
const LOOK: Duration = Duration::from_secs(1);

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
    packages: Packages,
    hasher: Hasher,
    /// By the tag of the job.
    hashing: HashMap<u64, Hashing>,
    tag: u64,
    known: Lru<(FileKey, RootKey), Arc<Origin>>,
    counts: Arc<Counts>,
    found: Found,
}

/// A question that waits for a digest.
struct Hashing {
    key: (FileKey, RootKey),
    owned: Box<Owned>,
    /// All that asked meanwhile.
    asked: Vec<Observation>,
}

impl Worker {
    pub(super) fn start(
        messages: Sender<Message>,
        inbox: Receiver<Message>,
        counts: Arc<Counts>,
        found: Found,
    ) -> io::Result<()> {
        let answer = move |answer| {
            // The worker has ended: nobody asks any more.
            let _ = messages.send(Message::Hashed(answer));
        };
        let mut worker = Self {
            host: Arc::new(Root::host()?),
            files: Aside::new("traced-files", || ()),
            packages: Packages::new(Bounds::default()),
            hasher: Hasher::start(Limits::default(), answer)?,
            hashing: HashMap::new(),
            tag: 0,
            known: Lru::new(REMEMBERED, REMEMBERED),
            counts,
            found,
        };
        let thread = thread::Builder::new().name("provenance".to_owned());
        thread.spawn(move || worker.run(&inbox)).map(drop)
    }

    fn run(&mut self, inbox: &Receiver<Message>) {
        loop {
            match inbox.recv_timeout(LOOK) {
                Ok(Message::Ask(seen)) => self.ask(seen),
                Ok(Message::Hashed(answer)) => self.hashed(answer),
                Ok(Message::End) | Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {}
            }
            // A worker that hangs is replaced.
            self.hasher.health();
        }
    }

    fn ask(&mut self, seen: Box<Observation>) {
        let Body::Library(library) = &seen.body else { return self.done(1) };
        let tgid = seen.process.id.tgid;
        let (host, file) = (Arc::clone(&self.host), library.file);
        let path = PathBuf::from(&library.module.path);
        let place = self.files.ask(move |(): &mut ()| place::find(&host, tgid, &path, &file));
        let Some(place) = place.flatten() else {
            let reason = "the file is not at its path any more, or cannot be had".to_owned();
            return self.tell(&seen, &Arc::new(Origin::unknown(reason)));
        };
        let key = (library.file, place.root.key());
        if let Some(origin) = self.known.get(&key) {
            return self.tell(&seen, &origin);
        }
        if let Some(waiting) = self.hashing.values_mut().find(|waiting| waiting.key == key) {
            return waiting.asked.push(*seen);
        }
        match self.packages.owner(&place.root, &place.path) {
            Ok(Some(owned)) => self.compare(seen, key, place, owned),
            Ok(None) => {
                let origin = Origin { owner: Owner::Nobody, content: Content::NotRecorded };
                self.settle(key, origin, &seen);
            }
            // May be another answer next time.
            Err(error) => self.tell(&seen, &Arc::new(Origin::unknown(chain(&error)))),
        }
    }

    fn compare(
        &mut self,
        seen: Box<Observation>,
        key: (FileKey, RootKey),
        place: Place,
        owned: Owned,
    ) {
        let Some(recorded) = &owned.recorded else {
            let origin =
                Origin { owner: Owner::Package(Box::new(owned)), content: Content::NotRecorded };
            return self.settle(key, origin, &seen);
        };
        self.tag += 1;
        let source = Source::below(place.root, place.path);
        let job = Job { tag: self.tag, source, algorithm: recorded.algorithm() };
        let owned = Box::new(owned);
        if self.hasher.submit(job) {
            self.hashing.insert(self.tag, Hashing { key, owned, asked: vec![*seen] });
        } else {
            let content = Content::Unread("too many files wait to be read".to_owned());
            self.tell(&seen, &Arc::new(Origin { owner: Owner::Package(owned), content }));
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
        for seen in &asked {
            self.tell(seen, &origin);
        }
    }

    fn settle(&mut self, key: (FileKey, RootKey), origin: Origin, seen: &Observation) {
        let origin = Arc::new(origin);
        self.known.insert(key, Arc::clone(&origin), 1);
        self.tell(seen, &origin);
    }

    /// The mapping's own time and process: what was found holds for that moment.
    fn tell(&mut self, seen: &Observation, origin: &Arc<Origin>) {
        if let Body::Library(library) = &seen.body {
            let traced = Traced { library: Library::clone(library), origin: Arc::clone(origin) };
            self.counts.answered.fetch_add(1, Ordering::Relaxed);
            (self.found)(Observation { body: Body::Traced(traced), ..seen.clone() });
        }
        self.done(1);
    }

    fn done(&self, asks: u64) {
        self.counts.waiting.fetch_sub(asks, Ordering::Relaxed);
    }
}
