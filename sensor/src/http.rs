//! Metrics, health, the API and the console page over HTTP: GET only, bounded in every direction.

pub mod client;
mod listener;
mod page;
mod query;
mod route;

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use serde_json::Value;
use tokio::net::TcpListener;

use crate::logins::{Page, Query};
use crate::metrics::Metrics;
use crate::probe::ProbeReport;
use listener::BoundedListener;

/// What the pages show of the running sensor. Every method returns at once or blocks only for the
/// disk: they are called on a thread that may.
pub trait Backend: Send + Sync + 'static {
    /// Whether every station is at work; otherwise what has stopped.
    fn alive(&self) -> Result<(), String>;

    /// Whether every required probe is attached; otherwise why not yet.
    fn ready(&self) -> Result<(), String>;

    /// Every probe, attached or not.
    fn probes(&self) -> Vec<ProbeReport>;

    /// The latest incidents, newest first, at most `most`.
    fn incidents(&self, most: usize) -> Result<Vec<Value>, String>;

    /// One incident.
    fn incident(&self, id: &str) -> Result<Option<Value>, String>;

    /// Rules and decisions by which findings are suppressed.
    fn suppressions(&self) -> Result<Vec<Value>, String>;

    /// The logins that are asked for, newest first.
    fn logins(&self, query: &Query) -> Page;
}

/// Why the listener could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody else has the port.
    #[error(
        "`http.listen` = \"{address}\" is in use, perhaps by another halfsecond; stop that \
         program, or set `http.listen` to another port or to \"off\""
    )]
    InUse {
        /// The key's value.
        address: SocketAddr,
    },
    /// No interface has the address.
    #[error(
        "`http.listen` = \"{address}\" is no address of this host; set it to one, such as \
         \"127.0.0.1:9477\""
    )]
    NoSuchAddress {
        /// The key's value.
        address: SocketAddr,
    },
    /// Ports below 1024 need a capability.
    #[error(
        "`http.listen` = \"{address}\" may not be opened; choose a port from 1024, or grant \
         CAP_NET_BIND_SERVICE"
    )]
    Denied {
        /// The key's value.
        address: SocketAddr,
    },
    /// Anything else.
    #[error("cannot listen on `http.listen` = \"{address}\"")]
    Other {
        /// The key's value.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// An open listener that does not answer yet.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
}

// === impl Server ===

impl Server {
    /// Opens the listener.
    pub async fn bind(address: SocketAddr) -> Result<Self, BindError> {
        let bind = async {
            let listener = TcpListener::bind(address).await?;
            let address = listener.local_addr()?;
            Ok(Self { listener, address })
        };
        bind.await.map_err(|source: io::Error| match source.kind() {
            io::ErrorKind::AddrInUse => BindError::InUse { address },
            io::ErrorKind::AddrNotAvailable => BindError::NoSuchAddress { address },
            io::ErrorKind::PermissionDenied => BindError::Denied { address },
            _ => BindError::Other { address, source },
        })
    }

    /// Where it listens; tells the port where the configuration says 0.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Answers until `shutdown` is done and the requests under way are answered.
    pub async fn run(
        self,
        backend: Arc<dyn Backend>,
        metrics: Metrics,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> io::Result<()> {
        let local_only = self.address.ip().is_loopback();
        let router = route::router(backend, metrics, local_only);
        axum::serve(BoundedListener::new(self.listener), router)
            .with_graceful_shutdown(shutdown)
            .await
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("address", &self.address).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
