//! The kernel's lists of all kprobes and of all hooked functions against those whose owner is known:
//! what nobody accounts for is somebody's all the same.
//!
//! By number and not by name: that the sensor has a probe in a function excuses one probe there, and
//! a trampoline of BPF excuses one call, whosever programs it calls. They are listed themselves.

use std::collections::{BTreeMap, BTreeSet};

use super::fprobe::Fprobes;
use super::ftrace::{Caller, Hook, ListedKprobe};
use super::objects::Targets;
use super::{Instrument, What};

/// Functions told of one program.
const FUNCTIONS_MAX: usize = 16;

/// Probes in kernel functions that somebody holds or has defined, the sensor among them.
#[derive(Debug)]
pub(super) struct KnownKprobes {
    /// None of the sensor's own is missing. Where some are, a kprobe may be one of them.
    pub(super) is_whole: bool,
    /// How many, by function; on entry and on return alike.
    pub(super) single: BTreeMap<String, usize>,
    /// Of links and definitions that hook functions by way of ftrace.
    pub(super) many: BTreeMap<String, Many>,
    /// How many calls those are.
    pub(super) fprobes: Fprobes,
}

/// Links and definitions on one function, by when they are called.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Many {
    pub(super) on_entry: usize,
    pub(super) on_return: usize,
}

/// What came out.
#[derive(Debug, Default)]
pub(super) struct Accounted {
    /// What nobody accounts for.
    pub(super) unowned: Vec<Unowned>,
    /// Functions that call a program.
    pub(super) functions: BTreeMap<u32, Vec<String>>,
}

/// A hook that nobody accounts for.
#[derive(Debug)]
pub(super) struct Unowned {
    pub(super) instrument: Instrument,
    /// It is none of those that one of the kernel's own tracers makes by the thousand: it can change where
    /// the function goes on, or calls what is not the kernel's.
    pub(super) stands_out: bool,
}

// === impl KnownKprobes ===

impl Default for KnownKprobes {
    fn default() -> Self {
        Self {
            is_whole: true,
            single: BTreeMap::new(),
            many: BTreeMap::new(),
            fprobes: Fprobes::Each,
        }
    }
}

impl KnownKprobes {
    /// Some function has several, so that it matters how many calls they are.
    pub(super) fn has_several(&self) -> bool {
        self.many.values().any(|many| many.on_entry + many.on_return > 1)
    }

    /// Calls of a function that its links and definitions are.
    fn calls(&self, function: &str) -> usize {
        let many = self.many.get(function).copied().unwrap_or_default();
        self.fprobes.calls(many.on_entry, many.on_return)
    }
}

/// The kprobes beyond those that are known, those furthest from the function's entry first.
pub(super) fn kprobes(listed: &[ListedKprobe], known: &KnownKprobes) -> Vec<Instrument> {
    if !known.is_whole {
        return Vec::new();
    }
    let mut by_function: BTreeMap<&str, Vec<&ListedKprobe>> = BTreeMap::new();
    for one in listed {
        by_function.entry(&one.function).or_default().push(one);
    }
    let mut unowned = Vec::new();
    for (function, mut probes) in by_function {
        let known = known.single.get(function).copied().unwrap_or(0);
        probes.sort_by_key(|one| one.offset);
        for (number, one) in probes.into_iter().skip(known).enumerate() {
            let kind = if one.is_return { 'r' } else { 'k' };
            // Several at one place are alike but for their number.
            let id = format!("kprobe {} {kind} {function}+{:#x} {number}", one.address, one.offset);
            let what = What::Kprobe { place: function.to_owned(), by: "kernel" };
            unowned.push(Instrument { id, what, holders: Vec::new() });
        }
    }
    unowned
}

/// The hooks beyond those that BPF's trampolines and kprobes account for.
pub(super) fn hooks(
    hooks: &[Hook],
    listed: &[ListedKprobe],
    known: &KnownKprobes,
    targets: &Targets,
) -> Accounted {
    let books = Books::new(hooks, listed, known, targets);
    Accounted {
        unowned: hooks.iter().filter_map(|hook| books.unowned(hook)).collect(),
        functions: functions(hooks, targets),
    }
}

/// Functions whose trampoline calls a program.
fn functions(hooks: &[Hook], targets: &Targets) -> BTreeMap<u32, Vec<String>> {
    let mut found: BTreeMap<u32, Vec<String>> = BTreeMap::new();
    for hook in hooks {
        for caller in &hook.callers {
            let Caller::Trampoline(key) = caller else { continue };
            for program in targets.known.get(key).into_iter().flatten() {
                let functions = found.entry(*program).or_default();
                if functions.len() < FUNCTIONS_MAX {
                    functions.push(hook.function.clone());
                }
            }
        }
    }
    found
}

