//! The files of the simulated server, and the packages that brought them.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value, json};

use crate::event::FileKey;
use crate::host::{ModuleId, ProcessId};
use crate::package::{Content, Distro, Manager, Origin, Owned, Owner};

use super::super::{EVIL, LZMA};

/// Packages by what is in the path; any other file is of a package of its own name.
const PACKAGES: [(&str, &str); 14] = [
    ("/liblzma.", "liblzma5"),
    ("/libcrypto.", "libssl3"),
    ("/libkrb5.", "libkrb5-3"),
    ("/libcom_err.", "libcom-err2"),
    ("/libz.", "zlib1g"),
    ("/libcap.", "libcap2"),
    ("/libresolv.", "libc6"),
    ("/libc.", "libc6"),
    ("/pam_unix.", "libpam-modules"),
    ("/libnss_systemd.", "libnss-systemd"),
    ("/sshd", "openssh-server"),
    ("/bash", "bash"),
    ("/su", "login"),
    ("/python3", "python3"),
];

/// One file.
#[derive(Clone, Debug)]
pub(super) struct File {
    pub(super) module: ModuleId,
    pub(super) key: FileKey,
    package: String,
    version: String,
    previous: Option<String>,
    installed: Timestamp,
}

/// All, by the path by which recordings know them.
#[derive(Debug)]
pub(super) struct Files {
    all: BTreeMap<String, File>,
    /// Recorded paths by those that upgrades have given them.
    renamed: BTreeMap<String, String>,
    inodes: u64,
    installed: Timestamp,
}

// === impl Files ===

impl Files {
    /// Of a server that was installed long before.
    pub(super) fn new(begun: Timestamp) -> Self {
        let installed = begun - SignedDuration::from_hours(24 * 100);
        Self { all: BTreeMap::new(), renamed: BTreeMap::new(), inodes: 100, installed }
    }

    /// The file of a recorded path.
    pub(super) fn get(&mut self, path: &str) -> &File {
        let path = self.renamed.get(path).map_or(path, String::as_str).to_owned();
        // The fixture lay in a place of its own when it was recorded.
        let path = if path == EVIL { LZMA.to_owned() } else { path };
        if !self.all.contains_key(&path) {
            let of = |(part, _): &&(&str, &str)| path.contains(part);
            let name = path.rsplit('/').next().unwrap_or_default().to_owned();
            let package =
                PACKAGES.iter().find(of).map_or(name, |(_, package)| (*package).to_owned());
            let module = ModuleId { path: path.clone(), build: String::new() };
            let (version, installed) = ("5.4.1-0.2".to_owned(), self.installed);
            let key = FileKey::default();
            let file = File { module, key, package, version, previous: None, installed };
            let file = self.written(file, installed);
            self.all.insert(path.clone(), file);
        }
        &self.all[&path]
    }

    /// Another inode with another content.
    fn written(&mut self, file: File, at: Timestamp) -> File {
        self.inodes += 1;
        let ino = self.inodes;
        let key = FileKey {
            ino,
            dev: 0x800_0001,
            generation: u32::try_from(ino % 7).unwrap(),
            ctime_s: u64::try_from(at.as_second()).unwrap(),
            size: 4096 + ino,
        };
        let build = format!("{ino:08x}{:032x}", ino * 0x9e37_79b9);
        File { module: ModuleId { build, ..file.module }, key, ..file }
    }

    /// A package is upgraded: every file of it is another one.
    pub(super) fn upgrade(&mut self, package: &str, version: &str, at: Timestamp) -> usize {
        let mine = self.all.iter().filter(|(_, file)| file.package == package);
        let paths: Vec<String> = mine.map(|(path, _)| path.clone()).collect();
        for path in &paths {
            let mut file = self.written(self.all[path].clone(), at);
            file.previous = Some(std::mem::replace(&mut file.version, version.to_owned()));
            file.installed = at;
            // Its version is in its name.
            if path == LZMA {
                let upstream = version.rsplit('+').next().unwrap_or(version);
                let upstream = upstream.trim_start_matches("really");
                let upstream = upstream.split('-').next().unwrap_or(upstream);
                let name = LZMA.replace("5.4.1", upstream);
                self.renamed.insert(name.clone(), path.clone());
                file.module.path = name;
            }
            self.all.insert(path.clone(), file);
        }
        paths.len()
    }

