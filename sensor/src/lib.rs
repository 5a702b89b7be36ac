//! halfsecond
