//! Recordings: all that the analysis was told, in a file, and the same analysis over it again.
//!
//! The analysis is one synchronous object on the event's clock. What it is told is its whole world:
//! its settings, what the store knew, observations, losses, the time, answers of slot checks, and what
//! people say: changed baselines, rules of what is to be expected, decisions about incidents. A
//! recording is that, in order, and [`replay`] tells an analysis the same. What follows from it:
//!
//! * *Live against replay*: a recording made with arguments (`--with-arguments`), replayed by the
//!   build that made it with the settings in it, tells the same incidents to the byte, and at the
//!   same steps.
//! * *Redacted*: without arguments, the file holds what [`Redactor`] left. Replay tells what a sensor
//!   would have told that had seen just that; it differs from what was told live in the redacted
//!   texts only.
//! * *Replay twice* gives the same bytes, always.
//! * Where a replay with other settings, or another build, asks for a slot check that nobody made
//!   then, its answer is that the process is gone, and it is counted ([`Counts::unanswered`]).
//! * *Decisions* were followed at their step and are again, by the clock that stands there; whether a
//!   suppression is over is decided by the time of each finding. One that was refused changed
//!   nothing, and is not in it; one that was tried again, as the store had failed, is in it as often.
//!   A replay decides about the incident as it is told there; where another build or configuration
//!   does not tell it under its id, the decision is not followed, and counted
//!   ([`Counts::unfollowed`]).
//! * *Rules* of another configuration take the place of the recorded ones ([`replay_with_rules`]); the
//!   suppressions of incidents stay, as people have made them.
//! * Where a redacted recording begins with the suppression of an incident that is about the value of
//!   a variable, it matches nothing: the value is not there. Made in the recording itself, it does.
//!
//! # The format
//!
//! Version 1. All numbers are little-endian.
//!
//! | bytes | what |
//! | --- | --- |
//! | 8 | `halfsecR` |
//! | 4 | version of the format: 1 |
//! | … | frames |
//!
//! A frame:
//!
//! | bytes | what |
//! | --- | --- |
//! | 4 | its number, from 0 on |
//! | 4 | bytes of its text, at most 4 MiB |
//! | 4 | bytes of its packed text, at most 5 MiB |
//! | 4 | CRC-32 (IEEE) of the twelve bytes before, and of the packed text |
//! | … | packed text: a raw DEFLATE stream (RFC 1951) |
//!
//! The text is lines of JSON, each whole and ended by a line feed. The only line of frame 0 is the
//! [`Header`]; every other line is a [`Step`], named by its only key. JSON, as it names its
//! fields: a later version reads an older recording if what is new in it has a default; and a person
//! can read a recording, too. The last step is `end`, with the number of steps before it. A file without
//! it was cut, by a full disk or a sensor that was killed: what is there counts, and the cut is told.
//!
//! Anything else (a checksum or number that is wrong, a line that is no step, something behind the
//! end) is damage: reading ends with an error that names the offset of the frame, and nothing
//! of that frame is used. A change that no checksum shows is not possible by accident; whoever
//! forges a recording can do so.

mod check;
mod diff;
mod format;
mod live;
mod reader;
mod recorder;
mod redact;
mod replay;
mod step;

pub use diff::{Change, diff};
pub use live::Recorded;
pub use reader::{Ended, ReadError, Reader};
pub use recorder::{Progress, Recorder, Recording, Target};
pub use redact::Redactor;
pub use replay::{Counts, Replayed, replay, replay_with_rules};
pub use step::{Answer, Decided, Header, Question, Settings, Step};

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
