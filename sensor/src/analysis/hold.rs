//! Observations whose judgement depends on how the connection goes on are held until it is known.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::host::{Body, Connection, ConnectionId, Observation};

/// Held of one connection, and of all; beyond, they pass and are judged as they are.
const ONE_MAX: usize = 64;
const ALL_MAX: usize = 4096;

/// Libraries that sshd opened while a client was authenticating.
#[derive(Debug, Default)]
pub(super) struct Hold {
    held: BTreeMap<ConnectionId, Vec<Observation>>,
    count: usize,
}

// === impl Hold ===

impl Hold {
    /// What can be judged now, in order.
    pub(super) fn pass(&mut self, seen: Observation) -> Vec<Observation> {
        let Some(connection) = seen.connection.clone() else { return vec![seen] };
        match &seen.body {
            body if waits(body) && !connection.authenticated => {
                let held = self.held.entry(connection.id).or_default();
                if held.len() >= ONE_MAX || self.count >= ALL_MAX {
                    return vec![seen];
                }
                self.count += 1;
                held.push(seen);
                Vec::new()
            }
            Body::Verdict(verdict) if verdict.accepted => self.release(&connection, seen),
            Body::Closed => self.release(&connection, seen),
            _ => vec![seen],
        }
    }

    /// They keep their own time and state, but know the methods that were tried since.
    fn release(&mut self, connection: &Connection, then: Observation) -> Vec<Observation> {
        let mut released = self.held.remove(&connection.id).unwrap_or_default();
        self.count -= released.len();
        for seen in &mut released {
            if let Some(then) = &mut seen.connection {
                let mut facts = Connection::clone(then);
                facts.attempted.clone_from(&connection.attempted);
                *then = Arc::new(facts);
            }
        }
        released.push(then);
        released
    }
}

/// What a client's method may account for. Code in no file asks for nothing by any method.
fn waits(body: &Body) -> bool {
    match body {
        Body::Library(library) => !library.during_link,
        Body::Opened(opening) => {
            opening.asked.as_ref().is_none_or(|asked| asked.place.module.is_mapped_file())
        }
        _ => false,
    }
}
