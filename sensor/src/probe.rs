//! What became of each probe, as `doctor`, the API and the metrics tell it.

use serde::{Deserialize, Serialize};

/// One probe of the sensor on this host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeReport {
    /// Name, e.g. `exec`.
    pub probe: String,
    /// Rung of its ladder that is in use, e.g. `tracepoint`; `None` where it is not attached.
    pub mechanism: Option<String>,
    /// What that rung costs, e.g. `0.8 µs per call`.
    pub price: Option<String>,
    /// Why it is not attached, or why a cheaper rung is not in use.
    pub reason: Option<String>,
    /// What nobody sees without it.
    pub unseen: String,
    /// The sensor does not start without it.
    pub required: bool,
}
