mod fixture;
mod found;
mod hostile;
mod sbom;
mod seen;

use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::harness::{Place, as_stranger, assert_plain, keys, run};
use fixture::{Library, Running, libs, row_of, rows_of, sleep_as};

const ROW: [&str; 42] = [
    "build_id",
    "code",
    "comm",
    "container",
    "content",
    "content_unknown",
    "deleted",
    "dev",
    "digest",
    "exe",
    "found_by",
    "found_by_unknown",
    "ino",
    "kind",
    "memory",
    "name",
    "odd",
    "on_host",
    "owner",
    "owner_unknown",
    "package",
    "package_arch",
    "package_manager",
    "package_version",
    "path",
    "path_hex",
    "pid",
    "pod",
    "purl",
    "replaced",
    "root",
    "since",
    "since_means",
    "size",
    "soname",
    "static",
    "type",
    "uid",
    "unread",
    "user",
    "version",
    "version_from",
];

const SUMMARY: [&str; 12] = [
    "denied",
    "failed",
    "failures",
    "gone",
    "kind",
    "left_out",
    "mappings",
    "processes",
    "read",
    "static_programs",
    "unread",
    "version_unknown",
];

#[test]
fn a_mapped_library_is_found_by_each_of_its_names_and_exits_1() {
    let library = Library::build();
    let sleeper = Running::with(&library.path);
    let stem = library.stem.as_str();
    let path = library.path.to_str().unwrap();
    let pattern = format!("*{}*", stem.trim_start_matches("lib"));
    let soname = format!("{stem}.so.1");
    for name in [stem, &stem.to_uppercase(), library.file_name(), &soname, path, &pattern] {
        let ended = libs(&[name]).expect(1);
        let row = row_of(&ended, sleeper.pid());
        assert_eq!(row["path"], path, "{name}");
    }
    let by_id = libs(&["--build-id", &library.build_id[..20].to_uppercase()]).expect(1);
    assert_eq!(row_of(&by_id, sleeper.pid())["path"], path);
    for version in ["1.2.3", "1.2", "1.*"] {
        row_of(&libs(&[stem, "--version", version]).expect(1), sleeper.pid());
    }
}

#[test]
fn a_row_tells_file_and_process() {
    let library = Library::build();
    let sleeper = Running::with(&library.path);
    let ended = libs(&[&library.stem]).expect(1);
    let row = row_of(&ended, sleeper.pid());
    assert_eq!(keys(&row), ROW);
    for (key, value) in [
        ("kind", "mapping"),
        ("type", "library"),
        ("path", library.path.to_str().unwrap()),
        ("name", library.file_name()),
        ("soname", &format!("{}.so.1", library.stem)),
        ("build_id", &library.build_id),
        ("comm", "sleep"),
        ("root", "/"),
        ("since_means", "process start"),
    ] {
        assert_eq!(row[key], value, "{row:#}");
    }
    for (key, value) in [("deleted", false), ("replaced", false), ("memory", false), ("code", true)]
    {
        assert_eq!(row[key], value, "{row:#}");
    }
    let since: jiff::Timestamp = row["since"].as_str().unwrap().parse().unwrap();
    let age = jiff::Timestamp::now().duration_since(since).as_secs();
    assert!((-2..600).contains(&age), "started {age} s ago");
    assert_eq!(row["size"], library.path.metadata().unwrap().len());
    let summary = ended.lines().pop().unwrap();
    assert_eq!(keys(&summary), SUMMARY);
    assert_eq!(summary["mappings"], 1, "{summary}");
}

#[test]
fn the_whole_list_has_programs_and_libraries_and_exits_0() {
    let library = Library::build();
    let sleeper = Running::with(&library.path);
    let rows = rows_of(&libs(&[]).expect(0), sleeper.pid());
    let program: Vec<_> = rows.iter().filter(|row| row["type"] == "application").collect();
    assert_eq!(program.len(), 1, "{rows:#?}");
    assert_eq!(program[0]["path"], program[0]["exe"]);
    assert_eq!(program[0]["static"], false);
    let has = |part: &str| {
        rows.iter()
            .any(|row| row["type"] == "library" && row["name"].as_str().unwrap().contains(part))
    };
    assert!(has("libc.so") && has("ld-") && has(&library.stem), "{rows:#?}");
}

