//! From what the station knows to what an observation carries.

use std::sync::Arc;

use super::container::Container;
use super::observe::{Body, ConnectionId, Observation, Process, ProcessId, Program};
use super::pipeline::Pipeline;
use super::table::Proc;
use crate::finding::ProcessRef;

impl Pipeline {
    /// Arguments and container, read where they may come to matter.
    pub(super) fn learn_details(&mut self, id: ProcessId) {
        let Some(proc) = self.table.get(id).filter(|proc| !proc.ended) else { return };
        if proc.cmdline.is_none() {
            let cmdline = self.outside.cmdline(id.tgid).into();
            if let Some(proc) = self.table.get_mut(id) {
                (proc.cmdline, proc.shown) = (Some(cmdline), None);
            }
        }
        let Some(proc) = self.table.get(id).filter(|proc| !proc.container_read) else { return };
        if !proc.ended {
            let text = self.outside.cgroup(id.tgid);
            if let Some(proc) = self.table.get_mut(id) {
                proc.container_read = true;
                proc.shown = None;
                if let Some(text) = text {
                    proc.container = Container::parse(&text).map(Arc::new);
                }
            }
        }
    }

    pub(super) fn emit(
        &mut self,
        id: ProcessId,
        ktime_ns: u64,
        body: Body,
        out: &mut impl FnMut(Observation),
    ) {
        let connection = self.table.get(id).and_then(|proc| proc.connection);
        self.emit_of(id, connection, ktime_ns, body, out);
    }

    /// The same for a process that has just left the connection.
    pub(super) fn emit_of(
        &mut self,
        id: ProcessId,
        connection: Option<ConnectionId>,
        ktime_ns: u64,
        body: Body,
        out: &mut impl FnMut(Observation),
    ) {
        let Some(process) = self.shown(id) else { return };
        let connection = connection.and_then(|connection| self.tracker.shown(connection));
        out(Observation { ktime_ns, time: self.clock.wall(ktime_ns), process, connection, body });
    }

    /// The process as observations share it; `None` while its program is not known.
    pub(super) fn shown(&mut self, id: ProcessId) -> Option<Arc<Process>> {
        let proc = self.table.get(id)?;
        if let Some(shown) = &proc.shown {
            return Some(Arc::clone(shown));
        }
        let shown = Arc::new(self.describe(proc, proc.program.clone()?));
        if let Some(proc) = self.table.get_mut(id) {
            proc.shown = Some(Arc::clone(&shown));
        }
        Some(shown)
    }

    fn describe(&self, proc: &Proc, program: Arc<Program>) -> Process {
        let container = proc.container.as_deref();
        let shown = ProcessRef {
            pid: proc.id.tgid,
            exe: program.module.path.clone(),
            cmdline: proc.cmdline.as_deref().map(<[String]>::to_vec).unwrap_or_default(),
            uid: proc.uid,
            start: Some(self.clock.start(proc.id.start_ticks)),
            ancestors: self.table.ancestors(proc),
            container: container.and_then(|container| container.id.clone()),
            pod: container.and_then(|container| container.pod.clone()),
        };
        let secure = proc.secure || proc.uid != proc.euid;
        let lineage = self.tracker.lineage(proc);
        let injected = proc
            .variables
            .iter()
            .any(|text| text.starts_with("LD_PRELOAD=") || text.starts_with("LD_AUDIT="));
        Process {
            id: proc.id,
            program,
            lineage,
            shown,
            euid: proc.euid,
            secure,
            injected,
            variables: Arc::clone(&proc.variables),
        }
    }
}
