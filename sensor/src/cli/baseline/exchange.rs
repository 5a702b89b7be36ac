//! `halfsecond baseline export`, `import` and `key`.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use jiff::Timestamp;
use serde_json::{Value, json};
use tracing::warn;

use super::change::{self, Changed};
use super::find;
use crate::baseline::{
    Act, Baseline, Done, ExchangeError, Export, Import, KeyError, Merged, PrivateKey, PublicKey,
    Seal, Sealed, Terms,
};
use crate::cli::save::{save, save_private};
use crate::cli::term::{Style, Tone, escape_json};
use crate::cli::{Exit, Failure, Global, ended};
use crate::config::{Config, host_name};
use crate::trouble::chain;

/// Bytes of the baselines in one order, as JSON: what a sensor takes up at once.
const PART: usize = 1024 * 1024;

/// Arguments of `import`.
#[derive(Args, Clone, Debug)]
pub struct ImportArgs {
    /// The export
    pub file: PathBuf,
    /// A public key whose signature counts, or the file that holds it
    #[arg(long, value_name = "PUBKEY|FILE")]
    pub trust: Vec<String>,
    /// Also what nobody vouches for; recorded in the baselines
    #[arg(long)]
    pub force: bool,
    /// Also add to baselines that have settled here
    #[arg(long)]
    pub merge: bool,
    /// Also take times of programs that have none here, for hosts of the same kind
    #[arg(long)]
    pub times: bool,
}

/// `halfsecond baseline export`.
pub(super) fn export(
    global: &Global,
    config: &Config,
    file: &Path,
    subjects: &[String],
    key: Option<&Path>,
    out: &mut impl Write,
) -> Result<Exit, Failure> {
    let key = key.map(PrivateKey::read).transpose().map_err(|error| no_key(&error))?;
    let chosen = find::only(&find::all(config)?, subjects)?;
    let observations = config.learning.observations;
    let (export, left) = Export::of(host_name(), Timestamp::now(), observations, chosen);
    for (subject, reason) in &left {
        warn!(subject, reason, "left out");
    }
    let text = export.write(key.as_ref()).map_err(|error| internal("cannot write JSON", error))?;
    let what = format!("cannot write {}", file.display());
    save_private(file, &text).map_err(|error| internal(&what, error))?;
    let signer = key.map(|key| key.public().to_string());
    if signer.is_none() {
        warn!("the export is not signed: other hosts take it by force only (see --key)");
    }
    let count = export.baselines.len();
    let written = if global.json {
        let line = json!({
            "file": file, "subjects": count, "left_out": left.len(), "signer": signer,
        });
        writeln!(out, "{}", escape_json(&line.to_string()))
    } else {
        let by = signer.map_or_else(String::new, |key| format!(", signed by {key}"));
        let text = format!("exported {count} baselines to {}{by}", file.display());
        writeln!(out, "{}", Style::stdout().paint(Tone::Plain, &text))
    };
    ended(written, Exit::Success)
}

/// `halfsecond baseline import`.
pub(super) fn import(
    global: &Global,
    config: &Config,
    args: &ImportArgs,
    out: &mut impl Write,
) -> Result<Exit, Failure> {
    let trusted: Result<Vec<PublicKey>, KeyError> =
        args.trust.iter().map(|key| PublicKey::given(key)).collect();
    let trusted = trusted.map_err(|error| no_key(&error))?;
    let sealed = sealed(&args.file)?;
    let signer = signer(&sealed, &trusted);
    if let Err(reason) = &signer {
        let file = args.file.display();
        if !args.force {
            return Err(Failure::Usage(format!("{file} is refused: {reason}")));
        }
        warn!(file = %file, reason, "imported by force: nobody vouches for it");
    }
    let now = Timestamp::now();
    let export = read(&sealed, now)?;
    let (host, forced) = (export.head.host.clone(), signer.is_err());
    let import = Import { time: now, host, signer: signer.ok(), forced };
    let terms = Terms { settled_too: args.merge, times: args.times };
    let acts = parts(export.baselines)?.into_iter().map(|baselines| Act::Import {
        import: import.clone(),
        terms,
        baselines,
    });
    let changed = change::change(config, acts.collect())?;
    let written = tell(global, &import, &changed, out);
    ended(written, Exit::Success)
}

/// The trusted key that has signed it, or why there is none.
fn signer(sealed: &Sealed, trusted: &[PublicKey]) -> Result<String, String> {
    match sealed.seal() {
        Seal::Unsigned => Err("it is not signed; export it with --key, or use --force".to_owned()),
        Seal::Wrong(reason) => Err(format!("{reason}; get it anew from its host")),
        Seal::Valid(key) if trusted.contains(key) => Ok(key.to_string()),
        Seal::Valid(key) => Err(format!("it is signed by {key}, which no --trust names")),
    }
}

