//! Files that are one thing to a person: the same library, in however many images of a container.

use std::collections::{BTreeMap, BTreeSet};

use super::collect::{Inventory, Use};
use super::file::{File, Role};
use crate::package::digest::Digest;

/// One library or program, and who has it mapped.
#[derive(Clone, Debug)]
pub struct Group<'a> {
    /// What it is to these processes.
    pub role: Role,
    /// One of the files; they agree in everything but device and inode.
    pub file: &'a File,
    /// Indexes into [`Inventory::processes`], ascending.
    pub processes: BTreeSet<u32>,
    /// Containers of these processes.
    pub containers: BTreeSet<&'a str>,
    /// The processes that run the program statically linked.
    pub is_static: bool,
}

/// What must agree. Without a build-id nothing says that two files are the same but their identity.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key<'a> {
    path: &'a std::path::Path,
    role: Role,
    build_id: Option<&'a str>,
    identity: Option<(u64, u64)>,
    sha256: Option<[u8; 32]>,
    package: Option<(&'a str, Option<&'a str>)>,
    memory: bool,
    deleted: Option<bool>,
    replaced: Option<bool>,
}

/// The files that `wanted` wants, grouped, by path.
pub fn groups<'a>(inventory: &'a Inventory, wanted: &dyn Fn(&File) -> bool) -> Vec<Group<'a>> {
    let wants: Vec<bool> = inventory.files.iter().map(wanted).collect();
    let mut found: BTreeMap<Key<'a>, Group<'a>> = BTreeMap::new();
    for one in &inventory.uses {
        let at = usize::try_from(one.file).unwrap_or(usize::MAX);
        if wants.get(at) == Some(&true) {
            add(&mut found, inventory, one);
        }
    }
    found.into_values().collect()
}

fn add<'a>(found: &mut BTreeMap<Key<'a>, Group<'a>>, inventory: &'a Inventory, one: &Use) {
    let Some((process, file)) = inventory.of(one) else { return };
    let group = found.entry(key(file, one.role)).or_insert_with(|| Group {
        role: one.role,
        file,
        processes: BTreeSet::new(),
        containers: BTreeSet::new(),
        is_static: false,
    });
    group.processes.insert(one.process);
    group.containers.extend(process.container.as_deref());
    group.is_static |= process.is_static;
}

fn key(file: &File, role: Role) -> Key<'_> {
    let build_id = file.build_id();
    Key {
        path: &file.path,
        role,
        build_id,
        identity: build_id.is_none().then_some((file.dev, file.ino)),
        sha256: match file.sha256 {
            Some(Ok(Digest::Sha256(bytes))) => Some(bytes),
            _ => None,
        },
        package: file.owner.package().map(|one| (one.name.as_str(), one.version.as_deref())),
        memory: file.memory,
        deleted: file.deleted,
        replaced: file.replaced,
    }
}
