//! Emulated machines: our kernel tests on the kernels that distributions ship.
//!
//! Each guest is a distribution kernel, unmodified, with an initramfs made here and no disk and
//! no network. Software emulation only: it works on every host, and no verdict depends on time.

mod archive;
mod console;
mod cpio;
mod guest;
mod kernel;
mod logins;
mod matrix;
mod qemu;
mod strip;

use std::collections::btree_map::{BTreeMap, Entry};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::{build, repo, sh};
use archive::Archive;
use kernel::{Arch, Spec};
use matrix::Guest;
pub(crate) use matrix::Limits;
pub(crate) use qemu::{Outcome, TIME_LIMIT, Verdict};

/// The matrix: every long-term series from the oldest we promise, the newest, and one arm64.
pub(crate) const DEFAULT_KERNELS: [&str; 5] = ["5.10", "6.1", "6.12", "newest", "arm64"];

/// A test program for the guests.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    /// The name its verdict carries.
    pub(crate) name: String,
    /// Static, for the guest's architecture.
    pub(crate) binary: PathBuf,
    /// For libtest.
    pub(crate) args: Vec<String>,
}

/// What a guest is to run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Payload {
    pub(crate) programs: Vec<Program>,
    /// Files that must lie where they lie here: tests know them by their absolute paths.
    pub(crate) placed: Vec<PathBuf>,
    /// Folders likewise, which are empty there.
    pub(crate) folders: Vec<PathBuf>,
    /// Whole trees.
    pub(crate) trees: Vec<Tree>,
}

/// A folder with all that is in it.
#[derive(Clone, Debug)]
pub(crate) struct Tree {
    pub(crate) from: PathBuf,
    /// Its name in the guest's root.
    pub(crate) to: String,
    /// What stays out, by its path in the tree.
    pub(crate) without: Vec<&'static str>,
}

#[derive(clap::Subcommand)]
pub(crate) enum Verb {
    /// Download kernels and guest programs, so that later runs need no network.
    Fetch {
        /// E.g. 6.1, newest, arm64, arm64-5.10; the whole matrix when none is named.
        kernels: Vec<String>,
        /// Look for newer versions of what is already here.
        #[arg(long)]
        refresh: bool,
    },
    /// Log in with a real OpenSSH under the sensor, on another kernel.
    Logins(logins::Args),
    /// Boot kernels with only the guest's own tests, or with static programs of yours.
    Boot {
        /// As for `fetch`.
        kernels: Vec<String>,
        /// A static binary for the kernel's architecture, run as the tests are.
        #[arg(long)]
        program: Vec<PathBuf>,
        /// Seconds until a guest is given up.
        #[arg(long, default_value_t = TIME_LIMIT.as_secs())]
        limit: u64,
    },
}

pub(crate) fn dispatch(verb: Verb) -> Result<()> {
    match verb {
        Verb::Fetch { kernels, refresh } => fetch(&kernels, refresh),
        Verb::Logins(args) => logins::logins(&args),
        Verb::Boot { kernels, program, limit } => boot(&kernels, &program, limit),
    }
}

