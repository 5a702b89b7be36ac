//! halfsecond

pub mod symbol;
pub mod verify;
