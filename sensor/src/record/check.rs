//! Slot checks on their way into a recording, and out of one.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::recorder::Recorder;
use super::step::{Answer, Question, Step};
use crate::detect::{Anyway, CheckFailed, CheckReport, SlotCheck};
use crate::host::{CheckReason, ProcessId};

/// Answers kept for one step; no step asks so often.
const ANSWERS_MAX: usize = 65_536;

/// A checker whose answers are recorded.
pub(super) struct Recording {
    pub(super) checker: Box<dyn SlotCheck + Send>,
    pub(super) recorder: Recorder,
}

/// Answers as they were recorded; its copies share them.
#[derive(Clone, Debug, Default)]
pub(super) struct Recorded(Arc<Mutex<Answers>>);

#[derive(Debug, Default)]
struct Answers {
    waiting: VecDeque<Answer>,
    unanswered: u64,
}

// === impl Recording ===

impl Recording {
    fn note(
        &self,
        process: ProcessId,
        question: Question,
        outcome: &Result<CheckReport, CheckFailed>,
    ) {
        self.recorder.tell(|| {
            Step::Answer(Box::new(Answer { process, question, outcome: outcome.clone() }))
        });
    }
}

impl SlotCheck for Recording {
    fn check(
        &mut self,
        process: ProcessId,
        reason: CheckReason,
    ) -> Result<CheckReport, CheckFailed> {
        let outcome = self.checker.check(process, reason);
        self.note(process, Question::Check(reason), &outcome);
        outcome
    }

    fn check_anyway(
        &mut self,
        process: ProcessId,
        asked: Anyway,
    ) -> Result<CheckReport, CheckFailed> {
        let outcome = self.checker.check_anyway(process, asked);
        self.note(process, Question::Anyway(asked), &outcome);
        outcome
    }
}

// === impl Recorded ===

impl Recorded {
    /// An answer to what the next step will ask; false where there are too many.
    pub(super) fn expect(&self, answer: Answer) -> bool {
        let mut answers = self.answers();
        let room = answers.waiting.len() < ANSWERS_MAX;
        if room {
            answers.waiting.push_back(answer);
        }
        room
    }

    /// The step is over: how many of its answers nobody asked for.
    pub(super) fn clear(&self) -> u64 {
        let mut answers = self.answers();
        let unasked = answers.waiting.len();
        answers.waiting.clear();
        u64::try_from(unasked).unwrap_or(u64::MAX)
    }

    /// Questions so far that had no answer.
    pub(super) fn unanswered(&self) -> u64 {
        self.answers().unanswered
    }

    fn answer(&self, process: ProcessId, asked: Question) -> Result<CheckReport, CheckFailed> {
        let mut answers = self.answers();
        let fits = |answer: &Answer| answer.process == process && answer.question == asked;
        let found = answers.waiting.iter().position(fits);
        if let Some(answer) = found.and_then(|at| answers.waiting.remove(at)) {
            return answer.outcome;
        }
        answers.unanswered += 1;
        Err(CheckFailed::Gone)
    }

    fn answers(&self) -> MutexGuard<'_, Answers> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SlotCheck for Recorded {
    fn check(
        &mut self,
        process: ProcessId,
        reason: CheckReason,
    ) -> Result<CheckReport, CheckFailed> {
        self.answer(process, Question::Check(reason))
    }

    fn check_anyway(
        &mut self,
        process: ProcessId,
        asked: Anyway,
    ) -> Result<CheckReport, CheckFailed> {
        self.answer(process, Question::Anyway(asked))
    }
}
