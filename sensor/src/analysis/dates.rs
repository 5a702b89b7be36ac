//! Findings about a shift in time, which say what changed since that time was last as usual: they wait
//! until the provenance station has looked. Not for long: it reads files, and a finding must not wait
//! for those.

use std::collections::{BTreeSet, VecDeque};

use crate::baseline::{Baseline, CONSTRUCTOR, LINK, check_stream};
use crate::detect::Draft;
use crate::finding::{Evidence, Severity};
use crate::host::{Body, Dated, Observation};

/// Held back at once; beyond, they are told without.
const WAITING_MAX: usize = 64;
/// Files of a program that are asked about.
const MODULES_MAX: usize = 192;

/// A finding and its question.
#[derive(Debug)]
struct Waiting {
    due_ktime_ns: u64,
    question: u64,
    seen: Observation,
    draft: Draft,
}

/// The findings that wait, in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Dates {
    asks: bool,
    last: u64,
    waiting: VecDeque<Waiting>,
    questions: Vec<Observation>,
}

// === impl Dates ===

impl Dates {
    /// Whether somebody answers from now on.
    pub(super) fn ask(&mut self, asks: bool) {
        self.asks = asks;
    }

    /// Takes a finding that a time has shifted, and asks; gives it back where it need not wait.
    /// `baseline` is that of the finding's program.
    pub(super) fn hold(
        &mut self,
        seen: &Observation,
        draft: Draft,
        baseline: Option<&Baseline>,
    ) -> Option<Draft> {
        let shift = draft.severity > Severity::Info && draft.evidence.iter().any(is_timing);
        if !self.asks || !shift || self.waiting.len() >= WAITING_MAX {
            return Some(draft);
        }
        self.last += 1;
        let usual = baseline.zip(stream(&seen.body));
        let usual = usual.and_then(|(baseline, stream)| baseline.usual_at.get(&stream).copied());
        let dated = Dated {
            question: self.last,
            modules: modules(seen, &draft, baseline),
            usual,
            answer: None,
        };
        self.questions.push(Observation { body: Body::Dated(Box::new(dated)), ..seen.clone() });
        self.waiting.push_back(Waiting {
            due_ktime_ns: seen.ktime_ns.saturating_add(Dated::PATIENCE_NS),
            question: self.last,
            seen: seen.clone(),
            draft,
        });
        None
    }

    /// What is to be asked since the last call.
    pub(super) fn questions(&mut self) -> Vec<Observation> {
        std::mem::take(&mut self.questions)
    }

    /// The finding that waited for this answer, with it, or without where the question came back
    /// unanswered; none where it came too late.
    pub(super) fn answered(&mut self, dated: Dated) -> Option<(Observation, Draft)> {
        let at = self.waiting.iter().position(|waiting| waiting.question == dated.question)?;
        let Waiting { seen, mut draft, .. } = self.waiting.remove(at)?;
        let timing = draft.evidence.iter().position(is_timing).map_or(0, |at| at + 1);
        if let Some(answer) = dated.answer {
            draft.evidence.insert(timing, answer);
        }
        Some((seen, draft))
    }

    /// The next that has waited too long.
    pub(super) fn pop(&mut self, now_ktime_ns: u64) -> Option<(Observation, Draft)> {
        self.waiting.front().filter(|waiting| waiting.due_ktime_ns <= now_ktime_ns)?;
        let Waiting { seen, draft, .. } = self.waiting.pop_front()?;
        Some((seen, draft))
    }

    pub(super) fn next_due(&self) -> Option<u64> {
        self.waiting.front().map(|waiting| waiting.due_ktime_ns)
    }
}

fn is_timing(evidence: &Evidence) -> bool {
    matches!(evidence, Evidence::Timing { .. })
}

/// The stream of times that the observation belongs to.
fn stream(body: &Body) -> Option<String> {
    match body {
        Body::Linked(_) => Some(LINK.to_owned()),
        Body::Constructed(_) => Some(CONSTRUCTOR.to_owned()),
        Body::Verdict(verdict) => Some(check_stream(verdict.method)),
        _ => None,
    }
}

/// The files of the program, the blamed one first.
fn modules(seen: &Observation, draft: &Draft, baseline: Option<&Baseline>) -> Vec<String> {
    let blamed = draft.evidence.iter().filter_map(|evidence| match evidence {
        Evidence::Timing { module, .. } => module.clone(),
        _ => None,
    });
    let linked = match &seen.body {
        Body::Linked(timing) => timing.shares.as_slice(),
        _ => &[],
    };
    let linked = linked.iter().filter_map(|share| Some(share.module.as_ref()?.path.clone()));
    let known = baseline.into_iter().flat_map(|baseline| &baseline.libraries);
    let known = known.map(|(module, _)| module.path.clone());
    let exe = std::iter::once(draft.program.module.path.clone());
    let mut told = BTreeSet::new();
    let all = blamed.chain(exe).chain(linked).chain(known);
    all.filter(|path| told.insert(path.clone())).take(MODULES_MAX).collect()
}
