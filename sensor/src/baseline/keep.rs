//! Baselines in memory, loaded when asked for and flushed when something in them changed.
//!
//! Memory holds those used last, up to a number of bytes. What has to leave before it was written
//! waits packed for the next flush; with a store that keeps nothing (replays) it waits for good.

mod heap;

pub(super) mod obey;

use std::collections::BTreeMap;

use super::state::Criteria;
use super::store::{Entry, Opened, Store, StoreError, StoreTally, Unread};
use super::subject::Baseline;
use crate::trouble::chain;

/// Baselines held in memory, and their bytes, about; the least recently used ones are read again when
/// needed.
const RESIDENT_MAX: usize = 1024;
const RESIDENT_BYTES: usize = 2 * 1024 * 1024;
/// Held whatever they take: an observation is judged by two.
const RESIDENT_MIN: usize = 8;
/// Bytes that wait packed before they are written out of turn.
const WAITING_FLUSH: usize = 512 * 1024;
/// Bytes that wait packed while the store takes none; beyond, some are lost and counted.
const WAITING_MAX: usize = 16 * 1024 * 1024;
/// Flushes between two writes of baselines in which nothing but a count has changed.
const LAZY: u32 = 30;

/// Every baseline.
#[derive(Debug)]
pub struct Baselines {
    resident: BTreeMap<String, Resident>,
    /// Bytes of the resident ones, about.
    heap: usize,
    /// Changed, and no longer resident: not on disk.
    waiting: BTreeMap<String, Waiting>,
    /// Bytes of them.
    waiting_bytes: usize,
    store: Store,
    uses: u64,
    lost: u64,
    skipped: u32,
    /// Why the last attempt to write failed.
    failure: Option<String>,
    /// Of a flush that nobody had asked for.
    news: Option<Opened>,
}

#[derive(Debug, Default)]
struct Resident {
    baseline: Baseline,
    changed: Changed,
    used: u64,
    /// Its program is a guarded one, as far as was ever told.
    guarded: bool,
    /// What the store has of it could not be read, and counts for more.
    unread: bool,
    /// As last measured.
    heap: usize,
    /// Something was learned since.
    grown: bool,
}

#[derive(Debug)]
struct Waiting {
    entry: Entry,
    /// As of [`Resident`].
    unread: bool,
}

/// How much it matters to write it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Changed {
    /// Not at all.
    #[default]
    No,
    /// A count went up; another one will soon.
    Count,
    /// Something was learned.
    Learned,
}

// === impl Baselines ===

impl Baselines {
    /// On top of a store.
    #[must_use]
    pub fn new(store: Store) -> Self {
        Self {
            resident: BTreeMap::new(),
            heap: 0,
            waiting: BTreeMap::new(),
            waiting_bytes: 0,
            store,
            uses: 0,
            lost: 0,
            skipped: 0,
            failure: None,
            news: None,
        }
    }

    /// A subject's baseline; an empty one if it was never seen.
    pub fn get(&mut self, subject: &str) -> &Baseline {
        &self.load(subject).baseline
    }

    /// The same, to change it.
    pub(crate) fn learn(&mut self, subject: &str, changed: Changed) -> &mut Baseline {
        let resident = self.load(subject);
        resident.changed = resident.changed.max(changed);
        resident.grown |= changed == Changed::Learned;
        &mut resident.baseline
    }

    /// The same without loading: what detectors read, after [`Baselines::get`].
    pub(crate) fn peek(&self, subject: &str) -> Option<&Baseline> {
        self.resident.get(subject).map(|resident| &resident.baseline)
    }

    /// Writes what changed in one transaction. `all` includes mere counts.
    pub(crate) fn flush(&mut self, all: bool) -> Option<Opened> {
        self.skipped += 1;
        let all = all || self.skipped >= LAZY;
        let least = if all { Changed::Count } else { Changed::Learned };
        let due = |resident: &Resident| resident.changed >= least;
        if !self.waiting.is_empty() || self.resident.values().any(due) {
            // After a failure everything stays marked and is tried again.
            match self.write(least) {
                Ok(news) => {
                    self.failure = None;
                    self.news = news.or(self.news.take());
                }
                Err(StoreError::Off) => {}
                Err(error) => self.failure = Some(chain(&error)),
            }
            if all && self.failure.is_none() {
                self.skipped = 0;
            }
        }
        self.news.take()
    }

