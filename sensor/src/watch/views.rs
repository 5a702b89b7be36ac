//! What is known of each root, and whose watched object an event speaks of.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;

use super::examine::{Look, Name, Task};
use super::parse::Event;
use super::roots::RootKey;
use super::spot::Spot;
use super::state::State;
use super::sys::Object;

/// A root as it was last seen.
#[derive(Debug)]
pub(super) struct View {
    /// A process that has it.
    pub(super) tgid: u32,
    /// Its path, as this process sees it.
    pub(super) path: String,
    pub(super) look: Arc<Look>,
    /// What was told last; what was there at first counts as told.
    pub(super) told: BTreeMap<Spot, State>,
    /// Marks are to be put on again.
    pub(super) unmarked: bool,
    /// The last look.
    pub(super) looked: Instant,
}

/// All roots.
#[derive(Debug, Default)]
pub(super) struct Views {
    views: BTreeMap<RootKey, View>,
    index: HashMap<Object, Vec<(RootKey, Option<Name>, Spot)>>,
}

/// Bits of an event that speak of a name, and of a file.
const NAMES: u64 = libc::FAN_CREATE | libc::FAN_DELETE | libc::FAN_MOVED_FROM | libc::FAN_MOVED_TO;

/// Whom an event concerns.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Concern {
    /// These spots.
    Spots(Vec<(RootKey, Spot)>),
    /// A watched directory, but no name in it that matters.
    Noise,
    /// Nothing that is known to be watched.
    Unknown,
}

// === impl Views ===

impl Views {
    pub(super) fn get(&self, root: &RootKey) -> Option<&View> {
        self.views.get(root)
    }

    pub(super) fn get_mut(&mut self, root: &RootKey) -> Option<&mut View> {
        self.views.get_mut(root)
    }

    pub(super) fn keys(&self) -> Vec<RootKey> {
        self.views.keys().copied().collect()
    }

    pub(super) fn len(&self) -> usize {
        self.views.len()
    }

    /// What to look at next in a root.
    pub(super) fn task(&self, root: RootKey, tgid: u32) -> Task {
        let view = self.views.get(&root);
        let before = view.filter(|view| !view.unmarked).map(|view| Arc::clone(&view.look));
        let told = view.map(|view| view.told.clone()).unwrap_or_default();
        Task { root, tgid, before, told }
    }

    /// What was told of a root with the same directory: a mount namespace begins as a copy.
    pub(super) fn inherited(&self, root: RootKey) -> Option<BTreeMap<Spot, State>> {
        let same = self.views.iter().find(|(key, _)| key.directory == root.directory)?;
        Some(same.1.told.clone())
    }

    pub(super) fn insert(&mut self, root: RootKey, view: View) {
        self.remove(root);
        self.enter(root, &view.look);
        self.views.insert(root, view);
    }

    /// Takes over what a new look found.
    pub(super) fn update(&mut self, root: RootKey, look: Look) {
        let Some(view) = self.views.get_mut(&root) else { return };
        let (old, new) = (Arc::clone(&view.look), Arc::new(look));
        view.look = Arc::clone(&new);
        view.unmarked = false;
        self.leave(root, &old);
        self.enter(root, &new);
    }

    /// Forgets a root; gives the number of marks that may be left behind.
    pub(super) fn remove(&mut self, root: RootKey) -> usize {
        let Some(view) = self.views.remove(&root) else { return 0 };
        self.leave(root, &view.look);
        view.look.watched.len()
    }

    /// Has every root marked anew.
    pub(super) fn unmark(&mut self) {
        self.views.values_mut().for_each(|view| view.unmarked = true);
    }

    /// Whom an event concerns.
    pub(super) fn concerned(&self, event: &Event) -> Concern {
        let named = event.mask & NAMES != 0;
        let object =
            if named { event.entry.as_ref().map(|(dir, _)| dir) } else { event.file.as_ref() };
        let Some(entries) = object.and_then(|object| self.find(object)) else {
            return Concern::Unknown;
        };
        let name = event.entry.as_ref().filter(|_| named).map(|(_, name)| name.as_slice());
        let matches = |(root, watched, spot): &(RootKey, Option<Name>, Spot)| {
            let spot = match (watched, name) {
                (None, None) => spot.clone(),
                (Some(Name::One(one)), Some(name)) if one.as_bytes() == name => spot.clone(),
                (Some(Name::Every), Some(name)) => spot.folder()?.file(name)?,
                _ => return None,
            };
            Some((*root, spot))
        };
        let spots: Vec<_> = entries.iter().filter_map(matches).collect();
        if spots.is_empty() { Concern::Noise } else { Concern::Spots(spots) }
    }

