//! Days of a host, and the recordings of them that stay.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::super::*;
use super::decided::decided_day;
use super::{bench, play, soon};
use crate::host::{Body, Traced};
use crate::package::{Content, Distro, Manager, Origin, Owned, Owner};
use crate::record::{Ended, Replayed};

/// `expected` writes what the recordings of `sensor/tests/recordings` are to tell, `all` the recordings
/// as well, and the name of one only that.
const UPDATE: &str = "HALFSECOND_UPDATE_RECORDINGS";

type Day = fn(&mut Bench);

pub(super) fn clean_day(bench: &mut Bench) {
    for at in 0..16 {
        let method = if at % 2 == 0 { "publickey" } else { "password" };
        bench.login(&Login::new(method));
        bench.world.now += 600_000 * MS;
    }
    bench.world.now += 1_000 * MS;
    bench.run();
}

/// The fixture comes after some clean logins, and the host lives on until the incident is closed.
pub(super) fn attacked_day(bench: &mut Bench) {
    clean_day(bench);
    for _ in 0..3 {
        bench.attack(300, false, Tree::V9);
    }
    bench.analysis.on_loss();
    bench.world.now += 400_000 * MS;
    bench.run();
    bench.login(&Login::new("publickey"));
    let rest = bench.analysis.finish();
    bench.told.extend(rest);
}

/// A start of `su` with this in its environment.
fn su(bench: &mut Bench, variable: Option<&str>) {
    let (tgid, role) = (bench.world.fresh(), crate::event::Role::GUARDED);
    bench.world.fork(1, tgid, role);
    bench.world.exec(tgid, 1, "/usr/bin/su", role, 0);
    if let Some(text) = variable {
        bench.world.env(tgid, role, text);
    }
    bench.world.link(tgid, "/usr/bin/su", &Login::new("password"));
    for _ in 0..10 {
        bench.world.now += 200 * MS;
        bench.run();
    }
    bench.world.exit(tgid, role, MS);
    bench.run();
}

/// A day on which somebody also sets a variable that betrays him.
pub(super) fn talkative_day(bench: &mut Bench) {
    attacked_day(bench);
    (0..10).for_each(|_| su(bench, None));
    su(bench, Some("LD_LIBRARY_PATH=/home/mallory/s3cret"));
}

/// liblzma is upgraded while the host runs; the provenance station knows the package that brought it.
fn upgraded_day(bench: &mut Bench) {
    clean_day(bench);
    bench.world.fake.0.lock().unwrap().files.insert(PathBuf::from(LZMA), 4711);
    for _ in 0..8 {
        bench.world.login(&Login::new("publickey"));
        let mut seen = Vec::new();
        for event in bench.world.take() {
            bench.station.on_event(event, &mut |one| seen.push(one));
        }
        for one in seen {
            let traced = vouched_for(one);
            for one in traced {
                let updates = bench.analysis.on_observation(one);
                bench.told.extend(updates);
            }
        }
        bench.world.now += 600_000 * MS;
        bench.run();
    }
}

/// The same, with the provenance station's answer where it is about liblzma.
fn vouched_for(mut seen: Observation) -> Vec<Observation> {
    let Body::Library(library) = &mut seen.body else { return vec![seen] };
    if library.module.path != LZMA {
        return vec![seen];
    }
    library.asked = true;
    let owned = Owned {
        package: "liblzma5".to_owned(),
        version: "5.4.1-1".to_owned(),
        arch: "amd64".to_owned(),
        epoch: None,
        distro: Distro { id: "debian".to_owned(), version: Some("12".to_owned()) },
        manager: Manager::Dpkg,
        installed: Some(seen.time),
        previous: Some("5.4.1-0.2".to_owned()),
        recorded: None,
        config: false,
        diverted_from: None,
    };
    let origin = Origin { owner: Owner::Package(Box::new(owned)), content: Content::Matches };
    let way = Err(Arc::from("it was not asked"));
    let traced = Traced { library: library.clone(), origin: Arc::new(origin), way, judged: None };
    let answer = Observation { body: Body::Traced(traced), ..seen.clone() };
    vec![seen, answer]
}

/// Name, severity and detectors of each incident, one a line.
fn summary(replayed: &Replayed) -> String {
    let one = |incident: &Incident| {
        let found = detectors(incident).join(" ");
        format!("{} {:?} {found}\n", incident.id, incident.severity)
    };
    replayed.incidents.iter().map(one).collect()
}

/// What a step is, and what an observation is about, whence a suppression is, or that a decision was
/// about an incident of the past.
type Kind = (Option<String>, Option<String>);

/// Keeps the first step of each kind.
fn note_kinds(steps: impl IntoIterator<Item = String>, all: &mut BTreeMap<Kind, String>) {
    for step in steps {
        let value: serde_json::Value = serde_json::from_str(&step).unwrap();
        let name = |value: &serde_json::Value| match value.as_object() {
            Some(object) => object.keys().next().cloned(),
            None => value.as_str().map(str::to_owned),
        };
        let past = value["decided"]["past"].is_object().then(|| "past".to_owned());
        let body = name(&value["seen"]["body"]).or(name(&value["suppression"]["origin"])).or(past);
        all.entry((name(&value), body)).or_insert(step);
    }
}

/// Makes the recording of a day anew.
fn record(file: &Path, day: Day, steps: &mut BTreeMap<Kind, String>) {
    let mut bench = bench(&soon(), None);
    day(&mut bench);
    let bytes = bench.analysis.end();
    std::fs::write(file, &bytes).unwrap();
    note_kinds(crate::record::testing::steps(&bytes).unwrap(), steps);
    let mut lines = String::new();
    for step in steps.values() {
        lines.push_str(step);
        lines.push('\n');
    }
    std::fs::write(file.with_file_name("steps.jsonl"), lines).unwrap();
}

/// Recordings that stay: what an earlier build has written is read, and tells what it told.
#[test]
fn the_recordings_kept_here_tell_what_they_told() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recordings");
    let update = std::env::var(UPDATE).unwrap_or_default();
    let mut steps = BTreeMap::new();
    if update != "all" {
        let kept = std::fs::read_to_string(folder.join("steps.jsonl")).unwrap();
        note_kinds(kept.lines().map(str::to_owned), &mut steps);
    }
    let days: [(&str, Day); 4] = [
        ("clean", clean_day),
        ("attacked", talkative_day),
        ("upgraded", upgraded_day),
        ("decided", decided_day),
    ];
    for (name, day) in days {
        let file = folder.join(format!("{name}.rec"));
        let expected = folder.join(format!("{name}.txt"));
        if update == "all" || update == name {
            record(&file, day, &mut steps);
        }
        let (_, replayed) = play(&std::fs::read(&file).unwrap());
        assert_eq!(replayed.ended, Ended::Whole);
        assert_eq!((replayed.counts.unanswered, replayed.counts.unasked), (0, 0));
        assert_eq!(replayed.counts.unfollowed, 0);
        if !update.is_empty() {
            std::fs::write(&expected, summary(&replayed)).unwrap();
        }
        let wanted = std::fs::read_to_string(&expected).unwrap();
        assert_eq!(summary(&replayed), wanted, "{name}; {UPDATE}=expected writes it anew");
    }
}
