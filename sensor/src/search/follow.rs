//! The rules followed for one file: each way it may have been asked for, each place in its order.

use std::path::{Path, PathBuf};

use super::order::Order;
use super::places::{Element, Places};
use super::{Asked, FileId, Found, Loader, Preload, Rule, Start, View, Weakness, Why};
use super::{expand, writers};

/// Paths looked up for one answer; a program with 60 directories in its lists needs about 300.
const LOOKUPS_MAX: usize = 4096;
/// Names tried for one library.
const NAMES_MAX: usize = 64;

/// The search for one file.
pub(super) struct Search<'a> {
    start: &'a Start,
    file: FileId,
    view: &'a dyn View,
    left: usize,
}

// === impl Search ===

impl<'a> Search<'a> {
    pub(super) fn new(start: &'a Start, file: FileId, view: &'a dyn View) -> Self {
        Self { start, file, view, left: LOOKUPS_MAX }
    }

    /// Names by which the file is likely to be asked for.
    pub(super) fn names_of<'p>(&self, path: &'p Path) -> Vec<&'p str>
    where
        'a: 'p,
    {
        let module = self.start.modules.iter().find(|module| module.file == self.file);
        let soname = module.and_then(|module| module.names.soname.as_deref());
        let name = path.file_name().and_then(std::ffi::OsStr::to_str);
        let mut names: Vec<&str> = soname.into_iter().chain(name).collect();
        names.dedup();
        names
    }

    pub(super) fn preloaded(&mut self, order: &Order) -> Option<Found> {
        for (preload, name) in self.start.preloads.iter().take(NAMES_MAX) {
            if self.start.secure && *preload != Preload::File && name.contains('/') {
                continue;
            }
            // glibc looks for them as if the program needed them; for musl nobody does.
            let by = (self.start.loader == Loader::Glibc).then_some(0);
            if let Some((rule, path, weak)) = self.look(name, by, order) {
                let asked = Asked::Preload(*preload);
                let (name, path) = (Some(name.clone()), Some(path));
                return Some(Found { asked, name, rule, path, weak, in_current: false });
            }
        }
        None
    }

    /// A preload by a descriptor, of a file that has no name or never had one.
    pub(super) fn lost(&self) -> Option<Found> {
        let is_descriptor = |name: &str| name.starts_with("/proc/") || name.starts_with("/dev/fd/");
        let preloads = if self.start.secure { &[] } else { &self.start.preloads[..] };
        let (preload, name) = preloads.iter().find(|(_, name)| is_descriptor(name))?;
        Some(Found {
            asked: Asked::Preload(*preload),
            name: Some(name.clone()),
            rule: Rule::Lost,
            path: None,
            weak: Vec::new(),
            in_current: false,
        })
    }

    pub(super) fn needed(&mut self, order: &Order, own: &[&str]) -> Option<Found> {
        let likely = |name: &str| {
            let last = name.rsplit('/').next().unwrap_or(name);
            own.contains(&last)
        };
        let mut asked = order.asked(self.start);
        // Any name may lead to any file; the likely ones first.
        asked.sort_by_key(|(_, name)| !likely(name));
        let orphan = |name: &str| !order.is_known(name);
        for (by, name) in asked.into_iter().filter(|(_, name)| likely(name) || orphan(name)) {
            if let Some((rule, path, weak)) = self.look(name, Some(by), order) {
                let module = self.start.modules.get(by)?;
                let asked = Asked::Needed(module.path.clone());
                let (name, path) = (Some(name.to_owned()), Some(path));
                return Some(Found { asked, name, rule, path, weak, in_current: false });
            }
        }
        None
    }

    /// By whom is not known: any module's lists may have led there.
    pub(super) fn opened(&mut self, order: &Order, own: &[&str]) -> Option<Found> {
        for by in 0..self.start.modules.len() {
            let names = self.start.modules.get(by).map(|module| &module.names);
            let has_list = names.is_some_and(|it| it.runpath.is_some() || it.rpath.is_some());
            // The program's own stands for all that have none.
            if by > 0 && !has_list {
                continue;
            }
            for name in own {
                if let Some((rule, path, weak)) = self.look(name, Some(by), order) {
                    let (name, path) = (Some((*name).to_owned()), Some(path));
                    // What was asked on the way there is only known where it was found by a list.
                    let weak = weak.into_iter().filter(|weak| weak.hit).collect();
                    let asked = Asked::Opened;
                    return Some(Found { asked, name, rule, path, weak, in_current: false });
                }
            }
        }
        None
    }

    /// Follows the rules for one name until they lead to the file.
    fn look(
        &mut self,
        name: &str,
        by: Option<usize>,
        order: &Order,
    ) -> Option<(Rule, PathBuf, Vec<Weakness>)> {
        if name.contains('/') {
            return self.look_at_path(name, by);
        }
        let mut weak = Vec::new();
        for element in Places::new(self.start, by, order).all() {
            let hit = self.look_in(&element, name);
            weak.extend(self.weakness(&element, hit.is_some()));
            if let Some(path) = hit {
                return Some((element.rule(self.start), path, weak));
            }
        }
        None
    }

    fn look_at_path(
        &mut self,
        name: &str,
        by: Option<usize>,
    ) -> Option<(Rule, PathBuf, Vec<Weakness>)> {
        for path in expand::name(self.start, name, by) {
            if self.leads(&path) {
                let element = Element::of_path(name, &path);
                let weak = self.weakness(&element, true).into_iter().collect();
                return Some((Rule::Path, path, weak));
            }
        }
        None
    }

    fn look_in(&mut self, element: &Element, name: &str) -> Option<PathBuf> {
        if let Element::Cache = element {
            let start = self.start;
            let paths = start.cache.get(name).map(Vec::as_slice).unwrap_or_default();
            return paths.iter().find(|path| self.leads(path)).cloned();
        }
        for directory in element.directories() {
            for below in expand::capabilities(self.start.loader) {
                let path = directory.join(below).join(name);
                if self.leads(&path) {
                    return Some(path);
                }
                let is_plain = below.is_empty();
                if self.left == 0 || is_plain && self.is_absent(directory) {
                    break;
                }
            }
        }
        None
    }

    fn leads(&mut self, path: &Path) -> bool {
        let Some(left) = self.left.checked_sub(1) else { return false };
        self.left = left;
        self.view.file(path) == Some(self.file)
    }

    fn is_absent(&mut self, directory: &Path) -> bool {
        self.left = self.left.saturating_sub(1);
        self.view.directory(directory) == super::Directory::Absent
    }

    fn weakness(&mut self, element: &Element, hit: bool) -> Option<Weakness> {
        let Element::Listed { list, of, text, directories, relative } = element else {
            return None;
        };
        // Each is looked at from the root on.
        self.left = self.left.saturating_sub(4 * directories.len());
        if self.left == 0 {
            return None;
        }
        let of = of.and_then(|of| self.start.modules.get(of));
        let program = self.start.modules.first();
        let own = [of, program].map(|module| module.and_then(|module| module.owner));
        let own: Vec<u32> = own.into_iter().flatten().chain([0, self.start.euid]).collect();
        let judged = directories.iter().find_map(|directory| {
            let why = writers::judge(directory, &own, self.view)?;
            Some((directory.clone(), why))
        });
        let (directory, why) = match (relative, judged) {
            (false, judged) => {
                let (directory, why) = judged?;
                (Some(directory), why)
            }
            (true, judged) => {
                let writer = judged.map(|(_, why)| match why {
                    Why::Writable(writer) | Why::Missing(writer) => Some(writer),
                    Why::Current(writer) => writer,
                });
                (directories.first().cloned(), Why::Current(writer.flatten()))
            }
        };
        let of = of.map(|module| module.path.clone());
        Some(Weakness { list: *list, of, element: text.clone(), directory, why, hit })
    }
}
