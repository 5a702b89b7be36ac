//! Signs of a change are gathered until they are quiet: a file is created, written, renamed and
//! chmodded by one command, and that is one change.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::change::{Action, Actor, Touch};
use super::roots::RootKey;
use super::spot::Spot;

/// Quiet time after the last sign. By then the records of the process's start and end, which wait
/// up to 100 ms in their ring, have been read too.
const QUIET: Duration = Duration::from_millis(150);
/// Longest that ever more signs can put a change off.
const LONGEST: Duration = Duration::from_secs(1);
/// Actors of one change; an upgrade runs ldconfig dozens of times a second.
const ACTORS_MAX: usize = 64;
/// Changes gathered at once; beyond, comparison finds them.
const GATHERED_MAX: usize = 4096;

/// A change that is being gathered.
#[derive(Clone, Debug)]
pub(super) struct Pending {
    pub(super) ktime_ns: u64,
    pub(super) touches: Vec<Touch>,
    /// There were more actors than find room.
    pub(super) crowded: bool,
    /// Entries seen on the way.
    pub(super) entries: BTreeSet<String>,
    /// The difference was there when the sensor started.
    pub(super) while_away: bool,
    begun: Instant,
    last: Instant,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Gathered(BTreeMap<(RootKey, Spot), Pending>);

// === impl Gathered ===

impl Gathered {
    /// A sign; false where there is no room.
    pub(super) fn touch(
        &mut self,
        key: (RootKey, Spot),
        by: Option<(&Actor, &[Action])>,
        ktime_ns: u64,
        now: Instant,
    ) -> bool {
        if self.0.len() >= GATHERED_MAX && !self.0.contains_key(&key) {
            return false;
        }
        let pending = self.0.entry(key).or_insert_with(|| Pending {
            ktime_ns,
            touches: Vec::new(),
            crowded: false,
            entries: BTreeSet::new(),
            while_away: false,
            begun: now,
            last: now,
        });
        pending.last = now;
        let Some((actor, actions)) = by else { return true };
        let full = pending.touches.len() >= ACTORS_MAX;
        let mut touches = pending.touches.iter_mut();
        if let Some(touch) = touches.find(|touch| same(&touch.actor, actor)) {
            if touch.actor.start_ticks.is_none() {
                touch.actor = actor.clone();
            }
            for action in actions {
                if !touch.actions.contains(action) {
                    touch.actions.push(*action);
                }
            }
        } else if full {
            pending.crowded = true;
        } else {
            let (actor, actions) = (actor.clone(), actions.to_vec());
            pending.touches.push(Touch { actor, ktime_ns, actions });
        }
        true
    }

    pub(super) fn get_mut(&mut self, key: &(RootKey, Spot)) -> Option<&mut Pending> {
        self.0.get_mut(key)
    }

    pub(super) fn contains(&self, key: &(RootKey, Spot)) -> bool {
        self.0.contains_key(key)
    }

    /// What has become quiet, or has waited for long enough; with it the same in the copies that
    /// mount namespaces are of one root, which may have had a sign more or less.
    pub(super) fn due(&mut self, now: Instant) -> Vec<((RootKey, Spot), Pending)> {
        let quiet = self.0.iter().filter(|(_, pending)| pending.due() <= now);
        let due: BTreeSet<((u64, u64), Spot)> =
            quiet.map(|((root, spot), _)| (root.directory, spot.clone())).collect();
        if due.is_empty() {
            return Vec::new();
        }
        let of = |key: &(RootKey, Spot)| due.contains(&(key.0.directory, key.1.clone()));
        self.0.extract_if(.., |key, _| of(key)).collect()
    }

    /// When [`Self::due`] gives something next.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.0.values().map(Pending::due).min()
    }

    /// Forgets a root.
    pub(super) fn forget(&mut self, root: RootKey) {
        self.0.retain(|(of, _), _| *of != root);
    }

    pub(super) fn spots_of(&self, root: RootKey) -> Vec<Spot> {
        self.0.keys().filter(|(of, _)| *of == root).map(|(_, spot)| spot.clone()).collect()
    }
}

// === impl Pending ===

impl Pending {
    /// From when on the records of everyone who had a hand in it have been read.
    pub(super) fn settled(&self) -> Instant {
        self.last + QUIET
    }

    fn due(&self) -> Instant {
        (self.last + QUIET).min(self.begun + LONGEST)
    }
}

/// Whether two catches are of one process: a late one may know its id only.
fn same(one: &Actor, other: &Actor) -> bool {
    let starts = one.start_ticks.zip(other.start_ticks);
    one.tgid == other.tgid && starts.is_none_or(|(one, other)| one == other)
}

#[cfg(test)]
mod tests {
    use super::super::spot;
    use super::*;

    const ROOT: RootKey = RootKey { namespace: 1, directory: (1, 2) };

    fn key() -> (RootKey, Spot) {
        (ROOT, spot::fixed().remove(0))
    }

    fn actor(tgid: u32) -> Actor {
        Actor { tgid, ..Actor::default() }
    }

    #[test]
    fn one_command_is_one_change() {
        let (mut gathered, now) = (Gathered::default(), Instant::now());
        for (step, action) in [Action::Created, Action::Written, Action::Written].iter().enumerate()
        {
            let at = now + Duration::from_millis(step as u64 * 100);
            assert!(gathered.touch(key(), Some((&actor(7), &[*action])), 1, at));
        }
        let end = now + Duration::from_millis(200);
        assert!(gathered.due(end + QUIET / 2).is_empty());
        let (_, change) = gathered.due(end + QUIET).remove(0);
        assert_eq!(change.touches.len(), 1);
        assert_eq!(change.touches[0].actions, [Action::Created, Action::Written]);
        assert_eq!(gathered.next_due(), None);
    }

    #[test]
    fn a_process_that_ended_meanwhile_is_still_one_actor() {
        let (mut gathered, now) = (Gathered::default(), Instant::now());
        let alive = Actor { start_ticks: Some(9), ..actor(7) };
        let other = Actor { start_ticks: Some(10), ..actor(7) };
        for actor in [&actor(7), &alive, &actor(7)] {
            gathered.touch(key(), Some((actor, &[Action::Written])), 1, now);
        }
        gathered.touch(key(), Some((&other, &[Action::Written])), 1, now);
        let touches = gathered.due(now + LONGEST).remove(0).1.touches;
        assert_eq!(touches.iter().map(|touch| &touch.actor).collect::<Vec<_>>(), [&alive, &other]);
    }

    #[test]
    fn endless_signs_cannot_put_a_change_off_for_ever() {
        let (mut gathered, now) = (Gathered::default(), Instant::now());
        let due = (0..100).find(|step| {
            let at = now + Duration::from_millis(step * 50);
            gathered.touch(key(), Some((&actor(7), &[Action::Written])), 1, at);
            !gathered.due(at).is_empty()
        });
        assert_eq!(due, Some(20));
    }

    #[test]
    fn many_actors_are_bounded() {
        let (mut gathered, now) = (Gathered::default(), Instant::now());
        for tgid in 0..100 {
            gathered.touch(key(), Some((&actor(tgid), &[Action::Written])), 1, now);
        }
        let pending = gathered.due(now + LONGEST).remove(0).1;
        assert_eq!((pending.touches.len(), pending.crowded), (ACTORS_MAX, true));
    }
}
