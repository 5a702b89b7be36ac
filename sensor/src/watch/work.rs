//! The thread of the watch: events and comparisons in, changes out.

mod tell;

use std::collections::{BTreeSet, VecDeque};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::sync::mpsc;
use tracing::warn;

use super::Told;
use super::actor::Actors;
use super::change::Action;
use super::examine::Answer;
use super::keep::Keep;
use super::parse::{self, Event};
use super::pending::Gathered;
use super::prober::Prober;
use super::report::Standing;
use super::roots::{self, RootKey};
use super::spot::Spot;
use super::sys::Group;
use super::views::{Concern, View, Views};
use crate::config::Watch as Settings;
use crate::host::Clock;
use crate::metrics::Metrics;

/// Bytes read at once: some hundred events.
const BUFFER: usize = 64 * 1024;
/// Reads of a queue that does not run empty, before anything else has its turn.
const READS_MAX: usize = 64;
/// Least time between two readings of the queue, so that a storm of events costs little: the kernel
/// merges equal ones that wait.
const BREATH: Duration = Duration::from_millis(5);
/// Comparisons may take this share of a processor: one part in so many.
const SHARE: u32 = 100;
/// After something was mounted, or events were lost.
const SOON: Duration = Duration::from_millis(50);
/// Looks at one root while signs come in.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Marks left behind by roots that are gone, before all are put on anew.
const STALE_MAX: usize = 4096;

/// Everything the thread owns.
#[derive(Debug)]
pub(super) struct Work {
    settings: Settings,
    group: Arc<Group>,
    prober: Prober,
    views: Views,
    gathered: Gathered,
    /// The host's own root.
    host: Option<RootKey>,
    mounts: Option<File>,
    stop: OwnedFd,
    out: mpsc::Sender<Told>,
    metrics: Metrics,
    keep: Keep,
    next_scan: Instant,
    /// No comparison before this, whatever asks for one.
    rested: Instant,
    last_read: Instant,
    /// Roots in which something was seen since they were looked at.
    to_look: BTreeSet<RootKey>,
    /// Changes, and from when on they may be told.
    outbox: VecDeque<(Instant, Told)>,
    /// What was told of the host is not kept yet.
    unkept: bool,
    stale: usize,
    standing: Standing,
    keep_failed: bool,
    buffer: Vec<u8>,
}

// === impl Work ===

impl Work {
    pub(super) fn new(
        settings: Settings,
        group: Group,
        stop: OwnedFd,
        out: mpsc::Sender<Told>,
        metrics: Metrics,
        keep: Keep,
    ) -> Self {
        let (group, now) = (Arc::new(group), Instant::now());
        Self {
            settings,
            prober: Prober::new(Arc::clone(&group)),
            group,
            views: Views::default(),
            gathered: Gathered::default(),
            // Where the first process may not be looked at, this one's root stands for the host's.
            host: RootKey::of(1).or_else(|| RootKey::of(std::process::id())),
            mounts: File::open("/proc/1/mountinfo")
                .or_else(|_| File::open("/proc/self/mountinfo"))
                .ok(),
            stop,
            out,
            metrics,
            keep,
            next_scan: now,
            rested: now,
            last_read: now,
            to_look: BTreeSet::new(),
            outbox: VecDeque::new(),
            unkept: false,
            stale: 0,
            standing: Standing::default(),
            keep_failed: false,
            buffer: vec![0; BUFFER],
        }
    }

    /// The first look: what is there now counts as told, but for what the host had when it was
    /// looked at last. From its return on, nothing is missed.
    pub(super) fn begin(&mut self) {
        self.scan(Instant::now());
        let kept = self.keep.load().unwrap_or_else(|error| {
            warn!(%error, "what was known of the loader's files cannot be read: beginning anew");
            None
        });
        let Some(host) = self.host else { return };
        if let (Some(kept), Some(view)) = (kept, self.views.get_mut(&host)) {
            view.told = kept;
            self.compare(host, Instant::now(), true);
        }
        self.store();
    }

    /// Until the other end of `stop` is closed.
    pub(super) fn run(&mut self) -> io::Result<()> {
        loop {
            let woken = self.wait()?;
            let now = Instant::now();
            if woken.stop {
                return Ok(());
            }
            if woken.mounts {
                self.next_scan = self.next_scan.min(now + SOON);
            }
            if woken.events {
                self.read(now)?;
            }
            self.look_again(Instant::now());
            self.flush(Instant::now());
            if now >= self.next_scan.max(self.rested) {
                self.scan(Instant::now());
            }
        }
    }

