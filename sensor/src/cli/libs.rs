//! `halfsecond libs`: which running programs have which library loaded, without daemon and eBPF.

mod bill;
mod row;
mod show;
mod width;

use std::io::{self, Write};
use std::path::PathBuf;

use clap::Args;
use serde::Serialize;
use tracing::warn;

use super::progress::Progress;
use super::term::Style;
use super::{Exit, Failure, Global, ended};
use crate::doctor::missing_capabilities;
use crate::inventory::{self, File, Inventory, Match, Owners, Query, Tally};

/// Arguments of the command.
#[derive(Args, Clone, Debug, Default)]
pub struct LibsArgs {
    /// Only what is called so: a file, soname, name before .so, package or path; may have * and ?
    pub name: Option<String>,
    /// Only this version of the package or in the file's name, or what begins with it
    #[arg(long, value_name = "V")]
    pub version: Option<String>,
    /// Only files of this package; may have * and ?
    #[arg(long, value_name = "P")]
    pub package: Option<String>,
    /// Only files with this build-id, or one that begins with it
    #[arg(long, value_name = "ID", value_parser = hex)]
    pub build_id: Option<String>,
    /// Write a CycloneDX 1.6 bill of materials to FILE, or to standard output
    #[arg(
        long,
        value_name = "FILE",
        num_args = 0..=1,
        conflicts_with_all = ["name", "version", "package", "build_id", "json"],
    )]
    pub sbom: Option<Option<PathBuf>>,
}

/// What was asked for, and how many files could not be told apart from it.
#[derive(Debug)]
struct Asked {
    query: Query,
    version_unknown: u64,
}

/// Lists, and writes the list to `out`.
pub fn libs(
    global: &Global,
    args: &LibsArgs,
    owners: &mut dyn Owners,
    out: &mut impl Write,
) -> Result<Exit, Failure> {
    let mut progress = Progress::new("reading processes", false);
    let inventory = inventory::collect(owners, &mut |left| progress.left(left));
    progress.clear();
    let mut inventory = inventory.map_err(|source| Failure::Internal {
        what: "cannot list /proc".to_owned(),
        source: Box::new(source),
    })?;
    tell_gaps(&inventory.tally)?;
    if let Some(file) = &args.sbom {
        hashed(inventory.hash(&mut |left| progress.left(left)), &mut progress)?;
        return bill::write(&inventory, file.as_deref(), out);
    }
    let asked = Asked::new(args, &inventory);
    let wanted = |file: &File| asked.query.matches(file) == Match::Yes;
    // The short list for people does not show it.
    if global.json || !asked.query.is_empty() {
        hashed(inventory.compare(&wanted, &mut |left| progress.left(left)), &mut progress)?;
    }
    let (written, found) = if global.json {
        row::lines(out, &inventory, &wanted, asked.version_unknown)
    } else {
        show::text(out, &inventory, &wanted, &asked, Style::stdout())
    };
    let exit = match found {
        0 => Exit::Success,
        _ if asked.query.is_empty() => Exit::Success,
        _ => Exit::Findings,
    };
    ended(written, exit)
}

fn hashed(done: io::Result<()>, progress: &mut Progress) -> Result<(), Failure> {
    progress.clear();
    done.map_err(|source| Failure::Internal {
        what: "cannot start reading files".to_owned(),
        source: Box::new(source),
    })
}

/// A list of nothing for lack of privilege is no list.
fn tell_gaps(tally: &Tally) -> Result<(), Failure> {
    if tally.read == 0 && tally.denied > 0 {
        let text = format!("no process could be read: {}", why_denied());
        return Err(Failure::Unsupported(text));
    }
    if tally.denied > 0 {
        let reason = why_denied();
        warn!(processes = tally.denied, reason, "not everything could be read");
    }
    if tally.left_out > 0 {
        warn!(mappings = tally.left_out, "more files are mapped than are kept");
    }
    Ok(())
}

/// The capabilities that are missing; where none is, the kernel has other reasons.
fn why_denied() -> String {
    let missing = missing_capabilities();
    if missing.contains(&"CAP_SYS_PTRACE") {
        return "needs CAP_SYS_PTRACE; run as root".to_owned();
    }
    "refused by a security module or for another user namespace".to_owned()
}

// === impl Asked ===

impl Asked {
    fn new(args: &LibsArgs, inventory: &Inventory) -> Self {
        let query = Query {
            name: args.name.clone(),
            version: args.version.clone(),
            package: args.package.clone(),
            build_id: args.build_id.clone(),
        };
        let unknown =
            inventory.files.iter().filter(|file| query.matches(file) == Match::VersionUnknown);
        let version_unknown = unknown.count() as u64;
        if version_unknown > 0 {
            warn!(
                files = version_unknown,
                "the version of some files that are called so is not known; list them without --version"
            );
        }
        Self { query, version_unknown }
    }
}

/// One JSON object; characters that steer a terminal are escaped, which JSON itself asks for only
/// below U+0020.
fn line(out: &mut impl Write, value: &impl Serialize) -> io::Result<()> {
    let text = serde_json::to_string(value)?;
    writeln!(out, "{}", super::term::escape_json(&text))
}

fn hex(text: &str) -> Result<String, String> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err("a build-id is hexadecimal".to_owned());
    }
    Ok(text.to_owned())
}