/// Cut so that each is an order of bounded size. One subject alone always is.
fn parts(
    baselines: BTreeMap<String, Baseline>,
) -> Result<Vec<BTreeMap<String, Baseline>>, Failure> {
    let mut parts = vec![BTreeMap::new()];
    let mut size = 0;
    for (subject, baseline) in baselines {
        let bytes = serde_json::to_vec(&baseline)
            .map_err(|error| internal("cannot write JSON", error))?
            .len();
        if size > 0 && size + bytes > PART {
            parts.push(BTreeMap::new());
            size = 0;
        }
        size += bytes;
        if let Some(part) = parts.last_mut() {
            part.insert(subject, baseline);
        }
    }
    Ok(parts)
}

fn tell(
    global: &Global,
    import: &Import,
    changed: &[Changed],
    out: &mut impl Write,
) -> io::Result<()> {
    let mut all: BTreeMap<&String, &Merged> = BTreeMap::new();
    for one in changed {
        if let Done::Imported { subjects } = &one.done {
            all.extend(subjects);
        }
    }
    let last = changed.last();
    if global.json {
        return all.iter().try_for_each(|(subject, merged)| {
            let line: Value = json!({
                "subject": subject, "new": merged.new, "kept": merged.kept,
                "added": merged.added, "left": merged.left, "host": import.host,
                "signer": import.signer, "forced": import.forced,
                "time": last.map(|last| last.time), "by": last.map(|last| last.by.name()),
            });
            writeln!(out, "{}", escape_json(&line.to_string()))
        });
    }
    let style = Style::stdout();
    let by =
        import.signer.as_ref().map_or_else(|| "by force".to_owned(), |key| format!("by {key}"));
    let count = |is: &dyn Fn(&Merged) -> bool| all.values().filter(|one| is(one)).count();
    let sum = |of: &dyn Fn(&Merged) -> u64| all.values().map(|one| of(one)).sum::<u64>();
    let mut lines = vec![format!("imported what {} has learned, {by}", import.host)];
    lines.push(format!("  {} programs that were not known here", count(&|one| one.new)));
    let (more, added) = (count(&|one| !one.new && one.added > 0), sum(&|one| one.added));
    lines.push(format!("  {more} that were known here have gained entries"));
    lines.push(format!("  {added} entries were added in all"));
    let kept = count(&|one| one.kept);
    lines.push(format!("  {kept} have settled here and are as they were (--merge adds to them)"));
    let left = sum(&|one| one.left);
    lines.push(format!("  {left} entries stayed behind: without a build-id, or no room for them"));
    lines.extend(last.map(Changed::when));
    lines.iter().try_for_each(|line| writeln!(out, "{}", style.paint(Tone::Plain, line)))
}

/// `halfsecond baseline key`.
pub(super) fn key(global: &Global, file: &Path, out: &mut impl Write) -> Result<Exit, Failure> {
    let key = PrivateKey::generate().map_err(|error| internal("no random numbers", error))?;
    let public = key.public().to_string();
    let mut name = file.as_os_str().to_owned();
    name.push(".pub");
    let public_file = PathBuf::from(name);
    key.save(file).map_err(|error| {
        let file = file.display();
        match error.kind() {
            io::ErrorKind::AlreadyExists => {
                Failure::Usage(format!("{file} is there already; keys are not overwritten"))
            }
            io::ErrorKind::PermissionDenied => Failure::Unsupported(format!("{file}: {error}")),
            _ => internal(&format!("cannot write {file}"), error),
        }
    })?;
    let what = format!("cannot write {}", public_file.display());
    save(&public_file, &public).map_err(|error| internal(&what, error))?;
    let written = if global.json {
        let line = json!({"private": file, "public": public_file, "key": public});
        writeln!(out, "{}", escape_json(&line.to_string()))
    } else {
        writeln!(out, "{public}")
    };
    ended(written, Exit::Success)
}

/// A file with its signature looked at.
pub(super) fn sealed(file: &Path) -> Result<Sealed, Failure> {
    Sealed::read(file).map_err(|error| wrong(&error))
}

/// What is in it.
pub(super) fn read(sealed: &Sealed, now: Timestamp) -> Result<Export, Failure> {
    sealed.parse(now).map_err(|error| wrong(&error))
}

fn wrong(error: &ExchangeError) -> Failure {
    match error {
        ExchangeError::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
            Failure::Unsupported(chain(error))
        }
        _ => Failure::Usage(chain(error)),
    }
}

fn no_key(error: &KeyError) -> Failure {
    match error {
        KeyError::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
            Failure::Unsupported(chain(error))
        }
        _ => Failure::Usage(chain(error)),
    }
}

fn internal(what: &str, source: impl std::error::Error + Send + Sync + 'static) -> Failure {
    Failure::Internal { what: what.to_owned(), source: Box::new(source) }
}
