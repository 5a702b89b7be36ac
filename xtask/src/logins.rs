//! `cargo xtask logins`: what `halfsecond logins` tells of connections to the OpenSSH of every release
//! of Debian, by every method, with and without PAM, quiet or not, that come to every end.
//!
//! Each server is the release's own in a root file system of its own, each client the host's ssh behind
//! a relay that cuts the line at an exact point. What is told of a connection is found by its port.

mod cell;
mod client;
mod place;
pub(crate) mod relay;
mod root;
mod server;
mod told;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use jiff::Timestamp;
use serde_json::Value;

use crate::sensor::{self, Sensor};
use crate::{build, repo, sh};
pub(crate) use cell::USER;
use cell::{Cell, End, Way};
use client::{Client, Made};
use place::Place;
pub(crate) use root::Release;
use root::Root;
use server::{Level, Server, Settings};
use told::Asked;

/// Seconds in which an ordinary client has to log in; PAM alone takes two to refuse one.
const PATIENT: u32 = 60;
/// The same where it is not to be in time. OpenSSH adds up to four of its own since 9.8.
const IMPATIENT: u32 = 3;
/// A connection's start is computed from its first record: it may be told this much earlier.
const CLOCKS: Duration = Duration::from_millis(100);
const COMPARED: &str = "halfsecond_verdicts_compared_total";

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only these releases of Debian.
    #[arg(long, value_enum, value_name = "RELEASE")]
    version: Vec<Release>,
    /// With sshd as quiet as it can be alone, and one type of key.
    #[arg(long)]
    quick: bool,
    /// Make the root file systems anew, with the newest packages.
    #[arg(long)]
    fresh: bool,
    /// The agent to run, instead of one built now.
    #[arg(long, value_name = "PATH")]
    agent: Option<PathBuf>,
}

/// How often cells came out how.
#[derive(Default)]
struct Tally {
    right: u32,
    wrong: u32,
    skipped: u32,
}

