//! Writing a file that somebody asked for by name.

use std::fs::{self, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process;

/// A file takes its place when it is complete; a device or pipe is written to.
pub(super) fn save(path: &Path, text: &str) -> io::Result<()> {
    save_as(path, text, 0o666)
}

/// The same with mode 0600: what runs here is nobody's business.
pub(super) fn save_private(path: &Path, text: &str) -> io::Result<()> {
    save_as(path, text, 0o600)
}

fn save_as(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    if fs::metadata(path).is_ok_and(|metadata| !metadata.is_file()) {
        return writeln!(OpenOptions::new().write(true).open(path)?, "{text}");
    }
    let mut name = path.file_name().ok_or(io::ErrorKind::IsADirectory)?.to_owned();
    name.push(format!(".{}.new", process::id()));
    let draft = path.with_file_name(name);
    let written = draft_of(&draft, text, mode).and_then(|()| fs::rename(&draft, path));
    if written.is_err() {
        // The first error is the one to tell.
        let _ = fs::remove_file(&draft);
    }
    written
}

fn draft_of(draft: &Path, text: &str, mode: u32) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let mut file = BufWriter::new(options.write(true).create_new(true).mode(mode).open(draft)?);
    writeln!(file, "{text}")?;
    file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_as_a_whole_and_leaves_no_draft() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        fs::write(&path, "old and longer").unwrap();
        save(&path, "new").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new\n");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        save(Path::new("/dev/null"), "x").unwrap();
        assert!(save(&folder.path().join("no/a.json"), "x").is_err());
        assert!(save(folder.path(), "x").is_err());
    }
}
