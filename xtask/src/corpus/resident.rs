//! `cargo xtask corpus --resident`: everything of the corpus that stays, running at once with light
//! traffic, checked again and again; nothing may be found in it.
//!
//! First `halfsecond scan` looks at every process in full three times in a row, then the sensor makes
//! its rounds, then another scan. At the end a program changes a slot of its own, which both must find:
//! a check that finds nothing anywhere says nothing.

mod census;
mod patrol;
mod programs;
mod scan;
mod table;

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::chamber::Chamber;
use super::root;
use super::workload::Workload;
use census::Census;
use patrol::{Patrol, Rounds};
use programs::Programs;
use table::Table;

/// `halfsecond scan` in a row before the rounds.
const SCANS: u32 = 3;
/// Fewer are no machine in use.
const PROCESSES: usize = 60;
/// Those without which the number says little.
const NEEDED: [&str; 2] = ["chromium", "java"];
/// Between two lines that tell how far it is.
const TELL_EVERY: Duration = Duration::from_mins(1);
/// Between two looks at who runs and at what the sensor has logged.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq, clap::Args)]
pub(super) struct Stay {
    /// Instead of the workloads: start every program of the corpus that stays, check all of them three
    /// times in a row, and let the sensor make its rounds for so long.
    #[arg(long, value_name = "MINUTES")]
    pub(super) resident: Option<u64>,
    /// Seconds of a round of the sensor's: guarded programs are checked in each, root daemons in every
    /// tenth, others (their imports) in every sixtieth.
    #[arg(long, value_name = "SECONDS", default_value_t = 1, requires = "resident")]
    every: u64,
    /// Guard every resident program: each is checked in full in each round. What is told of guarded
    /// programs whatever was learned (code that compilers at run time make, libraries in front of
    /// others) is listed apart then.
    #[arg(long, requires = "resident")]
    guard: bool,
}

/// The programs, and what is known of them.
struct Resident<'a> {
    agent: &'a Path,
    chamber: Chamber,
    programs: Programs,
    census: Census,
    table: Table,
}

/// Runs it in `folder`, with the programs named only, if any are.
///
/// # Errors
/// When something was found, too few processes ran or one of the programs failed.
pub(super) fn run(
    args: &Stay,
    minutes: u64,
    only: &[String],
    folder: &Path,
    agent: &Path,
) -> Result<()> {
    let rounds = Rounds::new(args.every, args.guard);
    let length = Duration::from_mins(minutes);
    ensure!(
        length > rounds.longest(),
        "{minutes} min are not enough to visit everyone once: that takes {:?}",
        rounds.longest()
    );
    let chosen = programs::chosen(only)?;
    let chamber = root::prepare(folder, &chosen)?;
    let own = own_folder(folder)?;
    let chamber = Chamber::new(chamber.root().to_owned(), own.join("logs"));
    let mut resident = Resident::start(agent, chamber, &chosen, length)?;
    print!("{}", resident.table);
    if only.is_empty() {
        resident.enough()?;
    }
    for number in 1..=SCANS {
        resident.scan(&format!("scan {number} of {SCANS}"))?;
    }
    println!("{rounds}");
    let mut patrol = Patrol::start(agent, &own, folder, &rounds, &resident.census)?;
    resident.watch(minutes, &mut patrol)?;
    resident.scan("scan after the rounds")?;
    let control = resident.control(&mut patrol, &rounds);
    let Resident { programs, census, mut table, .. } = resident;
    table.control(control);
    patrol.stop(&census, &mut table)?;
    programs.end()?;
    println!("\n{table}");
    ensure!(table.passed(), "the resident programs did not pass; see {}", own.display());
    Ok(())
}

/// `target/corpus/resident`, empty.
fn own_folder(folder: &Path) -> Result<PathBuf> {
    let own = folder.join("resident");
    if own.exists() {
        fs::remove_dir_all(&own)?;
    }
    fs::create_dir_all(own.join("logs"))?;
    Ok(own)
}

// === impl Resident ===

impl<'a> Resident<'a> {
    /// Returns once it is known who stays.
    fn start(
        agent: &'a Path,
        chamber: Chamber,
        chosen: &[Workload],
        length: Duration,
    ) -> Result<Self> {
        let programs = Programs::start(&chamber, chosen, length)?;
        let census = Census::new(chamber.root());
        let table = Table::default();
        let mut resident = Self { agent, chamber, programs, census, table };
        resident.look()?;
        // Not a synchronisation: who stays is told by staying.
        thread::sleep(census::WHILE);
        resident.look()?;
        resident.table.begin(&resident.census);
        Ok(resident)
    }

    fn look(&mut self) -> Result<()> {
        self.programs.must_run()?;
        self.census.look(&self.programs.pids())
    }

    fn enough(&self) -> Result<()> {
        let staying = self.census.staying();
        let count: usize = staying.values().map(Vec::len).sum();
        ensure!(count >= PROCESSES, "{count} processes are fewer than {PROCESSES}");
        for needed in NEEDED {
            ensure!(staying.contains_key(needed), "no {needed} among the processes");
        }
        Ok(())
    }

    /// Everyone who stays, in full.
    fn scan(&mut self, what: &str) -> Result<()> {
        self.look()?;
        let began = Instant::now();
        let mut sum = scan::Account::default();
        for (class, pids) in self.census.staying() {
            let account =
                scan::scan(self.agent, &pids).with_context(|| format!("{what}: {class}"))?;
            sum.add(&account);
            self.table.scanned(&class, &account);
        }
        println!("{what}: {sum}, {:.1} s", began.elapsed().as_secs_f64());
        Ok(())
    }

    /// The rounds, for so many minutes.
    fn watch(&mut self, minutes: u64, patrol: &mut Patrol) -> Result<()> {
        let (began, mut told) = (Instant::now(), 0);
        while told < minutes {
            // Not a synchronisation: the time that the rounds are watched.
            thread::sleep(LOOK_EVERY);
            self.look()?;
            patrol.read(&self.census)?;
            let passed = began.elapsed().as_secs() / TELL_EVERY.as_secs();
            if passed > told {
                told = passed;
                println!("minute {told} of {minutes}: {}", patrol.told()?);
            }
        }
        Ok(())
    }

    /// Whether a slot that is changed is found by the scan and in the rounds.
    fn control(&mut self, patrol: &mut Patrol, rounds: &Rounds) -> Result<()> {
        self.programs.add(&self.chamber, &programs::control())?;
        self.look()?;
        let pids = self.census.running(programs::CONTROL);
        ensure!(!pids.is_empty(), "it is not there");
        self.census.set_aside(&pids);
        let account = scan::scan(self.agent, &pids)?;
        ensure!(!account.found.is_empty(), "the scan does not find it: {account}");
        println!("control: found by the scan; the rounds find it within {:?}", rounds.longest());
        let deadline = Instant::now() + rounds.longest() * 2 + TELL_EVERY;
        while !patrol.has_found(&pids)? {
            ensure!(Instant::now() < deadline, "the rounds do not find it");
            thread::sleep(LOOK_EVERY);
            patrol.read(&self.census)?;
        }
        Ok(())
    }
}
