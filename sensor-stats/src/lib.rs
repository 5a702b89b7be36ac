//! Times against their baseline, in integers: quantile sketches of bounded relative error, and a
//! sequential change detector whose false alarms are bounded as an average run length.
//!
//! Every time is CPU time in microseconds. Wall time holds the peer, the network and the disk, and
//! has no place here. Nothing in this crate reads a clock or a random number, and floating point is
//! used only to choose a rank: the same samples give the same answers on every machine.
//!
//! A crate of its own, so that `cargo xtask arl` replays millions of logins through the very code
//! that judges them, without building the agent and its kernel object.

mod detector;
mod rank;
mod shift;
mod sketch;
mod stored;

pub use detector::{Exceeded, RUN_LENGTHS, Wealth};
pub use shift::{
    Crept, Levels, REFERENCE_MAX, Rule, Shift, Tolerance, WINDOW, Weighed, Yardstick,
    gross_limit_us,
};
pub use sketch::{ERROR_PERCENT, Sketch};
pub use stored::{or_default, sound_entries};
