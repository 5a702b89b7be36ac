//! `cargo xtask bench`.
use anyhow::{Result, bail};

#[derive(clap::Args)]
pub(crate) struct Args {}

pub(crate) fn bench(_args: &Args) -> Result<()> {
    bail!("not yet")
}
