//! Orders on their way, from both sides.

use std::cell::RefCell;
use std::path::Path;
use std::time::Duration;

use super::{Act, Answer, Order, VERSION, WriterLock};
use crate::spool::{Came, Kind, Left, Slip, Spool, SpoolError};
use crate::trouble::chain;

static KIND: Kind = Kind {
    name: "order",
    folder: "orders",
    extension: "order",
    // An import is cut into several.
    length_max: 4 * 1024 * 1024,
};
/// Orders carried out in one go, so that observations need not wait.
const TURN: usize = 4;

/// Why an order could not be left, or its answer not be had.
#[derive(Debug, thiserror::Error)]
pub enum OrderError {
    /// The files.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// A sensor holds the store and takes no orders.
    #[error(
        "a sensor runs and took no order within {0:?}: it was withdrawn, nothing has changed; \
         is the sensor of an earlier version, or is its disk full?"
    )]
    Withdrawn(Duration),
    /// The sensor has followed or refused it, and its answer could not be written.
    #[error("the sensor could not say what came of the order: its log does")]
    Unanswered,
}

/// An order that was left.
#[derive(Debug)]
pub struct Placed(Left);

/// What came of waiting for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sent {
    /// The sensor's answer.
    Answered(Answer),
    /// The sensor has it and has not written it yet: it will, or the next sensor.
    Pending,
}

/// The sensor's side; there is none without the lock.
#[derive(Debug)]
pub(crate) struct Orders {
    spool: Spool,
    /// Why the latest turn took nothing. The analysis has all of this by shared reference.
    trouble: RefCell<Option<String>>,
    _lock: WriterLock,
}

/// One order that was taken.
#[derive(Debug)]
pub(crate) struct Taken {
    slip: Slip,
    /// What is asked for, or why that cannot be told.
    pub(crate) act: Result<Act, String>,
}

// === impl Placed ===

impl Placed {
    /// Leaves an order in a state directory.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn leave(state_dir: &Path, act: Act) -> Result<Self, OrderError> {
        Ok(Self(Left::leave(state_dir, &KIND, &Order::new(act))?))
    }

    /// Waits for the answer; withdraws the order if no sensor takes it within `patience`. One that has
    /// taken it gets as much again.
    ///
    /// # Errors
    /// Where it was withdrawn, or the files cannot be had.
    pub fn wait(self, patience: Duration) -> Result<Sent, OrderError> {
        let Self(left) = self;
        match left.wait(patience)? {
            Came::Answered(answer) => return Ok(Sent::Answered(answer)),
            Came::Waits(_) if left.withdraw() => return Err(OrderError::Withdrawn(patience)),
            Came::Waits(_) | Came::Taken(_) | Came::Unanswered => {}
        }
        match left.wait(patience)? {
            Came::Answered(answer) => Ok(Sent::Answered(answer)),
            Came::Waits(_) | Came::Taken(_) => Ok(Sent::Pending),
            Came::Unanswered => Err(OrderError::Unanswered),
        }
    }
}

// === impl Orders ===

impl Orders {
    /// For the sensor that holds the lock.
    pub(crate) fn new(state_dir: &Path, lock: WriterLock) -> Self {
        let spool = Spool::new(state_dir, &KIND);
        Self { spool, trouble: RefCell::default(), _lock: lock }
    }

    /// Takes the oldest orders, those that were taken before a crash as well. None is no error, and what
    /// cannot be read is told in its place.
    pub(crate) fn take(&self) -> Vec<Taken> {
        let (taken, trouble) = match self.spool.take(TURN, parse) {
            Ok(taken) => (taken, None),
            Err(error) => (Vec::new(), Some(chain(&error))),
        };
        self.trouble.replace(trouble);
        taken.into_iter().map(|(slip, act)| Taken { slip, act }).collect()
    }

    /// Whether the latest turn could take orders, else why not.
    pub(crate) fn outcome(&self) -> Result<(), String> {
        self.trouble.borrow().clone().map_or(Ok(()), Err)
    }
}

// === impl Taken ===

impl Taken {
    /// Says what became of it; only then is it over.
    pub(crate) fn answer(&self, answer: &Answer) -> Result<(), OrderError> {
        Ok(self.slip.answer(answer)?)
    }
}

/// An order as commands write it.
pub(in crate::baseline) fn parse(bytes: &[u8]) -> Result<Act, String> {
    let order: Order =
        serde_json::from_slice(bytes).map_err(|error| format!("the order is none: {error}"))?;
    if order.version != VERSION {
        let found = order.version;
        return Err(format!("orders of version {found} are not understood: restart the sensor"));
    }
    Ok(order.act)
}
