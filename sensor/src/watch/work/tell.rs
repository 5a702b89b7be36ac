//! From what was gathered to what is told and kept.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::error::TrySendError;
use tracing::warn;

use super::Work;
use crate::watch::Told;
use crate::watch::change::Root;
use crate::watch::describe::{Found, Key};
use crate::watch::pam;
use crate::watch::pending::Pending;
use crate::watch::roots::{self, RootKey};
use crate::watch::spot::Spot;
use crate::watch::state::State;

/// Changes that wait to be told.
const OUTBOX_MAX: usize = 1024;
/// When the host station has no room.
const AGAIN: Duration = Duration::from_millis(20);

impl Work {
    /// Tells what has become quiet.
    pub(super) fn flush(&mut self, now: Instant) {
        self.send(now);
        let due = self.gathered.due(now);
        if due.is_empty() {
            return;
        }
        let settled = due.iter().map(|(_, pending)| pending.settled()).max().unwrap_or(now);
        let roots: BTreeSet<RootKey> = due.iter().map(|((root, _), _)| *root).collect();
        self.look_at_last(&roots, now);
        let mut changes: BTreeMap<Key, Told> = BTreeMap::new();
        let mut host_told = false;
        for ((root, spot), pending) in self.expanded(due) {
            host_told |= self.host == Some(root);
            self.tell_one(root, &spot, pending, &mut changes);
        }
        self.unkept |= host_told;
        self.outbox.extend(changes.into_values().map(|change| (settled, change)));
        while self.outbox.len() > OUTBOX_MAX {
            self.outbox.pop_front();
            self.metrics.queue_dropped.with_label_values(&["watch"]).inc();
        }
        self.send(now);
    }

    /// Sends what is settled, and keeps what was told once nothing waits: what is lost with this
    /// process is found again by the next.
    fn send(&mut self, now: Instant) {
        while let Some((_, told)) = self.outbox.pop_front_if(|(settled, _)| *settled <= now) {
            if let Err(TrySendError::Full(told)) = self.out.try_send(told) {
                self.outbox.push_front((now + AGAIN, told));
                return;
            }
        }
        if self.unkept && self.outbox.is_empty() {
            self.unkept = false;
            self.store();
        }
    }

    /// The look that a change is judged by. The process through which a root was seen may have
    /// ended, another one still have it; a root that nobody has is of no concern any more.
    fn look_at_last(&mut self, roots: &BTreeSet<RootKey>, now: Instant) {
        let gone: Vec<RootKey> =
            roots.iter().copied().filter(|root| !self.look(*root, now)).collect();
        if gone.is_empty() {
            return;
        }
        let found = roots::scan();
        for root in gone {
            match (found.get(&root), self.views.get_mut(&root)) {
                (Some(tgid), Some(view)) => {
                    view.tgid = *tgid;
                    self.look(root, now);
                }
                _ => self.forget(root),
            }
        }
    }

    /// What was done to the directory was done to every file of it that differs.
    fn expanded(&self, due: Vec<((RootKey, Spot), Pending)>) -> Vec<((RootKey, Spot), Pending)> {
        let mut all = Vec::new();
        for ((root, spot), pending) in due {
            let Some(folder) = spot.folder() else {
                all.push(((root, spot), pending));
                continue;
            };
            let Some(view) = self.views.get(&root) else { continue };
            let inside = view.told.keys().chain(view.look.states.keys()).collect::<BTreeSet<_>>();
            let changed = inside.into_iter().filter(|inside| {
                inside.is_in(folder) && view.told.get(inside) != view.look.states.get(inside)
            });
            all.extend(changed.map(|inside| ((root, inside.clone()), pending.clone())));
        }
        all
    }

    fn tell_one(
        &mut self,
        root: RootKey,
        spot: &Spot,
        pending: Pending,
        changes: &mut BTreeMap<Key, Told>,
    ) {
        let host = self.host == Some(root);
        let Some(view) = self.views.get_mut(&root) else { return };
        let nothing = State::default();
        let before = view.told.get(spot).cloned().unwrap_or_default();
        let look = Arc::clone(&view.look);
        let after = look.states.get(spot).unwrap_or(&nothing);
        let pam = pam::effect(&view.told, spot, after);
        match look.states.get(spot) {
            Some(state) => view.told.insert(spot.clone(), state.clone()),
            None => view.told.remove(spot),
        };
        let place = Root { host, path: view.path.clone(), tgid: view.tgid, others: 0 };
        let (before, look) = (&before, &*look);
        let found = Found { spot, pending, before, after, look, pam, root: place };
        let key = found.key();
        let Some(change) = found.change() else { return };
        match changes.get_mut(&key) {
            Some(Told::Change(known)) if host => {
                let others = known.config.root.others + 1;
                **known = change;
                known.config.root.others = others;
            }
            Some(Told::Change(known)) => known.config.root.others += 1,
            _ => {
                changes.insert(key, Told::Change(Box::new(change)));
            }
        }
    }

    pub(super) fn store(&mut self) {
        let Some(view) = self.host.and_then(|host| self.views.get(&host)) else { return };
        let outcome = self.keep.store(&view.told);
        if let Err(error) = &outcome {
            self.metrics.store_failures.with_label_values(&["watch"]).inc();
            if !self.keep_failed {
                warn!(%error, "what is known of the loader's files cannot be kept");
            }
        }
        self.keep_failed = outcome.is_err();
    }
}
