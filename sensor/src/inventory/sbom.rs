//! What is loaded as a CycloneDX 1.6 bill of materials: <https://cyclonedx.org/docs/1.6/json/>.

mod component;
mod host;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::Serialize;

pub(crate) use self::component::hex_if_not_utf8;
pub use self::host::Host;

use self::component::{Component, Property, property};
use super::collect::Inventory;
use super::file::{File, Role};
use super::group::{Group, groups};
use crate::package::digest::Digest;

/// References to what is no file.
const HOST_REF: &str = "host";
const SYSTEM_REF: &str = "operating-system";

/// A bill of materials; serialises to the document.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Bom {
    #[serde(rename = "bomFormat")]
    format: &'static str,
    spec_version: &'static str,
    /// Left out where the kernel gives no random number.
    #[serde(skip_serializing_if = "Option::is_none")]
    serial_number: Option<String>,
    version: u32,
    metadata: Metadata,
    components: Vec<Component>,
    dependencies: Vec<Dependency>,
    compositions: Vec<Composition>,
}

#[derive(Clone, Debug, Serialize)]
struct Metadata {
    timestamp: Timestamp,
    lifecycles: [Lifecycle; 1],
    tools: Tools,
    component: Component,
    properties: Vec<Property>,
}

#[derive(Clone, Debug, Serialize)]
struct Lifecycle {
    phase: &'static str,
}

#[derive(Clone, Debug, Serialize)]
struct Tools {
    components: [Component; 1],
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Dependency {
    r#ref: String,
    depends_on: Vec<String>,
}

#[derive(Clone, Debug, Serialize)]
struct Composition {
    aggregate: &'static str,
    assemblies: [&'static str; 1],
}

// === impl Bom ===

impl Bom {
    /// Of all that was found; components and dependencies are in an order that depends on the
    /// contents only.
    #[must_use]
    pub fn new(inventory: &Inventory, host: &Host, now: Timestamp) -> Self {
        let groups = groups(inventory, &|_: &File| true);
        let refs = references(&groups);
        let mut components = vec![host.system()];
        components.extend(groups.iter().zip(&refs).map(|(group, r#ref)| group.component(r#ref)));
        Self {
            format: "CycloneDX",
            spec_version: "1.6",
            serial_number: host.serial.as_ref().map(|uuid| format!("urn:uuid:{uuid}")),
            version: 1,
            metadata: metadata(inventory, host, now),
            components,
            dependencies: dependencies(&groups, &refs),
            compositions: vec![Composition {
                aggregate: if is_complete(inventory) { "complete" } else { "incomplete" },
                assemblies: [HOST_REF],
            }],
        }
    }
}

fn metadata(inventory: &Inventory, host: &Host, now: Timestamp) -> Metadata {
    let tally = &inventory.tally;
    let count = |is: fn(&Result<Digest, String>) -> bool| {
        inventory.files.iter().filter(|file| file.sha256.as_ref().is_some_and(is)).count() as u64
    };
    let properties = [
        ("files-hashed", count(Result::is_ok)),
        ("files-not-hashed", count(Result::is_err)),
        ("processes", tally.read),
        ("processes-not-read", tally.denied + tally.failed),
        ("processes-ended-meanwhile", tally.gone),
        ("static-programs", tally.static_programs),
        ("mappings-left-out", tally.left_out),
    ];
    let mut properties: Vec<_> =
        properties.into_iter().map(|(name, count)| property(name, count.to_string())).collect();
    properties.push(property(
        "not-covered",
        "libraries that are linked into a program statically; code that is only on disk",
    ));
    Metadata {
        timestamp: now,
        lifecycles: [Lifecycle { phase: "operations" }],
        tools: Tools { components: [component::tool()] },
        component: host.component(),
        properties,
    }
}

fn is_complete(inventory: &Inventory) -> bool {
    let tally = &inventory.tally;
    let missed = tally.denied + tally.failed + tally.gone + tally.static_programs + tally.left_out;
    missed == 0
}

/// A reference for each group: readable, the same on every run, and unique.
fn references(groups: &[Group<'_>]) -> Vec<String> {
    let mut taken: BTreeMap<String, usize> = BTreeMap::new();
    let reference = |group: &Group<'_>| {
        let file = group.file;
        let mut text = format!("{}:{}", group.role.name(), file.path.to_string_lossy());
        if let Some(id) = file.build_id() {
            text.push('#');
            text.push_str(id);
        }
        let count = taken.entry(text.clone()).or_default();
        *count += 1;
        if *count > 1 {
            text = format!("{text}~{count}");
        }
        text
    };
    groups.iter().map(reference).collect()
}

/// The host has the programs, the programs the libraries that are mapped in any of their
/// processes, directly needed or not.
fn dependencies(groups: &[Group<'_>], refs: &[String]) -> Vec<Dependency> {
    let mut libraries: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
    for (at, group) in groups.iter().enumerate().filter(|(_, one)| one.role == Role::Library) {
        for process in &group.processes {
            libraries.entry(*process).or_default().push(at);
        }
    }
    let name = |at: &usize| refs.get(*at).cloned();
    let mut found = Vec::new();
    let mut programs = vec![SYSTEM_REF.to_owned()];
    for (at, group) in groups.iter().enumerate() {
        let of_processes = group.processes.iter().filter_map(|process| libraries.get(process));
        let mapped: BTreeSet<usize> = match group.role {
            Role::Application => of_processes.flatten().copied().collect(),
            Role::Library => BTreeSet::new(),
        };
        let Some(r#ref) = name(&at) else { continue };
        if group.role == Role::Application {
            programs.push(r#ref.clone());
        }
        found.push(Dependency { r#ref, depends_on: mapped.iter().filter_map(name).collect() });
    }
    found.insert(0, Dependency { r#ref: HOST_REF.to_owned(), depends_on: programs });
    found.insert(1, Dependency { r#ref: SYSTEM_REF.to_owned(), depends_on: Vec::new() });
    found
}
