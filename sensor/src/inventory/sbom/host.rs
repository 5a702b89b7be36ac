//! The host that a bill of materials is about.

use std::collections::BTreeMap;

use super::component::{Component, property};
use super::{HOST_REF, SYSTEM_REF};
use crate::inventory::process::bounded;

/// Bytes of one small file.
const MAX_SMALL: u64 = 64 << 10;

/// Names of this host and its operating system.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Host {
    /// Host name.
    pub name: String,
    /// Kernel release.
    pub kernel: String,
    /// Machine, as `uname -m` has it.
    pub machine: String,
    /// Fields of os-release; empty where there is none.
    pub system: BTreeMap<String, String>,
    /// A random UUID.
    pub serial: Option<String>,
}

impl Host {
    /// This one, with a new random number.
    #[must_use]
    pub fn this() -> Self {
        let uname = rustix::system::uname();
        let release = bounded("/etc/os-release", MAX_SMALL)
            .or_else(|_| bounded("/usr/lib/os-release", MAX_SMALL))
            .unwrap_or_default();
        let uuid = bounded("/proc/sys/kernel/random/uuid", MAX_SMALL).unwrap_or_default();
        let uuid = String::from_utf8_lossy(&uuid).trim().to_owned();
        Self {
            name: uname.nodename().to_string_lossy().into_owned(),
            kernel: uname.release().to_string_lossy().into_owned(),
            machine: uname.machine().to_string_lossy().into_owned(),
            system: os_release(&String::from_utf8_lossy(&release)),
            serial: Some(uuid).filter(|uuid| is_uuid(uuid)),
        }
    }

    pub(super) fn component(&self) -> Component {
        let name = if self.name.is_empty() { "localhost" } else { &self.name };
        Component {
            r#type: "device",
            bom_ref: Some(HOST_REF.to_owned()),
            name: name.to_owned(),
            properties: vec![
                property("kernel", self.kernel.clone()),
                property("machine", self.machine.clone()),
            ],
            ..Component::default()
        }
    }

    pub(super) fn system(&self) -> Component {
        let field = |name: &str| self.system.get(name).cloned();
        Component {
            r#type: "operating-system",
            bom_ref: Some(SYSTEM_REF.to_owned()),
            name: field("ID").or_else(|| field("NAME")).unwrap_or_else(|| "linux".to_owned()),
            version: field("VERSION_ID").or_else(|| field("BUILD_ID")),
            description: field("PRETTY_NAME"),
            ..Component::default()
        }
    }
}

/// `NAME=value` lines, values quoted as a shell would (os-release(5)).
fn os_release(text: &str) -> BTreeMap<String, String> {
    let parse = |line: &str| {
        let (name, value) = line.trim().split_once('=')?;
        let value = unquote(value);
        (!name.starts_with('#') && !value.is_empty()).then(|| (name.to_owned(), value))
    };
    text.lines().filter_map(parse).collect()
}

fn unquote(value: &str) -> String {
    for quote in ['"', '\''] {
        let inside = value.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote));
        let Some(inside) = inside else { continue };
        if quote == '\'' {
            return inside.to_owned();
        }
        let mut text = String::new();
        let mut chars = inside.chars();
        while let Some(c) = chars.next() {
            text.push(if c == '\\' { chars.next().unwrap_or(c) } else { c });
        }
        return text;
    }
    value.to_owned()
}

fn is_uuid(text: &str) -> bool {
    let groups: Vec<&str> = text.split('-').collect();
    let lengths: Vec<usize> = groups.iter().map(|group| group.len()).collect();
    let hex = |c: u8| c.is_ascii_digit() || (b'a'..=b'f').contains(&c);
    lengths == [8, 4, 4, 4, 12] && groups.iter().all(|group| group.bytes().all(hex))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn os_release_is_read_as_a_shell_would() {
        let text =
            "# a\nID=debian\nPRETTY_NAME=\"Debian \\\"12\\\"\"\nNAME='Deb $x'\nEMPTY=\nbad\n";
        let found = os_release(text);
        let get = |name| found.get(name).map(String::as_str);
        assert_eq!(get("ID"), Some("debian"));
        assert_eq!(get("PRETTY_NAME"), Some("Debian \"12\""));
        assert_eq!(get("NAME"), Some("Deb $x"));
        assert_eq!(found.len(), 3);
    }

    #[test]
    fn every_look_at_this_host_has_its_own_number() {
        let (one, two) = (Host::this(), Host::this());
        assert!(one.serial.is_some() && one.serial != two.serial, "{one:?}");
        assert_eq!(Host { serial: None, ..one }, Host { serial: None, ..two });
    }

    #[test]
    fn only_a_uuid_is_one() {
        assert!(is_uuid("3e671687-395b-41f5-a30f-a58921a69b79"));
        for text in
            ["", "3e671687-395b-41f5-a30f-a58921a69b7", "3E671687-395b-41f5-a30f-a58921a69b79"]
        {
            assert!(!is_uuid(text), "{text}");
        }
    }
}
