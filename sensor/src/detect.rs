//! Detectors: each judges observations against the baseline and drafts findings.

mod check;

pub use check::{Category, CheckFailed, CheckReport, Mismatch, NoCheck, Place, SlotCheck};
