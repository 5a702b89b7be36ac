//! Lists of directories taken apart, and the tokens in them replaced.

use std::path::{Path, PathBuf};

use super::places::List;
use super::{Loader, Start};

/// Elements of one list; a Nix program's has about a hundred.
pub(super) const ELEMENTS_MAX: usize = 256;
/// Bytes of one list.
const LIST_MAX: usize = 64 << 10;
/// Bytes of one path.
const PATH_MAX: usize = 4096;

/// What `$LIB` stands for, by distribution (glibc's `slibdir`), 64-bit first.
const LIB: [&str; 6] = [
    "lib/x86_64-linux-gnu",
    "lib/aarch64-linux-gnu",
    "lib64",
    "lib",
    "lib/i386-linux-gnu",
    "lib32",
];
/// What `$PLATFORM` stands for (`AT_PLATFORM`, and what glibc 2.26 to 2.36 made of it on x86).
const PLATFORM: [&str; 5] = ["x86_64", "haswell", "xeon_phi", "aarch64", "v8l"];
/// Directories below each one that glibc asks for code for this processor (elf/dl-hwcaps.c), and the
/// older ones in use up to 2.36.
const CAPABILITIES: [&str; 9] = [
    "",
    "glibc-hwcaps/x86-64-v2",
    "glibc-hwcaps/x86-64-v3",
    "glibc-hwcaps/x86-64-v4",
    "tls",
    "haswell",
    "haswell/x86_64",
    "x86_64",
    "tls/x86_64",
];

/// One element of a list as the loader takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Expanded {
    /// As written.
    pub(super) text: String,
    /// The directories it may stand for; more than one where a token is not known here.
    pub(super) directories: Vec<PathBuf>,
    /// It depends on the current directory.
    pub(super) relative: bool,
}

/// Directories below each one that are searched as well; the plain one first.
pub(super) fn capabilities(loader: Loader) -> &'static [&'static str] {
    match loader {
        Loader::Glibc => &CAPABILITIES,
        Loader::Musl => CAPABILITIES.get(..1).unwrap_or_default(),
    }
}

/// The elements of a list of `of`.
pub(super) fn list(start: &Start, list: List, text: &str, of: Option<usize>) -> Vec<Expanded> {
    let text = text.get(..text.floor_char_boundary(LIST_MAX)).unwrap_or(text);
    let separators: &[char] = match (start.loader, list) {
        (Loader::Glibc, List::LibraryPath) => &[':', ';'],
        (Loader::Glibc, _) => &[':'],
        (Loader::Musl, _) => &[':', '\n'],
    };
    // musl gives up a list of a file as a whole.
    let hopeless = start.loader == Loader::Musl
        && list != List::LibraryPath
        && text.replace("$ORIGIN", "").replace("${ORIGIN}", "").contains('$');
    if text.is_empty() || hopeless {
        return Vec::new();
    }
    text.split(separators)
        // For glibc an empty element is the current directory, for musl it is none.
        .filter(|element| start.loader == Loader::Glibc || !element.is_empty())
        .take(ELEMENTS_MAX)
        .filter_map(|element| expanded(start, list, element, of))
        .collect()
}

fn expanded(start: &Start, list: List, element: &str, of: Option<usize>) -> Option<Expanded> {
    // Variables know the tokens too, of the program; musl's do not.
    let literal = start.loader == Loader::Musl && list == List::LibraryPath;
    let paths = if literal { vec![element.to_owned()] } else { tokens(start, element, of)? };
    let relative = paths.iter().any(|path| !path.starts_with('/'));
    let directories = paths.iter().filter_map(|path| absolute(start, path)).collect();
    Some(Expanded { text: element.to_owned(), directories, relative })
}

/// The paths that a name with a slash in it may stand for.
pub(super) fn name(start: &Start, name: &str, by: Option<usize>) -> Vec<PathBuf> {
    let paths = match start.loader {
        Loader::Glibc => tokens(start, name, by).unwrap_or_default(),
        Loader::Musl => vec![name.to_owned()],
    };
    paths.iter().filter_map(|path| absolute(start, path)).collect()
}

fn absolute(start: &Start, path: &str) -> Option<PathBuf> {
    if path.len() > PATH_MAX {
        return None;
    }
    if path.starts_with('/') {
        return Some(PathBuf::from(path));
    }
    Some(start.cwd.as_ref()?.join(path))
}

/// `_dl_dst_substitute`: `None` where the loader leaves the element out.
fn tokens(start: &Start, text: &str, of: Option<usize>) -> Option<Vec<String>> {
    if !text.contains('$') {
        return Some(vec![text.to_owned()]);
    }
    let of = of.unwrap_or(0);
    let mut paths = vec![text.replace("${", "$").replace('}', "")];
    if !braces_match(text) {
        return None;
    }
    if has(&paths, "$ORIGIN") {
        let origin = origin(start, of)?;
        paths = replace(&paths, "$ORIGIN", &[&origin]);
        // A program with more rights must not be led out of the system's directories.
        let trusted = |path: &String| {
            let path = super::writers::plain(Path::new(path));
            start.system.iter().any(|system| path.starts_with(system))
        };
        if start.secure && of == 0 && !paths.iter().all(trusted) {
            return None;
        }
    }
    paths = replace(&paths, "$PLATFORM", &PLATFORM);
    paths = replace(&paths, "$LIB", &LIB);
    Some(paths)
}

/// Braces stand for themselves where they hold no token: too odd to be followed.
fn braces_match(text: &str) -> bool {
    let known = ["${ORIGIN}", "${LIB}", "${PLATFORM}"];
    let rest = known.iter().fold(text.to_owned(), |text, token| text.replace(token, ""));
    !rest.contains(['{', '}'])
}

fn has(paths: &[String], token: &str) -> bool {
    paths.iter().any(|path| path.contains(token))
}

fn replace(paths: &[String], token: &str, by: &[&str]) -> Vec<String> {
    if !has(paths, token) {
        return paths.to_vec();
    }
    let all = paths.iter().flat_map(|path| by.iter().map(|by| path.replace(token, by)));
    all.filter(|path| path.len() <= PATH_MAX).collect()
}

/// The directory that the module lies in.
fn origin(start: &Start, of: usize) -> Option<String> {
    let directory = start.modules.get(of)?.path.parent()?;
    // `$ORIGIN/x` of a program in `/` is `/x`.
    Some(directory.to_str()?.trim_end_matches('/').to_owned())
}
