//! What changed below a program's root since its times were last as usual: packages of the files that
//! it has mapped, and configuration that it reads.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};

use crate::finding::{Evidence, FileSince, PackageSince};
use crate::host::{Dated, Observation, Outside, ProcessId, Procfs};
use crate::package::history::{self, History, PackageChange};
use crate::package::{Owned, PackageError, Packages, Root};
use crate::trouble::chain;

/// Where nobody knows when the time was last as usual.
const DAY: SignedDuration = SignedDuration::from_hours(24);
/// A package's change is told from when its unpacking began, and its files are those of before until
/// that is nearly over.
const UNPACKING: SignedDuration = SignedDuration::from_mins(2);
/// What is written in whole seconds, or by another clock, may seem to lie behind.
const SLACK: SignedDuration = SignedDuration::from_secs(2);
/// Changes of all packages that are looked at, and what reading them may take.
const CHANGES_MAX: usize = 4096;
const PATIENCE: Duration = Duration::from_millis(900);
/// What the look-ups of the files' packages may take beyond the last of them: libraries wait behind.
const OWNERS_PATIENCE: Duration = Duration::from_millis(300);
/// Changes told, of packages and of files each, and files of one package.
const TOLD_MAX: usize = 4;
const FILES_MAX: usize = 3;
/// Reasons told why something may be missing.
const REASONS_MAX: usize = 4;
/// Entries of a directory that are looked at.
const NAMES_MAX: usize = 1024;

/// Configuration that every program reads through libc or its loader.
const FILES: [&str; 4] =
    ["etc/nsswitch.conf", "etc/resolv.conf", "etc/krb5.conf", "etc/ld.so.conf"];
const FOLDERS: [&str; 1] = ["etc/ld.so.conf.d"];
/// What programs of sshd read beyond, and what programs with PAM do.
const SSHD_FILES: [&str; 1] = ["etc/ssh/sshd_config"];
const SSHD_FOLDERS: [&str; 1] = ["etc/ssh/sshd_config.d"];
const PAM_FILES: [&str; 1] = ["etc/pam.conf"];
const PAM_FOLDERS: [&str; 1] = ["etc/pam.d"];

/// What is to be looked at.
#[derive(Clone, Debug)]
pub(super) struct Question {
    id: ProcessId,
    on_host: bool,
    sshd: bool,
    pam: bool,
    from: Timestamp,
    until: Timestamp,
}

/// What a look at the files below the root found.
#[derive(Debug)]
pub(super) struct Looked {
    root: Arc<Root>,
    /// Where the root is, as the kernel walks paths, if that is not `/`.
    place: Option<PathBuf>,
    history: Result<History, String>,
    files: Vec<FileSince>,
    reasons: Vec<String>,
}

// === impl Question ===

impl Question {
    pub(super) fn new(seen: &Observation, dated: &Dated) -> Self {
        let program = &seen.process.program;
        let pam = dated.modules.iter().any(|module| module.contains("/libpam.so"));
        Self {
            id: seen.process.id,
            on_host: seen.process.shown.container.is_none(),
            sshd: program.sshd(),
            pam,
            from: from(dated, seen.time),
            until: seen.time.saturating_add(SLACK).unwrap_or(Timestamp::MAX),
        }
    }

    /// Reads; may wait for ever where the root is on a mount that hangs.
    pub(super) fn look(&self, host: &Arc<Root>) -> Option<Looked> {
        let Some(own) = self.own_root(host) else {
            return self.on_host.then(|| self.look_below(Arc::clone(host), None, host));
        };
        let link = || std::fs::read_link(format!("/proc/{}/root", self.id.tgid)).ok();
        let place = (own.key() != host.key()).then(link).flatten();
        Some(self.look_below(Arc::new(own), place, host))
    }

    /// `None` if the process has ended; another may have its number.
    fn own_root(&self, host: &Root) -> Option<Root> {
        let root = Root::of_process(self.id.tgid, host).ok()?;
        let now = Procfs.stat(self.id.tgid)?;
        (now.start_ticks == self.id.start_ticks).then_some(root)
    }

    fn look_below(
        &self,
        mut root: Arc<Root>,
        mut place: Option<PathBuf>,
        host: &Arc<Root>,
    ) -> Looked {
        let since = self.from.saturating_sub(UNPACKING).unwrap_or(Timestamp::MIN);
        let mut history = history::read(&root, since, CHANGES_MAX, PATIENCE);
        // A process that shut itself up in an empty directory, as sshd's do, has its files from outside.
        if let (Err(PackageError::NoDatabase), Some(folder)) = (&history, &place)
            && self.on_host
            && host.has(folder, &root)
        {
            (root, place) = (Arc::clone(host), None);
            history = history::read(&root, since, CHANGES_MAX, PATIENCE);
        }
        let (mut files, mut reasons) = (Vec::new(), Vec::new());
        self.configuration(&root, &mut files, &mut reasons);
        files.sort_by(|a, b| b.changed.cmp(&a.changed).then_with(|| a.file.cmp(&b.file)));
        let history = history.map_err(|error| chain(&error));
        Looked { root, place, history, files, reasons }
    }