    fn find(&self, object: &Object) -> Option<&Vec<(RootKey, Option<Name>, Spot)>> {
        self.index.get(object).or_else(|| self.index.get(&object.anywhere()))
    }

    fn enter(&mut self, root: RootKey, look: &Look) {
        for watched in &look.watched {
            let entry = (root, watched.name.clone(), watched.spot.clone());
            let entries = self.index.entry(watched.object.clone()).or_default();
            if !entries.contains(&entry) {
                entries.push(entry);
            }
        }
    }

    fn leave(&mut self, root: RootKey, look: &Look) {
        for watched in &look.watched {
            if let Some(entries) = self.index.get_mut(&watched.object) {
                entries.retain(|(of, _, _)| *of != root);
                if entries.is_empty() {
                    self.index.remove(&watched.object);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::examine::Watched;
    use super::super::spot;
    use super::*;

    fn object(byte: u8) -> Object {
        Object { fsid: 5, kind: 1, handle: vec![byte].into() }
    }

    fn views() -> (Views, RootKey) {
        let root = RootKey { namespace: 1, directory: (1, 2) };
        let preload = spot::fixed().remove(0);
        let dir = spot::folders()[0].spot();
        let one = |name: &str| Some(Name::One(name.to_owned()));
        let watched = vec![
            Watched { object: object(1), name: one("ld.so.preload"), spot: preload.clone() },
            Watched { object: object(2), name: None, spot: preload },
            Watched { object: object(3), name: Some(Name::Every), spot: dir },
        ];
        let mut views = Views::default();
        let view = View {
            tgid: 1,
            path: "/".to_owned(),
            look: Arc::new(Look { watched, ..Look::default() }),
            told: BTreeMap::new(),
            unmarked: false,
            looked: Instant::now(),
        };
        views.insert(root, view);
        (views, root)
    }

    fn event(mask: u64, dir: u8, name: &str, file: Option<u8>) -> Event {
        let entry = Some((object(dir), name.as_bytes().to_vec()));
        Event { mask, tgid: 1, entry, file: file.map(object) }
    }

    fn path(concern: Concern) -> Option<String> {
        match concern {
            Concern::Spots(mut spots) => Some(spots.remove(0).1.path),
            _ => None,
        }
    }

    #[test]
    fn a_name_in_a_directory_and_a_file_lead_to_their_spot() {
        let (views, _) = views();
        let preload = Some("/etc/ld.so.preload".to_owned());
        let renamed = event(libc::FAN_MOVED_TO, 1, "ld.so.preload", None);
        assert_eq!(path(views.concerned(&renamed)), preload);
        let elsewhere = event(libc::FAN_MODIFY, 9, "other_name", Some(2));
        assert_eq!(path(views.concerned(&elsewhere)), preload, "by another name of the file");
        let conf = event(libc::FAN_CREATE, 3, "evil.conf", None);
        assert_eq!(path(views.concerned(&conf)).unwrap(), "/etc/ld.so.conf.d/evil.conf");
    }

    #[test]
    fn other_names_are_noise_and_other_files_unknown() {
        let (views, _) = views();
        let other = event(libc::FAN_CREATE, 1, "passwd", None);
        assert_eq!(views.concerned(&other), Concern::Noise);
        let new = event(libc::FAN_CREATE, 3, "x.conf.dpkg-new", None);
        assert_eq!(views.concerned(&new), Concern::Noise);
        assert_eq!(views.concerned(&event(libc::FAN_MODIFY, 1, "x", Some(8))), Concern::Unknown);
    }

    #[test]
    fn a_root_that_is_gone_leaves_nothing() {
        let (mut views, root) = views();
        assert_eq!(views.remove(root), 3);
        assert!(views.index.is_empty() && views.len() == 0);
    }
}