/// What accounts for a hook.
struct Books<'a> {
    known: &'a KnownKprobes,
    targets: &'a Targets,
    /// Functions in the list of kprobes, and of them those called by way of ftrace.
    listed: BTreeSet<&'a str>,
    by_ftrace: BTreeSet<&'a str>,
    /// Programs that the kernel does not place stand for all trampolines that no placed one has.
    excuses_untold: bool,
}

impl<'a> Books<'a> {
    fn new(
        hooks: &[Hook],
        listed: &'a [ListedKprobe],
        known: &'a KnownKprobes,
        targets: &'a Targets,
    ) -> Self {
        let by_ftrace = listed.iter().filter(|one| one.by_ftrace);
        let untold = hooks.iter().flat_map(|hook| &hook.callers).filter(|caller| match caller {
            Caller::Trampoline(key) => !targets.known.contains_key(key),
            _ => false,
        });
        Self {
            known,
            targets,
            listed: listed.iter().map(|one| one.function.as_str()).collect(),
            by_ftrace: by_ftrace.map(|one| one.function.as_str()).collect(),
            excuses_untold: untold.count() <= targets.untold,
        }
    }

    /// All kprobes of a function are one call. Where the list says nothing of it, those that are
    /// known do.
    fn has_kprobe(&self, function: &str) -> bool {
        self.by_ftrace.contains(function)
            || (!self.listed.contains(function)
                && (self.known.single.contains_key(function) || !self.known.is_whole))
    }

    fn unowned(&self, hook: &Hook) -> Option<Unowned> {
        let strangers: Vec<String> =
            hook.callers.iter().filter_map(|caller| self.stranger(hook, caller)).collect();
        let is_by_bpf =
            |caller: &&Caller| matches!(caller, Caller::Trampoline(_) | Caller::Dispatcher);
        let by_bpf = hook.callers.iter().filter(is_by_bpf).count();
        let many = self.known.calls(&hook.function);
        let by_kprobe = usize::from(self.has_kprobe(&hook.function));
        let beyond = hook.count.saturating_sub(by_bpf + by_kprobe + many);
        let instrument = unowned(hook, &strangers, beyond.max(strangers.len()))?;
        let is_foreign = |caller: &Caller| match caller {
            Caller::Kprobes | Caller::Kernel(_) => false,
            Caller::Graph(users) => users.iter().any(|user| matches!(user, Caller::Stranger(_))),
            _ => self.stranger(hook, caller).is_some(),
        };
        // include/linux/ftrace.h `FTRACE_FL_IPMODIFY`
        let stands_out = hook.flags.contains(" I") || hook.callers.iter().any(is_foreign);
        Some(Unowned { instrument, stands_out })
    }

    /// A caller that the kernel names and that nobody accounts for, by name.
    fn stranger(&self, hook: &Hook, caller: &Caller) -> Option<String> {
        let function = &hook.function;
        match caller {
            Caller::Trampoline(key) => {
                let is_told = self.targets.known.contains_key(key) || self.excuses_untold;
                (!is_told).then(|| "a BPF trampoline that no listed program has".to_owned())
            }
            Caller::Dispatcher => {
                let is_bpfs = function.starts_with("bpf_dispatcher_");
                (!is_bpfs).then(|| "a BPF dispatcher".to_owned())
            }
            Caller::Kprobes => {
                (!self.has_kprobe(function)).then(|| "a kprobe that is not listed".to_owned())
            }
            // A link or definition that hooks by ftrace calls the kernel's handler for such.
            Caller::Kernel(name) => {
                let is_told = self.known.many.contains_key(function) && name.starts_with("fprobe_");
                (!is_told).then(|| name.clone())
            }
            Caller::Graph(users) if users.is_empty() => {
                let is_told = self.known.many.contains_key(function);
                (!is_told).then(|| "a user of the function graph".to_owned())
            }
            Caller::Graph(users) => {
                let strangers: Vec<_> =
                    users.iter().filter_map(|user| self.stranger(hook, user)).collect();
                (!strangers.is_empty()).then(|| strangers.join(" and "))
            }
            Caller::Stranger(name) => Some(name.clone()),
        }
    }
}

fn unowned(hook: &Hook, strangers: &[String], count: usize) -> Option<Instrument> {
    if count == 0 {
        return None;
    }
    let function = hook.function.clone();
    let is_kprobe = hook.callers.contains(&Caller::Kprobes) && hook.count == 1;
    // Not by how many there are in all: others that are accounted for come and go.
    let id = format!("ftrace {function} {count}");
    let what = if is_kprobe {
        What::Kprobe { place: function, by: "ftrace" }
    } else {
        let names = if strangers.is_empty() {
            "whose, the kernel does not say".to_owned()
        } else {
            strangers.join(", ")
        };
        let flags = format!("{}: {count} of {} unaccounted for: {names}", hook.flags, hook.count);
        What::Ftrace { function, flags }
    };
    Some(Instrument { id, what, holders: Vec::new() })
}

#[cfg(test)]
mod tests;
