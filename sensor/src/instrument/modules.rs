//! Kernel modules, and what the kernel holds against them.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::mounted::Mounted;
use super::{Instrument, Module, Source, What};

/// Bytes read of one file.
const FILE_MAX: u64 = 1 << 20;
/// Modules believed.
const MODULES_MAX: usize = 8192;
/// Bytes kept of a name: the kernel's own bound is 56.
const NAME_MAX: usize = 64;

/// Every loaded module, and that the kernel was tainted by something that is gone.
pub(super) fn read(mounted: &Mounted, sources: &mut Vec<Source>) -> Vec<Instrument> {
    let (mut found, reason) = match text(mounted, "/proc/modules") {
        Ok(text) => (parse(&text), None),
        // A kernel without modules.
        Err(error) if error.kind() == io::ErrorKind::NotFound => (Vec::new(), None),
        Err(error) => (Vec::new(), Some(error.to_string())),
    };
    for one in &mut found {
        if let What::Module(module) = &mut one.what
            && module.taint.is_empty()
        {
            module.taint = taint_of(mounted, &module.name);
        }
    }
    sources.push(Source { name: "modules", reason });
    found
}

/// `NAME SIZE REFERENCES USERS STATE ADDRESS [(TAINT)]` (kernel/module/procfs.c `m_show`).
fn parse(text: &str) -> Vec<Instrument> {
    text.lines().take(MODULES_MAX).filter_map(module).collect()
}

fn module(line: &str) -> Option<Instrument> {
    let mut words = line.split_whitespace();
    let name = name(words.next()?);
    let size = words.next()?.parse().ok()?;
    let address = words.nth(3).and_then(|word| word.strip_prefix("0x"));
    let address = address.and_then(|digits| u64::from_str_radix(digits, 16).ok()).unwrap_or(0);
    let taint = words.next().and_then(|word| word.strip_prefix('(')?.strip_suffix(')'));
    let taint = taint.map(flags).unwrap_or_default();
    let id = format!("module {name} {address:x} {size}");
    let what = What::Module(Module { name, size, taint, address });
    Some(Instrument { id, what, holders: Vec::new() })
}

/// Names are letters, digits and `_`, but the kernel takes any: what would be odd in output is shown
/// escaped.
fn name(word: &str) -> String {
    let shown: String = word.chars().flat_map(char::escape_default).take(NAME_MAX).collect();
    if is_plain(word) { word.to_owned() } else { shown }
}

fn is_plain(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    name.len() <= NAME_MAX && name.bytes().all(plain)
}

/// `+` and `-` say that it is being loaded or unloaded.
fn flags(text: &str) -> String {
    text.chars().filter(char::is_ascii_uppercase).take(16).collect()
}

fn taint_of(mounted: &Mounted, name: &str) -> String {
    if !is_plain(name) {
        return String::new();
    }
    let taint = text(mounted, &format!("/sys/module/{name}/taint"));
    taint.map(|text| flags(&text)).unwrap_or_default()
}

/// Of a file of the kernel's own.
fn text(mounted: &Mounted, path: &str) -> io::Result<String> {
    if !mounted.is_of(Path::new(path), &["proc", "sysfs"]) {
        return Err(io::Error::other("something else is mounted over it"));
    }
    let mut bytes = Vec::new();
    File::open(path).map(|file| file.take(FILE_MAX))?.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn taint_address_and_size_of_a_module_are_read() {
        let text = "nf_tables 278528 0 - Live 0xffffffffc0a80000\n\
            diamorphine 16384 0 - Live 0xffffffffc0b10000 (OE)\n\
            zfs 5000000 6 - Live 0x0000000000000000 (POE+)\n../x 1 0 - Live 0x0\n";
        let found = parse(text);
        let told: Vec<_> = found.iter().map(Instrument::form).collect();
        assert_eq!(
            told,
            [
                "module nf_tables []",
                "module diamorphine [OE]",
                "module zfs [POE]",
                "module ../x []"
            ]
        );
        let What::Module(module) = &found[1].what else { panic!() };
        assert_eq!((module.size, module.address), (16384, 0xffff_ffff_c0b1_0000));
    }

    #[test]
    fn a_list_that_something_else_is_mounted_over_is_not_read() {
        let list = "1 0 0:1 / /proc rw - proc x rw\n2 1 0:2 / /proc/modules rw - fuse.x x rw\n";
        let mut sources = Vec::new();
        assert!(read(&Mounted::parse(list.as_bytes()), &mut sources).is_empty());
        assert!(sources[0].reason.as_ref().unwrap().contains("mounted over"));
        sources.clear();
        read(&Mounted::now(), &mut sources);
        assert_eq!(sources[0].reason, None);
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in "(?s)([a-z_]+ [0-9]+ 0 - Live 0x|\\(OE\\)|.|\n){0,200}") {
            for one in parse(&text) {
                prop_assert!(one.name().len() <= NAME_MAX);
            }
        }
    }
}
