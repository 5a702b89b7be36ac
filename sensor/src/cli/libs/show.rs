//! The list for people: what is loaded by whom if something was asked for, else how often.

use std::io::{self, Write};

use super::width::{self, fit};
use super::{Asked, why_denied};
use crate::cli::term::{Style, Tone, clean};
use crate::inventory::{File, Group, Inventory, Owner, Process, Tally, VersionSource, groups};
use crate::package::Content;

/// Characters of a build-id or container id that tell it from others.
const SHORT_ID: usize = 12;
/// No path is cut shorter.
const MIN_PATH: usize = 24;

type Row = Vec<(Tone, String)>;

/// Writes the list; tells how many files of processes are in it.
pub(super) fn text(
    out: &mut impl Write,
    inventory: &Inventory,
    wanted: &dyn Fn(&File) -> bool,
    asked: &Asked,
    style: Style,
) -> (io::Result<()>, u64) {
    let groups = groups(inventory, wanted);
    let found = groups.iter().map(|group| group.processes.len() as u64).sum();
    let page = Page { style, width: width::of_stdout(), inventory };
    let written = if asked.query.is_empty() {
        page.overview(out, &groups)
    } else {
        page.details(out, &groups)
    };
    (written.and_then(|()| page.account(out, asked)), found)
}

struct Page<'a> {
    style: Style,
    width: Option<usize>,
    inventory: &'a Inventory,
}

