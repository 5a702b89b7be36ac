//! What debugfs and tracefs tell of breakpoints and hooks in kernel functions, line by line, before
//! anybody asks whose they are. Total, whatever stands there.

use super::text::bounded;

/// A line of debugfs' `kprobes/list`: one for each probe, also where several share a place.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ListedKprobe {
    /// The kernel function.
    pub(super) function: String,
    /// It fires on the return.
    pub(super) is_return: bool,
    /// How far in the function, bytes.
    pub(super) offset: u64,
    /// As printed; zeros where the kernel hides it.
    pub(super) address: String,
    /// It is called by way of ftrace, so that the function's hooks count it.
    pub(super) by_ftrace: bool,
}

/// An entry of tracefs' `enabled_functions`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hook {
    /// The kernel function.
    pub(super) function: String,
    /// How many are called at its entry.
    pub(super) count: usize,
    /// The count and the letters behind it, e.g. `(1) R I`.
    pub(super) flags: String,
    /// Those of them that the kernel names: all, or none where it calls a list of them.
    pub(super) callers: Vec<Caller>,
}

/// Who is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Caller {
    /// The trampoline of all BPF programs on one function, by its key: number of the type information
    /// << 32 | number of the function's type (`include/linux/bpf_verifier.h`
    /// `bpf_trampoline_compute_key`, without the bit that says it is of the kernel).
    Trampoline(u64),
    /// BPF's own way of calling one program or another.
    Dispatcher,
    /// All kprobes on the function together.
    Kprobes,
    /// All users of the function graph together (kernel/trace/fgraph.c `graph_ops`), each by the
    /// functions of its own; none before 6.16, which does not print them. From 6.14 all fprobes, and so all
    /// links to many functions, are one such user (kernel/trace/fprobe.c `fprobe_graph_ops`).
    Graph(Vec<Caller>),
    /// Another function of the kernel itself, by its symbol: the handler of one of its own tracers.
    Kernel(String),
    /// A module's function, or code that the kernel has no name for.
    Stranger(String),
}

/// `ADDRESS  k  FUNCTION+OFFSET  [FLAGS]` (kernel/kprobes.c `report_probe`).
pub(super) fn kprobe(line: &str) -> Option<ListedKprobe> {
    let mut words = line.split_whitespace();
    let (address, kind) = (words.next()?, words.next()?);
    if !matches!(kind, "k" | "r" | "j") {
        return None;
    }
    let place = words.next()?;
    let (function, rest) = place.split_once('+').unwrap_or((place, "0x0"));
    let offset = rest.split('/').next().and_then(|rest| rest.strip_prefix("0x"));
    Some(ListedKprobe {
        function: bounded(function),
        is_return: kind == "r",
        offset: offset.and_then(|digits| u64::from_str_radix(digits, 16).ok()).unwrap_or(0),
        address: bounded(address),
        by_ftrace: line.contains("[FTRACE]"),
    })
}

/// `FUNCTION (COUNT) FLAGS …` (kernel/trace/ftrace.c `t_show`), and who is called, on the same line
/// or on indented ones.
pub(super) fn hooks<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<Hook> {
    let mut entries: Vec<String> = Vec::new();
    for line in lines {
        match entries.last_mut() {
            Some(entry) if line.starts_with(char::is_whitespace) => entry.push_str(line),
            _ => entries.push(line.to_owned()),
        }
    }
    entries.iter().filter_map(|entry| hook(entry)).collect()
}

fn hook(entry: &str) -> Option<Hook> {
    let (name, rest) = entry.split_once(" (")?;
    let (count, letters) = rest.split_once(')')?;
    let end = ["\t", "->", "tramp:", "ops:", "direct"].iter().filter_map(|end| letters.find(end));
    let flags = letters.get(..end.min().unwrap_or(letters.len())).unwrap_or_default();
    let mut callers = Vec::new();
    for (at, _) in letters.match_indices("direct-->") {
        callers.extend(letters.get(at + 9..).map(direct));
    }
    for (at, _) in letters.match_indices(": ") {
        let is_caller = letters
            .get(..at)
            .is_some_and(|before| before.ends_with("\ttramp") || before.ends_with("\tops"));
        let text = letters.get(at + 2..).filter(|_| is_caller);
        callers.extend(text.and_then(called));
    }
    Some(Hook {
        function: bounded(name.split_whitespace().next()?),
        count: count.trim().parse().ok()?,
        flags: bounded(&format!("({count}){}", flags.trim_end())),
        callers,
    })
}

