//! `cargo xtask arl`: how rarely the detector of shifts alarms where nothing has shifted, and how soon
//! it does where something has. Deterministic: the same arguments give the same table.

mod model;
mod recorded;
mod replay;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anyhow::Result;
use sensor_stats::Rule;

use model::{Logins, STREAMS, Stream};
use recorded::{Login, Recorded, Resampled};
use replay::{Judge, Replay, Told};

/// Starts from which the sensor knows what is usual.
const BASELINES: [usize; 3] = [25, 60, 200];
/// Logins after which a stream's reference is learned anew, as after an upgrade: a run length must not
/// depend on the hour at which one reference was learned.
const RELEARN: u64 = 100_000;
/// Shifts, milliseconds, and the logins within which each is to be told.
const SHIFTS: [(u64, usize); 4] = [(300, 1), (20, 5), (20, 20), (5, 20)];

/// `cargo xtask arl`
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Logins of each stream.
    #[arg(long, default_value_t = 3_200_000)]
    logins: u64,
    /// Trials of each shift.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    trials: u32,
    /// Average run length to ask for, as `detect.run_length`.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(sensor_stats::RUN_LENGTHS))]
    run_length: u64,
    /// Where the pseudo-random numbers begin.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How far a modelled stream's tail runs, in medians.
    #[arg(long, default_value_t = 8)]
    tail: u32,
    /// Recorded logins to resample instead of the model: a line for each, CPU time in microseconds and
    /// how slow the machine was in percent if known; an empty line between two series.
    #[arg(long, value_name = "FILE")]
    samples: Option<PathBuf>,
    /// The recorded times are those of checking a proof, not of linking.
    #[arg(long, requires = "samples")]
    verdicts: bool,
}

/// Where logins come from.
enum Source {
    Model(Stream),
    Recorded(Recorded),
}

/// Logins under way.
enum Stretch<'a> {
    Model(Logins),
    Recorded(Resampled<'a>),
}

/// What is told of one stream.
#[derive(Clone, Debug, Default)]
struct Row {
    gross: u64,
    shifts: u64,
    /// Medians of a window that lay above the reference's, which are told as low.
    crept: u64,
    /// By baseline, then by shift: how many trials were in time.
    in_time: [[u32; SHIFTS.len()]; BASELINES.len()],
}

/// Replays and prints. Fails where a stream alarmed more often than was asked for.
///
/// # Errors
/// Where the recorded logins cannot be read.
pub(crate) fn arl(args: &Args) -> Result<ExitCode> {
    let sources: Vec<Source> = match &args.samples {
        Some(path) => vec![Source::Recorded(Recorded::read(path)?)],
        None => STREAMS.into_iter().map(Source::Model).collect(),
    };
    println!("{} logins a stream, run length {}, seed {}", args.logins, args.run_length, args.seed);
    if let [Source::Recorded(recorded)] = sources.as_slice() {
        let (logins, series) = recorded.size();
        println!("resampled from {logins} recorded logins in {series} series");
    } else {
        println!("modelled after measured series (xtask/src/arl/model.rs)");
    }
    let rows = rows(args, &sources);
    println!("{}", heading());
    let mut kept = true;
    for (source, row) in sources.iter().zip(&rows) {
        print!("{}", shown(args, &source.name(), row));
        kept &= (row.gross + row.shifts).saturating_mul(args.run_length) <= args.logins;
    }
    println!("{}", if kept { "run length kept" } else { "run length NOT kept" });
    Ok(if kept { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// As many streams at once as there are processors.
fn rows(args: &Args, sources: &[Source]) -> Vec<Row> {
    let next = AtomicUsize::new(0);
    let rows = Mutex::new(vec![Row::default(); sources.len()]);
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(source) = sources.get(at) else { return };
                    let row = row(args, source, args.seed.wrapping_add(at as u64 * 0x1_0000_0000));
                    if let Ok(mut rows) = rows.lock() {
                        rows[at] = row;
                    }
                }
            });
        }
    });
    rows.into_inner().unwrap_or_default()
}

fn row(args: &Args, source: &Source, seed: u64) -> Row {
    let mut row = Row::default();
    let judge = source.judge(args);
    let mut replay = Replay::new(judge);
    let mut logins = source.stretch(args, seed);
    for login in 1..=args.logins {
        if login % RELEARN == 0 {
            replay = Replay::new(judge);
        }
        match replay.login(logins.next()) {
            Told::Nothing => {}
            Told::Gross => row.gross += 1,
            Told::Shift => row.shifts += 1,
            Told::Crept => row.crept += 1,
        }
    }
    for (at, starts) in BASELINES.into_iter().enumerate() {
        for (which, shift) in SHIFTS.into_iter().enumerate() {
            // The same logins for every shift, others for every baseline.
            let seeds = (1..=u64::from(args.trials)).map(|trial| seed + (trial << 8) + at as u64);
            let in_time = seeds.filter(|seed| told(args, source, *seed, starts, shift)).count();
            row.in_time[at][which] = u32::try_from(in_time).unwrap_or(u32::MAX);
        }
    }
    row
}

