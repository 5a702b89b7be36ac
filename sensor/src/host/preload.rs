//! Which variables a dynamic loader obeys, and which files `LD_PRELOAD` and `LD_AUDIT` name.

/// Longest value kept, bytes.
pub(super) const VALUE_MAX: usize = 4096;
/// Libraries looked at of one value.
const LIBRARIES_MAX: usize = 32;
/// Places looked at for one library.
const PLACES_MAX: usize = 48;

/// All that glibc's elf/rtld.c `process_envvars` obeys or has obeyed since 2.4, what its tunables
/// and its iconv obey, and with them all of musl's (ldso/dynlink.c).
const OBEYED: [&str; 23] = [
    "GCONV_PATH",
    "GLIBC_TUNABLES",
    "LD_ASSUME_KERNEL",
    "LD_AUDIT",
    "LD_BIND_NOT",
    "LD_BIND_NOW",
    "LD_DEBUG",
    "LD_DEBUG_OUTPUT",
    "LD_DYNAMIC_WEAK",
    "LD_HWCAP_MASK",
    "LD_LIBRARY_PATH",
    "LD_ORIGIN_PATH",
    "LD_POINTER_GUARD",
    "LD_PREFER_MAP_32BIT_EXEC",
    "LD_PRELOAD",
    "LD_PROFILE",
    "LD_PROFILE_OUTPUT",
    "LD_SHOW_AUXV",
    "LD_TRACE_LOADED_OBJECTS",
    "LD_TRACE_PRELINKING",
    "LD_USE_LOAD_BIAS",
    "LD_VERBOSE",
    "LD_WARN",
];

/// Where a loader looks without being told, on the distributions there are; what ld.so.cache adds
/// is found by none of these and stays unknown.
const STANDARD: [&str; 10] = [
    "/lib64",
    "/usr/lib64",
    "/lib/x86_64-linux-gnu",
    "/usr/lib/x86_64-linux-gnu",
    "/lib/aarch64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/lib",
    "/usr/lib",
    "/usr/local/lib",
    "/lib32",
];

/// What `$LIB` may stand for.
const LIB: [&str; 5] =
    ["lib/x86_64-linux-gnu", "lib/aarch64-linux-gnu", "lib64", "lib", "lib/i386-linux-gnu"];

/// Name and value of a variable that some loader obeys.
pub(super) fn obeyed(text: &str) -> Option<(&str, &str)> {
    text.split_once('=').filter(|(name, _)| OBEYED.binary_search(name).is_ok())
}

/// Those of a whole environment, at most `most`, each cut at [`VALUE_MAX`].
///
/// Bytes: `NAME=value`, NUL-terminated, as `/proc/PID/environ` shows them.
pub(super) fn variables(bytes: &[u8], most: usize) -> Vec<String> {
    bytes
        .split(|byte| *byte == 0)
        .filter(|text| text.starts_with(b"LD_") || text.starts_with(b"G"))
        .filter_map(|text| {
            let cut = text.get(..VALUE_MAX + 32).unwrap_or(text);
            let text = String::from_utf8_lossy(cut);
            let (name, value) = obeyed(&text)?;
            let end = value.floor_char_boundary(VALUE_MAX);
            Some(format!("{name}={}", value.get(..end)?))
        })
        .take(most)
        .collect()
}

/// The libraries that a variable's value names, as it names them.
///
/// glibc separates `LD_PRELOAD` by blanks and colons (elf/rtld.c `handle_preload_list`) and
/// `LD_AUDIT` by colons (`audit_list_next`); musl separates by any blank.
pub(crate) fn split<'a>(name: &str, value: &'a str) -> impl Iterator<Item = &'a str> + use<'a> {
    let (injects, blanks) = match name {
        "LD_PRELOAD" => (true, true),
        "LD_AUDIT" => (true, false),
        _ => (false, false),
    };
    value
        .split(move |c: char| c == ':' || (blanks && c.is_ascii_whitespace()))
        .filter(move |library| injects && !library.is_empty())
        .take(LIBRARIES_MAX)
}

