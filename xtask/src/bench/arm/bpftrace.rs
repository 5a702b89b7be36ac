//! bpftrace, printing one line for each of the three things.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Result;

use super::Arm;
use crate::background::Background;
use crate::bench::process::contains;

/// `BEGIN` runs when all the others are attached.
const SCRIPT: &str = r#"
BEGIN { printf("attached\n"); }
tracepoint:sched:sched_process_exec { printf("exec %d %s\n", pid, str(args->filename)); }
tracepoint:syscalls:sys_enter_mmap /args->prot & 4/ { printf("map %d %d\n", pid, args->fd); }
tracepoint:syscalls:sys_enter_mprotect /args->prot == 1/ { printf("seal %d %lx\n", pid, args->start); }
"#;

pub(in crate::bench) struct Bpftrace {
    output: PathBuf,
    running: Option<Background>,
}

impl Bpftrace {
    pub(in crate::bench) fn new(folder: &Path) -> Self {
        Self { output: folder.join("bpftrace.out"), running: None }
    }
}

impl Arm for Bpftrace {
    fn name(&self) -> &'static str {
        "bpftrace"
    }

    fn start(&mut self) -> Result<()> {
        let output = std::fs::File::create(&self.output)?;
        let mut command = Command::new("bpftrace");
        // Line by line, as somebody who watches would have it.
        command.args(["-B", "line", "-e", SCRIPT]);
        command.stdin(Stdio::null()).stdout(output).stderr(Stdio::null());
        let mut running = Background::start(&mut command)?;
        running.wait_until(|| contains(&self.output, "attached"))?;
        self.running = Some(running);
        Ok(())
    }

    fn stop(&mut self) -> Result<()> {
        self.running.take().map_or(Ok(()), Background::end)
    }

    fn pid(&self) -> Option<u32> {
        self.running.as_ref().map(Background::pid)
    }
}
