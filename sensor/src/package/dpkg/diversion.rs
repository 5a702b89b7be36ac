//! Files one package had another's put aside for: dpkg's `diversions`.

use std::path::Path;

use super::super::PackageError;
use super::super::index::word;
use super::super::lines::{Budget, Lines};
use super::super::path::Aliases;
use super::super::root::Root;

const MAX_FILE: u64 = 16 << 20;

/// One entry. Paths are canonical.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Diversion {
    /// Where packages other than `by` put the file in their archives.
    pub(in super::super) from: Box<[u8]>,
    /// Where it is then.
    pub(in super::super) to: Box<[u8]>,
    /// The package whose own file stays at `from`; `None` is the administrator.
    pub(in super::super) by: Option<Box<str>>,
}

/// All diversions of a root.
pub(super) fn read(
    root: &Root,
    aliases: &Aliases,
    budget: &Budget,
) -> Result<Vec<Diversion>, PackageError> {
    match root.lines(Path::new(super::DIVERSIONS), MAX_FILE, budget)? {
        Some(lines) => parse(lines, aliases),
        None => Ok(Vec::new()),
    }
}

/// Three lines each: from, to, package or `:`.
fn parse<R: std::io::Read>(
    mut lines: Lines<R>,
    aliases: &Aliases,
) -> Result<Vec<Diversion>, PackageError> {
    let mut found = Vec::new();
    while let Some(from) = lines.next()? {
        let from = aliases.canonical(from).into_owned();
        let Some(to) = lines.next()? else {
            return Err(PackageError::malformed(lines.path(), "an entry without its target"));
        };
        let to = aliases.canonical(to).into_owned();
        let by = match lines.next()? {
            Some(b":") => None,
            Some(by) => word(by).map(Box::from),
            None => {
                return Err(PackageError::malformed(lines.path(), "an entry without its package"));
            }
        };
        found.push(Diversion { from: from.into(), to: to.into(), by });
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn diversions(text: &[u8]) -> Result<Vec<Diversion>, PackageError> {
        let lines = Lines::new(text, Path::new("diversions"), 1 << 20, 0).unwrap();
        parse(lines, &Aliases::default())
    }

    #[test]
    fn packages_and_the_administrator_divert() {
        let text = b"/bin/sh\n/bin/sh.distrib\ndash\n/usr/bin/x\n/usr/bin/x.real\n:\n";
        let found = diversions(text).unwrap();
        assert_eq!(&*found[0].from, b"bin/sh");
        assert_eq!(&*found[0].to, b"bin/sh.distrib");
        assert_eq!(found[0].by.as_deref(), Some("dash"));
        assert_eq!(found[1].by, None);
        assert!(matches!(diversions(b"/bin/sh\n"), Err(PackageError::Malformed { .. })));
    }

    proptest! {
        #[test]
        fn any_bytes_are_total(text in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = diversions(&text);
        }
    }
}
