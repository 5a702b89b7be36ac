//! From the states before and after to the change that is told.

use std::collections::BTreeSet;

use super::change::{Action, Change, LoaderConfig, PamEffect, Preloaded, Root};
use super::examine::Look;
use super::pam;
use super::pending::Pending;
use super::spot::{Role, Spot};
use super::state::{Identity, State, TOLD_MAX};
use crate::host::Owners;

/// One file's change in one root.
#[derive(Debug)]
pub(super) struct Found<'a> {
    pub(super) spot: &'a Spot,
    pub(super) pending: Pending,
    pub(super) before: &'a State,
    pub(super) after: &'a State,
    /// The look that found `after`.
    pub(super) look: &'a Look,
    /// What it comes to for PAM.
    pub(super) pam: PamEffect,
    pub(super) root: Root,
}

/// The same change seen through several roots has the same key.
pub(super) type Key = (Spot, Option<(u64, u64, i64)>, Option<(u64, u64, i64)>, Vec<u32>);

// === impl Found ===

impl Found<'_> {
    pub(super) fn key(&self) -> Key {
        let file = |state: &State| state.file.map(|file| (file.dev, file.ino, file.ctime_ns));
        let actors = self.pending.touches.iter().map(|touch| touch.actor.tgid).collect();
        (self.spot.clone(), file(self.before), file(self.after), actors)
    }

    /// `None` where nothing happened that is worth a word.
    pub(super) fn change(self) -> Option<Change> {
        let fresh = self.look.fresh.get(self.spot).cloned().unwrap_or_default();
        let effect = self.after.effect(self.before, fresh);
        let mounted = mounted(self.after) != mounted(self.before);
        let exposed = exposed(self.after.file) && !exposed(self.before.file);
        let entries = |state: &State| -> BTreeSet<String> {
            state.content.entries().iter().cloned().collect()
        };
        let lasting: BTreeSet<String> =
            entries(self.before).union(&entries(self.after)).cloned().collect();
        let meanwhile: Vec<String> =
            self.pending.entries.difference(&lasting).take(TOLD_MAX).cloned().collect();
        let seen = !self.pending.touches.is_empty();
        // Where nobody was seen at it and it says the same, it was moved, restored or mounted anew.
        let silent = !seen && effect.nothing && !exposed && (self.pending.while_away || !mounted);
        if silent {
            return None;
        }
        let gained: BTreeSet<&String> = effect.added.iter().chain(&meanwhile).collect();
        let libraries = self.libraries(&gained);
        let config = LoaderConfig {
            role: self.spot.role,
            path: self.spot.path.clone(),
            actions: self.actions(mounted),
            before: self.told(self.before),
            after: self.told(self.after),
            libraries,
            pam: self.pam,
            owners: Owners::NotAsked,
            now: first(self.after.content.entries()),
            added: first(&effect.added),
            removed: first(&effect.removed),
            meanwhile,
            same: effect.nothing,
            exposed,
            while_away: self.pending.while_away,
            further: Vec::new(),
            tool: None,
            root: self.root,
        };
        let Pending { ktime_ns, touches, crowded, .. } = self.pending;
        Some(Change { ktime_ns, touches, crowded, config })
    }

    /// Code that is loaded for what was gained.
    fn libraries(&self, gained: &BTreeSet<&String>) -> Vec<Preloaded> {
        match self.spot.role {
            Role::PamService => pam::modules(&self.spot.path, gained, self.look),
            Role::PamModule => pam::itself(self.spot, self.after).into_iter().collect(),
            _ => {
                let known = self.look.libraries.iter();
                known.filter(|library| gained.contains(&library.path)).cloned().collect()
            }
        }
    }

    fn told(&self, state: &State) -> String {
        let between = if self.spot.role == Role::PamService { " | " } else { " " };
        state.content.told(between)
    }

    /// What everyone did; how a name was made shows in what it leads to.
    fn actions(&self, mounted: bool) -> Vec<Action> {
        let mut actions: BTreeSet<Action> =
            self.pending.touches.iter().flat_map(|touch| touch.actions.iter().copied()).collect();
        let linked = self.after.file.is_some_and(|file| file.nlink > 1);
        let renewed = self.after.links != self.before.links;
        if actions.contains(&Action::Created) && !actions.contains(&Action::Written) {
            if renewed && !self.after.links.is_empty() {
                actions.remove(&Action::Created);
                actions.insert(Action::Symlinked);
            } else if linked {
                actions.remove(&Action::Created);
                actions.insert(Action::Linked);
            }
        }
        // A rename or removal changes the number of names as well.
        if actions.len() > 1 {
            actions.remove(&Action::Attributes);
        }
        if mounted {
            actions.insert(Action::Mounted);
        }
        actions.into_iter().collect()
    }
}

