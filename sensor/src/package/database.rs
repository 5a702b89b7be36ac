//! One package manager's records below one root, indexed.

use std::collections::BTreeMap;

use super::dpkg::{self, Diversion};
use super::index::{Builder, Full, Index, Package, Place};
use super::lines::Budget;
use super::path::Aliases;
use super::root::{Root, RootKey, Stamp};
use super::{Change, Distro, Manager, Owned, PackageError, Record, apk, rpm};

/// An index and what belongs to it.
#[derive(Debug)]
pub(super) struct Built {
    pub(super) index: Index,
    pub(super) diversions: Vec<Diversion>,
}

/// The records of one manager.
#[derive(Debug)]
pub(super) struct Database {
    manager: Manager,
    built: Built,
    bytes: usize,
}

/// A bound of the index as an error that names the database.
pub(super) fn full(path: &str, Full { what, limit }: Full) -> PackageError {
    PackageError::TooLarge { path: path.into(), what, limit }
}

/// What changes when this manager changes a package; `None` where it keeps no records.
pub(super) fn stamps(
    manager: Manager,
    root: &Root,
) -> Result<Option<Vec<Option<Stamp>>>, PackageError> {
    match manager {
        Manager::Dpkg => dpkg::stamps(root),
        Manager::Apk => apk::stamps(root),
        Manager::Rpm => rpm::stamps(root),
    }
}

// === impl Database ===

impl Database {
    pub(super) fn build(
        manager: Manager,
        root: &Root,
        budget: &Budget,
    ) -> Result<Self, PackageError> {
        let builder = Builder::new(Aliases::read(root));
        let built = match manager {
            Manager::Dpkg => dpkg::build(root, builder, budget),
            Manager::Apk => apk::build(root, builder, budget),
            Manager::Rpm => rpm::build(root, builder, budget),
        }?;
        let bytes = built.index.bytes();
        Ok(Self { manager, built, bytes })
    }

    /// Heap bytes of the index, nearly.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn index(&self) -> &Index {
        &self.built.index
    }

    /// The package that owns a path, by its records as they are now.
    pub(super) fn owner(
        &self,
        root: &Root,
        path: &[u8],
        distro: &Distro,
        budget: &Budget,
    ) -> Result<Option<Owned>, PackageError> {
        let index = &self.built.index;
        let canonical = index.aliases.canonical(path);
        let canonical = canonical.as_ref();
        // Where it was put aside to, the file is that of whoever else names the place it is from.
        let aside = self.built.diversions.iter().find(|diversion| &*diversion.to == canonical);
        let from = self.built.diversions.iter().find(|diversion| &*diversion.from == canonical);
        let named = aside.map_or(canonical, |diversion| &*diversion.from);
        for package in index.candidates(named) {
            let by = |diversion: &Diversion| diversion.by.as_deref() == Some(&*package.name);
            if aside.is_some_and(by) || (aside.is_none() && from.is_some_and(|from| !by(from))) {
                continue;
            }
            if let Some(record) = self.record(root, package, named, budget)? {
                let mut owned = owned(self.manager, package, &record, distro);
                owned.diverted_from = aside.map(|_| format!("/{}", String::from_utf8_lossy(named)));
                return Ok(Some(owned));
            }
        }
        Ok(None)
    }

    fn record(
        &self,
        root: &Root,
        package: &Package,
        canonical: &[u8],
        budget: &Budget,
    ) -> Result<Option<Record>, PackageError> {
        let aliases = &self.built.index.aliases;
        match package.place {
            Place::Dpkg { .. } | Place::Distroless { .. } => {
                dpkg::record(root, package, aliases, canonical, budget)
            }
            Place::Apk { .. } => apk::record(root, package, aliases, canonical),
            Place::Rpm { .. } => rpm::record(root, package, aliases, canonical, budget),
        }
    }

    /// What is different in `newer`, by name and architecture. rpm keeps several versions of one
    /// package (kernels): those in both are left out, and the others paired in order.
    pub(super) fn changes(&self, newer: &Self, root: RootKey) -> Vec<Change> {
        let mut versions: BTreeMap<(&str, &str), [Vec<&Package>; 2]> = BTreeMap::new();
        for (side, database) in [self, newer].into_iter().enumerate() {
            for package in &database.built.index.packages {
                let key = (&*package.name, &*package.arch);
                if let Some(side) = versions.entry(key).or_default().get_mut(side) {
                    side.push(package);
                }
            }
        }
        let mut changes = Vec::new();
        for ((name, arch), [old, new]) in versions {
            let without = |those: &[&Package], others: &[&Package]| -> Vec<Package> {
                let is_new = |it: &&&Package| others.iter().all(|other| !same_version(it, other));
                those.iter().filter(is_new).map(|package| Package::clone(package)).collect()
            };
            let (gone, came) = (without(&old, &new), without(&new, &old));
            for number in 0..gone.len().max(came.len()) {
                let (gone, came) = (gone.get(number), came.get(number));
                changes.push(Change {
                    root,
                    manager: self.manager,
                    package: name.to_owned(),
                    arch: arch.to_owned(),
                    old: gone.map(version),
                    new: came.map(version),
                    at: came.and_then(|package| package.since),
                });
            }
        }
        changes
    }
}

fn same_version(one: &Package, other: &Package) -> bool {
    (&one.version, one.epoch) == (&other.version, other.epoch)
}

/// As its manager writes it, with rpm's epoch.
pub(super) fn version(package: &Package) -> String {
    match package.epoch {
        Some(epoch) => format!("{epoch}:{}", package.version),
        None => package.version.to_string(),
    }
}

fn owned(manager: Manager, package: &Package, record: &Record, distro: &Distro) -> Owned {
    Owned {
        package: package.name.to_string(),
        version: package.version.to_string(),
        arch: package.arch.to_string(),
        epoch: package.epoch,
        distro: distro.clone(),
        manager,
        installed: package.since.or(record.written),
        previous: package.previous.as_deref().map(str::to_owned),
        recorded: record.digest,
        config: record.config,
        diverted_from: None,
    }
}