    fn wait(&self) -> io::Result<Woken> {
        let now = Instant::now();
        let scan = self.next_scan.max(self.rested);
        let due =
            self.gathered.next_due().into_iter().chain(self.next_look()).fold(scan, Instant::min);
        let due = self.outbox.front().map_or(due, |(settled, _)| due.min(*settled));
        let breath = self.last_read + BREATH;
        let resting = breath > now;
        let until = if resting { due.min(breath) } else { due };
        let timeout = Timespec::try_from(until.saturating_duration_since(now)).ok();
        let mut polled = vec![PollFd::new(&self.stop, PollFlags::HUP)];
        polled.extend(self.mounts.as_ref().map(|mounts| PollFd::new(mounts, PollFlags::PRI)));
        let mounts = self.mounts.is_some();
        if !resting {
            polled.push(PollFd::from_borrowed_fd(self.group.as_fd(), PollFlags::IN));
        }
        match poll(&mut polled, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let woken = |at: usize| polled.get(at).is_some_and(|fd| !fd.revents().is_empty());
        Ok(Woken {
            stop: woken(0),
            mounts: mounts && woken(1),
            events: !resting && woken(1 + usize::from(mounts)),
        })
    }

    fn read(&mut self, now: Instant) -> io::Result<()> {
        let mut actors = Actors::default();
        let mut touched = BTreeSet::new();
        let ktime_ns = Clock::ktime_ns();
        for _ in 0..READS_MAX {
            let length = self.group.read(&mut self.buffer)?;
            let batch = parse::batch(self.buffer.get(..length).unwrap_or_default());
            if batch.overflow || batch.malformed {
                let why = if batch.overflow { "overflow" } else { "malformed" };
                self.count(why);
                self.next_scan = now;
            }
            for event in &batch.events {
                self.on_event(event, ktime_ns, now, &mut actors, &mut touched);
            }
            if length == 0 {
                break;
            }
        }
        self.last_read = Instant::now();
        self.to_look.append(&mut touched);
        Ok(())
    }

    /// Looks where signs have come in: what was created needs marks of its own, and what it says may
    /// not last.
    fn look_again(&mut self, now: Instant) {
        let due = |view: &View| view.looked + LOOK_EVERY <= now;
        let roots: Vec<RootKey> =
            self.to_look.extract_if(.., |root| self.views.get(root).is_none_or(due)).collect();
        for root in roots {
            self.look(root, now);
        }
    }

    fn next_look(&self) -> Option<Instant> {
        let looked = self.to_look.iter().filter_map(|root| self.views.get(root));
        looked.map(|view| view.looked + LOOK_EVERY).min()
    }

    fn on_event(
        &mut self,
        event: &Event,
        ktime_ns: u64,
        now: Instant,
        actors: &mut Actors,
        touched: &mut BTreeSet<RootKey>,
    ) {
        match self.views.concerned(event) {
            Concern::Noise => self.count("noise"),
            Concern::Unknown => {
                // Its handle has changed since (copy-up), or its root has gone: look for oneself.
                self.count("unknown");
                self.next_scan = self.next_scan.min(now + SOON);
            }
            Concern::Spots(spots) => {
                self.count("matched");
                let actions = Action::of(event.mask);
                let actor = actors.get(event.tgid);
                for (root, spot) in spots {
                    let by = Some((actor, actions.as_slice()));
                    self.gathered.touch((root, spot), by, ktime_ns, now);
                    touched.insert(root);
                }
            }
        }
    }

    /// Looks at a root; false where it is not to be had.
    fn look(&mut self, root: RootKey, now: Instant) -> bool {
        let Some(tgid) = self.views.get(&root).map(|view| view.tgid) else { return false };
        match self.prober.ask(self.views.task(root, tgid)) {
            Some(Answer::Same) => {}
            Some(Answer::New(look)) => {
                self.standing.note_marks(root, look.unmarked.clone());
                self.views.update(root, *look);
                self.remember(root);
            }
            Some(Answer::Gone | Answer::Failed) | None => return false,
        }
        if let Some(view) = self.views.get_mut(&root) {
            view.looked = now;
        }
        true
    }

    /// Entries that are in effect while a change is being gathered may be gone at its end.
    fn remember(&mut self, root: RootKey) {
        let Some(view) = self.views.get(&root) else { return };
        for spot in self.gathered.spots_of(root) {
            let Some(state) = view.look.states.get(&spot) else { continue };
            let entries = state.content.entries().iter().take(super::state::TOLD_MAX).cloned();
            if let Some(pending) = self.gathered.get_mut(&(root, spot)) {
                pending.entries.extend(entries);
            }
        }
    }

    /// Every root there is: new ones are taken in, all are compared.
    fn scan(&mut self, now: Instant) {
        let found = roots::scan();
        for root in self.views.keys() {
            match found.get(&root) {
                Some(tgid) => {
                    if let Some(view) = self.views.get_mut(&root) {
                        view.tgid = *tgid;
                    }
                }
                None => self.forget(root),
            }
        }
        let mut over = 0;
        // The host's own first: no number of other roots keeps it out.
        let own = self.host.and_then(|host| found.get_key_value(&host));
        let own: Vec<(RootKey, u32)> = own.map(|(root, tgid)| (*root, *tgid)).into_iter().collect();
        let others = found.into_iter().filter(|(root, _)| Some(*root) != self.host);
        let ordered: Vec<(RootKey, u32)> = own.into_iter().chain(others).collect();
        for (root, tgid) in ordered {
            if self.views.get(&root).is_none() {
                if self.views.len() >= self.settings.roots {
                    over += 1;
                } else {
                    self.take_in(root, tgid, now);
                }
            } else if self.look(root, now) {
                self.compare(root, now, false);
            }
        }
        self.tidy();
        let took = now.elapsed();
        self.rested = Instant::now() + took * SHARE;
        self.next_scan = Instant::now() + self.settings.compare_every.max(took * SHARE);
        self.standing.over = over;
        self.tell_standing();
    }

    fn take_in(&mut self, root: RootKey, tgid: u32, now: Instant) {
        match self.prober.ask(self.views.task(root, tgid)) {
            Some(Answer::New(look)) => {
                self.standing.note_marks(root, look.unmarked.clone());
                let inherited = self.views.inherited(root);
                let differs = inherited.is_some();
                let told = inherited.unwrap_or_else(|| look.states.clone());
                let path = roots::path(tgid);
                let look = Arc::new(*look);
                let view = View { tgid, path, look, told, unmarked: false, looked: now };
                self.views.insert(root, view);
                if differs {
                    self.compare(root, now, false);
                }
            }
            Some(Answer::Gone | Answer::Same) => {}
            Some(Answer::Failed) | None => self.standing.note_failure(root),
        }
    }

    /// What differs from what was told, though nobody was seen at it (yet: the event may wait).
    fn compare(&mut self, root: RootKey, now: Instant, while_away: bool) {
        let Some(view) = self.views.get(&root) else { return };
        let spots: BTreeSet<&Spot> = view.told.keys().chain(view.look.states.keys()).collect();
        let differing: Vec<Spot> = spots
            .into_iter()
            .filter(|spot| spot.folder().is_none())
            .filter(|spot| view.told.get(spot) != view.look.states.get(spot))
            .cloned()
            .collect();
        for spot in differing {
            let key = (root, spot);
            if !self.gathered.contains(&key) {
                self.gathered.touch(key.clone(), None, Clock::ktime_ns(), now);
                if let Some(pending) = self.gathered.get_mut(&key) {
                    pending.while_away = while_away;
                }
            }
        }
    }

    fn forget(&mut self, root: RootKey) {
        self.stale += self.views.remove(root);
        self.gathered.forget(root);
        self.standing.forget(root);
    }

    /// Marks cannot be taken away without the file: where many are left behind, all go.
    fn tidy(&mut self) {
        if self.stale < STALE_MAX {
            return;
        }
        self.stale = 0;
        match self.group.flush() {
            Ok(()) => {
                self.views.unmark();
                for root in self.views.keys() {
                    self.look(root, Instant::now());
                    self.compare(root, Instant::now(), false);
                }
            }
            Err(error) => warn!(%error, "marks of roots that are gone stay"),
        }
    }

    fn count(&self, outcome: &str) {
        self.metrics.watch_events.with_label_values(&[outcome]).inc();
    }

    fn tell_standing(&mut self) {
        self.standing.watched = self.views.len();
        self.standing.stuck = self.prober.stuck();
        self.standing.show(&self.metrics);
        if let Some(report) = self.standing.news() {
            // Told again at the next comparison if there is no room now.
            if self.out.try_send(Told::Report(report)).is_err() {
                self.standing.untold();
            }
        }
    }
}

/// What the thread was woken for.
#[derive(Clone, Copy, Debug)]
struct Woken {
    stop: bool,
    mounts: bool,
    events: bool,
}
