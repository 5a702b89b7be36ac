//! Why type information, or one member of it, cannot be had.

use thiserror::Error;

use super::TYPES_MAX;

/// Why type information cannot be used.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum BtfError {
    /// Not BTF, or for the other byte order.
    #[error("not BTF of this byte order: it starts with {magic:#06x}")]
    Magic {
        /// What was found.
        magic: u16,
    },
    /// Ends before it should.
    #[error("BTF ends early: {what} at byte {at}")]
    Truncated {
        /// What was to be read.
        what: &'static str,
        /// Where.
        at: usize,
    },
    /// A kind whose size is unknown, so that nothing after it can be read.
    #[error("BTF type {id} is of kind {kind}, which this version does not know")]
    UnknownKind {
        /// Type id.
        id: usize,
        /// Kind.
        kind: u32,
    },
    /// More types than any kernel has.
    #[error("BTF has more than {TYPES_MAX} types")]
    TooManyTypes,
}

/// Why a member has no offset.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum MemberError {
    /// No such struct.
    #[error("no struct {name}")]
    NoStruct {
        /// Its name.
        name: String,
    },
    /// The struct has no such member, not in its anonymous members either.
    #[error("no member {member} on the way of {path}")]
    NoMember {
        /// The member.
        member: String,
        /// The whole path.
        path: String,
    },
    /// A member of that name is part of a word.
    #[error("{path} is a bit field")]
    BitField {
        /// The path.
        path: String,
    },
    /// Structs of one name that disagree.
    #[error("{count} structs named {name} place {path} differently")]
    Ambiguous {
        /// The name.
        name: String,
        /// The path.
        path: String,
        /// How many.
        count: usize,
    },
    /// Not `struct.member[.member…]`.
    #[error("{path:?} is not a member path")]
    BadPath {
        /// The path.
        path: String,
    },
    /// A type id or a position beyond the end, or a chain of types without end.
    #[error("the type information contradicts itself at {path}")]
    Inconsistent {
        /// The path.
        path: String,
    },
}
