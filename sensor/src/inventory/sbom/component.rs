//! Components of the bill of materials.

use std::fmt::Write;
use std::os::unix::ffi::OsStrExt;

use serde::Serialize;

use crate::inventory::file::Role;
use crate::inventory::group::Group;
use crate::inventory::owner::Owner;

/// Containers named one by one; the rest is only counted.
const MAX_CONTAINERS: usize = 100;

#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Component {
    pub(super) r#type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) bom_ref: Option<String>,
    pub(super) name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) description: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) hashes: Vec<Hash>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) purl: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) properties: Vec<Property>,
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct Hash {
    alg: &'static str,
    content: String,
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct Property {
    name: String,
    value: String,
}

/// A property in this program's name space.
pub(super) fn property(name: &str, value: impl Into<String>) -> Property {
    Property { name: format!("halfsecond:{name}"), value: value.into() }
}

/// This program.
pub(super) fn tool() -> Component {
    Component {
        r#type: "application",
        name: "halfsecond".to_owned(),
        version: Some(env!("CARGO_PKG_VERSION").to_owned()),
        ..Component::default()
    }
}

impl Group<'_> {
    pub(super) fn component(&self, r#ref: &str) -> Component {
        let file = self.file;
        let (version, source) = file.version().unzip();
        let mut properties = vec![property("path", file.path.to_string_lossy())];
        let mut add = |name, value: Option<String>| {
            properties.extend(value.map(|value| property(name, value)));
        };
        add("path-hex", hex_if_not_utf8(file.path.as_os_str().as_bytes()));
        add("build-id", file.build_id().map(str::to_owned));
        add("soname", file.soname().map(str::to_owned));
        add("version-from", source.map(|source| source.name().to_owned()));
        let package = file.owner.package();
        add("package", package.map(|one| one.name.clone()));
        add("package-manager", package.map(|one| one.manager.clone()));
        add("package-version", package.and_then(|one| one.version.clone()));
        add("package-arch", package.and_then(|one| one.arch.clone()));
        add("owner", Some(owner(&file.owner)));
        let told = |answer: Option<bool>| {
            answer.map_or_else(|| "unknown".to_owned(), |answer| answer.to_string())
        };
        add("deleted", Some(told(file.deleted)));
        add("replaced", Some(told(file.replaced)));
        add("memory", file.memory.then(|| "true".to_owned()));
        add("unread", file.unread.as_ref().map(ToString::to_string));
        let sha256 = file.sha256.as_ref();
        add("not-hashed", sha256.and_then(|told| told.as_ref().err()).cloned());
        if self.role == Role::Application {
            add("static", Some(self.is_static.to_string()));
        }
        add("processes", Some(self.processes.len().to_string()));
        add("containers", Some(self.containers.len().to_string()));
        for container in self.containers.iter().take(MAX_CONTAINERS) {
            add("container", Some((*container).to_owned()));
        }
        Component {
            r#type: self.role.name(),
            bom_ref: Some(r#ref.to_owned()),
            name: file.name(),
            version,
            description: None,
            hashes: sha256
                .and_then(|told| told.as_ref().ok())
                .map(|digest| Hash { alg: "SHA-256", content: digest.to_string() })
                .into_iter()
                .collect(),
            purl: package.and_then(|one| one.purl.clone()),
            properties,
        }
    }
}

fn owner(owner: &Owner) -> String {
    match owner {
        Owner::Package(_) => "package".to_owned(),
        Owner::Unowned => "none".to_owned(),
        Owner::Unknown(why) => format!("unknown: {why}"),
    }
}

/// The bytes in hex where JSON cannot hold them as text.
pub(crate) fn hex_if_not_utf8(bytes: &[u8]) -> Option<String> {
    std::str::from_utf8(bytes).is_err().then(|| {
        bytes.iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
    })
}
