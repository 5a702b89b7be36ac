//! What a full store costs: the same sensor with the baselines of 1,000 programs of 200 libraries each in
//! its store, and with none but those of the programs that are started here.
//!
//! Two workloads in each round. Starts of one program, whose baseline is in memory after the first: what
//! remains is that changes are written to a larger store. And starts of many programs, one after the
//! other, each of which the sensor looks up in the store when it sees it first. The time of a start
//! is what people wait for; the agent's CPU time is where the lookups are done. None of the thousand is
//! among those that are started. The arm with nothing in its store runs twice in each round; unless that
//! ratio's interval holds 1.00 nothing can be concluded.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use jiff::Timestamp;

use super::arm::{Arm as _, Halfsecond};
use super::process;
use super::report::{Figure, Names, Report};
use super::stats;
use super::workload::Exec;
use crate::sh;

const SUBJECTS: usize = 1000;
const LIBRARIES: usize = 200;
/// Libraries that the programs have in common, as those of a distribution do.
const POOL: usize = 2000;
/// Starts of one program in a round, and programs that are started once.
const STARTS: u32 = 300;
const PROGRAMS: usize = 300;
/// Longer than the agent keeps a record or a change to itself.
const TAKEN_UP: Duration = Duration::from_secs(3);

const NAMES: Names = Names { base: "empty", control: "empty again", judged: "1000 x 200" };
/// What must not be exceeded for the lookup not to count in a start.
const START: Figure = Figure { name: "exec", limit: Some(1.01) };
const START_CPU: Figure = Figure { name: "agent, per exec", limit: None };
const FIRST: Figure = Figure { name: "first exec", limit: Some(1.01) };
const FIRST_CPU: Figure = Figure { name: "agent, first", limit: None };

/// Runs the rounds and prints their figures; whether the limits are kept.
pub(super) fn measure(folder: &Path, rounds: usize) -> Result<bool> {
    let folder = folder.join("store");
    fs::create_dir_all(&folder)?;
    let programs = programs(&folder.join("programs"))?;
    let called = |name| Halfsecond::called(name, &folder.join(str::replace(name, " ", "-")));
    let mut arms = [called(NAMES.base)?, called(NAMES.control)?, called(NAMES.judged)?];
    let [_, _, full] = &arms;
    fill(full, &folder.join("export.jsonl"))?;
    let mut report = Report::of(NAMES);
    let mut resident = [const { Vec::new() }; 3];
    for round in 0..rounds {
        eprint!("\rstore: round {} of {rounds} ", round + 1);
        for index in super::order(round, arms.len()) {
            let sensor = &mut arms[index];
            resident[index].push(one_arm(round, sensor, &programs, &mut report)?);
        }
    }
    eprintln!();
    fs::write(folder.join("samples.csv"), report.csv())?;
    println!(
        "starts of programs: a store of {SUBJECTS} programs with {LIBRARIES} libraries each, next to \
         one of those that are started only"
    );
    print!("{report}");
    let mib = |samples: &[f64]| stats::median(samples) / f64::from(1 << 20);
    let [empty, _, full] = &resident;
    let (empty, full) = (mib(empty), mib(full));
    println!("resident memory: {empty:.1} MiB empty, {full:.1} MiB full, {:+.1} MiB", full - empty);
    Ok(report.within_limits())
}

/// Both workloads under one sensor; its resident memory after them, bytes.
fn one_arm(
    round: usize,
    sensor: &mut Halfsecond,
    programs: &[PathBuf],
    report: &mut Report,
) -> Result<f64> {
    let name = sensor.name();
    sensor.start().with_context(|| format!("{name} does not start"))?;
    let pid = sensor.pid().context("the sensor does not run")?;
    Exec::once()?;
    let mut timed = |figures: (Figure, Figure), starts: &mut dyn FnMut() -> Result<Vec<f64>>| {
        process::settle(pid)?;
        let before = process::cpu_time(pid)?;
        let seconds = starts()?;
        thread::sleep(TAKEN_UP);
        let spent = process::cpu_time(pid)?.saturating_sub(before).as_secs_f64();
        let count = f64::from(u32::try_from(seconds.len())?);
        report.add(figures.0, name, round, stats::median(&seconds));
        report.add(figures.1, name, round, spent / count);
        anyhow::Ok(())
    };
    timed((START, START_CPU), &mut || (0..STARTS).map(|_| seconds(Exec::once)).collect())?;
    timed((FIRST, FIRST_CPU), &mut || {
        programs.iter().map(|program| seconds(|| start(program))).collect()
    })?;
    let resident = process::resident(pid)?;
    sensor.stop().with_context(|| format!("{name} does not stop"))?;
    Ok(f64::from(u32::try_from(resident / 1024)?) * 1024.0)
}

fn seconds(work: impl FnOnce() -> Result<()>) -> Result<f64> {
    let started = Instant::now();
    work()?;
    Ok(started.elapsed().as_secs_f64())
}

