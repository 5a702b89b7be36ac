//! Looks at roots on a thread of its own: a root on a file system that does not answer must hold
//! up nothing but the look at it.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use super::examine::{Answer, Task, examine};
use super::sys::Group;

/// What a look may take before it is given up: a local file system answers within milliseconds,
/// a busy machine within a second.
const PATIENCE: Duration = Duration::from_secs(5);
/// Threads left waiting for file systems; with so many, only answers of those are awaited.
const STUCK_MAX: usize = 4;

/// The thread that looks.
#[derive(Debug)]
pub(super) struct Prober {
    group: Arc<Group>,
    line: Option<Line>,
    stuck: usize,
}

#[derive(Debug)]
struct Line {
    tasks: Sender<Task>,
    answers: Receiver<Answer>,
}

// === impl Prober ===

impl Prober {
    pub(super) fn new(group: Arc<Group>) -> Self {
        Self { group, line: None, stuck: 0 }
    }

    /// Looks at a root; `None` where no answer came, or too many did not come before.
    pub(super) fn ask(&mut self, task: Task) -> Option<Answer> {
        let line = match self.line.take() {
            Some(line) => line,
            None if self.stuck >= STUCK_MAX => return None,
            None => self.start()?,
        };
        line.tasks.send(task).ok()?;
        let begun = Instant::now();
        if let Ok(answer) = line.answers.recv_timeout(PATIENCE) {
            self.line = Some(line);
            Some(answer)
        } else {
            // Its end of the channels is gone: the thread ends with the answer it waits for.
            self.stuck += usize::from(begun.elapsed() >= PATIENCE);
            None
        }
    }

    /// Looks that were never answered.
    pub(super) fn stuck(&self) -> usize {
        self.stuck
    }

    fn start(&self) -> Option<Line> {
        let (tasks, todo) = channel::<Task>();
        let (done, answers) = channel();
        let group = Arc::clone(&self.group);
        let work = move || {
            for task in todo {
                if done.send(examine(&group, &task)).is_err() {
                    break;
                }
            }
        };
        thread::Builder::new().name("watch-look".to_owned()).spawn(work).ok()?;
        Some(Line { tasks, answers })
    }
}