/// A shift that sets in after so many starts is told in time.
fn told(args: &Args, source: &Source, seed: u64, starts: usize, shift: (u64, usize)) -> bool {
    let mut replay = Replay::new(source.judge(args));
    let mut logins = source.stretch(args, seed);
    for _ in 0..starts {
        replay.login(logins.next());
    }
    let (ms, within) = shift;
    (0..within).any(|_| {
        let (us, drift) = logins.next();
        replay.login((us + ms * 1000, drift)) != Told::Nothing
    })
}

fn heading() -> String {
    let shifts = SHIFTS.map(|(ms, within)| format!("{:>17}", format!("+{ms} ms within {within}")));
    format!(
        "{:<22}{:>7}{:>8}{:>7}{:>14}{:>10}{}",
        "stream",
        "gross",
        "shifts",
        "crept",
        "run length",
        "starts",
        shifts.concat()
    )
}

fn shown(args: &Args, name: &str, row: &Row) -> String {
    let mut lines = String::new();
    for (at, (starts, in_time)) in BASELINES.iter().zip(row.in_time).enumerate() {
        let first = format!(
            "{name:<22}{:>7}{:>8}{:>7}{:>14}",
            row.gross,
            row.shifts,
            row.crept,
            run_length(args.logins, row.gross + row.shifts)
        );
        let cells = in_time.map(|in_time| format!("{:>17}", format!("{in_time}/{}", args.trials)));
        let left = if at == 0 { first } else { " ".repeat(58) };
        lines.extend([left, format!("{starts:>10}"), cells.concat(), "\n".to_owned()]);
    }
    lines
}

/// Logins by alarm; without any, what is certain at 95 % (rule of three).
fn run_length(logins: u64, alarms: u64) -> String {
    match alarms {
        0 => format!("> {}", logins / 3),
        _ => format!("{}", logins / alarms),
    }
}

impl Source {
    fn name(&self) -> String {
        match self {
            Self::Model(stream) => stream.name.to_owned(),
            Self::Recorded(_) => "recorded".to_owned(),
        }
    }

    /// The sensor's own limits.
    fn judge(&self, args: &Args) -> Judge {
        let link = match self {
            Self::Model(stream) => stream.link,
            Self::Recorded(_) => !args.verdicts,
        };
        let (rule, excess_us) = if link { (Rule::LINK, 100_000) } else { (Rule::AUTH, 150_000) };
        Judge { rule, excess_us, run_length: args.run_length }
    }

    fn stretch(&self, args: &Args, seed: u64) -> Stretch<'_> {
        match self {
            Self::Model(stream) => {
                Stretch::Model(Logins::new(*stream, seed, f64::from(args.tail.max(1))))
            }
            Self::Recorded(recorded) => Stretch::Recorded(Resampled::new(recorded, seed)),
        }
    }
}

impl Stretch<'_> {
    fn next(&mut self) -> Login {
        match self {
            Self::Model(logins) => {
                let (ms, drift) = logins.next();
                let measured = logins.measured();
                (rounded(ms * 1000.0), measured.then(|| rounded(drift * 100.0)))
            }
            Self::Recorded(logins) => logins.next(),
        }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "positive, and below 2^53; the cast saturates"
)]
fn rounded(value: f64) -> u64 {
    value.round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replay_gives_the_same_table_each_time_and_finds_what_is_gross() {
        let args = Args {
            logins: 3_000,
            trials: 5,
            run_length: 1_000_000,
            seed: 9,
            tail: 8,
            samples: None,
            verdicts: false,
        };
        let source = Source::Model(STREAMS[0]);
        let drift_of = |stream| Source::Model(stream).stretch(&args, 1).next().1;
        assert!(drift_of(STREAMS[0]).is_some() && drift_of(STREAMS[6]).is_none());
        let table = || shown(&args, &source.name(), &row(&args, &source, args.seed));
        let first = table();
        assert_eq!(first, table());
        let row = row(&args, &source, args.seed);
        assert!(row.in_time.iter().all(|cells| cells[0] == 5), "{first}");
        assert_eq!(first.lines().count(), BASELINES.len());
    }
}
