//! Logins as they were measured: series that drift, depend on each other, and have tails.
//!
//! Measured were OpenSSH 9.2 and 10.0 in series of 120 to 200 logins at three loads and by several
//! methods; known of each are median, median distance from it and 99th percentile, and what all of
//! them together have beyond. From that a stream is made:
//!
//! * It stays in one measured series for 400 logins on average, then goes on in another: drift by
//!   steps, up to 1.77 times.
//! * The drift that the sensor measures is the series' median against the fastest one's, off by a
//!   factor that holds for the stay (standard deviation 4 %: the ratio of linking to the rest of a
//!   start was measured between 0.63 and 0.71) and by another for each login (3 %).
//! * Within a stay the times wander (an autoregression of 0.98, standard deviation 3 %), which no drift
//!   measurement sees.
//! * Neighbours depend on each other: normal scores with a correlation of 0.4 are mapped to the
//!   series' distribution, so that slow logins come in bursts.
//! * Beyond the 99th percentile follows a generalised Pareto tail (9.2: 0.1, 10.0: 0.36, verdicts: 0),
//!   to eight times the median: twice the largest that was measured among 3,680. What lies beyond is not
//!   known, so this replay says nothing of how often a single login is gross by chance; `--tail` lets the
//!   tail run further.
//!
//! What checking a proof costs, from the question for the user to the verdict, was not measured in series
//! of its own. It is derived from those of all CPU time from accept to the verdict (shared reference,
//! sshd timing):
//!
//! * By key: a part of the whole's median ([`CHECK`]).
//! * By password: what that login costs more than one by key, median against median in the same version
//!   and load, and the check by key besides.
//! * Spread and tail, in milliseconds, are all of the whole's, as if start-up and key exchange took the
//!   same each time.
//! * Of the key exchange up to a tick is counted to the check, evenly spread ([`TICK`]).
//! * "at most": everything after the banner of a login by key, the key exchange included. More it cannot
//!   be.

use crate::random::SplitMix64;

/// Logins of one stay, on average.
const STAY: f64 = 400.0;
const DRIFT_ERROR: f64 = 0.04;
const DRIFT_NOISE: f64 = 0.03;
const WANDER: (f64, f64) = (0.98, 0.03);
const NEIGHBOURS: f64 = 0.4;

/// Part of a login by key that its check takes: what the monitor of a refused login used (15.65 ms, shared
/// reference, performance, 1.5) less what it had used by the banner (8.5), of all CPU time to the verdict
/// (26.4; OpenSSH 9.2 by RSA key on a quiet machine). Whatever is checked is checked by the monitor, and
/// between banner and question it only signs; what the network child uses meanwhile is not known.
const CHECK: f64 = (15.65 - 8.5) / 26.4;
/// CPU time from exec to the banner, in times of that of linking: from the middle of the measured ratios of
/// linking to the rest (0.63 to 0.71 in 9.2, 1.145 to 1.194 in 10.0).
const BANNER_9: f64 = 1.0 + 1.0 / 0.67;
const BANNER_10: f64 = 1.0 + 1.0 / 1.17;
/// By so much the CPU time of a process that runs may be stale, milliseconds: a tick at 250 Hz.
const TICK: f64 = 4.0;

/// A measured series, milliseconds.
#[derive(Clone, Copy, Debug)]
struct Series {
    /// Median CPU time of linking, by which the sensor tells drift.
    link: f64,
    median: f64,
    mad: f64,
    p99: f64,
    /// Median of what was measured, where this is a part of it: the tail is in terms of that.
    whole: f64,
}

/// A stream to make.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stream {
    pub(super) name: &'static str,
    /// By the limits for linking, else by those for the check of a proof.
    pub(super) link: bool,
    series: &'static [Series],
    /// Shape and scale (of the whole's median) of the tail.
    tail: (f64, f64),
    /// Up to so much is counted besides, milliseconds.
    stale: f64,
    /// The sensor has measured the drift; else it judges blindly.
    measured: bool,
}

const fn link(median: f64, mad: f64, p99: f64) -> Series {
    whole(median, median, mad, p99)
}

/// All CPU time from accept to the verdict, as it was measured.
const fn whole(link: f64, median: f64, mad: f64, p99: f64) -> Series {
    Series { link, median, mad, p99, whole: median }
}

/// Logins by RSA key.
const KEY_9: [Series; 3] =
    [whole(6.94, 50.6, 3.7, 59.0), whole(3.93, 31.5, 1.2, 40.0), whole(4.83, 35.3, 0.5, 53.0)];
const KEY_10: [Series; 3] =
    [whole(5.45, 36.3, 2.7, 47.0), whole(4.87, 31.2, 1.3, 43.0), whole(4.98, 32.8, 0.5, 43.0)];

/// Checks of logins. The tail is that of all verdicts.
const fn check(name: &'static str, series: &'static [Series]) -> Stream {
    Stream { name, link: false, series, tail: (0.0, 0.064), stale: TICK, measured: true }
}

// === impl Series ===

impl Series {
    /// The check of a login by key.
    const fn by_key(self) -> Self {
        self.part(self.median * CHECK)
    }

