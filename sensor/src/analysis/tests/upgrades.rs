//! Upgrades while the host runs: what the package's word explains, and what it does not.

use super::origins::owned;
use super::*;
use crate::host::{Library, Traced};
use crate::package::digest::{Algorithm, Digest};
use crate::package::{Content, Origin, Owner};

const KRB5: &str = "/usr/lib/x86_64-linux-gnu/libkrb5.so.3";
const PAM_UNIX: &str = "/usr/lib/x86_64-linux-gnu/security/pam_unix.so";
const NEW_LZMA: &str = "/usr/lib/x86_64-linux-gnu/liblzma.so.5.6.1";

/// When the answer of the provenance station comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word {
    /// Right after the question.
    AtOnce,
    /// Once the connection is over.
    Late,
}

const WORDS: [Word; 2] = [Word::AtOnce, Word::Late];

/// The file at this path is another from now on.
fn replace(bench: &mut Bench, path: &str, ino: u64) {
    bench.world.fake.0.lock().unwrap().files.insert(PathBuf::from(path), ino);
}

/// Of a package that was upgraded just now.
fn upgraded(bench: &Bench, content: Content) -> Origin {
    let mut origin = owned(content);
    if let Owner::Package(owned) = &mut origin.owner {
        owned.installed = Some(clock().wall(bench.world.now));
    }
    origin
}

fn answer(seen: &Observation, library: &Library, origin: &Origin) -> Observation {
    let traced = Traced {
        library: library.clone(),
        origin: Arc::new(origin.clone()),
        way: Err("not asked".into()),
        judged: None,
    };
    Observation { body: Body::Traced(traced), ..seen.clone() }
}

/// What the host station tells of a login.
fn observed(bench: &mut Bench, login: &Login) -> Vec<Observation> {
    bench.world.login(login);
    let mut seen = Vec::new();
    for event in bench.world.take() {
        bench.station.on_event(event, &mut |one| seen.push(one));
    }
    seen
}

/// A login whose libraries at these paths the provenance station is asked about.
fn login(bench: &mut Bench, login: &Login, paths: &[&str], origin: &Origin, word: Word) {
    let seen = observed(bench, login);
    told(bench, seen, paths, origin, word);
}

/// The same, which calls no guarded function.
fn uncalled(bench: &mut Bench, login: &Login, paths: &[&str], origin: &Origin) {
    let mut seen = observed(bench, login);
    seen.retain(|one| !matches!(one.body, Body::Called(_)));
    told(bench, seen, paths, origin, Word::AtOnce);
}

fn told(bench: &mut Bench, seen: Vec<Observation>, paths: &[&str], origin: &Origin, word: Word) {
    let mut late = Vec::new();
    for mut one in seen {
        let mut told = None;
        if let Body::Library(library) = &mut one.body
            && paths.contains(&library.module.path.as_str())
        {
            library.asked = true;
            let library = library.clone();
            told = Some(answer(&one, &library, origin));
        }
        let told = match word {
            Word::AtOnce => told,
            Word::Late => {
                late.extend(told);
                None
            }
        };
        for one in [Some(one), told].into_iter().flatten() {
            bench.told.extend(bench.analysis.on_observation(one));
        }
    }
    for one in late {
        bench.told.extend(bench.analysis.on_observation(one));
    }
    bench.run();
    bench.world.now += 200 * MS;
}

fn of(bench: &mut Bench, detector: &str) -> Vec<Severity> {
    let found = bench.analysis.found();
    found.into_iter().filter(|(id, _)| *id == detector).map(|(_, severity)| severity).collect()
}

fn learned(caller: &str) -> (Bench, Login) {
    let mut bench = Bench::new();
    let usual = Login { caller: PathBuf::from(caller), ..Login::new("publickey") };
    for _ in 0..30 {
        bench.login(&usual);
    }
    assert_eq!(bench.fired(), Vec::<&str>::new());
    bench.analysis.found();
    (bench, usual)
}

#[test]
fn an_upgrade_that_its_package_vouches_for_is_a_remark_and_is_learned() {
    for word in WORDS {
        let (mut bench, usual) = learned(SSHD_PATH);
        replace(&mut bench, LZMA, 4711);
        let origin = upgraded(&bench, Content::Matches);
        for _ in 0..4 {
            login(&mut bench, &usual, &[LZMA], &origin, word);
        }
        let severities = of(&mut bench, "library_unexpected");
        // Whose connection is over before the answer comes teaches nothing: the next one does.
        let times = if word == Word::AtOnce { 1 } else { 2 };
        assert_eq!(severities, vec![Severity::Info; times], "{word:?}");
        assert!(bench.told.is_empty(), "{word:?}: {:#?}", bench.told);
        let subject = format!("{SSHD_PATH} {}", build(1));
        let library = ModuleId { path: LZMA.to_owned(), build: build(4711) };
        assert!(bench.analysis.baseline(&subject).has_library(&library));
    }
}

