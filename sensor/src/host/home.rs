//! Whose programs a process runs: the host's own, or those of a container, told apart by the image it
//! was made from. One binary under one path in both is two subjects.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::module::ModuleId;
use super::observe::ProcessId;
use super::outside::RootView;
use super::pipeline::Pipeline;
use crate::event::{Exec, FileKey, InodeKey, Role};

/// Other roots remembered; past that the memory starts again.
const ROOTS_MAX: usize = 1024;
/// Roots known to be the host's. There is one; another is a way to it that shows other numbers.
const HOST_ROOTS_MAX: usize = 8;

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) enum Home {
    /// The host, its chroots among it: paths tell those apart.
    #[default]
    Host,
    /// Containers whose root consists of these layers.
    Image(Arc<str>),
    /// A container of whose root no more is known: each copy of a file counts as its own, and copies
    /// that share their blocks (snapshots, bind mounts) as one.
    Files,
    /// Who was gone before its root was looked at, where that is neither the host's nor its parent's: a
    /// chroot or a container. Counts as the last.
    Unseen,
}

/// What is known of roots.
#[derive(Debug, Default)]
pub(super) struct Homes {
    host: HashSet<InodeKey>,
    /// By roots that were looked at. A container that is made later may have the numbers of one that
    /// is gone.
    seen: HashMap<InodeKey, Home>,
}

// === impl Home ===

impl Home {
    /// By a root; `parent`: the home of who started the process.
    pub(super) fn of(root: RootView, parent: &Self) -> Self {
        match root {
            RootView::Host => Self::Host,
            // Paths tell it apart from the host, whoever made it.
            RootView::Chroot if *parent == Self::Unseen => Self::Host,
            RootView::Chroot => parent.clone(),
            RootView::Own { image: Some(image) } => Self::Image(image.into()),
            RootView::Own { image: None } => Self::Files,
        }
    }

    /// Key of the baseline of a program here.
    pub(super) fn subject(&self, module: &ModuleId, file: &FileKey) -> String {
        let ModuleId { path, build } = module;
        match self {
            Self::Host => format!("{path} {build}"),
            Self::Image(image) => format!("{path} {build} image:{image}"),
            // A device number says nothing of the next start of the same.
            Self::Files | Self::Unseen => {
                let numbers = format!("{}:{}:{}", file.ino, file.ctime_s, file.size);
                format!("{path} {build} file:{}", short_digest(&numbers))
            }
        }
    }
}

// === impl Pipeline ===

impl Pipeline {
    /// Home of a program that a process has just executed. The process still has the home of its
    /// last program, or of its parent: while these have the same root it is the same home.
    pub(super) fn home(&mut self, id: ProcessId, exec: &Exec, role: Role) -> Home {
        if exec.root.is_some_and(|root| self.homes.host.contains(&root)) {
            return Home::Host;
        }
        let Some(proc) = self.table.get(id) else { return Home::Host };
        let before = proc.home.clone();
        if exec.root.is_some() && proc.root == exec.root && before != Home::Unseen {
            return before;
        }
        match self.outside.root(id.tgid) {
            Some(root) => {
                if root == RootView::Host && self.homes.host.len() < HOST_ROOTS_MAX {
                    self.homes.host.extend(exec.root);
                }
                let home = Home::of(root, &before);
                self.homes.note(exec.root, &home);
                home
            }
            // Over already. Its root is not the host's, and not its parent's.
            None if exec.root.is_some() && !self.homes.host.is_empty() => match before {
                Home::Host | Home::Unseen => self.homes.guess(exec.root, role),
                before => before,
            },
            None => before,
        }
    }

    /// Its root is the host's or the sensor's own: paths that the kernel has walked are its paths.
    pub(super) fn is_at_home(&self, id: ProcessId) -> bool {
        match self.table.get(id).and_then(|proc| proc.root) {
            Some(root) if self.homes.host.contains(&root) => true,
            // Looked at, and another.
            Some(root) if self.homes.seen.contains_key(&root) => false,
            _ => self.outside.root(id.tgid) == Some(RootView::Host),
        }
    }
}

// === impl Homes ===

impl Homes {
    fn note(&mut self, root: Option<InodeKey>, home: &Home) {
        let Some(root) = root.filter(|_| *home != Home::Unseen) else { return };
        if self.seen.len() >= ROOTS_MAX {
            self.seen.clear();
        }
        self.seen.insert(root, home.clone());
    }

    /// Of who is gone: by its root's numbers, which is not good enough for who is accused of what
    /// another image's program has not done.
    fn guess(&self, root: Option<InodeKey>, role: Role) -> Home {
        let seen = root.and_then(|root| self.seen.get(&root));
        seen.filter(|_| !role.contains(Role::GUARDED)).cloned().unwrap_or(Home::Unseen)
    }
}

/// 16 hex digits.
pub(super) fn short_digest(text: &str) -> String {
    let digest = Sha256::digest(text.as_bytes());
    digest.iter().take(8).fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

#[cfg(test)]
mod tests;
