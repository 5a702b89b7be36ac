//! `loader_config_changed`: a file that tells the loader what to load, or the loader itself, was
//! changed.

use std::sync::Arc;

use super::{Detector, Draft, World};
use crate::finding::{Evidence, Family, Severity};
use crate::host::{Body, Observation, inode_text};
use crate::watch::{Action, LoaderConfig, Role};

/// Directories that everyone can write to.
const COMMON: [&str; 5] = ["/tmp/", "/var/tmp/", "/dev/shm/", "/run/user/", "/home/"];

/// The detector.
#[derive(Debug)]
pub(super) struct LoaderConfigChanged;

// === impl LoaderConfigChanged ===

impl Detector for LoaderConfigChanged {
    fn id(&self) -> &'static str {
        "loader_config_changed"
    }

    fn observe(&mut self, seen: &Observation, _world: &World<'_>, out: &mut Vec<Draft>) {
        let Body::LoaderConfig(change) = &seen.body else { return };
        // Those of PAM are `pam_stack_changed`'s.
        if change.role.is_pam() {
            return;
        }
        let explained_by =
            change.tool.as_ref().filter(|tool| tool.packages).map(|tool| tool.path.clone());
        let (severity, confidence) = judge(change);
        // The same entries again are the same finding; other ones are another.
        let object = format!("{} {} {}", change.root.path, change.path, change.now.join(" "));
        out.push(Draft {
            detector: self.id(),
            family: Family::Linker,
            severity,
            confidence,
            title: title(change),
            evidence: evidence(change, seen.process.shown.pid == 0),
            attack: attack(change.role),
            object,
            program: Arc::clone(&seen.process.program),
            ktime_ns: None,
            explained_by,
        });
    }
}

/// How bad, and how sure. Nobody else than a package manager replaces the loader; few programs at
/// all are ever preloaded by file; directories are added by administrators now and then.
fn judge(change: &LoaderConfig) -> (Severity, f64) {
    let gains = !change.added.is_empty() || !change.meanwhile.is_empty();
    let suspect = change.added.iter().chain(&change.meanwhile).any(|entry| common(entry));
    let packages = change.tool.as_ref().is_some_and(|tool| tool.packages);
    let ldconfig = change.tool.is_some();
    match change.role {
        // A library for every program is news even where a package brings it.
        Role::Preload if gains && packages => (Severity::Low, 0.3),
        _ if packages && !suspect => (Severity::Info, 0.2),
        Role::Preload if gains => (Severity::High, 0.85),
        Role::Conf | Role::SearchPath | Role::Cache if suspect => (Severity::High, 0.7),
        _ if change.exposed => (Severity::Medium, 0.6),
        _ if change.same => (Severity::Info, 0.2),
        Role::Preload => (Severity::Low, 0.4),
        // An upgrade while nobody watched looks the same.
        Role::Loader if change.while_away => (Severity::Low, 0.3),
        Role::Loader => (Severity::High, 0.8),
        Role::Conf | Role::SearchPath if gains => (Severity::Medium, 0.5),
        Role::Conf | Role::SearchPath => (Severity::Low, 0.3),
        Role::Cache if ldconfig || change.while_away => (Severity::Info, 0.2),
        Role::Cache | Role::PamService | Role::PamModule => (Severity::Medium, 0.5),
    }
}

/// A path, or a pair of a cache, in a place that others than root write to.
fn common(entry: &str) -> bool {
    let path = entry.rsplit_once(" => ").map_or(entry, |(_, path)| path).trim();
    COMMON.iter().any(|place| path.starts_with(place) || path == place.trim_end_matches('/'))
}

fn attack(role: Role) -> &'static [&'static str] {
    match role {
        Role::Preload | Role::Conf | Role::SearchPath | Role::Cache => &["T1574.006"],
        Role::Loader | Role::PamService | Role::PamModule => &["T1574", "T1554"],
    }
}

fn title(change: &LoaderConfig) -> String {
    let path = &change.path;
    let what = match (change.role, change.added.first(), change.meanwhile.first()) {
        (Role::Preload, Some(library), _) => {
            format!("{path} now puts {library} into every program")
        }
        (Role::Preload, None, Some(library)) => {
            format!("{path} put {library} into every program for a moment")
        }
        (Role::Preload, None, None) if !change.removed.is_empty() => {
            format!("{path} no longer preloads {}", change.removed.join(" "))
        }
        (Role::Cache, Some(pair), _) if common(pair) => format!("{path} now leads {pair}"),
        (Role::Conf | Role::SearchPath, Some(folder), _) => {
            format!("{path} now has the loader look in {folder}")
        }
        (Role::Loader, _, _) if !change.same => format!("the loader {path} was changed"),
        _ => format!("{path} was changed"),
    };
    circumstances(change, what)
}