/// As [`Exec::once`], another program.
fn start(program: &Path) -> Result<()> {
    let mut command = Command::new(program);
    command.env_remove("LD_LIBRARY_PATH");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    ensure!(command.status()?.success(), "{} fails", program.display());
    Ok(())
}

/// Copies of one program: each is a subject of its own by its path.
fn programs(folder: &Path) -> Result<Vec<PathBuf>> {
    fs::create_dir_all(folder)?;
    let copy = |number: usize| -> Result<PathBuf> {
        let path = folder.join(format!("true-{number:03}"));
        fs::copy("/bin/true", &path).with_context(|| format!("no copy {}", path.display()))?;
        Ok(path)
    };
    (0..PROGRAMS).map(copy).collect()
}

/// Puts the baselines into the store of a sensor that does not run.
fn fill(sensor: &Halfsecond, file: &Path) -> Result<()> {
    fs::write(file, export(SUBJECTS, LIBRARIES, Timestamp::now())?)?;
    let mut import = Command::new(Halfsecond::agent());
    import.args(["baseline", "import", "--force", "--times", "--json", "--config"]);
    let told = sh::output(import.arg(sensor.config()).arg(file))?;
    let whole = told.lines().filter(|line| is_whole(line)).count();
    ensure!(whole == SUBJECTS, "{whole} of {SUBJECTS} baselines were imported whole");
    Ok(())
}

/// The line tells of a baseline that was new, and of which nothing was left out.
fn is_whole(line: &str) -> bool {
    let told: serde_json::Value = serde_json::from_str(line).unwrap_or_default();
    told["new"] == true && told["left"] == 0 && told["added"].as_u64() >= Some(LIBRARIES as u64)
}

/// Unsigned, as `halfsecond baseline export` writes it.
fn export(subjects: usize, libraries: usize, now: Timestamp) -> Result<String> {
    let mut text = format!(
        "{{\"format\":\"halfsecond-baselines\",\"version\":1,\"host\":\"bench\",\"sensor\":\"bench\",\
         \"exported\":\"{now}\",\"observations\":20,\"subjects\":{subjects}}}\n"
    );
    for subject in 0..subjects {
        let all: Vec<String> = (0..libraries).map(|at| library(subject * 7 + at * 3)).collect();
        writeln!(
            text,
            "{{\"subject\":\"/usr/bin/program-{subject:04} {subject:040x}\",\"baseline\":{{\
             \"starts\":100,\"since_new\":90,\"late\":0,\"methods\":{{}},\
             \"first_seen\":\"{FIRST_SEEN}\",\"last_seen\":\"{FIRST_SEEN}\",\
             \"libraries\":[{}],\"callers\":{{}},\"environment\":[],\"helpers\":[],\
             \"link\":{{\"total\":4,\"latest_us\":[410,430,420,440]}},\"shares\":{{}},\"auth\":{{}}}}}}",
            all.join(",")
        )?;
    }
    text.push_str("{\"signature\":null}\n");
    Ok(text)
}

const FIRST_SEEN: &str = "2024-01-01T00:00:00Z";

fn library(number: usize) -> String {
    let number = number % POOL;
    format!(
        "[{{\"path\":\"/usr/lib/x86_64-linux-gnu/libpool-{number:04}.so.1.2.3\",\
         \"build\":\"{number:040x}\"}},{{\"first\":\"{FIRST_SEEN}\",\"last\":\"{FIRST_SEEN}\"}}]"
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn an_export_has_so_many_programs_of_so_many_libraries_and_fits_an_import() {
        let text = export(SUBJECTS, LIBRARIES, Timestamp::UNIX_EPOCH).unwrap();
        assert!(text.len() < 64 << 20, "{} bytes", text.len());
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!((lines.len(), &lines[0]["subjects"]), (SUBJECTS + 2, &SUBJECTS.into()));
        let mut subjects = BTreeSet::new();
        for line in &lines[1..=SUBJECTS] {
            subjects.insert(line["subject"].as_str().unwrap());
            let libraries = line["baseline"]["libraries"].as_array().unwrap();
            let paths = libraries.iter().map(|one| one[0]["path"].as_str().unwrap());
            assert_eq!(paths.collect::<BTreeSet<_>>().len(), LIBRARIES);
        }
        assert_eq!(subjects.len(), SUBJECTS);
    }

    #[test]
    fn a_baseline_that_came_in_part_is_not_whole() {
        assert!(is_whole(r#"{"new":true,"left":0,"added":200}"#));
        for line in [
            r#"{"new":true,"left":0,"added":199}"#,
            r#"{"new":true,"left":1,"added":200}"#,
            r#"{"new":false,"left":0,"added":200}"#,
            "",
        ] {
            assert!(!is_whole(line), "{line}");
        }
    }
}
