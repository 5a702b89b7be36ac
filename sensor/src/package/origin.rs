//! Where a file came from: its package, and whether it still is what the package brought.

use serde::{Deserialize, Serialize};

use super::digest::Digest;
use super::owned::Owned;

/// What is known of a file's origin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// Whose it is.
    pub owner: Owner,
    /// Whether it is what the package brought.
    pub content: Content,
}

/// Whose a file is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Owner {
    /// A package's.
    Package(Box<Owned>),
    /// No package's, by the records of the root it lies in.
    Nobody,
    /// Not to be told, and why.
    Unknown(String),
}

/// How a file compares with what its package records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Content {
    /// It is the package's file.
    Matches,
    /// It is another: what the package records, what it is.
    Differs {
        /// By the package.
        #[serde(with = "crate::serial::one")]
        recorded: Digest,
        /// Computed.
        #[serde(with = "crate::serial::one")]
        found: Digest,
    },
    /// The package records nothing to compare with, or there is no package.
    NotRecorded,
    /// It was not read, and why.
    Unread(String),
}

// === impl Origin ===

impl Origin {
    /// Nothing can be said, for this reason.
    #[must_use]
    pub fn unknown(reason: String) -> Self {
        Self { owner: Owner::Unknown(reason), content: Content::NotRecorded }
    }

    /// The package, where there is one.
    #[must_use]
    pub fn package(&self) -> Option<&Owned> {
        match &self.owner {
            Owner::Package(owned) => Some(owned),
            Owner::Nobody | Owner::Unknown(_) => None,
        }
    }
}