/// Boots each kernel with the programs that `build` makes for its architecture, as many at once as
/// there are processors.
///
/// # Errors
/// When a kernel is unknown, or a kernel or the guest's files cannot be had. What goes wrong in a
/// guest is in its outcome.
pub(crate) fn run(
    names: &[String],
    limits: Limits,
    build: impl Fn(&'static str) -> Result<Payload>,
) -> Result<Vec<Outcome>> {
    // Building what they run takes longer than that.
    if limits.hardly_any(Instant::now()) {
        return names.iter().map(|name| Ok(Outcome::not_run(&name.parse()?))).collect();
    }
    matrix::run(guests(names, build)?, limits)
}

/// Everything that [`run`] does before it boots the first.
///
/// # Errors
/// As there.
pub(crate) fn prepare(
    names: &[String],
    build: impl Fn(&'static str) -> Result<Payload>,
) -> Result<()> {
    guests(names, build).map(drop)
}

fn guests(names: &[String], build: impl Fn(&'static str) -> Result<Payload>) -> Result<Vec<Guest>> {
    let specs = names.iter().map(|name| name.parse()).collect::<Result<Vec<Spec>>>()?;
    let mut archive = Archive::open()?;
    let mut kernels = Vec::new();
    for spec in specs {
        let kernel = kernel::provide(&spec, &mut archive)?;
        kernels.push((spec, kernel));
    }
    let modules: Vec<PathBuf> =
        kernels.iter().flat_map(|(_, kernel)| kernel.modules.iter().cloned()).collect();
    let mut images = BTreeMap::new();
    let mut guests = Vec::new();
    for (spec, kernel) in kernels {
        let image: &mut PathBuf = match images.entry(spec.arch) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                let payload = build(spec.arch.rust_target())?;
                let image = initramfs(spec.arch, &mut archive, payload, &modules)
                    .with_context(|| format!("cannot make the {} guest", spec.arch.debian()))?;
                entry.insert(image)
            }
        };
        let image = image.clone();
        guests.push(Guest { spec, kernel, image });
    }
    Ok(guests)
}

fn fetch(names: &[String], refresh: bool) -> Result<()> {
    let mut archive = Archive::open()?;
    if refresh {
        archive.forget()?;
    }
    for name in or_all(names) {
        let spec: Spec = name.parse()?;
        let kernel = kernel::provide(&spec, &mut archive)?;
        println!("{spec:<12} Linux {:<24} {}", kernel.version, kernel.image.display());
        guest::provide(spec.arch, &mut archive)?;
    }
    Ok(())
}

fn boot(names: &[String], programs: &[PathBuf], limit: u64) -> Result<()> {
    let names = or_all(names);
    let outcomes = run(&names, Limits::of(Duration::from_secs(limit)), |_| {
        let program = |path: &PathBuf| {
            Ok(Program { name: file_name(path)?, binary: path.clone(), args: alone() })
        };
        let programs = programs.iter().map(program).collect::<Result<_>>()?;
        Ok(Payload { programs, ..Payload::default() })
    })?;
    println!();
    for outcome in &outcomes {
        println!("{outcome}");
    }
    if outcomes.iter().any(|outcome| matches!(outcome.verdict, Verdict::Failed(_))) {
        bail!("not every guest passed; consoles are in {}", qemu::logs().display());
    }
    Ok(())
}

/// The guest's own programs first, then those given: a rig that is broken says so itself.
fn initramfs(
    arch: Arch,
    archive: &mut Archive,
    payload: Payload,
    modules: &[PathBuf],
) -> Result<PathBuf> {
    let target = arch.rust_target();
    let own = |cargo: &[&str], kind, name| {
        let mut cargo = sh::cargo(cargo);
        cargo.args(["--package", "vm-init", "--target", target, &format!("--{kind}"), name]);
        build::executable(&mut cargo, kind, name)
    };
    let init = own(&["build"], "bin", "vm-init")?;
    let rig = own(&["test", "--no-run"], "test", "guest")?;
    let mut tests = vec![Program { name: "guest".to_owned(), binary: rig, args: alone() }];
    tests.extend(payload.programs);
    let folder = guest::provide(arch, archive)?;
    let path = repo::target().join(format!("vm/initramfs-{}.cpio", arch.debian()));
    for test in &mut tests {
        test.binary = strip::stripped(&test.binary, arch)?;
    }
    let parts = guest::Parts {
        arch,
        init: &init,
        modules,
        tests: &tests,
        placed: &payload.placed,
        folders: &payload.folders,
        trees: &payload.trees,
    };
    guest::assemble(&path, &folder, &parts)?;
    Ok(path)
}

/// One test after the other, each shown while it runs.
pub(crate) fn alone() -> Vec<String> {
    ["--test-threads=1", "--nocapture"].map(str::to_owned).into()
}

fn or_all(names: &[String]) -> Vec<String> {
    if names.is_empty() {
        return DEFAULT_KERNELS.map(str::to_owned).into();
    }
    names.to_vec()
}

fn file_name(path: &std::path::Path) -> Result<String> {
    let name = path.file_name().and_then(|name| name.to_str());
    Ok(name.with_context(|| format!("{} has no usable file name", path.display()))?.to_owned())
}