/// Absolute paths at which the loader may find a library, in its order. Empty where that depends on
/// the current directory.
pub(super) fn places(library: &str, search: &[&str], exe: &str) -> Vec<String> {
    let directories = search.iter().flat_map(|path| path.split([':', ';']));
    let wanted: Vec<String> = if library.contains('/') {
        vec![library.to_owned()]
    } else {
        directories
            .filter(|directory| !directory.is_empty())
            .chain(STANDARD)
            .map(|directory| format!("{directory}/{library}"))
            .collect()
    };
    wanted
        .iter()
        .flat_map(|path| expand(path, exe))
        .filter(|path| path.starts_with('/'))
        .take(PLACES_MAX)
        .collect()
}

/// `$ORIGIN` and `$LIB` (glibc elf/dl-load.c `_dl_dst_substitute`); a path with any other `$` is
/// not looked for.
fn expand(path: &str, exe: &str) -> Vec<String> {
    let origin = exe.rsplit_once('/').map_or("", |(directory, _)| directory);
    let path = path.replace("${ORIGIN}", origin).replace("$ORIGIN", origin);
    let path = path.replace("${LIB}", "$LIB");
    if path.contains("$LIB") {
        return LIB.iter().map(|lib| path.replace("$LIB", lib)).collect();
    }
    if path.contains('$') { Vec::new() } else { vec![path] }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_whole_names_are_obeyed() {
        assert!(OBEYED.is_sorted());
        assert_eq!(obeyed("LD_PRELOAD=a=b"), Some(("LD_PRELOAD", "a=b")));
        for text in ["LD_PRELOADX=a", "LD_TRACE_TOKEN=secret", "LD_PRELOAD", "ld_preload=x", ""] {
            assert_eq!(obeyed(text), None, "{text}");
        }
    }

    #[test]
    fn variables_are_found_however_far_back() {
        let mut bytes = vec![b'x'; 200_000];
        bytes.extend(b"\0PATH=/bin\0LD_PRELOAD=/a.so\0LD_X=secret\0LD_PRELOAD=/b.so\0");
        assert_eq!(variables(&bytes, 8), ["LD_PRELOAD=/a.so", "LD_PRELOAD=/b.so"]);
        assert_eq!(variables(&bytes, 1), ["LD_PRELOAD=/a.so"]);
    }

    #[test]
    fn a_list_is_split_as_its_loader_does() {
        let all = |name, value| split(name, value).collect::<Vec<_>>();
        assert_eq!(all("LD_PRELOAD", " a.so:/b.so  c.so:"), ["a.so", "/b.so", "c.so"]);
        assert_eq!(all("LD_AUDIT", "/with blank.so:b"), ["/with blank.so", "b"]);
        assert!(all("LD_LIBRARY_PATH", "/a:/b").is_empty());
    }

    #[test]
    fn a_search_path_comes_before_the_standard_places() {
        let found = places("libx.so", &["/tmp/a:relative:$ORIGIN/b"], "/opt/app/run");
        assert_eq!(found[..2], ["/tmp/a/libx.so", "/opt/app/b/libx.so"]);
        assert!(found.contains(&"/usr/lib/x86_64-linux-gnu/libx.so".to_owned()));
        assert_eq!(places("/usr/$LIB/x.so", &[], "/bin/x")[2], "/usr/lib64/x.so");
        assert!(places("./x.so", &[], "/bin/x").is_empty());
        assert!(places("/$PLATFORM/x.so", &[], "/bin/x").is_empty());
    }

    proptest! {
        #[test]
        fn any_bytes_are_bounded(bytes: Vec<u8>, text in "\\PC{0,300}") {
            prop_assert!(variables(&bytes, 4).len() <= 4);
            for library in split("LD_PRELOAD", &text) {
                prop_assert!(places(library, &[&text], &text).len() <= PLACES_MAX);
            }
        }
    }
}
