//! The list for programs: one object for each file of each process, then the account.

use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};

use super::line;
use crate::inventory::{File, Inventory, Owner, Process, Role, Tally, Use, hex_if_not_utf8};
use crate::package::Content;
use crate::search::{Explained, FileId, Gatherer, Question, Unexplained};

/// One file of one process. Every key is always there; `null` is what cannot be told.
#[derive(Serialize)]
struct Row<'a> {
    kind: &'static str,
    /// `application` or `library`.
    r#type: &'static str,
    /// Invalid UTF-8 replaced; then `path_hex` has the bytes.
    path: String,
    path_hex: Option<String>,
    name: String,
    soname: Option<&'a str>,
    build_id: Option<&'a str>,
    version: Option<String>,
    /// `package` or `file name`.
    version_from: Option<&'static str>,
    /// `package`, `none` or `unknown`.
    owner: &'static str,
    owner_unknown: Option<&'a str>,
    package: Option<&'a str>,
    package_version: Option<&'a str>,
    package_arch: Option<&'a str>,
    package_manager: Option<&'a str>,
    purl: Option<&'a str>,
    /// `matches`, `differs` or `not_recorded`; `null` where there is no package, too.
    content: Option<&'static str>,
    /// Why it was not compared.
    content_unknown: Option<&'a str>,
    /// Its digest, where it differs, with its kind.
    digest: Option<String>,
    /// The rule by which its loader found it: `RUNPATH $ORIGIN/../lib of /usr/sbin/x`.
    found_by: Option<String>,
    found_by_unknown: Option<String>,
    /// Its path as this host sees it.
    on_host: Option<String>,
    /// Places that the loader asked and that others decide about.
    odd: Vec<String>,
    pid: u32,
    comm: &'a str,
    exe: String,
    uid: u32,
    user: Option<&'a str>,
    container: Option<&'a str>,
    pod: Option<&'a str>,
    root: String,
    since: Timestamp,
    /// What `since` is the time of.
    since_means: &'static str,
    deleted: Option<bool>,
    replaced: Option<bool>,
    memory: bool,
    /// Mapped executable.
    code: bool,
    /// The program is linked statically.
    r#static: Option<bool>,
    dev: u64,
    ino: u64,
    size: Option<u64>,
    /// Why the file was not read.
    unread: Option<String>,
}

/// Writes all rows that are wanted; tells how many there are.
pub(super) fn lines(
    out: &mut impl Write,
    inventory: &Inventory,
    wanted: &dyn Fn(&File) -> bool,
    version_unknown: u64,
) -> (io::Result<()>, u64) {
    let wants: Vec<bool> = inventory.files.iter().map(wanted).collect();
    let mut searches = Gatherer::new();
    let mut found = 0;
    let mut written = Ok(());
    for one in &inventory.uses {
        let at = usize::try_from(one.file).unwrap_or(usize::MAX);
        let Some((process, file)) = inventory.of(one).filter(|_| wants.get(at) == Some(&true))
        else {
            continue;
        };
        found += 1;
        if written.is_ok() {
            let way = way(&mut searches, process, file);
            written = line(out, &row(one, process, file, way));
        }
    }
    let summary = summary(&inventory.tally, found, version_unknown);
    (written.and_then(|()| line(out, &summary)), found)
}

fn way(searches: &mut Gatherer, process: &Process, file: &File) -> Result<Explained, Unexplained> {
    let id = FileId { ino: file.ino, size: file.size.unwrap_or(0) };
    searches.explain(&Question { pid: process.pid, file: id, variables: &[] })
}

fn row<'a>(
    one: &Use,
    process: &'a Process,
    file: &'a File,
    way: Result<Explained, Unexplained>,
) -> Row<'a> {
    let (content, content_unknown, digest) = match &file.content {
        Some(Content::Matches) => (Some("matches"), None, None),
        Some(Content::Differs { found, .. }) => (Some("differs"), None, Some(format!("{found:?}"))),
        Some(Content::NotRecorded) => (Some("not_recorded"), None, None),
        Some(Content::Unread(reason)) => (None, Some(reason.as_str()), None),
        None => (None, None, None),
    };
    let (way, found_by_unknown) = match way {
        Ok(way) => (Some(way), None),
        Err(reason) => (None, Some(reason.to_string())),
    };
    let odd = way.as_ref().map(|way| way.found.odd()).unwrap_or_default();
    let on_host = way.as_ref().and_then(|way| way.on_host.as_ref().ok());
    let (version, source) = file.version().unzip();
    let package = file.owner.package();
    let (owner, owner_unknown) = match &file.owner {
        Owner::Package(_) => ("package", None),
        Owner::Unowned => ("none", None),
        Owner::Unknown(why) => ("unknown", Some(why.as_str())),
    };
    Row {
        kind: "mapping",
        r#type: one.role.name(),
        path: file.path.to_string_lossy().into_owned(),
        path_hex: hex_if_not_utf8(file.path.as_os_str().as_bytes()),
        name: file.name(),
        soname: file.soname(),
        build_id: file.build_id(),
        version,
        version_from: source.map(crate::inventory::VersionSource::name),
        owner,
        owner_unknown,
        package: package.map(|one| one.name.as_str()),
        package_version: package.and_then(|one| one.version.as_deref()),
        package_arch: package.and_then(|one| one.arch.as_deref()),
        package_manager: package.map(|one| one.manager.as_str()),
        purl: package.and_then(|one| one.purl.as_deref()),
        content,
        content_unknown,
        digest,
        found_by: way.as_ref().map(|way| way.found.found_by()),
        found_by_unknown,
        on_host: on_host.map(|path| path.to_string_lossy().into_owned()),
        odd,
        pid: process.pid,
        comm: &process.comm,
        exe: process.exe.to_string_lossy().into_owned(),
        uid: process.uid,
        user: process.user.as_deref(),
        container: process.container.as_deref(),
        pod: process.pod.as_deref(),
        root: process.root.to_string_lossy().into_owned(),
        since: process.started,
        since_means: "process start",
        deleted: file.deleted,
        replaced: file.replaced,
        memory: file.memory,
        code: one.code,
        r#static: (one.role == Role::Application).then_some(process.is_static),
        dev: file.dev,
        ino: file.ino,
        size: file.size,
        unread: file.unread.as_ref().map(ToString::to_string),
    }
}

fn summary(tally: &Tally, mappings: u64, version_unknown: u64) -> Value {
    json!({
        "kind": "summary",
        "mappings": mappings,
        "version_unknown": version_unknown,
        "processes": tally.processes,
        "read": tally.read,
        "denied": tally.denied,
        "gone": tally.gone,
        "failed": tally.failed,
        "failures": tally.failures,
        "static_programs": tally.static_programs,
        "unread": tally.unread,
        "left_out": tally.left_out,
    })
}
