//! Writing the bill of materials.

use std::io::Write;
use std::path::Path;

use jiff::Timestamp;

use crate::cli::save::save;
use crate::cli::term::escape_json;
use crate::cli::{Exit, Failure, ended};
use crate::inventory::{Bom, Host, Inventory};

pub(super) fn write(
    inventory: &Inventory,
    file: Option<&Path>,
    out: &mut impl Write,
) -> Result<Exit, Failure> {
    let bom = Bom::new(inventory, &Host::this(), Timestamp::now());
    let text = serde_json::to_string_pretty(&bom).map_err(|source| Failure::Internal {
        what: "cannot write the bill of materials".to_owned(),
        source: Box::new(source),
    })?;
    let text = escape_json(&text);
    match file {
        None => ended(writeln!(out, "{text}"), Exit::Success),
        Some(path) => save(path, &text).map(|()| Exit::Success).map_err(|source| {
            let what = format!("cannot write {}", path.display());
            Failure::Internal { what, source: Box::new(source) }
        }),
    }
}