    /// The check of a login by password; `key` is all of one by key in the same version and load.
    const fn by_password(self, key: Self) -> Self {
        self.part(self.median - key.median * (1.0 - CHECK))
    }

    /// All that follows the banner.
    const fn at_most(self, banner: f64) -> Self {
        self.part(self.median - banner * self.link)
    }

    /// A part with this median, which has all of the spread.
    const fn part(self, median: f64) -> Self {
        Self { median, p99: median + self.p99 - self.median, ..self }
    }
}

// === impl Stream ===

impl Stream {
    /// The same times where the sensor does not know how slow the machine was.
    const fn blind(self, name: &'static str) -> Self {
        Self { name, measured: false, ..self }
    }
}

/// Those with measured drift, then the same without. Constructors, of which there is no series, are
/// judged like linking and always blindly.
pub(super) const STREAMS: [Stream; 12] = [
    MEASURED[0],
    MEASURED[1],
    MEASURED[2],
    MEASURED[3],
    MEASURED[4],
    MEASURED[5],
    MEASURED[0].blind("link 9.2 blind"),
    MEASURED[1].blind("link 10.0 blind"),
    MEASURED[2].blind("check 9.2 rsa blind"),
    MEASURED[4].blind("check 10.0 rsa blind"),
    check(
        "check 9.2 rsa at most",
        &[KEY_9[0].at_most(BANNER_9), KEY_9[1].at_most(BANNER_9), KEY_9[2].at_most(BANNER_9)],
    ),
    check(
        "check 10.0 rsa at most",
        &[KEY_10[0].at_most(BANNER_10), KEY_10[1].at_most(BANNER_10), KEY_10[2].at_most(BANNER_10)],
    ),
];

const MEASURED: [Stream; 6] = [
    Stream {
        name: "link 9.2",
        link: true,
        series: &[
            link(6.78, 1.14, 8.8),
            link(6.94, 0.60, 8.9),
            link(6.75, 0.72, 8.4),
            link(4.92, 0.26, 7.6),
            link(4.33, 0.18, 7.2),
            link(3.93, 0.21, 6.1),
            link(4.72, 0.22, 7.5),
            link(4.48, 0.22, 7.1),
            link(4.83, 0.13, 7.6),
            link(5.11, 0.38, 8.8),
        ],
        tail: (0.1, 0.166),
        stale: 0.0,
        measured: true,
    },
    Stream {
        name: "link 10.0",
        link: true,
        series: &[
            link(6.63, 1.00, 9.8),
            link(5.45, 0.43, 10.2),
            link(5.65, 0.84, 8.2),
            link(5.00, 0.36, 8.5),
            link(4.68, 0.16, 7.4),
            link(4.87, 0.23, 7.8),
            link(4.67, 0.16, 8.9),
            link(5.21, 0.61, 13.4),
            link(4.98, 0.14, 7.0),
            link(4.88, 0.20, 7.6),
        ],
        tail: (0.36, 0.263),
        stale: 0.0,
        measured: true,
    },
    check("check 9.2 rsa", &[KEY_9[0].by_key(), KEY_9[1].by_key(), KEY_9[2].by_key()]),
    check(
        "check 9.2 password",
        &[
            whole(6.75, 112.6, 11.4, 135.0).by_password(KEY_9[0]),
            whole(4.72, 90.5, 3.1, 128.0).by_password(KEY_9[1]),
            whole(5.11, 97.4, 5.6, 129.0).by_password(KEY_9[2]),
        ],
    ),
    check("check 10.0 rsa", &[KEY_10[0].by_key(), KEY_10[1].by_key(), KEY_10[2].by_key()]),
    check(
        "check 10.0 password",
        &[
            whole(5.65, 98.0, 7.7, 127.0).by_password(KEY_10[0]),
            whole(4.67, 84.9, 2.5, 118.0).by_password(KEY_10[1]),
            whole(4.88, 89.7, 2.4, 106.0).by_password(KEY_10[2]),
        ],
    ),
];

/// A stream under way.
#[derive(Debug)]
pub(super) struct Logins {
    stream: Stream,
    random: SplitMix64,
    longest: f64,
    fastest: f64,
    at: Series,
    error: f64,
    wander: f64,
    score: f64,
}

impl Logins {
    /// `longest` in medians.
    pub(super) fn new(stream: Stream, seed: u64, longest: f64) -> Self {
        let mut random = SplitMix64(seed);
        let fastest = stream.series.iter().map(|series| series.link).fold(f64::MAX, f64::min);
        let at = stream.series[random.below(stream.series.len())];
        let error = (DRIFT_ERROR * random.normal()).exp();
        Self { stream, random, longest, fastest, at, error, wander: 0.0, score: 0.0 }
    }

    /// The sensor is told the drift.
    pub(super) fn measured(&self) -> bool {
        self.stream.measured
    }