/// A title with what else is known of how it came about.
pub(super) fn circumstances(change: &LoaderConfig, what: String) -> String {
    match (change.actions.contains(&Action::Mounted), change.actions.is_empty()) {
        (true, _) => format!("{what}: something was mounted over it"),
        (false, true) if change.while_away => format!("{what} while the sensor was not running"),
        _ => what,
    }
}

fn evidence(change: &LoaderConfig, unseen: bool) -> Vec<Evidence> {
    let mut evidence = vec![Evidence::LoaderConfig {
        file: change.path.clone(),
        what: change.role.name().to_owned(),
        root: change.root.path.clone(),
        actions: change.actions.iter().map(|action| action.name().to_owned()).collect(),
        before: change.before.clone(),
        after: change.after.clone(),
        added: change.added.clone(),
        removed: change.removed.clone(),
        meanwhile: change.meanwhile.clone(),
    }];
    let mut note = |text: String| evidence.push(Evidence::Note { text });
    for library in &change.libraries {
        match &library.file {
            Some(_) => note(format!(
                "{} belongs to uid {} and has mode {:04o}",
                library.path, library.uid, library.mode
            )),
            None => note(format!("no file {} is there now", library.path)),
        }
    }
    if unseen {
        note("Nobody was seen doing it: found by comparison".to_owned());
    }
    if change.exposed {
        note("Others than root may write to it now".to_owned());
    }
    if !change.further.is_empty() {
        note(format!("Also at it: {}", change.further.join(", ")));
    }
    if change.root.others > 0 {
        note(format!("{} further mount namespaces have the same file", change.root.others));
    }
    let libraries = change.libraries.iter().filter_map(|library| {
        Some(Evidence::Library {
            path: library.path.clone(),
            build_id: library.build_id.clone(),
            inode: inode_text(library.file.as_ref()?),
        })
    });
    evidence.extend(libraries);
    evidence
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watch::Tool;

    fn change(role: Role, path: &str) -> LoaderConfig {
        LoaderConfig::written(role, path)
    }

    fn gained(role: Role, path: &str, entry: &str) -> LoaderConfig {
        LoaderConfig { added: vec![entry.to_owned()], ..change(role, path) }
    }

    fn by(path: &str, packages: bool) -> Tool {
        Tool { path: path.to_owned(), packages }
    }

    #[test]
    fn a_preloaded_library_is_high_and_of_a_package_low() {
        let preload = gained(Role::Preload, "/etc/ld.so.preload", "/usr/lib/x.so");
        assert_eq!(judge(&preload).0, Severity::High);
        let packaged = LoaderConfig { tool: Some(by("/usr/bin/dpkg", true)), ..preload.clone() };
        assert_eq!(judge(&packaged).0, Severity::Low);
        let moment = LoaderConfig {
            meanwhile: vec!["/tmp/x.so".to_owned()],
            same: true,
            ..change(Role::Preload, "/etc/ld.so.preload")
        };
        assert_eq!(judge(&moment).0, Severity::High, "written and put back");
        assert!(title(&preload).contains("/usr/lib/x.so into every program"));
    }

    #[test]
    fn the_loader_is_replaced_by_package_managers_only() {
        let replaced = change(Role::Loader, "/lib64/ld-linux-x86-64.so.2");
        assert_eq!(judge(&replaced).0, Severity::High);
        let upgraded = LoaderConfig { tool: Some(by("/usr/bin/dpkg", true)), ..replaced.clone() };
        assert_eq!(judge(&upgraded).0, Severity::Info);
        let ldconfig =
            LoaderConfig { tool: Some(by("/usr/sbin/ldconfig.real", false)), ..replaced };
        assert_eq!(judge(&ldconfig).0, Severity::High);
    }

    #[test]
    fn a_cache_is_ldconfigs_unless_it_leads_where_others_write() {
        let cache = gained(Role::Cache, "/etc/ld.so.cache", "libx.so.1 => /opt/x/libx.so.1");
        assert_eq!(judge(&cache).0, Severity::Medium);
        let plain = LoaderConfig { tool: Some(by("/usr/sbin/ldconfig", false)), ..cache };
        assert_eq!(judge(&plain).0, Severity::Info);
        let poisoned =
            LoaderConfig { added: vec!["libc.so.6 => /tmp/libc.so.6".to_owned()], ..plain };
        assert_eq!(judge(&poisoned).0, Severity::High);
    }

    #[test]
    fn directories_are_medium_and_those_of_others_high() {
        let conf = gained(Role::Conf, "/etc/ld.so.conf.d/x.conf", "/opt/x/lib");
        assert_eq!(judge(&conf).0, Severity::Medium);
        let home = LoaderConfig { added: vec!["/home/mallory/lib".to_owned()], ..conf };
        assert_eq!(judge(&home).0, Severity::High);
        let comment = LoaderConfig { same: true, ..change(Role::Conf, "/etc/ld.so.conf") };
        assert_eq!(judge(&comment).0, Severity::Info);
    }
}
