//! Recorded logins, resampled without taking apart what belongs together.
//!
//! The stationary bootstrap (D. N. Politis, J. P. Romano 1994): a stream is made of blocks of the
//! recording, each from a random login on and of a random length, 50 on average, so that neighbours
//! stay neighbours; seven of eight blocks are of the same series as the one before, so that a slow hour
//! stays an hour. A series is taken as a circle.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use crate::random::SplitMix64;

/// Logins of a block, on average.
const BLOCK: f64 = 50.0;
/// Blocks of the same series in a row, on average.
const SAME: f64 = 8.0;
const FILE_MAX: u64 = 256 * 1024 * 1024;

/// CPU time in microseconds, and how slow the machine was, 100 as usual.
pub(super) type Login = (u64, Option<u64>);

/// Series of logins in the order in which they were; none is empty, and there is one at least.
#[derive(Debug)]
pub(super) struct Recorded(Vec<Vec<Login>>);

/// A stream made of them.
#[derive(Debug)]
pub(super) struct Resampled<'a> {
    recorded: &'a Recorded,
    random: SplitMix64,
    series: usize,
    at: usize,
}

impl Recorded {
    /// Reads a file: a login a line, its CPU time in microseconds and, after a blank or a comma, how
    /// slow the machine was in percent if that is known; an empty line between two series; what
    /// follows `#` is a remark.
    ///
    /// # Errors
    /// Where a line is something else (told with its number), or there are fewer than 50 logins.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let file = File::open(path).with_context(|| path.display().to_string())?;
        let mut series = vec![Vec::new()];
        for (at, line) in BufReader::new(file.take(FILE_MAX)).lines().enumerate() {
            let place = || format!("{}:{}", path.display(), at + 1);
            let line = line.with_context(place)?;
            let text = line.split('#').next().unwrap_or("").trim();
            if line.trim().is_empty() {
                series.push(Vec::new());
            } else if !text.is_empty() {
                let login = login(text).with_context(|| {
                    format!("{}: no CPU time in us and drift in percent: {text:?}", place())
                })?;
                series.extend(series.is_empty().then(Vec::new));
                if let Some(last) = series.last_mut() {
                    last.push(login);
                }
            }
        }
        series.retain(|logins| !logins.is_empty());
        let all: usize = series.iter().map(Vec::len).sum();
        ensure!(all >= 50, "{}: {all} logins are too few to resample", path.display());
        Ok(Self(series))
    }

    /// Logins and series.
    pub(super) fn size(&self) -> (usize, usize) {
        (self.0.iter().map(Vec::len).sum(), self.0.len())
    }
}

fn login(text: &str) -> Option<Login> {
    let mut fields = text.split([',', ' ', '\t']).filter(|field| !field.is_empty());
    let us = fields.next()?.parse().ok()?;
    let drift = fields.next().map(str::parse).transpose().ok()?;
    fields.next().is_none().then_some((us, drift))
}

impl<'a> Resampled<'a> {
    pub(super) fn new(recorded: &'a Recorded, seed: u64) -> Self {
        let mut stream = Self { recorded, random: SplitMix64(seed), series: 0, at: 0 };
        stream.change_series();
        stream.change_block();
        stream
    }

    pub(super) fn next(&mut self) -> Login {
        if self.random.one_in(BLOCK) {
            if self.random.one_in(SAME) {
                self.change_series();
            }
            self.change_block();
        }
        let series = &self.recorded.0[self.series];
        let login = series[self.at % series.len()];
        self.at += 1;
        login
    }

    /// By length, so that every login comes as often.
    fn change_series(&mut self) {
        let mut left = self.random.below(self.recorded.size().0);
        for (at, series) in self.recorded.0.iter().enumerate() {
            if left < series.len() {
                self.series = at;
                return;
            }
            left -= series.len();
        }
    }

    fn change_block(&mut self) {
        self.at = self.random.below(self.recorded.0[self.series].len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Recorded> {
        let path = std::env::temp_dir().join(format!("xtask-arl-{}", std::process::id()));
        let path = path.with_extension(format!("{:x}", text.len()));
        std::fs::write(&path, text).unwrap();
        let read = Recorded::read(&path);
        std::fs::remove_file(path).unwrap();
        read
    }

    #[test]
    fn files_are_read_or_refused_by_line() {
        let lines = "5000\n4900,110 # with drift\n4950 105\n".repeat(20);
        let recorded = read(&format!("# by hand\n{lines}\n{lines}")).unwrap();
        assert_eq!(recorded.size(), (120, 2));
        assert_eq!(recorded.0[0][..3], [(5000, None), (4900, Some(110)), (4950, Some(105))]);
        let error = read(&format!("{lines}\nfast\n")).unwrap_err();
        assert!(format!("{error:#}").contains(":62: "), "{error:#}");
        assert!(read("1 2 3\n").is_err() && read("-5\n").is_err() && read("1\n2\n").is_err());
    }

    #[test]
    fn neighbours_stay_neighbours_and_every_login_comes_as_often() {
        let series = |from: u64| (from..from + 100).map(|us| (us, None)).collect::<Vec<_>>();
        let recorded = Recorded(vec![series(0), series(1000), series(2000), series(3000)]);
        let mut stream = Resampled::new(&recorded, 5);
        let all: Vec<u64> = (0..200_000).map(|_| stream.next().0).collect();
        let kept = all.windows(2).filter(|two| two[1] == two[0] + 1).count();
        assert!(kept > 190_000, "{kept} of 200000 are followed by the one that followed");
        for from in [0, 1000, 2000, 3000] {
            let count = all.iter().filter(|us| (from..from + 100).contains(*us)).count();
            assert!((40_000..60_000).contains(&count), "{count} from {from} on");
        }
    }
}
