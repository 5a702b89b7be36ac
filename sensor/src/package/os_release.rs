//! Which distribution a root is: `os-release`.

use std::path::Path;

use super::Distro;
use super::index::word;
use super::root::Root;

const FILES: [&str; 2] = ["etc/os-release", "usr/lib/os-release"];
const MAX_FILE: u64 = 64 << 10;

/// The distribution; `linux` where no file says (os-release(5)'s own default).
pub(super) fn read(root: &Root) -> Distro {
    let text = FILES.iter().find_map(|path| root.read(Path::new(path), MAX_FILE).ok().flatten());
    parse(&text.unwrap_or_default())
}

fn parse(text: &[u8]) -> Distro {
    let value = |key: &str| {
        let lines = text.split(|byte| *byte == b'\n');
        let mut values = lines
            .filter_map(|line| line.trim_ascii().strip_prefix(key.as_bytes())?.strip_prefix(b"="));
        // As in a shell, the last one counts. Identifiers need no escapes.
        let value = values.next_back()?;
        let unquoted = [b'"', b'\''].iter().find_map(|quote| {
            value
                .strip_prefix(std::slice::from_ref(quote))?
                .strip_suffix(std::slice::from_ref(quote))
        });
        word(unquoted.unwrap_or(value)).map(str::to_owned)
    };
    Distro {
        id: value("ID").unwrap_or_else(|| "linux".to_owned()),
        version: value("VERSION_ID").or_else(|| value("VERSION_CODENAME")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn quoted_or_not_the_distribution_is_read() {
        for (text, id, version) in [
            ("NAME=\"Debian\"\nVERSION_ID=\"12\"\nID=debian\n", "debian", Some("12")),
            ("ID='rhel'\nVERSION_ID='9.4'", "rhel", Some("9.4")),
            ("ID=debian\nVERSION_CODENAME=trixie", "debian", Some("trixie")),
            ("BUILD_ID=rolling\nID=\"a b\"\n", "linux", None),
            ("", "linux", None),
        ] {
            let expected = Distro { id: id.to_owned(), version: version.map(str::to_owned) };
            assert_eq!(parse(text.as_bytes()), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_total(text in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&text);
        }
    }
}
