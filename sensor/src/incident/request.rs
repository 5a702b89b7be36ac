//! What a person asks of the incidents, and how it reaches the sensor that owns the store: by the
//! [spool](crate::spool) `requests/` of the state directory. The sensor follows a request, writes the
//! incidents and answers; a request that is followed a second time changes nothing more.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{Decision, State};
use crate::spool::{Kind, Left, Slip, Spool, SpoolError};

static KIND: Kind = Kind {
    name: "request",
    folder: "requests",
    extension: "json",
    // Names and reasons are bounded.
    length_max: 16 * 1024,
};
/// Requests followed in one go; the others wait for the next.
const TURN: usize = 256;

/// What a command asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The incident's id.
    pub id: String,
    /// What is decided about it.
    pub decision: Decision,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    /// It is done and written; the incident stands like this.
    Done(State),
    /// It was refused, and why.
    Refused(String),
}

/// A request that was taken.
#[derive(Debug)]
pub(crate) struct Pending {
    slip: Slip,
    /// It; or why it is none.
    pub(crate) request: Result<Request, String>,
}

/// Leaves `request` for the sensor with this state directory.
pub(crate) fn submit(state_dir: &Path, request: &Request) -> Result<Left, SpoolError> {
    Left::leave(state_dir, &KIND, request)
}

/// The requests that wait in `state_dir`, oldest first. An error where somebody else could have written
/// them.
pub(crate) fn take(state_dir: &Path) -> Result<Vec<Pending>, SpoolError> {
    let taken = Spool::new(state_dir, &KIND).take(TURN, parse)?;
    Ok(taken.into_iter().map(|(slip, request)| Pending { slip, request }).collect())
}

fn parse(bytes: &[u8]) -> Result<Request, String> {
    serde_json::from_slice(bytes).map_err(|error| format!("it is no request: {error}"))
}

/// Any bytes as a request, for the fuzzer: 1 if it is one that holds together.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn read_request(data: &[u8]) -> usize {
    let request = parse(data).ok().filter(|request| request.decision.check().is_ok());
    usize::from(request.is_some())
}

/// Any bytes as the names in the folder, for the fuzzer; how many are of requests.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn read_names(data: &[u8]) -> usize {
    crate::spool::read_names(&KIND, data)
}

// === impl Pending ===

impl Pending {
    /// Leaves the answer and ends the request: what it asks for is written.
    pub(crate) fn answer(self, answer: &Answer) -> Result<(), SpoolError> {
        self.slip.answer(answer)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::incident::Verb;
    use crate::spool::Came;

    fn request(id: &str) -> Request {
        let decision = Decision {
            verb: Verb::Acknowledge,
            time: "2026-11-22T15:00:00Z".parse().unwrap(),
            who: "alice".to_owned(),
            why: String::new(),
            uid: 0,
            until: None,
        };
        Request { id: id.to_owned(), decision }
    }

    #[test]
    fn a_request_is_taken_until_it_is_answered_and_its_answer_is_had_once() {
        let dir = tempfile::tempdir().unwrap();
        assert!(take(dir.path()).unwrap().is_empty());
        let left = submit(dir.path(), &request("a1")).unwrap();
        let came = || left.wait::<Answer>(Duration::ZERO).unwrap();
        assert!(matches!(came(), Came::Waits(path) if path.exists()), "nobody has answered");
        // Found again until it is answered: the sensor may have crashed.
        assert_eq!(take(dir.path()).unwrap().len(), 1);
        assert!(matches!(came(), Came::Taken(path) if path.exists()));
        let mut found = take(dir.path()).unwrap();
        let pending = found.pop().unwrap();
        assert_eq!(pending.request, Ok(request("a1")));
        pending.answer(&Answer::Done(State::Acknowledged)).unwrap();
        assert!(take(dir.path()).unwrap().is_empty());
        assert_eq!(came(), Came::Answered(Answer::Done(State::Acknowledged)));
        assert_eq!(came(), Came::Unanswered);
    }

    #[test]
    fn what_a_command_of_before_has_left_is_taken_and_answered_where_it_looks() {
        let dir = tempfile::tempdir().unwrap();
        drop(submit(dir.path(), &request("first")).unwrap());
        let folder = dir.path().join("requests");
        let first = std::fs::read_dir(&folder).unwrap().next().unwrap().unwrap().path();
        // Its name: the decision's time and its process.
        let old = folder.join("1763823600000000000-4711.json");
        std::fs::rename(first, &old).unwrap();
        let pending = take(dir.path()).unwrap().pop().unwrap();
        pending.answer(&Answer::Refused("no".to_owned())).unwrap();
        let answer = std::fs::read_to_string(old.with_extension("answer")).unwrap();
        assert_eq!(answer, "{\"refused\":\"no\"}");
        assert!(!old.exists());
    }

    #[test]
    fn what_is_no_request_is_told_with_where_it_lies() {
        let dir = tempfile::tempdir().unwrap();
        let left = Left::leave(dir.path(), &KIND, &serde_json::json!({"id": "a1", "more": 1}));
        let left = left.unwrap();
        let pending = take(dir.path()).unwrap().pop().unwrap();
        let reason = pending.request.clone().unwrap_err();
        assert!(reason.starts_with("it is no request: "), "{reason}");
        let (_, place) = reason.rsplit_once("set aside as ").unwrap();
        pending.answer(&Answer::Refused(reason.clone())).unwrap();
        assert!(dir.path().join(place.trim_end_matches(')')).is_file(), "{reason}");
        let came = left.wait::<Answer>(Duration::ZERO).unwrap();
        assert_eq!(came, Came::Answered(Answer::Refused(reason)));
        assert_eq!(read_request(b"{}") + read_request(b""), 0);
        assert_eq!(read_request(&serde_json::to_vec(&request("a")).unwrap()), 1);
    }
}
