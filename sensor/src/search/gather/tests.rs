//! Real programs, built here, whose loader is asked afterwards.

use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Command, Stdio};

use super::*;
use crate::search::{Asked, Rule, Why};

/// Waits for the end of its input, so that it is linked once it has said a byte.
const MAIN: &str = "#include <stdio.h>\nint x(void);\nint main(void) { putchar('a' + x()); \
                    fflush(stdout); return getchar(); }\n";
const LIBRARY: &str = "int x(void) { return 0; }\n";

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    fn start(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut byte = [0];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut byte).unwrap();
        Self(child)
    }

    fn explain(&self, library: &Path) -> Explained {
        let file = id(&fs::metadata(library).unwrap());
        let question = Question { pid: self.0.id(), file, variables: &[] };
        Gatherer::new().explain(&question).unwrap()
    }
}

/// `bin/run` that needs `lib/libx.so`, which `flag` leads to.
fn build(compiler: &str, flag: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    for name in ["bin", "lib"] {
        fs::create_dir(root.join(name)).unwrap();
    }
    fs::write(root.join("main.c"), MAIN).unwrap();
    fs::write(root.join("x.c"), LIBRARY).unwrap();
    let run = |arguments: &[&str]| {
        let output = Command::new(compiler).current_dir(root).args(arguments).output().unwrap();
        assert!(output.status.success(), "{compiler} {arguments:?}: {output:#?}");
    };
    run(&["-shared", "-fPIC", "-Wl,-soname,libx.so", "-o", "lib/libx.so", "x.c"]);
    run(&["-o", "bin/run", "main.c", "-Llib", "-l:libx.so", flag]);
    folder
}

#[test]
fn a_runpath_with_an_origin_is_named_with_both_paths() {
    let folder = build("cc", "-Wl,-rpath,$ORIGIN/../lib,--enable-new-dtags");
    let root = folder.path().canonicalize().unwrap();
    let running = Running::start(&mut Command::new(root.join("bin/run")));
    let library = root.join("lib/libx.so");
    let told = running.explain(&library);
    let program = root.join("bin/run");
    let how = format!("RUNPATH $ORIGIN/../lib of {}", program.display());
    assert_eq!(told.found.found_by(), how);
    assert_eq!(told.found.path, Some(root.join("bin/../lib/libx.so")));
    assert_eq!((&told.inside, told.on_host.as_ref()), (&library, Ok(&library)));
    let libc = fs::read_to_string(format!("/proc/{}/maps", running.0.id())).unwrap();
    let libc = libc
        .lines()
        .find_map(|line| line.split_whitespace().nth(5).filter(|it| it.contains("libc.so")));
    let libc = running.explain(Path::new(libc.expect("a libc")));
    assert!(matches!(libc.found.rule, Rule::Cache | Rule::System(_)), "{libc:?}");
    assert!(libc.found.weak.iter().all(|weak| !weak.hit), "{libc:?}");
}

#[test]
fn an_rpath_the_environment_and_a_relative_path_are_told_apart() {
    let folder = build("cc", "-Wl,--disable-new-dtags,-rpath,/nonexistent:lib");
    let root = folder.path().canonicalize().unwrap();
    fs::set_permissions(&root, fs::Permissions::from_mode(0o777)).unwrap();
    let program = root.join("bin/run");
    let running = Running::start(Command::new(&program).current_dir(&root));
    let library = root.join("lib/libx.so");
    let told = running.explain(&library);
    assert_eq!(told.found.found_by(), format!("RPATH lib of {}", program.display()));
    let [weak] = &told.found.weak[..] else { panic!("{told:#?}") };
    assert!(matches!(weak.why, Why::Current(Some(_))) && weak.hit, "{weak:?}");
    assert_eq!(weak.directory, Some(root.join("lib")));

    let running = Running::start(
        Command::new(&program).current_dir("/").env("LD_LIBRARY_PATH", root.join("lib")),
    );
    let told = running.explain(&library);
    assert_eq!(told.found.found_by(), format!("LD_LIBRARY_PATH {}/lib", root.display()));
    let asked = Asked::Needed(program.clone());
    assert_eq!((&told.found.asked, told.found.name.as_deref()), (&asked, Some("libx.so")));
}

#[test]
fn a_preload_is_found_by_its_variable() {
    let folder = build("cc", "-Wl,-rpath,$ORIGIN/../lib");
    let root = folder.path().canonicalize().unwrap();
    let other = root.join("other.so");
    fs::copy(root.join("lib/libx.so"), &other).unwrap();
    let mut command = Command::new(root.join("bin/run"));
    let running = Running::start(command.env("LD_PRELOAD", &other));
    let told = running.explain(&other);
    assert_eq!(told.found.found_by(), format!("LD_PRELOAD {}", other.display()));
}

#[test]
fn musl_is_followed_by_its_own_rules() {
    if Command::new("musl-gcc").arg("--version").output().is_err() {
        println!("not tried: no musl-gcc here");
        return;
    }
    let folder = build("musl-gcc", "-Wl,-rpath,/nonexistent::$ORIGIN/../lib");
    let root = folder.path().canonicalize().unwrap();
    let program = root.join("bin/run");
    let running = Running::start(&mut Command::new(&program));
    let told = running.explain(&root.join("lib/libx.so"));
    let how = format!("RUNPATH $ORIGIN/../lib of {}", program.display());
    assert_eq!(told.found.found_by(), how, "{told:#?}");
    assert!(told.found.weak.iter().all(|weak| !matches!(weak.why, Why::Current(_))), "{told:?}");
}

#[test]
fn a_process_that_is_gone_is_not_explained() {
    let question = Question { pid: u32::MAX, file: FileId { ino: 1, size: 1 }, variables: &[] };
    let told = Gatherer::new().explain(&question);
    assert!(matches!(told, Err(Unexplained::Process(_))), "{told:?}");
}

#[test]
fn of_a_process_that_has_ended_what_its_program_needs_is_explained() {
    let folder = build("cc", "-Wl,-rpath,$ORIGIN/../lib");
    let root = folder.path().canonicalize().unwrap();
    let (program, library) = (root.join("bin/run"), root.join("lib/libx.so"));
    let ids = [&program, &library].map(|path| id(&fs::metadata(path).unwrap()));
    let remains = Remains {
        program: (&program, ids[0]),
        library: (&library, ids[1]),
        variables: &[],
        euid: 0,
        secure: false,
    };
    if Below::of(std::process::id()).unwrap().open_own(&program).is_none() {
        return println!("not tried: the temporary directory is a mount of its own");
    }
    let told = Gatherer::new().explain_remains(&remains).unwrap();
    let how = format!("RUNPATH $ORIGIN/../lib of {}", program.display());
    assert_eq!(told.found.found_by(), how);
    let other = FileId { ino: 1, ..ids[0] };
    let told = Gatherer::new().explain_remains(&Remains { program: (&program, other), ..remains });
    assert!(told.is_err(), "another file is there by now: {told:?}");
}