impl Page<'_> {
    /// One line for each file.
    fn overview(&self, out: &mut impl Write, groups: &[Group<'_>]) -> io::Result<()> {
        if groups.is_empty() {
            return Ok(());
        }
        let mut rows = vec![heading(&["PATH", "VERSION", "PACKAGE", "BUILD-ID", "PROCESSES"])];
        rows.extend(groups.iter().map(|group| {
            let file = group.file;
            let mut row = vec![
                (Tone::Plain, file.path.to_string_lossy().into_owned()),
                (Tone::Plain, version(file)),
                (Tone::Plain, package(file)),
                (Tone::Plain, short(file.build_id())),
                (Tone::Plain, group.processes.len().to_string()),
            ];
            row.extend(Some(notes(group)).filter(|(_, notes)| !notes.is_empty()));
            row
        }));
        self.table(out, rows)?;
        writeln!(out)
    }

    /// Every process of each file.
    fn details(&self, out: &mut impl Write, groups: &[Group<'_>]) -> io::Result<()> {
        for group in groups {
            let file = group.file;
            let path = file.path.to_string_lossy();
            write!(out, "{}", self.style.paint(Tone::Bold, &path))?;
            let (tone, notes) = notes(group);
            let space = if notes.is_empty() { "" } else { "  " };
            writeln!(out, "{space}{}", self.style.paint(tone, &notes))?;
            let facts = [
                ("  version", version_and_source(file)),
                ("  package", owner(file)),
                ("  content", content(file)),
                ("  soname", file.soname().unwrap_or_default().to_owned()),
                ("  build-id", file.build_id().unwrap_or_default().to_owned()),
            ];
            let facts = facts.into_iter().filter(|(_, fact)| !fact.is_empty());
            let facts: Vec<Row> = facts.map(|(name, fact)| plain(&[name, &fact])).collect();
            self.style.table(out, &facts)?;
            self.processes(out, group)?;
            writeln!(out)?;
        }
        Ok(())
    }

    fn processes(&self, out: &mut impl Write, group: &Group<'_>) -> io::Result<()> {
        let numbers = group.processes.iter().filter_map(|number| usize::try_from(*number).ok());
        let processes: Vec<_> =
            numbers.filter_map(|number| self.inventory.processes.get(number)).collect();
        let contained = processes.iter().any(|process| !place(process).is_empty());
        let mut rows = vec![heading(&["  EXE", "PID", "USER", "SINCE"])];
        rows.extend(processes.iter().map(|process| {
            let exe = format!("  {}", process.exe.to_string_lossy());
            let since = process.started.strftime("%Y-%m-%d %H:%M:%SZ").to_string();
            plain(&[&exe, &process.pid.to_string(), &user(process), &since])
        }));
        if contained {
            let places = processes.iter().map(|process| place(process));
            let places = ["CONTAINER".to_owned()].into_iter().chain(places);
            for (row, place) in rows.iter_mut().zip(places) {
                let tone = row.first().map_or(Tone::Plain, |(tone, _)| *tone);
                row.push((tone, place));
            }
        }
        self.table(out, rows)
    }

    /// Cuts the paths in the first column to what the others leave.
    fn table(&self, out: &mut impl Write, mut rows: Vec<Row>) -> io::Result<()> {
        if let Some(width) = self.width {
            let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
            let widest = |column: usize| {
                let cells = rows.iter().filter_map(|row| row.get(column));
                cells.map(|(_, text)| clean(text).chars().count()).max().unwrap_or(0) + 2
            };
            let others: usize = (1..columns).map(widest).sum();
            let room = width.saturating_sub(others + 2).max(MIN_PATH);
            for (_, text) in rows.iter_mut().filter_map(|row| row.first_mut()) {
                *text = fit(text, room);
            }
        }
        self.style.table(out, &rows)
    }

    fn account(&self, out: &mut impl Write, asked: &Asked) -> io::Result<()> {
        let tally = &self.inventory.tally;
        let denied = format!("not read: {}", why_denied());
        let lines = [
            ("processes read", tally.read, true),
            ("static programs: what is linked into them is not seen", tally.static_programs, false),
            ("version not known, so neither listed nor ruled out", asked.version_unknown, false),
            (&denied, tally.denied, false),
            ("failed", tally.failed, false),
            ("ended meanwhile", tally.gone, false),
            ("mappings left out", tally.left_out, false),
        ];
        let told = lines.into_iter().filter(|(_, number, always)| *always || *number > 0);
        let mut rows: Vec<Row> =
            told.map(|(name, number, _)| plain(&[name, &number.to_string()])).collect();
        let unread = tally.unread.iter();
        rows.extend(
            unread.map(|(why, files)| plain(&[&format!("files {why}"), &files.to_string()])),
        );
        self.style.table(out, &rows)?;
        self.failures(out, tally)
    }

    fn failures(&self, out: &mut impl Write, tally: &Tally) -> io::Result<()> {
        for failure in &tally.failures {
            writeln!(out, "  {}", self.style.paint(Tone::Plain, failure))?;
        }
        Ok(())
    }
}

fn heading(names: &[&str]) -> Row {
    names.iter().map(|name| (Tone::Bold, (*name).to_owned())).collect()
}

fn plain(texts: &[&str]) -> Row {
    texts.iter().map(|text| (Tone::Plain, (*text).to_owned())).collect()
}

fn version(file: &File) -> String {
    file.version().map(|(version, _)| version).unwrap_or_default()
}

fn version_and_source(file: &File) -> String {
    match file.version() {
        Some((version, VersionSource::FileName)) => format!("{version} (in the file's name)"),
        Some((version, VersionSource::Package)) => version,
        None => String::new(),
    }
}

fn owner(file: &File) -> String {
    match &file.owner {
        Owner::Unknown(why) => format!("not known: {why}"),
        _ => package(file),
    }
}

fn package(file: &File) -> String {
    match &file.owner {
        Owner::Package(package) => match &package.arch {
            Some(arch) => format!("{}:{arch}", package.name),
            None => package.name.clone(),
        },
        Owner::Unowned if file.memory => String::new(),
        Owner::Unowned => "none".to_owned(),
        Owner::Unknown(_) => "?".to_owned(),
    }
}

/// Whether it is what the package brought.
fn content(file: &File) -> String {
    match &file.content {
        Some(Content::Matches) => "as its package brought it".to_owned(),
        Some(Content::Differs { .. }) => "not what its package brought".to_owned(),
        Some(Content::NotRecorded) => "its package records no digest".to_owned(),
        Some(Content::Unread(reason)) => format!("not compared: {reason}"),
        None => String::new(),
    }
}

fn notes(group: &Group<'_>) -> (Tone, String) {
    let file = group.file;
    let notes = [
        (file.memory, "in memory only"),
        (file.deleted == Some(true), "deleted"),
        (file.replaced == Some(true), "replaced"),
        (group.is_static, "static"),
        (file.unread.is_some(), "not read"),
    ];
    let told: Vec<&str> = notes.iter().filter(|(is, _)| *is).map(|(_, note)| *note).collect();
    let tone = if file.memory || file.is_stale() { Tone::Warn } else { Tone::Plain };
    (tone, told.join(", "))
}

fn short(id: Option<&str>) -> String {
    id.unwrap_or_default().chars().take(SHORT_ID).collect()
}

fn user(process: &Process) -> String {
    process.user.clone().unwrap_or_else(|| process.uid.to_string())
}

/// Container, pod or chroot.
fn place(process: &Process) -> String {
    let container = short(process.container.as_deref());
    let pod = process.pod.as_ref().map(|pod| format!("pod {pod}"));
    let root = (process.root.as_os_str() != "/")
        .then(|| format!("chroot {}", process.root.to_string_lossy()));
    let told = [Some(container).filter(|id| !id.is_empty()), pod, root];
    told.into_iter().flatten().collect::<Vec<_>>().join(" ")
}
