//! dpkg: `/var/lib/dpkg` of Debian and Ubuntu, and `status.d` of images that have no package
//! manager.

mod changes;
mod control;
mod diversion;
mod info;
mod log;

use std::collections::HashMap;
use std::path::Path;

use self::control::Stanza;
use super::index::{Builder, Package, Place};
use super::lines::Budget;
use super::root::{Root, Stamp};
use super::{Built, PackageError, full};

pub(super) use self::changes::changes;
#[cfg(any(test, feature = "fuzzing"))]
pub(super) use self::changes::read_log;
pub(super) use self::diversion::Diversion;
pub(super) use self::info::record;

const STATUS: &str = "var/lib/dpkg/status";
/// One file per package, and `NAME.md5sums` beside it: distroless images.
const STATUS_D: &str = "var/lib/dpkg/status.d";
const INFO: &str = "var/lib/dpkg/info";
/// The journal: stanzas that are newer than those of `status` while dpkg runs.
const UPDATES: &str = "var/lib/dpkg/updates";
const DIVERSIONS: &str = "var/lib/dpkg/diversions";

/// A full mirror's worth of packages has 60 MB of stanzas.
const MAX_STATUS: u64 = 128 << 20;
const MAX_NAMES: usize = 200_000;

/// What changes when a package does; `None` where there is no dpkg.
pub(super) fn stamps(root: &Root) -> Result<Option<Vec<Option<Stamp>>>, PackageError> {
    let mut stamps = Vec::with_capacity(5);
    for path in [STATUS, STATUS_D, INFO, UPDATES, DIVERSIONS] {
        stamps.push(root.stamp(Path::new(path))?);
    }
    let present = stamps.iter().take(2).any(Option::is_some);
    Ok(present.then_some(stamps))
}

/// Reads all packages and the names of their files.
pub(super) fn build(
    root: &Root,
    mut builder: Builder,
    budget: &Budget,
) -> Result<Built, PackageError> {
    let mut packages = installed(root, budget)?;
    log::annotate(root, &mut packages, budget)?;
    for package in packages {
        let place = package.place.clone();
        let name = package.name.clone();
        let arch = package.arch.clone();
        let number = builder.package(package).map_err(|limit| full(STATUS, limit))?;
        info::each_path(root, &name, &arch, &place, budget, |path| {
            builder.path(number, path).map_err(|limit| full(INFO, limit))
        })?;
    }
    let diversions = diversion::read(root, builder.aliases(), budget)?;
    Ok(Built { index: builder.finish(), diversions })
}

/// All packages whose files are there.
fn installed(root: &Root, budget: &Budget) -> Result<Vec<Package>, PackageError> {
    let mut packages = Packages::default();
    if let Some(mut lines) = root.lines(Path::new(STATUS), MAX_STATUS, budget)? {
        while let Some(stanza) = control::next(&mut lines)? {
            let place = Place::Dpkg { qualified: stanza.same, stanza: Some(stanza.offset) };
            packages.put(stanza, place);
        }
    }
    for name in root.names(Path::new(UPDATES), MAX_NAMES)? {
        if !name.iter().all(u8::is_ascii_digit) {
            continue;
        }
        let Some(mut lines) = open(root, UPDATES, &name, budget)? else { continue };
        while let Some(stanza) = control::next(&mut lines)? {
            let place = Place::Dpkg { qualified: stanza.same, stanza: None };
            packages.put(stanza, place);
        }
    }
    for name in root.names(Path::new(STATUS_D), MAX_NAMES)? {
        let Some(file) = std::str::from_utf8(&name).ok().filter(|name| is_stanza(name)) else {
            continue;
        };
        let Some(mut lines) = open(root, STATUS_D, &name, budget)? else { continue };
        if let Some(stanza) = control::next(&mut lines)? {
            packages.put(stanza, Place::Distroless { file: file.into() });
        }
    }
    Ok(packages.found)
}

fn open(
    root: &Root,
    folder: &str,
    name: &[u8],
    budget: &Budget,
) -> Result<Option<super::lines::Lines<std::fs::File>>, PackageError> {
    use std::os::unix::ffi::OsStrExt;
    let path = Path::new(folder).join(std::ffi::OsStr::from_bytes(name));
    root.lines(&path, MAX_STATUS, budget)
}

/// `NAME.md5sums` lies beside `NAME`.
fn is_stanza(name: &str) -> bool {
    !name.starts_with('.') && !name.ends_with(".md5sums")
}

/// Packages by name and architecture, later stanzas replacing earlier ones.
#[derive(Default)]
struct Packages {
    found: Vec<Package>,
    numbers: HashMap<(Box<str>, Box<str>), usize>,
}

// === impl Packages ===

impl Packages {
    fn put(&mut self, stanza: Stanza, place: Place) {
        let Stanza { name, version, arch, present, .. } = stanza;
        let (Some(name), Some(arch)) = (name, arch) else { return };
        let key = (name.clone(), arch.clone());
        let number = self.numbers.get(&key).copied();
        let Some(version) = version.filter(|_| present) else {
            if let Some(number) = number {
                self.remove(number, &key);
            }
            return;
        };
        let package =
            Package { name, version, arch, epoch: None, place, since: None, previous: None };
        if let Some(slot) = number.and_then(|number| self.found.get_mut(number)) {
            *slot = package;
        } else {
            self.numbers.insert(key, self.found.len());
            self.found.push(package);
        }
    }

    /// The journal says the package went; the last one takes its number.
    fn remove(&mut self, number: usize, key: &(Box<str>, Box<str>)) {
        self.numbers.remove(key);
        if number < self.found.len() {
            self.found.swap_remove(number);
        }
        if let Some(moved) = self.found.get(number) {
            self.numbers.insert((moved.name.clone(), moved.arch.clone()), number);
        }
    }
}

#[cfg(test)]
mod tests;
