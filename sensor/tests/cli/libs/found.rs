//! How a loader found a library, and whether its file is what a package brought.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::fixture::{Library, Running, compile, libs, row_of};

/// A program in a directory of its own that needs the library and waits, linked with `flags`.
struct Program {
    _folder: tempfile::TempDir,
    root: PathBuf,
}

impl Program {
    /// `ROOT/bin/wait`; the library lies in `ROOT/lib`.
    fn build(library: &Library, flags: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        for name in ["bin", "lib"] {
            fs::create_dir(root.join(name)).unwrap();
        }
        let soname = format!("{}.so.1", library.stem);
        fs::copy(&library.path, root.join("lib").join(&soname)).unwrap();
        let source = root.join("main.c");
        let text = "#include <unistd.h>\nint halfsecond_fixture(void);\n\
                    int main(void) { return sleep(600 * halfsecond_fixture()); }\n";
        fs::write(&source, text).unwrap();
        let library = root.join("lib").join(soname);
        compile(&[
            OsStr::new("-o"),
            root.join("bin/wait").as_os_str(),
            source.as_os_str(),
            library.as_os_str(),
            OsStr::new(flags),
        ]);
        Self { _folder: folder, root }
    }

    fn start(&self, change: impl FnOnce(&mut Command) -> &mut Command) -> Running {
        Running::start(change(&mut Command::new(self.root.join("bin/wait"))))
    }

    fn path(&self, name: &str) -> String {
        self.root.join(name).to_str().unwrap().to_owned()
    }
}

fn row(library: &Library, running: &Running) -> Value {
    row_of(&libs(&[&library.stem]).expect(1), running.pid())
}

#[test]
fn the_rule_that_found_a_library_is_named() {
    let library = Library::build();
    let program = Program::build(&library, "-Wl,--enable-new-dtags,-rpath,$ORIGIN/../lib");
    let bin = program.path("bin/wait");
    let by_origin = program.start(|command| command);
    let by_variable =
        program.start(|command| command.env("LD_LIBRARY_PATH", program.root.join("lib")));
    let preloaded = Running::with(&library.path);
    let [origin, variable, preload] =
        [&by_origin, &by_variable, &preloaded].map(|running| row(&library, running));
    assert_eq!(origin["found_by"], format!("RUNPATH $ORIGIN/../lib of {bin}"), "{origin:#}");
    assert_eq!(origin["on_host"], origin["path"], "{origin:#}");
    assert_eq!(variable["found_by"], format!("LD_LIBRARY_PATH {}", program.path("lib")));
    let path = library.path.to_str().unwrap();
    assert_eq!(preload["found_by"], format!("LD_PRELOAD {path}"));
    // Its owner runs it from a directory that nobody else can write to.
    assert_eq!(origin["odd"], Value::Array(Vec::new()), "{origin:#}");
}

#[test]
fn a_place_that_others_decide_about_is_odd() {
    let library = Library::build();
    let program = Program::build(&library, "-Wl,-rpath,/tmp/halfsecond-nowhere/lib:lib");
    fs::set_permissions(program.root.join("lib"), fs::Permissions::from_mode(0o777)).unwrap();
    let running = program.start(|command| command.current_dir(&program.root));
    let row = row(&library, &running);
    let odd: Vec<&str> =
        row["odd"].as_array().unwrap().iter().map(|one| one.as_str().unwrap()).collect();
    let [missing, current] = odd[..] else { panic!("{row:#}") };
    assert!(missing.contains("does not exist and every user may make"), "{missing}");
    assert!(current.contains("means the current directory"), "{current}");
    assert!(current.contains("every user may put files; it was found there"), "{current}");
}

#[test]
fn a_library_of_a_package_is_compared_with_what_that_brought() {
    if !Path::new("/var/lib/dpkg/status").exists() {
        println!("not tried: no dpkg here");
        return;
    }
    let library = Library::build();
    let running = Running::with(&library.path);
    let rows = super::fixture::rows_of(&libs(&["libc"]).expect(1), running.pid());
    let libc = rows.iter().find(|row| row["package"] == "libc6").unwrap_or_else(|| {
        panic!("no libc of a package: {rows:#?}");
    });
    assert_eq!((&libc["content"], &libc["digest"]), (&"matches".into(), &Value::Null), "{libc:#}");
    let own = row(&library, &running);
    assert_eq!((&own["content"], &own["content_unknown"]), (&Value::Null, &Value::Null), "{own:#}");
}