#[test]
fn a_file_that_may_be_an_upgrade_is_given_the_time_that_one_takes() {
    for (seconds, severity) in [(8, Severity::Info), (11, Severity::High)] {
        let (mut bench, usual) = learned(SSHD_PATH);
        replace(&mut bench, LZMA, 4711);
        let origin = upgraded(&bench, Content::Matches);
        bench.world.login(&usual);
        let mut asked = Vec::new();
        for event in bench.world.take() {
            bench.station.on_event(event, &mut |one| asked.push(one));
        }
        let mut told = None;
        for mut one in asked {
            if let Body::Library(library) = &mut one.body {
                library.asked = true;
                let library = library.clone();
                told = Some(answer(&one, &library, &origin));
            }
            bench.told.extend(bench.analysis.on_observation(one));
        }
        let later = bench.world.now + seconds * 1_000 * MS;
        bench.told.extend(bench.analysis.tick(later));
        bench.told.extend(bench.analysis.on_observation(told.expect("its library was told")));
        assert_eq!(of(&mut bench, "library_unexpected"), [severity], "after {seconds} s");
    }
}

#[test]
fn an_upgrade_under_a_new_name_is_one_as_well() {
    let (mut bench, mut usual) = learned(SSHD_PATH);
    for (path, _) in &mut usual.libraries {
        if path == Path::new(LZMA) {
            *path = PathBuf::from(NEW_LZMA);
        }
    }
    let origin = upgraded(&bench, Content::Matches);
    login(&mut bench, &usual, &[NEW_LZMA], &origin, Word::AtOnce);
    assert_eq!(of(&mut bench, "library_unexpected"), [Severity::Info]);
    assert!(bench.told.is_empty());
}

#[test]
fn a_file_that_is_not_what_its_package_brought_stays_high() {
    let digest = |byte| Digest::from_bytes(Algorithm::Md5, &[byte; 16]).unwrap();
    let differs = Content::Differs { recorded: digest(1), found: digest(2) };
    let (mut bench, usual) = learned(SSHD_PATH);
    replace(&mut bench, LZMA, 4711);
    let origin = upgraded(&bench, differs);
    login(&mut bench, &usual, &[LZMA], &origin, Word::AtOnce);
    assert_eq!(of(&mut bench, "library_unexpected"), [Severity::High]);
    assert_eq!(bench.incident().severity, Severity::High);
}

#[test]
fn a_file_that_no_package_owns_stays_high() {
    let (mut bench, usual) = learned(SSHD_PATH);
    replace(&mut bench, LZMA, 4711);
    let origin = Origin { owner: Owner::Nobody, content: Content::NotRecorded };
    login(&mut bench, &usual, &[LZMA], &origin, Word::AtOnce);
    assert_eq!(of(&mut bench, "library_unexpected"), [Severity::High]);
}

#[test]
fn a_file_of_a_package_that_did_not_change_stays_high() {
    let (mut bench, usual) = learned(SSHD_PATH);
    replace(&mut bench, LZMA, 4711);
    // Its records have the digest, and say that it was there before the other one was seen.
    login(&mut bench, &usual, &[LZMA], &owned(Content::Matches), Word::AtOnce);
    assert_eq!(of(&mut bench, "library_unexpected"), [Severity::High]);
}

#[test]
fn a_library_that_takes_nobodys_place_stays_high_whoever_brought_it() {
    let (mut bench, mut usual) = learned(SSHD_PATH);
    let path = "/usr/lib/x86_64-linux-gnu/libnew.so.1";
    usual.libraries.insert(0, (PathBuf::from(path), MS));
    let origin = upgraded(&bench, Content::Matches);
    login(&mut bench, &usual, &[path], &origin, Word::AtOnce);
    assert_eq!(of(&mut bench, "library_unexpected"), [Severity::High]);
}

#[test]
fn the_word_is_about_one_file_and_not_about_its_path() {
    let (mut bench, usual) = learned(SSHD_PATH);
    replace(&mut bench, LZMA, 4711);
    let origin = upgraded(&bench, Content::Matches);
    login(&mut bench, &usual, &[LZMA], &origin, Word::AtOnce);
    assert_eq!(of(&mut bench, "library_unexpected"), [Severity::Info]);
    // Somebody writes another one there, and nobody answers.
    replace(&mut bench, LZMA, 4712);
    login(&mut bench, &usual, &[], &origin, Word::AtOnce);
    assert_eq!(of(&mut bench, "library_unexpected"), [Severity::High]);
}

#[test]
fn a_remark_without_a_date_is_low() {
    let (mut bench, usual) = learned(SSHD_PATH);
    replace(&mut bench, LZMA, 4711);
    let mut origin = owned(Content::Matches);
    if let Owner::Package(owned) = &mut origin.owner {
        owned.installed = None;
    }
    login(&mut bench, &usual, &[LZMA], &origin, Word::AtOnce);
    assert_eq!(of(&mut bench, "library_unexpected"), [Severity::Low]);
    let by = bench.incident().findings[0].explained_by.clone();
    assert_eq!(by.as_deref(), Some("the upgrade of liblzma5 from 5.4.1-1 to 5.6.1-1"));
}

