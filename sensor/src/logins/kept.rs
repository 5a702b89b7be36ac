//! The latest logins, in memory, for whoever asks.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;

use super::{ANSWER_MAX, Login, LoginId};

/// A ring of the latest logins, and those that are open.
#[derive(Debug)]
pub struct Kept {
    keep: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// In the order in which they ended.
    ended: VecDeque<Arc<Login>>,
    open: BTreeMap<LoginId, Arc<Login>>,
}

/// Which logins are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// Those that began then or later.
    pub since: Option<Timestamp>,
    /// Those of this user, by the exact name.
    pub user: Option<String>,
    /// At most so many, the newest.
    pub limit: usize,
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Page {
    /// The newest first.
    pub logins: Vec<Arc<Login>>,
    /// There are older ones that were asked for, too.
    pub more: bool,
}

// === impl Kept ===

impl Kept {
    /// Keeps at most `keep` that have ended; `past` are from earlier, the newest last.
    #[must_use]
    pub fn new(keep: usize, past: Vec<Login>) -> Self {
        let skip = past.len().saturating_sub(keep);
        let ended = past.into_iter().skip(skip).map(Arc::new).collect();
        Self { keep, state: Mutex::new(State { ended, open: BTreeMap::new() }) }
    }

    /// A session has begun.
    pub fn begun(&self, id: LoginId, login: Login) {
        if self.keep > 0 {
            self.lock().open.insert(id, Arc::new(login));
        }
    }

    /// A login is over.
    pub fn ended(&self, id: LoginId, login: Login) {
        let mut state = self.lock();
        state.open.remove(&id);
        if state.ended.len() >= self.keep {
            state.ended.pop_front();
        }
        if self.keep > 0 {
            state.ended.push_back(Arc::new(login));
        }
    }

    /// What is asked for.
    #[must_use]
    pub fn find(&self, query: &Query) -> Page {
        let mut logins: Vec<_> = {
            let state = self.lock();
            let all = state.open.values().chain(&state.ended);
            all.filter(|login| query.matches(login)).cloned().collect()
        };
        logins.sort_by(|a, b| b.start.cmp(&a.start).then_with(|| b.pid.cmp(&a.pid)));
        let limit = query.limit.min(ANSWER_MAX);
        let more = logins.len() > limit;
        logins.truncate(limit);
        Page { logins, more }
    }

    /// A thread that panicked with the lock held leaves a whole state: every change is one step.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Page ===

impl Page {
    /// As the API answers: an object with `logins` and `more`, of about `most` bytes at most. What
    /// there is no room for is left out, the oldest first, and `more` says so.
    ///
    /// # Errors
    /// A login cannot be written as JSON.
    pub fn json(&self, most: usize) -> serde_json::Result<Vec<u8>> {
        let mut bytes = b"{\"logins\":[".to_vec();
        let mut more = self.more;
        for (number, login) in self.logins.iter().enumerate() {
            let before = bytes.len();
            if number > 0 {
                bytes.push(b',');
            }
            serde_json::to_writer(&mut bytes, &**login)?;
            if bytes.len() > most {
                bytes.truncate(before);
                more = true;
                break;
            }
        }
        let more: &[u8] = if more { b"],\"more\":true}" } else { b"],\"more\":false}" };
        bytes.extend_from_slice(more);
        Ok(bytes)
    }
}

// === impl Query ===

impl Query {
    /// Everything, as far as one answer goes.
    #[must_use]
    pub fn all() -> Self {
        Self { since: None, user: None, limit: ANSWER_MAX }
    }

    /// Whether it asks for this one.
    #[must_use]
    pub fn matches(&self, login: &Login) -> bool {
        self.since.is_none_or(|since| login.start >= since)
            && self.user.as_ref().is_none_or(|user| login.user.as_deref() == Some(user.as_str()))
    }
}