/// `SYMBOL+OFFSET/SIZE` and ` [MODULE]` where a module has it: BPF's own have none.
fn direct(text: &str) -> Caller {
    let (name, is_modules) = symbol(text);
    let digits = name.strip_prefix("bpf_trampoline_").filter(|_| !is_modules);
    // `_0`, `_1`: before 6.2, one for each version of the trampoline.
    let key = digits.and_then(|digits| digits.split('_').next()?.parse::<u64>().ok());
    match key {
        Some(key) => Caller::Trampoline(key & !(1 << 31)),
        None if name.starts_with("bpf_dispatcher_") && !is_modules => Caller::Dispatcher,
        None => other(name, is_modules),
    }
}

/// What has no name is printed as an address, that of a module that hides as well.
fn other(name: &str, is_modules: bool) -> Caller {
    let is_kernels = !is_modules && !name.starts_with("0x");
    if is_kernels { Caller::Kernel(bounded(name)) } else { Caller::Stranger(bounded(name)) }
}

/// The function in brackets behind `tramp: ADDRESS` and `ops: ADDRESS`; `ERROR!` has none.
fn behind(text: &str) -> &str {
    let line = text.split('\t').next().unwrap_or_default();
    line.split_once('(').map_or(line, |(_, function)| function)
}

/// `None` for what calls the trampolines, which are named beside it.
fn called(text: &str) -> Option<Caller> {
    let (name, is_modules) = symbol(behind(text));
    match name {
        "call_direct_funcs" if !is_modules => None,
        // The name that kernel/trace/fgraph.c gives the handler of every architecture that has one.
        "ftrace_graph_func" if !is_modules => Some(Caller::Graph(users(text))),
        "kprobe_ftrace_handler" if !is_modules => Some(Caller::Kprobes),
        _ => Some(other(name, is_modules)),
    }
}

/// `subops: {ent:SYMBOL ret:SYMBOL} …` behind the handler (kernel/trace/ftrace.c `print_subops`, 6.16).
fn users(text: &str) -> Vec<Caller> {
    let behind = text.split('\t').nth(1).and_then(|text| text.strip_prefix("subops:"));
    let users = behind.unwrap_or_default().split('{').skip(1).filter_map(|text| {
        let (user, _) = text.split_once('}')?;
        let (entry, on_return) = user.split_once(" ret:").unwrap_or((user, "0x0"));
        Some([entry.strip_prefix("ent:").unwrap_or(entry), on_return])
    });
    // Without a function of its own it is not called there.
    let named = users.flatten().map(symbol).filter(|(name, _)| *name != "0x0");
    named.map(|(name, is_modules)| other(name, is_modules)).collect()
}