    fn configuration(&self, root: &Root, files: &mut Vec<FileSince>, reasons: &mut Vec<String>) {
        let none: &[&str] = &[];
        let of = |wanted: bool, all: &'static [&'static str]| if wanted { all } else { none };
        let single = [&FILES[..], of(self.sshd, &SSHD_FILES), of(self.pam, &PAM_FILES)];
        for path in single.into_iter().flatten() {
            self.file(root, Path::new(path), files, reasons);
        }
        let folders = [&FOLDERS[..], of(self.sshd, &SSHD_FOLDERS), of(self.pam, &PAM_FOLDERS)];
        for path in folders.into_iter().flatten() {
            let folder = Path::new(path);
            let before = files.len();
            match root.names(folder, NAMES_MAX) {
                Ok(names) => {
                    for name in names {
                        self.file(root, &folder.join(OsStr::from_bytes(&name)), files, reasons);
                    }
                }
                Err(error) => add(reasons, &error),
            }
            // Nothing in it has changed, but entries came or went.
            if files.len() == before {
                self.file(root, folder, files, reasons);
            }
        }
    }

    fn file(
        &self,
        root: &Root,
        path: &Path,
        files: &mut Vec<FileSince>,
        reasons: &mut Vec<String>,
    ) {
        match root.changed(path) {
            Ok(Some(changed)) if changed > self.from && changed <= self.until => {
                files.push(FileSince { file: format!("/{}", path.display()), changed });
            }
            Ok(_) => {}
            Err(error) => add(reasons, &error),
        }
    }
}

/// Managers of containers mount files of their own over some of these, which are no cause of a shift.
fn add(reasons: &mut Vec<String>, error: &PackageError) {
    if !error.is_elsewhere() {
        reasons.push(chain(error));
    }
}

/// The beginning of the stretch in which the cause is looked for.
fn from(dated: &Dated, time: Timestamp) -> Timestamp {
    let day = time.saturating_sub(DAY).unwrap_or(Timestamp::MIN);
    dated.usual.map_or(day, |usual| usual.min(time))
}

/// The evidence, of what was found; asks the packages which of them the program's files belong to.
pub(super) fn evidence(
    packages: &mut Packages,
    seen: &Observation,
    dated: &Dated,
    looked: Option<Looked>,
) -> Evidence {
    let (from, usual) = (from(dated, seen.time), dated.usual.is_some());
    let Some(looked) = looked else {
        let not_told = vec!["its root was gone, or not read in time".to_owned()];
        let (packages, files) = (Vec::new(), Vec::new());
        return Evidence::Since { from, usual, packages, files, omitted: 0, not_told };
    };
    let Looked { root, place, history, mut files, mut reasons } = looked;
    let history = history.unwrap_or_else(|reason| {
        reasons.push(reason);
        History::default()
    });
    reasons.extend(history.gaps);
    if history.more {
        reasons.push("not all changes of packages were looked at".to_owned());
    }
    let until = seen.time.saturating_add(SLACK).unwrap_or(Timestamp::MAX);
    let changes: Vec<_> = history.changes.into_iter().filter(|one| one.time <= until).collect();
    let owned = if changes.is_empty() {
        Vec::new()
    } else {
        let until = Instant::now() + OWNERS_PATIENCE;
        owned(packages, &root, place.as_deref(), &dated.modules, until, &mut reasons)
    };
    let of = |change: &PackageChange| {
        owned.iter().find(|one| change.is_of(&one.package, &one.arch)).map(|one| one.files.clone())
    };
    let mut told: Vec<PackageSince> = changes
        .into_iter()
        .filter_map(|change| Some(PackageSince { files: of(&change)?, change }))
        .collect();
    let omitted = told.len().saturating_sub(TOLD_MAX) + files.len().saturating_sub(TOLD_MAX);
    told.truncate(TOLD_MAX);
    files.truncate(TOLD_MAX);
    reasons.truncate(REASONS_MAX);
    let omitted = u64::try_from(omitted).unwrap_or(u64::MAX);
    Evidence::Since { from, usual, packages: told, files, omitted, not_told: reasons }
}

/// A package, and some files of it that the program has mapped.
struct Mapped {
    package: String,
    arch: String,
    files: Vec<String>,
}

/// The packages of the files; of those that were not looked up until then none.
fn owned(
    packages: &mut Packages,
    root: &Root,
    place: Option<&Path>,
    modules: &[String],
    until: Instant,
    reasons: &mut Vec<String>,
) -> Vec<Mapped> {
    let mut owned: Vec<Mapped> = Vec::new();
    let mut failed = None;
    for module in modules {
        if Instant::now() >= until {
            reasons.push("not all files were looked at".to_owned());
            break;
        }
        let shown = Path::new(module);
        let inside = place.and_then(|place| shown.strip_prefix(place).ok());
        let path = inside.map_or_else(|| shown.to_owned(), |path| Path::new("/").join(path));
        match packages.owner(root, &path) {
            Ok(Some(found)) => {
                let Owned { package, arch, .. } = found;
                let same = |one: &&mut Mapped| one.package == package && one.arch == arch;
                match owned.iter_mut().find(same) {
                    Some(one) if one.files.len() < FILES_MAX => one.files.push(module.clone()),
                    Some(_) => {}
                    None => owned.push(Mapped { package, arch, files: vec![module.clone()] }),
                }
            }
            Ok(None) => {}
            Err(error) => failed = Some(chain(&error)),
        }
    }
    reasons.extend(failed);
    owned
}

#[cfg(test)]
mod tests;