    /// Why the last attempt to write failed; `None` if it did not.
    pub(crate) fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    /// Counts of the store.
    #[must_use]
    pub fn tally(&self) -> StoreTally {
        self.store.tally()
    }

    /// Baselines in memory.
    #[must_use]
    pub fn resident(&self) -> usize {
        self.resident.len()
    }

    /// Baselines in memory that have learned enough for their detectors to speak.
    #[must_use]
    pub fn settled(&self, observations: u32) -> usize {
        let settled =
            |resident: &&Resident| resident.baseline.settled(observations, resident.guarded);
        self.resident.values().filter(settled).count()
    }

    /// Baselines in memory whose times or libraries have begun to move.
    #[must_use]
    pub fn drifting(&self, observations: u32, run_length: u64) -> usize {
        let drifts = |resident: &&Resident| {
            let guarded = resident.guarded;
            let criteria = Criteria { observations, run_length, guarded, unit: "starts" };
            resident.baseline.is_drifting(&criteria)
        };
        self.resident.values().filter(drifts).count()
    }

    /// The subject's program is a guarded one.
    pub(crate) fn mark_guarded(&mut self, subject: &str) {
        if let Some(resident) = self.resident.get_mut(subject) {
            resident.guarded = true;
        }
    }

    /// Baselines forgotten unwritten, because the store took none for long.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost
    }

    fn write(&mut self, least: Changed) -> Result<Option<Opened>, StoreError> {
        self.store.ready()?;
        self.give_way();
        let mut packed = Vec::new();
        for (subject, resident) in &mut self.resident {
            if resident.changed >= least && !resident.unread {
                match Entry::of(&mut resident.baseline, resident.guarded) {
                    Some(entry) => packed.push((subject.as_str(), entry)),
                    // Far larger than its bounds allow: it is kept for as long as there is room.
                    None => self.store.count_unreadable(),
                }
            }
        }
        let waiting = self.waiting.iter().filter(|(_, waiting)| !waiting.unread);
        let changes: Vec<(&str, &Entry)> = waiting
            .map(|(subject, waiting)| (subject.as_str(), &waiting.entry))
            .chain(packed.iter().map(|(subject, entry)| (*subject, entry)))
            .collect();
        let news = self.store.write(&changes)?;
        self.waiting.retain(|_, waiting| waiting.unread);
        self.waiting_bytes = self.waiting.values().map(Waiting::bytes).sum();
        for resident in self.resident.values_mut().filter(|resident| !resident.unread) {
            if news.is_some() {
                // It was in a file that is set aside.
                resident.changed = Changed::Learned;
            } else if resident.changed >= least {
                resident.changed = Changed::No;
            }
        }
        Ok(news)
    }

    /// What was learned of a program while its baseline could not be read gives way to that baseline.
    fn give_way(&mut self) {
        for (subject, resident) in self.resident.iter_mut().filter(|(_, one)| one.unread) {
            let stored = self.store.read(subject);
            resident.unread = stored == Err(Unread::ForNow);
            if let Ok(Some(entry)) = stored
                && let Some(baseline) = entry.baseline()
            {
                let Resident { guarded, used, heap, .. } = *resident;
                let guarded = entry.guarded || guarded;
                *resident =
                    Resident { baseline, guarded, used, heap, grown: true, ..Resident::default() };
                resident.baseline.adopt();
            }
        }
        let store = &mut self.store;
        self.waiting.retain(|subject, waiting| {
            let stored = if waiting.unread { store.read(subject) } else { Ok(None) };
            waiting.unread = stored == Err(Unread::ForNow);
            !matches!(stored, Ok(Some(_)))
        });
    }

    fn load(&mut self, subject: &str) -> &mut Resident {
        self.uses += 1;
        if !self.resident.contains_key(subject) {
            self.make_room();
            let resident = self.fetch(subject);
            self.heap += resident.heap;
            self.resident.insert(subject.to_owned(), resident);
        }
        let resident = self.resident.entry(subject.to_owned()).or_default();
        resident.used = self.uses;
        resident
    }

    fn fetch(&mut self, subject: &str) -> Resident {
        let (entry, changed, unread) = match self.waiting.remove(subject) {
            Some(waiting) => {
                self.waiting_bytes = self.waiting_bytes.saturating_sub(waiting.bytes());
                (Some(waiting.entry), Changed::Learned, waiting.unread)
            }
            None => match self.store.read(subject) {
                Ok(entry) => (entry, Changed::No, false),
                Err(_) => (None, Changed::No, true),
            },
        };
        let guarded = entry.as_ref().is_some_and(|entry| entry.guarded);
        let baseline = entry.map(|entry| {
            entry.baseline().unwrap_or_else(|| {
                self.store.count_unreadable();
                Baseline::default()
            })
        });
        let mut baseline = baseline.unwrap_or_default();
        baseline.adopt();
        let heap = heap::of(&baseline);
        Resident { baseline, changed, guarded, unread, heap, ..Resident::default() }
    }

    /// Puts the least recently used ones away once there are too many.
    fn make_room(&mut self) {
        self.measure();
        if self.resident.len() < RESIDENT_MAX && self.heap < RESIDENT_BYTES {
            return;
        }
        let mut by_use: Vec<(u64, String)> =
            self.resident.iter().map(|(subject, one)| (one.used, subject.clone())).collect();
        by_use.sort_unstable();
        let surplus = by_use.len().saturating_sub(RESIDENT_MIN);
        for (_, subject) in by_use.into_iter().take(surplus) {
            if self.resident.len() <= RESIDENT_MAX / 4 * 3 && self.heap <= RESIDENT_BYTES / 4 * 3 {
                break;
            }
            self.put_away(subject);
        }
        if self.waiting_bytes > WAITING_FLUSH && self.failure.is_none() && !self.store.is_off() {
            let news = self.flush(false);
            self.news = news;
        }
        self.bound_waiting();
    }

    fn measure(&mut self) {
        for resident in self.resident.values_mut().filter(|resident| resident.grown) {
            resident.grown = false;
            let heap = heap::of(&resident.baseline);
            self.heap = self.heap.saturating_sub(resident.heap).saturating_add(heap);
            resident.heap = heap;
        }
    }

    fn put_away(&mut self, subject: String) {
        let Some(mut resident) = self.resident.remove(&subject) else { return };
        self.heap = self.heap.saturating_sub(resident.heap);
        let off = self.store.is_off();
        let stored = resident.changed == Changed::No && !off;
        if stored || (off && resident.baseline == Baseline::default()) {
            return;
        }
        let Some(entry) = Entry::of(&mut resident.baseline, resident.guarded) else {
            self.lost += 1;
            return;
        };
        let waiting = Waiting { entry, unread: resident.unread };
        self.waiting_bytes += waiting.bytes();
        self.waiting.insert(subject, waiting);
    }

    /// The least recently seen go first, of guarded programs only once there is no other.
    fn bound_waiting(&mut self) {
        let most = if self.store.is_off() {
            usize::try_from(self.store.bounds().bytes).unwrap_or(usize::MAX)
        } else {
            WAITING_MAX
        };
        if self.waiting_bytes <= most {
            return;
        }
        let mut order: Vec<(bool, i64, String)> = self
            .waiting
            .iter()
            .map(|(subject, Waiting { entry, .. })| (entry.guarded, entry.seen_s, subject.clone()))
            .collect();
        order.sort_unstable();
        for (_, _, subject) in order {
            if self.waiting_bytes <= most / 4 * 3 {
                break;
            }
            if let Some(waiting) = self.waiting.remove(&subject) {
                self.waiting_bytes = self.waiting_bytes.saturating_sub(waiting.bytes());
                self.lost += 1;
            }
        }
    }
}

// === impl Waiting ===

impl Waiting {
    fn bytes(&self) -> usize {
        self.entry.body.len()
    }
}

#[cfg(test)]
mod tests;