    /// The next login: CPU time in milliseconds, and the drift that is measured, 1 as usual.
    pub(super) fn next(&mut self) -> (f64, f64) {
        let random = &mut self.random;
        if random.one_in(STAY) {
            self.at = self.stream.series[random.below(self.stream.series.len())];
            self.error = (DRIFT_ERROR * random.normal()).exp();
        }
        let fresh = |keep: f64| (1.0 - keep * keep).sqrt();
        self.wander = WANDER.0 * self.wander + fresh(WANDER.0) * WANDER.1 * random.normal();
        self.score = NEIGHBOURS * self.score + fresh(NEIGHBOURS) * random.normal();
        let drift =
            self.at.link / self.fastest * self.error * (DRIFT_NOISE * random.normal()).exp();
        // Drawn only where there is any: the other streams stay as they are.
        let stale = self.stream.stale;
        let stale = if stale > 0.0 { stale * random.unit() } else { 0.0 };
        (self.time(self.score) * self.wander.exp() + stale, drift)
    }

    /// The series' quantile at a normal score: normal as the median distance says, from the 90th
    /// percentile a straight line to the 99th, then the tail.
    fn time(&self, score: f64) -> f64 {
        const QUARTILE: f64 = 0.6745;
        const P90: f64 = 1.2816;
        const P99: f64 = 2.3263;
        let Series { median, mad, p99, whole, .. } = self.at;
        let normal = |score: f64| median + mad / QUARTILE * score;
        if score <= P90 {
            return normal(score).max(median - 0.4 * whole).max(0.0);
        }
        if score <= P99 {
            let part = (score - P90) / (P99 - P90);
            return normal(P90) + part * (p99 - normal(P90));
        }
        let (shape, scale) = self.stream.tail;
        let beyond = (upper_tail(score) / 0.01).min(1.0);
        let excess = if shape > 0.0 { (beyond.powf(-shape) - 1.0) / shape } else { -beyond.ln() };
        (p99 + scale * whole * excess).min(self.longest * whole)
    }
}

/// P(Z > z) of the standard normal for z > 2, by Laplace's continued fraction.
fn upper_tail(z: f64) -> f64 {
    let density = (-0.5 * z * z).exp() / std::f64::consts::TAU.sqrt();
    let fraction = (1..=30_u32).rev().fold(z, |below, k| z + f64::from(k) / below);
    density / fraction
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_normal_tail_is_the_table_s() {
        for (z, wanted) in [(2.3263, 0.01), (3.0902, 0.001), (4.7534, 1e-6)] {
            let found = upper_tail(z);
            assert!((found / wanted - 1.0).abs() < 1e-3, "{z}: {found}");
        }
    }

    #[test]
    fn streams_have_the_spread_drift_and_dependence_that_are_stated() {
        let mut logins = Logins::new(STREAMS[0], 1, 8.0);
        let all: Vec<(f64, f64)> = (0..200_000).map(|_| logins.next()).collect();
        let part = |is: &dyn Fn(&(f64, f64)) -> bool| {
            f64::from(u32::try_from(all.iter().filter(|login| is(login)).count()).unwrap())
                / 200_000.0
        };
        // A drift of 1 is the fastest series; the slowest is 1.77 times as slow.
        assert!(part(&|login| login.1 > 1.5) > 0.1 && part(&|login| login.1 < 1.3) > 0.3);
        // Few are far above what their drift accounts for, and those come in bursts.
        let far = |login: &(f64, f64)| login.0 > 1.4 * 3.93 * login.1;
        let often = part(&|login| far(login));
        let pairs = all.windows(2).filter(|two| far(&two[0]) && far(&two[1])).count();
        let pairs = f64::from(u32::try_from(pairs).unwrap()) / 200_000.0;
        assert!(often < 0.05, "{often}");
        assert!(pairs > 2.0 * often * often, "{pairs} pairs, {often}");
        assert!(all.iter().all(|login| login.0 < 8.0 * 6.94 * 1.2));
    }

    #[test]
    fn a_check_is_a_part_of_the_login_with_all_of_its_spread() {
        let close = |found: f64, wanted: f64| (found - wanted).abs() < 0.05;
        let medians = |at: usize| STREAMS[at].series.iter().map(|series| series.median);
        for (at, wanted) in
            [(2, [13.7, 8.5, 9.6]), (3, [75.7, 67.5, 71.7]), (10, [33.3, 21.7, 23.3])]
        {
            let found: Vec<f64> = medians(at).collect();
            assert!(
                found.iter().zip(wanted).all(|(found, wanted)| close(*found, wanted)),
                "{found:?}"
            );
        }
        // Less than what follows the banner, by either version.
        assert!(medians(2).zip(medians(10)).all(|(check, most)| check < most));
        assert!(medians(4).zip(medians(11)).all(|(check, most)| check < most));
        let quiet = STREAMS[2].series[2];
        assert!(close(quiet.p99 - quiet.median, 53.0 - 35.3) && close(quiet.mad, 0.5));
    }

    #[test]
    fn the_same_seed_gives_the_same_logins() {
        let of = |seed| {
            let mut logins = Logins::new(STREAMS[1], seed, 8.0);
            (0..100).map(|_| logins.next().0.to_bits()).collect::<Vec<_>>()
        };
        assert_eq!(of(3), of(3));
        assert_ne!(of(3), of(4));
    }
}