fn first(entries: &[String]) -> Vec<String> {
    entries.iter().take(TOLD_MAX).cloned().collect()
}

fn mounted(state: &State) -> Option<(u64, u64)> {
    state.file.filter(|file| file.mounted).map(|file| (file.dev, file.ino))
}

fn exposed(file: Option<Identity>) -> bool {
    file.is_some_and(|file| file.uid != 0 || file.mode & 0o022 != 0)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Instant;

    use super::super::change::Actor;
    use super::super::pending::Gathered;
    use super::super::roots::RootKey;
    use super::super::spot;
    use super::super::state::Content;
    use super::*;

    fn pending(by: Option<&[Action]>) -> Pending {
        let root = RootKey { namespace: 1, directory: (1, 2) };
        let (mut gathered, now) = (Gathered::default(), Instant::now());
        let actor = Actor { tgid: 7, ..Actor::default() };
        let key = (root, spot::fixed().remove(0));
        gathered.touch(key, by.map(|actions| (&actor, actions)), 9, now);
        gathered.due(now + std::time::Duration::from_secs(9)).remove(0).1
    }

    fn state(entries: &[&str], file: Identity) -> State {
        let entries = entries.iter().map(|entry| (*entry).to_owned()).collect();
        State { file: Some(file), content: Arc::new(Content::Entries(entries)), links: Vec::new() }
    }

    fn change(by: Option<&[Action]>, before: &State, after: &State) -> Option<Change> {
        let spot = spot::fixed().remove(0);
        let found = Found {
            spot: &spot,
            pending: pending(by),
            before,
            after,
            look: &Look::default(),
            pam: PamEffect::default(),
            root: Root::default(),
        };
        found.change()
    }

    #[test]
    fn a_hard_link_is_told_from_a_new_file() {
        let file = Identity { nlink: 2, mode: 0o644, ..Identity::default() };
        let told = change(Some(&[Action::Created]), &State::default(), &state(&["/a"], file));
        let config = told.unwrap().config;
        assert_eq!(config.actions, [Action::Linked]);
        assert_eq!((config.added, config.now), (vec!["/a".to_owned()], vec!["/a".to_owned()]));
    }

    #[test]
    fn a_mode_that_lets_others_write_exposes() {
        let safe = Identity { mode: 0o644, ..Identity::default() };
        let open = Identity { mode: 0o666, ..safe };
        let told = change(Some(&[Action::Attributes]), &state(&[], safe), &state(&[], open));
        assert!(told.unwrap().config.exposed);
    }

    #[test]
    fn a_move_to_another_disk_while_nobody_looked_is_nothing() {
        let old = Identity { dev: 1, ..Identity::default() };
        let new = Identity { dev: 2, ctime_ns: 9, ..Identity::default() };
        assert_eq!(change(None, &state(&["/a"], old), &state(&["/a"], new)), None);
        assert!(change(None, &state(&["/a"], old), &state(&["/b"], new)).is_some());
        let over = Identity { mounted: true, ..new };
        let told = change(None, &state(&["/a"], old), &state(&["/a"], over)).unwrap();
        assert_eq!(told.config.actions, [Action::Mounted]);
    }
}