    /// What the provenance station would say of it: it is what its package brought.
    pub(super) fn origin(&mut self, path: &str) -> Origin {
        let File { package, version, previous, installed, .. } = self.get(path).clone();
        let owned = Owned {
            package,
            version,
            arch: "amd64".to_owned(),
            epoch: None,
            distro: Distro { id: "debian".to_owned(), version: Some("12".to_owned()) },
            manager: Manager::Dpkg,
            installed: Some(installed),
            previous,
            recorded: None,
            config: false,
            diverted_from: None,
        };
        Origin { owner: Owner::Package(Box::new(owned)), content: Content::Matches }
    }
}

/// Puts a recorded step into another time, with other processes and the files as they are now.
pub(super) struct Moved<'a> {
    pub(super) files: &'a mut Files,
    /// By recorded tgid.
    pub(super) processes: BTreeMap<u64, ProcessId>,
    /// The next process's.
    pub(super) tgid: &'a mut u32,
    /// Added to every time of `CLOCK_MONOTONIC`, ns.
    pub(super) shift_ns: i64,
    /// Added to every address: the layout is another at each start.
    pub(super) slide: i64,
}

// === impl Moved ===

impl Moved<'_> {
    pub(super) fn apply(&mut self, value: &mut Value) {
        match value {
            Value::Array(all) => all.iter_mut().for_each(|one| self.apply(one)),
            Value::Object(map) if has(map, ["start_ticks", "tgid"]) => {
                let id = self.process(map);
                *value = json!(id);
            }
            Value::Object(map) if has(map, ["build", "path"]) => {
                let path = map["path"].as_str().unwrap_or_default();
                if path.starts_with('/') {
                    *value = json!(self.files.get(path).module);
                }
            }
            Value::Object(map) => self.object(map),
            _ => {}
        }
    }

    fn object(&mut self, map: &mut Map<String, Value>) {
        for (key, one) in map.iter_mut() {
            let by = match key.as_str() {
                "ktime_ns" | "accepted_ktime_ns" | "taken_ktime_ns" => Some(self.shift_ns),
                "address" => Some(self.slide),
                _ => None,
            };
            match by.zip(one.as_i64()) {
                Some((by, ns)) => *one = json!(ns + by),
                None => self.apply(one),
            }
        }
        let path = map.get("module").and_then(|module| module["path"].as_str()).map(str::to_owned);
        if let Some(path) = path.filter(|_| map.contains_key("file")) {
            let File { module, key, .. } = self.files.get(&path);
            let FileKey { ino, dev, generation, ctime_s, size } = *key;
            let subject = format!("{} {}", module.path, module.build);
            map.insert("file".to_owned(), json!((ino, dev, generation, ctime_s, size)));
            if map.contains_key("subject") {
                map.insert("subject".to_owned(), json!(subject));
            }
        }
    }

    fn process(&mut self, map: &Map<String, Value>) -> ProcessId {
        let recorded = map["tgid"].as_u64().expect("a tgid");
        if let Some(id) = self.processes.get(&recorded) {
            return *id;
        }
        *self.tgid += 1;
        let ticks = map["start_ticks"].as_i64().expect("a start") + self.shift_ns / 10_000_000;
        let id = ProcessId { tgid: *self.tgid, start_ticks: u64::try_from(ticks).unwrap() };
        self.processes.insert(recorded, id);
        id
    }
}

fn has(map: &Map<String, Value>, keys: [&str; 2]) -> bool {
    map.len() == keys.len() && keys.iter().all(|key| map.contains_key(*key))
}
