//! What the kernel side cannot be had without, and what it says then.

use std::path::{Path, PathBuf};

use sensor::kernel::BTF_PATH;
use sensor::loader::{LoadError, Loader, LoaderConfig};

use crate::harness::skip;

fn load_with(btf: &Path) -> LoadError {
    let config = LoaderConfig { btf: PathBuf::from(btf), ..LoaderConfig::default() };
    Loader::load(&config).expect_err("it loaded")
}

fn in_file(bytes: &[u8]) -> LoadError {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), bytes).expect("write");
    load_with(file.path())
}

#[test]
fn a_kernel_without_type_information_is_refused_with_a_remedy() {
    let error = load_with(Path::new("/no/such/file"));
    assert!(matches!(error, LoadError::TypeInformation(_)), "{error:?}");
    assert!(error.to_string().contains("CONFIG_DEBUG_INFO_BTF"), "{error}");
}

#[test]
fn type_information_that_is_none_is_refused() {
    let error = in_file(b"\x7fELF not type information at all");
    assert!(matches!(error, LoadError::TypeInformation(_)), "{error:?}");
}

/// The kernel's type information with the names of two members exchanged.
fn with_exchanged(a: &[u8], b: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = match std::fs::read(BTF_PATH) {
        Ok(bytes) => bytes,
        Err(error) => {
            skip(&format!("{BTF_PATH}: {error}"));
            return None;
        }
    };
    let place = |name: &[u8]| {
        bytes.windows(name.len()).position(|window| window == name).expect("the name is there")
    };
    let (at_a, at_b) = (place(a), place(b));
    bytes[at_a..at_a + 6].copy_from_slice(b);
    bytes[at_b..at_b + 6].copy_from_slice(a);
    Some(bytes)
}

#[test]
fn a_required_member_that_is_missing_is_named() {
    // No struct has a member of that name then.
    let Some(bytes) = with_exchanged(b"\0tgid\0", b"\0tgid\0") else { return };
    let text = b"\0tgid\0";
    let at = bytes.windows(text.len()).position(|window| window == text).expect("there");
    let mut bytes = bytes;
    bytes[at + 1] = b'X';
    let error = in_file(&bytes);
    let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
    assert!(cause.contains("task_tgid"), "{error:?}");
}

#[test]
fn offsets_that_read_something_else_are_refused() {
    if !rustix::process::geteuid().is_root() {
        skip("needs root");
        return;
    }
    let Some(bytes) = with_exchanged(b"\0tgid\0", b"\0prio\0") else { return };
    let error = in_file(&bytes);
    assert!(matches!(error, LoadError::SelfCheck { field: "tgid", .. }), "{error:?}");
}