#[test]
fn what_is_in_use_nowhere_exits_0() {
    let ended = libs(&["libhalfsecond-is-not-mapped-anywhere"]).expect(0);
    assert_eq!(ended.lines().len(), 1, "{ended:#?}");
    let library = Library::build();
    let _sleeper = Running::with(&library.path);
    libs(&[&library.stem, "--package", "no-such-package"]).expect(0);
}

#[test]
fn a_version_that_is_not_known_is_not_ruled_out_silently() {
    let library = Library::build();
    let _sleeper = Running::with(&library.path);
    let ended = libs(&[&library.stem, "--version", "9.9"]).expect(0);
    assert_eq!(ended.lines()[0]["version_unknown"], 1, "{ended:#?}");
    assert!(ended.stderr.contains("is not known"), "{ended:#?}");
}

#[test]
fn people_get_a_table_with_file_and_processes() {
    let library = Library::build();
    let sleeper = Running::with(&library.path);
    let text = Place::new("").run(&["libs", &library.stem]).expect(1);
    assert_plain(&text.stdout);
    assert!(text.stdout.starts_with(library.path.to_str().unwrap()), "{text:#?}");
    for part in [&library.build_id, &sleeper.pid().to_string(), "SINCE", "1.2.3", "processes read"]
    {
        assert!(text.stdout.contains(part), "no {part:?} in {text:#?}");
    }
    let all = Place::new("").run(&["libs"]).expect(0);
    assert_plain(&all.stdout);
    let row = all.stdout.lines().find(|line| line.contains(&library.stem)).unwrap();
    assert!(row.contains(&library.build_id[..12]), "{row}");
}

#[test]
fn a_user_without_rights_sees_the_own_processes_and_how_many_were_not_read() {
    const USER: u32 = 61_236;
    let place = Place::new("");
    place.open_to_all();
    let mut command = place.command(&["libs", "--json"]);
    let Some(command) = as_stranger(&mut command) else { return };
    let library = Library::build();
    std::fs::set_permissions(library.folder(), std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .unwrap();
    let sleeper = sleep_as(USER, &library.path);
    let ended = run(command.arg(&library.stem).uid(USER).gid(USER)).expect(1);
    let row = row_of(&ended, sleeper.pid());
    assert_eq!((&row["uid"], &row["path"]), (&USER.into(), &library.path.to_str().unwrap().into()));
    assert_eq!(row["build_id"], library.build_id.as_str(), "{row:#}");
    let summary = ended.lines().pop().unwrap();
    assert!(summary["denied"].as_u64().unwrap() > 0, "{summary}");
    assert!(ended.stderr.contains("CAP_SYS_PTRACE"), "{ended:#?}");
}

#[test]
fn a_user_who_can_read_no_process_gets_exit_3() {
    const USER: u32 = 61_237;
    let place = Place::new("");
    place.open_to_all();
    let mut command = place.command(&["libs"]);
    let Some(command) = as_stranger(&mut command) else { return };
    let ended = run(command.uid(USER).gid(USER)).expect(3);
    assert!(ended.stderr.contains("needs CAP_SYS_PTRACE; run as root"), "{ended:#?}");
    assert_eq!(ended.stdout, "");
}

#[test]
fn processes_that_come_and_go_do_no_harm() {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                assert!(Command::new("true").status().unwrap().success());
            }
        });
        let looks: Vec<_> = (0..5).map(|_| libs(&[])).collect();
        over.store(true, Ordering::Relaxed);
        for look in looks {
            let look = look.expect(0);
            assert_eq!(look.lines().pop().unwrap()["failed"], 0, "{}", look.stderr);
        }
    });
}

#[test]
fn wrong_arguments_exit_2() {
    for arguments in [
        &["--build-id", "xyz"][..],
        &["--build-id", ""],
        &["libc", "--sbom", "/dev/null"],
        &["--sbom", "/dev/null", "--package", "x"],
    ] {
        let mut all = vec!["libs"];
        all.extend(arguments);
        Place::new("").run(&all).expect(2);
    }
}
