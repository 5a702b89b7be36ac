//! The areas of a process, by question where the kernel takes one, else by its text.

use std::fs::File;
use std::io;

use super::super::maps::{Area, Query, areas};
use super::digest::{Digest, Secret};

/// Where areas are had from.
#[derive(Debug)]
pub(in crate::verify) enum Areas<'a> {
    Asked(Query<'a>),
    /// Ascending, with their names.
    Read(Vec<(Area, &'a [u8])>),
}

impl<'a> Areas<'a> {
    /// `maps` is an open `/proc/PID/maps`.
    pub(in crate::verify) fn ask(maps: &'a File) -> Self {
        Self::Asked(Query::new(maps))
    }

    /// Lines that the kernel would not have written are refused by whoever looks at them.
    pub(in crate::verify) fn read(text: &'a [u8]) -> Self {
        Self::Read(areas(text).flatten().filter(|(area, _)| !area.is_gate()).collect())
    }

    /// A digest of all that is executable, of files and without, and how many areas there are.
    pub(super) fn code(&mut self, secret: &Secret) -> io::Result<(Digest, u64)> {
        let (mut digest, mut count) = (secret.digest(), 0);
        let mut take = |area: &Area, name: &[u8]| {
            add(&mut digest, area, name);
            count += 1;
        };
        match self {
            Self::Asked(query) => query.code(take)?,
            Self::Read(all) => {
                let code = all.iter().filter(|(area, _)| area.is_executable());
                code.for_each(|(area, name)| take(area, name));
            }
        }
        Ok((digest, count))
    }

    /// Whether an area of a file is as it was.
    pub(super) fn has(&mut self, known: &Area) -> bool {
        match self {
            Self::Asked(query) => query.file_at(known.start).ok().flatten().as_ref() == Some(known),
            Self::Read(all) => {
                let at = all.binary_search_by_key(&known.start, |(area, _)| area.start);
                at.ok().and_then(|at| all.get(at)).is_some_and(|(area, _)| area == known)
            }
        }
    }
}

/// The name tells whose memory without a file is, and by which path a file was mapped.
fn add(digest: &mut Digest, area: &Area, name: &[u8]) {
    let Area { start, end, access, offset, dev: (major, minor), ino } = *area;
    let offset = if ino == 0 { 0 } else { offset };
    let dev = u64::from(major) << 32 | u64::from(minor);
    for word in [start, end, u64::from(access), offset, dev, ino, name.len() as u64] {
        digest.add(&word.to_le_bytes());
    }
    digest.add(name);
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str =
        "7f1b4000-7f1b5000 r-xp 00000000 fe:00 1234                       /lib/libc.so.6";

    fn of(secret: &Secret, text: &str) -> (u64, u64) {
        let (digest, count) = Areas::read(text.as_bytes()).code(secret).unwrap();
        (Digest::finish(digest), count)
    }

    #[test]
    fn only_what_is_executable_counts_by_itself() {
        let secret = Secret::new();
        for (line, expected) in [
            (FILE, 1),
            ("7f1b4000-7f1b5000 rw-p 0001f000 fe:00 1234   /lib/libc.so.6", 0),
            ("7f1b4000-7f1b5000 rw-p 00000000 00:00 0", 0),
            ("7f1b4000-7f1b5000 r-xp 00000000 00:00 0                          [vdso]", 1),
            ("7f1b4000-7f1b5000 rwxp 00000000 00:00 0 ", 1),
            (
                "ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                [vsyscall]",
                0,
            ),
            ("what the kernel would not write", 0),
            ("", 0),
        ] {
            assert_eq!(of(&secret, line).1, expected, "{line:?}");
            assert_eq!(of(&secret, line) != of(&secret, ""), expected == 1, "{line:?}");
        }
    }

    #[test]
    fn whatever_of_an_executable_area_counts_changes_the_digest() {
        let secret = Secret::new();
        for (from, to) in [
            ("7f1b4", "7f1b3"),
            ("7f1b5", "7f1b6"),
            ("r-xp", "rwxp"),
            ("00000000", "00001000"),
            ("fe:00", "fe:01"),
            ("fe:00", "ff:00"),
            ("1234 ", "1235 "),
            ("libc", "libd"),
            ("libc.so.6", "libc.so"),
        ] {
            assert_ne!(of(&secret, FILE), of(&secret, &FILE.replace(from, to)), "{from} {to}");
        }
    }

    #[test]
    fn an_area_of_a_file_is_known_again_by_all_that_was_looked_at() {
        let text = FILE.replace("r-xp", "r--p");
        let (known, _) = areas(text.as_bytes()).next().flatten().unwrap();
        assert!(Areas::read(text.as_bytes()).has(&known));
        for (from, to) in [
            ("7f1b4", "7f1b3"),
            ("7f1b5", "7f1b6"),
            ("r--p", "rw-p"),
            ("00000000", "00001000"),
            ("fe:00", "fe:01"),
            ("1234 ", "1235 "),
        ] {
            let other = text.replace(from, to);
            assert!(!Areas::read(other.as_bytes()).has(&known), "{from} {to}");
        }
    }

    #[test]
    fn question_and_text_give_the_same_for_whatever_runs_here() {
        let (secret, mut compared) = (Secret::new(), 0);
        for pid in crate::verify::list_processes().unwrap() {
            let path = format!("/proc/{pid}/maps");
            for _ in 0..100 {
                let (Ok(before), Ok(maps)) = (std::fs::read(&path), File::open(&path)) else {
                    break;
                };
                let (mut asked, mut text) = (Areas::ask(&maps), Areas::read(&before));
                let digest = asked.code(&secret);
                let Areas::Read(all) = &text else { unreachable!("it was read") };
                let files: Vec<Area> = all.iter().map(|(area, _)| *area).collect();
                let files = files.into_iter().filter(|area| area.ino != 0);
                let known: Vec<bool> = files.map(|area| asked.has(&area)).collect();
                if std::fs::read(&path).is_ok_and(|after| before != after || after.is_empty()) {
                    continue;
                }
                if digest.as_ref().is_err_and(Query::is_missing) {
                    println!("this kernel has no PROCMAP_QUERY: not tried");
                    return;
                }
                let (Ok((asked, count)), Ok((text, lines))) = (digest, text.code(&secret)) else {
                    break;
                };
                assert!(known.iter().all(|known| *known), "process {pid}");
                let (asked, text) = (Digest::finish(asked), Digest::finish(text));
                assert_eq!((asked, count), (text, lines), "process {pid}");
                compared += 1;
                break;
            }
        }
        println!("{compared} processes are the same either way");
        assert!(compared > 0);
    }
}