/// What became of a cell.
enum Became {
    Right(String),
    Wrong(String),
    /// Why it was not run.
    Skipped(&'static str),
}

/// Runs every cell, prints the table, and fails where one is wrong.
pub(crate) fn logins(args: &Args) -> Result<ExitCode> {
    ensure!(sh::is_root()?, "logins needs root: sudo env \"PATH=$PATH\" cargo xtask logins");
    let agent = build::agent(args.agent.as_deref())?;
    let folder = repo::target().join("logins");
    fs::create_dir_all(&folder)?;
    let folder = folder.canonicalize()?;
    let place = Place::make(&folder.join("place"))?;
    let releases = if args.version.is_empty() { &Release::ALL[..] } else { &args.version };
    let mut roots = Vec::new();
    for release in releases {
        let root = release.root(args.fresh)?;
        root.add_user(place.password())?;
        roots.push((release.name(), root));
    }
    let (sensor, config) = start(&folder, &agent)?;
    let asked = Asked { agent: &agent, config: &config };
    let mut tally = Tally::default();
    for (name, root) in &roots {
        println!("\n{name}: OpenSSH {}", root.version.text);
        for settings in settings(args.quick) {
            one_server(&place, root, settings, args.quick, &asked, &mut tally)
                .with_context(|| format!("{name}, {settings}; see {}", folder.display()))?;
        }
    }
    let page = sensor.get("/metrics")?;
    let lost = sum(&page, "halfsecond_records_lost_total");
    let compared = |result| sum(&page, &format!("{COMPARED}{{result=\"{result}\"}}"));
    let (agreed, disagreed) = (compared("agreed"), compared("disagreed"));
    sensor.stop()?;
    let Tally { right, wrong, skipped } = tally;
    println!("\n{right} cells right, {wrong} wrong, {skipped} skipped; {lost} records lost");
    println!("sshd's verdicts and its libpam: {agreed} agreed, {disagreed} did not");
    let passed = wrong == 0 && right > 0 && agreed > 0.5 && disagreed < 0.5;
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A sensor as it ships, with a state of its own; and its configuration.
fn start(folder: &Path, agent: &Path) -> Result<(Sensor, PathBuf)> {
    let state = folder.join("state");
    if state.exists() {
        fs::remove_dir_all(&state)?;
    }
    fs::create_dir_all(&state)?;
    let listen = sensor::free_address()?;
    let (config, log) = (folder.join("halfsecond.toml"), folder.join("halfsecond.log"));
    let text = format!(
        "state_dir = \"{}\"\n[http]\nlisten = \"{listen}\"\n[output]\nstdout = false\n",
        state.display()
    );
    fs::write(&config, text)?;
    Ok((Sensor::start(agent, &config, &log, listen)?, config))
}

/// Every way for the servers of a release to be set.
fn settings(quick: bool) -> Vec<Settings> {
    let levels = if quick { &[Level::Quiet][..] } else { &[Level::Info, Level::Quiet] };
    let with = |level: &Level| [true, false].map(|pam| Settings { pam, level: *level });
    levels.iter().flat_map(with).collect()
}

/// Runs the cells of one server, and prints a row of each.
fn one_server(
    place: &Place,
    root: &Root,
    settings: Settings,
    quick: bool,
    asked: &Asked<'_>,
    tally: &mut Tally,
) -> Result<()> {
    let server = Server::start(root, place, settings, PATIENT)?;
    let impatient = Server::start(root, place, settings, IMPATIENT)?;
    let since = Timestamp::now() - CLOCKS;
    // A sensor that has never seen this sshd tells of its first connection what it can.
    let first = Client { place, server: server.address() };
    first.run(Cell { way: Way::Ed25519, end: End::Accepted })?;
    asked.ended(since, 1)?;
    let cells = cell::all().into_iter().filter(|cell| !quick || is_quick(*cell));
    let (skipped, cells): (Vec<_>, Vec<_>) =
        cells.partition(|cell| why_skipped(*cell, settings).is_some());
    let ran = run_all(&cells, place, server.address(), impatient.address());
    let made: Vec<Made> = ran.iter().filter_map(|(_, made)| made.as_ref().ok().copied()).collect();
    let told = asked.ended(since, made.len() + 1)?;
    for (cell, made) in ran {
        tally.note(cell, settings, judge(cell, settings, made, &told));
    }
    for cell in skipped {
        let reason = why_skipped(cell, settings).unwrap_or_default();
        tally.note(cell, settings, Became::Skipped(reason));
    }
    let (made, found) = (made.len() + 1, told.len());
    if made != found {
        tally.wrong += 1;
        println!("  WRONG: {found} connections are told where there were {made}");
    }
    Ok(())
}

/// Clients that wait for the server's patience to end do so all at once, beside the others.
fn run_all(
    cells: &[Cell],
    place: &Place,
    patient: SocketAddr,
    impatient: SocketAddr,
) -> Vec<(Cell, Result<Made>)> {
    let waits = |cell: &Cell| matches!(cell.end, End::TimedOut(_));
    let (slow, quick): (Vec<Cell>, Vec<Cell>) = cells.iter().partition(|cell| waits(cell));
    thread::scope(|scope| {
        let slow: Vec<_> = slow
            .into_iter()
            .map(|cell| {
                let client = Client { place, server: impatient };
                (cell, scope.spawn(move || client.run(cell)))
            })
            .collect();
        let client = Client { place, server: patient };
        let mut ran: Vec<_> = quick.into_iter().map(|cell| (cell, client.run(cell))).collect();
        for (cell, running) in slow {
            let made = running.join().unwrap_or_else(|_| Err(anyhow!("it panicked")));
            ran.push((cell, made));
        }
        ran
    })
}

/// Whether what is told of the cell's connection is right.
fn judge(cell: Cell, settings: Settings, made: Result<Made>, told: &[Value]) -> Became {
    let made = match made {
        Ok(made) => made,
        Err(error) => return Became::Wrong(format!("did not run: {error:#}")),
    };
    let Some(login) = told::of(told, made) else {
        return Became::Wrong("nothing is told".to_owned());
    };
    let shown = told::shown(login);
    let wrong = told::differences(login, &cell.expected(settings.pam));
    if wrong.is_empty() {
        return Became::Right(shown);
    }
    Became::Wrong(format!("{shown}: {} ({})", wrong.join("; "), login["reason"]))
}

/// Cells that this server cannot serve.
fn why_skipped(cell: Cell, settings: Settings) -> Option<&'static str> {
    (cell.way == Way::Dialogue && !settings.pam)
        .then_some("sshd has keyboard-interactive by PAM alone")
}

fn is_quick(cell: Cell) -> bool {
    !matches!(cell.way, Way::Rsa | Way::Ecdsa)
}

/// Of the series of a page of metrics that begin so.
fn sum(page: &str, series: &str) -> f64 {
    let lines = page.lines().filter(|line| line.starts_with(series));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

// === impl Tally ===

impl Tally {
    fn note(&mut self, cell: Cell, settings: Settings, became: Became) {
        let Cell { way, end } = cell;
        print!("  {settings}  {way:<20} {end:<29} ");
        match became {
            Became::Right(told) => {
                self.right += 1;
                println!("right    {told}");
            }
            Became::Wrong(why) => {
                self.wrong += 1;
                println!("WRONG    {why}");
            }
            Became::Skipped(why) => {
                self.skipped += 1;
                println!("skipped  {why}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_server_cannot_serve_is_skipped() {
        let settings = |pam| Settings { pam, level: Level::Quiet };
        let skipped = |pam| {
            cell::all()
                .into_iter()
                .filter(|cell| why_skipped(*cell, settings(pam)).is_some())
                .count()
        };
        assert_eq!((skipped(true), skipped(false)), (0, 4));
    }

    #[test]
    fn losses_of_every_ring_are_added_up() {
        let page = "# TYPE halfsecond_records_lost_total counter\n\
            halfsecond_records_lost_total{ring=\"events\"} 3\n\
            halfsecond_records_lost_total{ring=\"priority\"} 4\n\
            halfsecond_records_failed_total 9\n";
        assert!((sum(page, "halfsecond_records_lost_total") - 7.0).abs() < 1e-9);
        assert!((sum(page, "halfsecond_records_lost_total{ring=\"p") - 4.0).abs() < 1e-9);
    }
}