/// Name, and whether a module's.
fn symbol(text: &str) -> (&str, bool) {
    let name_end = text.find(['+', ' ', '\t', ')']).unwrap_or(text.len());
    let (name, rest) = text.split_at(name_end);
    let offset_end = rest.find([' ', '\t', ')']).unwrap_or(rest.len());
    (name, rest.get(offset_end..).unwrap_or_default().starts_with(" ["))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(text: &str) -> Vec<Hook> {
        hooks(text.lines())
    }

    #[test]
    fn a_line_of_the_kernels_list_is_a_probe_with_its_place() {
        let text = "ffffffff8123  k  vfs_read+0x4    [FTRACE]\n\
            ffffffff9999  r  commit_creds+0x0  ext4 [DISABLED][FTRACE]\n\
            0000000000000000  k  vfs_write+0x40/0x200 \nnonsense\n";
        let found: Vec<_> = text.lines().filter_map(kprobe).collect();
        let told: Vec<_> =
            found.iter().map(|one| (one.function.as_str(), one.is_return, one.offset)).collect();
        let expected =
            [("vfs_read", false, 4), ("commit_creds", true, 0), ("vfs_write", false, 64)];
        assert_eq!(told, expected);
    }

    #[test]
    fn a_hook_tells_its_count_and_whom_the_kernel_names() {
        let text = "tcp4_seq_show (1) R I     \ttramp: 0xffffffffc0 (hook+0x0/0x90 [rootkit]) \
            ->arch_ftrace_ops_list_func+0x0/0x1f0\n\
            vfs_open (1) R   D   \ttramp: ftrace_regs_caller+0x0/0x65 (call_direct_funcs+0x0/0xa0)\n\
            \tdirect-->bpf_trampoline_6442489434+0x0/0x12\n\
            vfs_read (2)     D     \n\tdirect-->bpf_trampoline_6442489435_1+0x0/0x12\n\
            vfs_write (1) R      \ttramp: 0xffffffffc0 (kprobe_ftrace_handler+0x0/0x1a0)\n\
            do_exit (1)       O \tops: 0xffff8000 (fprobe_handler+0x0/0x1c0)\n\
            plain (3)  \n";
        let found = of(text);
        let told: Vec<_> = found
            .iter()
            .map(|one| (one.function.as_str(), one.count, one.flags.as_str()))
            .collect();
        assert_eq!(
            told,
            [
                ("tcp4_seq_show", 1, "(1) R I"),
                ("vfs_open", 1, "(1) R   D"),
                ("vfs_read", 2, "(2)     D"),
                ("vfs_write", 1, "(1) R"),
                ("do_exit", 1, "(1)       O"),
                ("plain", 3, "(3)"),
            ]
        );
        let callers: Vec<_> = found.into_iter().map(|one| one.callers).collect();
        let key = |btf: u64| vec![Caller::Trampoline((1 << 32) | btf)];
        assert_eq!(callers[0], [Caller::Stranger("hook".to_owned())]);
        assert_eq!((&callers[1], &callers[2]), (&key(38_490), &key(38_491)));
        assert_eq!(callers[3], [Caller::Kprobes]);
        assert_eq!(callers[4], [Caller::Kernel("fprobe_handler".to_owned())]);
        assert!(callers[5].is_empty());
    }

    #[test]
    fn users_of_the_function_graph_are_told_apart_where_the_kernel_prints_them() {
        let text = "a (1)  \ttramp: 0xff (ftrace_graph_func+0x0/0x60) ->ftrace_graph_func+0x0/0x60\n\
            b (1)  \ttramp: 0xff (ftrace_graph_func+0x0/0x60) ->ftrace_graph_func+0x0/0x60\tsubops: \
            {ent:fprobe_entry+0x0/0x620 ret:fprobe_return+0x0/0x150} \
            {ent:0x0 ret:hide+0x0/0x10 [rootkit]}\n\
            c (1)     O \tops: graph_ops+0x0/0x100 (ftrace_graph_func+0x0/0x60)\tsubops: \
            {ent:trace_graph_entry+0x0/0x20 ret:trace_graph_return+0x0/0x150}\n";
        let kernel = |name: &str| Caller::Kernel(name.to_owned());
        let callers: Vec<_> = of(text).into_iter().map(|hook| hook.callers).collect();
        let hide = Caller::Stranger("hide".to_owned());
        let expected = [
            vec![],
            vec![kernel("fprobe_entry"), kernel("fprobe_return"), hide],
            vec![kernel("trace_graph_entry"), kernel("trace_graph_return")],
        ];
        assert_eq!(callers, expected.map(|users| vec![Caller::Graph(users)]));
    }

    #[test]
    fn a_module_that_calls_its_functions_like_the_kernels_is_somebody_else() {
        let text = "a (1)     D  \n\tdirect-->bpf_trampoline_6442489434+0x0/0x10 [rootkit]\n\
            b (1) R  \ttramp: 0xff (kprobe_ftrace_handler+0x0/0x10 [rootkit])\n\
            c (1) R  \ttramp: 0xff (fprobe_handler+0x0/0x10 [rootkit])\n\
            d (1)   D \n\tdirect-->0xffffffffc0102030\n\
            e (1) R  \ttramp: 0xff (call_direct_funcs+0x0/0x10 [rootkit])\n";
        for hook in of(text) {
            assert!(matches!(hook.callers[..], [Caller::Stranger(_)]), "{hook:?}");
        }
        let own = of("c (1) R  \ttramp: 0xff (my_bpf_trampoline_1+0x0/0x10)\n");
        assert!(matches!(own[0].callers[..], [Caller::Kernel(_)]), "{own:?}");
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in "(?s)(a \\(1\\)|\ttramp: |\\(ftrace_graph_func\\)|\tsubops:|\\{ent:| ret:|\\}|\tops: |direct-->bpf_trampoline_|k |.|\n){0,300}") {
            for hook in of(&text) {
                prop_assert!(hook.callers.len() <= text.len());
            }
            let _: Vec<_> = text.lines().filter_map(kprobe).collect();
        }
    }
}
