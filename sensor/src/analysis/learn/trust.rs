//! Who may teach: what a lesson must be vouched for by, and processes that nobody can vouch for.

use super::{Lesson, State, What};
use crate::detect::judge::{self, Judged};
use crate::detect::{Brought, World, upgrade};
use crate::finding::Exposure;
use crate::host::{Library, Observation, Program, Traced};

// === impl State ===

impl State {
    /// The lessons that wait, but for new callers that nobody vouches for: libraries that were not
    /// accepted here, and such as are known to be no package's. The answer about that has mostly come
    /// by now.
    pub(super) fn vouched_for(&mut self, packages: &dyn Brought) -> Vec<Lesson> {
        let mut lessons = std::mem::take(&mut self.lessons);
        let refused = lessons.iter().filter_map(|lesson| match &lesson.what {
            What::Refused { path, .. } => Some(path.clone()),
            _ => None,
        });
        self.distrusted.extend(refused);
        lessons.retain(|lesson| match &lesson.what {
            What::Caller { module, known: false, own: false, .. } if lesson.guarded => {
                !self.distrusted.contains(&module.path) && !packages.foreign(&module.path)
            }
            _ => true,
        });
        lessons
    }
}

/// What a mapped library teaches.
pub(super) fn library(seen: &Observation, library: &Library, world: &World<'_>) -> Option<What> {
    let program = &seen.process.program;
    // What has replaced one that is known, by its package's word, is no news.
    let upgrade = upgrade::of_library(library, world).is_some();
    match judge::library(seen, library, world) {
        Judged::Known => None,
        Judged::Undecided => Some(refused(program, library)),
        Judged::Unexpected if program.guarded() && !upgrade => Some(refused(program, library)),
        // Nor a file that others can change, however often it is mapped.
        _ if program.guarded() && library.placed.exposure != Exposure::Ordinary => {
            Some(refused(program, library))
        }
        judged => Some(accepted(program, library, judged == Judged::Unexpected && !upgrade)),
    }
}

/// The same, once its package's word has come after it.
pub(super) fn traced(seen: &Observation, traced: &Traced, world: &World<'_>) -> Option<What> {
    let program = &seen.process.program;
    let waited = program.guarded() && traced.judged == Some(Judged::Unexpected);
    upgrade::of_library(&traced.library, world).filter(|_| waited)?;
    Some(accepted(program, &traced.library, false))
}

fn accepted(program: &Program, library: &Library, late: bool) -> What {
    let (exe, file) = (program.file, library.file);
    What::Library { module: library.module.clone(), exe, file, late }
}

/// A library that is not accepted.
pub(super) fn refused(program: &Program, library: &Library) -> What {
    let path = library.module.path.clone();
    What::Refused { path, exe: program.file, file: library.file }
}

/// A process of sshd that serves a connection, where the host station follows none: there were too
/// many, or their beginning was not seen. A listener is none.
pub(super) fn is_stray(seen: &Observation) -> bool {
    let program = &seen.process.program;
    let arguments = &seen.process.shown.cmdline;
    // A connection of one program (up to 9.7) has written its state over its arguments, as
    // `sshd: alice [priv]`; the listener has, too (8.2 and later: server_listen_title of sshd.c).
    let titled = arguments
        .first()
        .is_some_and(|title| title.starts_with("sshd:") && !title.contains("[listener]"));
    let serves = matches!(program.name(), "sshd-session" | "sshd-auth")
        || titled
        || arguments.iter().any(|argument| argument == "-R");
    seen.connection.is_none() && program.sshd() && serves
}