#[test]
fn a_caller_goes_on_after_its_upgrade_and_what_never_called_is_an_incident() {
    for (before, word) in [(KRB5, Word::AtOnce), (KRB5, Word::Late), (SSHD_PATH, Word::AtOnce)] {
        let (mut bench, usual) = learned(before);
        let now = Login { caller: PathBuf::from(KRB5), ..usual };
        replace(&mut bench, KRB5, 4711);
        let origin = upgraded(&bench, Content::Matches);
        for _ in 0..3 {
            login(&mut bench, &now, &[KRB5], &origin, word);
        }
        let wanted = if before == KRB5 { Severity::Info } else { Severity::Critical };
        let worst = of(&mut bench, "foreign_caller").into_iter().max();
        assert_eq!(worst.unwrap_or(Severity::Info), wanted, "{before} {word:?}");
        assert_eq!(bench.told.is_empty(), before == KRB5, "{:#?}", bench.told);
    }
}

#[test]
fn who_has_taken_a_place_lately_is_nobodys_first_caller() {
    for is_upgraded in [false, true] {
        let mut bench = Bench::new();
        let usual = Login { caller: PathBuf::from(KRB5), ..Login::new("publickey") };
        for _ in 0..30 {
            uncalled(&mut bench, &usual, &[], &owned(Content::Matches));
        }
        if is_upgraded {
            replace(&mut bench, KRB5, 4711);
            let origin = upgraded(&bench, Content::Matches);
            for _ in 0..3 {
                uncalled(&mut bench, &usual, &[KRB5], &origin);
            }
            let subject = format!("{SSHD_PATH} {}", build(1));
            let library = ModuleId { path: KRB5.to_owned(), build: build(4711) };
            assert!(bench.analysis.baseline(&subject).has_library(&library), "it is learned");
        }
        bench.analysis.found();
        bench.login(&usual);
        let found = of(&mut bench, "foreign_caller");
        let wanted: &[_] = if is_upgraded { &[Severity::Critical] } else { &[] };
        assert_eq!(found, wanted, "upgraded: {is_upgraded}");
    }
}

#[test]
fn a_module_of_pam_is_opened_after_its_upgrade_as_before() {
    for word in WORDS {
        let (mut bench, usual) = learned(SSHD_PATH);
        replace(&mut bench, PAM_UNIX, 4711);
        let origin = upgraded(&bench, Content::Matches);
        login(&mut bench, &usual, &[PAM_UNIX], &origin, word);
        login(&mut bench, &usual, &[PAM_UNIX], &origin, word);
        assert!(bench.told.is_empty(), "{word:?}: {:#?}", bench.told);
    }
    // Nobody vouches for it.
    let (mut bench, usual) = learned(SSHD_PATH);
    replace(&mut bench, PAM_UNIX, 4711);
    let origin = upgraded(&bench, Content::NotRecorded);
    login(&mut bench, &usual, &[PAM_UNIX], &origin, Word::AtOnce);
    assert_eq!(bench.incident().severity, Severity::High);
}

#[test]
fn an_upgrade_that_redirects_a_slot_is_critical_and_blames_the_package() {
    for word in WORDS {
        let (mut bench, usual) = learned(SSHD_PATH);
        replace(&mut bench, LZMA, 4711);
        let next = bench.world.fresh() + 1;
        bench.redirect(next);
        let lzma = ModuleId { path: LZMA.to_owned(), build: build(4711) };
        bench.slots.0.lock().unwrap().1[0].actual.module = Some(lzma);
        let mut hooked = Login { caller: PathBuf::from(LZMA), ..usual };
        for (path, cpu) in &mut hooked.libraries {
            *cpu += if path == Path::new(LZMA) { 300 * MS } else { 0 };
        }
        let origin = upgraded(&bench, Content::Matches);
        login(&mut bench, &hooked, &[LZMA], &origin, word);
        let subject = format!("{SSHD_PATH} {}", build(1));
        let library = ModuleId { path: LZMA.to_owned(), build: build(4711) };
        assert!(!bench.analysis.baseline(&subject).has_library(&library), "nor is it learned");
        let open: Vec<Incident> = bench.analysis.incidents().open().cloned().collect();
        let [incident] = &open[..] else { panic!("{open:#?}") };
        assert_eq!(incident.severity, Severity::Critical);
        for detector in ["got_redirected", "foreign_caller", "link_time_shift"] {
            assert!(detectors(incident).contains(&detector), "{detector}: {word:?}");
        }
        let text = serde_json::to_string(incident).unwrap();
        assert!(text.contains("liblzma5 5.6.1-1 (amd64)"), "{word:?}: {}", incident.story);
    }
}
