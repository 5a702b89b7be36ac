//! The sensor that runs, if one does.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::http::client::{self, AskError};
use crate::probe::ProbeReport;

/// Whether a sensor answers.
#[derive(Debug)]
pub enum Live {
    /// One does.
    Answered(LiveState),
    /// None does; the text says where it was looked for.
    NotRunning(String),
    /// Something else has the port.
    Foreign(String),
    /// It was not asked, for this reason.
    NotAsked(String),
}

/// What the running sensor says of itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LiveState {
    /// Every required probe is attached.
    pub ready: bool,
    /// Why it is not ready.
    pub reason: Option<String>,
    /// Its probes.
    pub probes: Vec<ProbeReport>,
}

impl Live {
    pub(super) fn ask(listen: Option<SocketAddr>) -> Self {
        let Some(listen) = listen else {
            return Self::NotAsked("`http.listen` is \"off\"".to_owned());
        };
        match client::get(listen, "/api/v1/probes") {
            Ok(answer) => {
                answer.json().and_then(|json| serde_json::from_value(json).ok()).map_or_else(
                    || Self::Foreign(AskError::Foreign { address: listen }.to_string()),
                    Self::Answered,
                )
            }
            Err(error @ AskError::NotRunning { .. }) => Self::NotRunning(error.to_string()),
            Err(error) => Self::Foreign(error.to_string()),
        }
    }

    /// One word.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Answered(state) if state.ready => "ready",
            Self::Answered(_) => "not_ready",
            Self::NotRunning(_) => "not_running",
            Self::Foreign(_) => "foreign",
            Self::NotAsked(_) => "not_asked",
        }
    }

    /// What is behind the word.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Answered(state) => state.reason.as_deref(),
            Self::NotRunning(text) | Self::Foreign(text) | Self::NotAsked(text) => Some(text),
        }
    }
}
