//! Recorded lists against what is known.

use super::super::ftrace;
use super::*;

const FENTRY: &str = "(1)     D  \n\tdirect-->bpf_trampoline_6442489434+0x0/0x12\n";
/// Type 38490 of type information 1, as that trampoline says.
const KEY: u64 = 0x1_0000_965a;

fn listed(text: &str) -> Vec<ListedKprobe> {
    text.lines().filter_map(ftrace::kprobe).collect()
}

fn known(functions: &[&str]) -> KnownKprobes {
    let mut known = KnownKprobes::default();
    for function in functions {
        *known.single.entry((*function).to_owned()).or_default() += 1;
    }
    known
}

fn placed(programs: &[u32]) -> Targets {
    Targets { known: BTreeMap::from([(KEY, programs.to_vec())]), untold: 0 }
}

fn told(text: &str, kprobes: &str, known: &KnownKprobes, targets: &Targets) -> Vec<String> {
    let found = hooks(&ftrace::hooks(text.lines()), &listed(kprobes), known, targets);
    found.unowned.iter().map(|one| one.instrument.form()).collect()
}

#[test]
fn a_second_kprobe_in_a_function_where_one_is_known_is_told() {
    let one = "ff01  k  security_mmap_file+0x4    [FTRACE]\n";
    let known = known(&["security_mmap_file"]);
    assert!(kprobes(&listed(one), &known).is_empty());
    for other in [
        "ff01  k  security_mmap_file+0x4    [FTRACE]\n",
        "ff01  r  security_mmap_file+0x4    [FTRACE]\n",
        "ff40  k  security_mmap_file+0x44    [OPTIMIZED]\n",
    ] {
        let found = kprobes(&listed(&format!("{one}{other}")), &known);
        let forms: Vec<_> = found.iter().map(Instrument::form).collect();
        assert_eq!(forms, ["kprobe security_mmap_file by kernel"], "{other}");
    }
    let three = kprobes(&listed(&one.repeat(3)), &known);
    assert_eq!(three.len(), 2);
    assert_ne!(three[0].id, three[1].id);
}

#[test]
fn a_hook_beside_a_trampoline_is_told_and_the_trampoline_alone_is_not() {
    let none = KnownKprobes::default();
    let alone = format!("vfs_read {FENTRY}");
    assert!(told(&alone, "", &none, &placed(&[7])).is_empty());
    let two = alone.replace("(1)", "(2)");
    assert_eq!(told(&two, "", &none, &placed(&[7])), ["ftrace vfs_read"]);
    // The second is a kprobe that is known.
    let kprobe = "ff01  k  vfs_read+0x0    [FTRACE]\n";
    assert!(told(&two, kprobe, &known(&["vfs_read"]), &placed(&[7])).is_empty());
    // One that is a breakpoint of its own is none of them.
    let breakpoint = "ff01  k  vfs_read+0x10\n";
    let found = told(&two, breakpoint, &known(&["vfs_read"]), &placed(&[7]));
    assert_eq!(found, ["ftrace vfs_read"]);
}

#[test]
fn a_hook_is_the_same_however_many_others_the_function_has() {
    let none = KnownKprobes::default();
    let ids = |text: &str, known: &KnownKprobes| -> Vec<String> {
        let found = hooks(&ftrace::hooks(text.lines()), &[], known, &Targets::default());
        found.unowned.into_iter().map(|one| one.instrument.id).collect()
    };
    let alone = ids("vfs_read (1)  \n", &none);
    assert_eq!(alone, ids("vfs_read (2)  \n", &known(&["vfs_read"])));
    assert_ne!(alone, ids("vfs_read (2)  \n", &none), "one more is another thing");
}

/// What is told of a function that two links are known to hook.
fn told_beside_two(text: &str, fprobes: Fprobes) -> Vec<String> {
    let many = Many { on_entry: 2, on_return: 0 };
    let many = BTreeMap::from([("vfs_read".to_owned(), many)]);
    told(text, "", &KnownKprobes { many, fprobes, ..Default::default() }, &Targets::default())
}

#[test]
fn links_that_share_a_call_excuse_no_more_than_that() {
    for fprobes in [Fprobes::Shared, Fprobes::Split] {
        assert!(told_beside_two("vfs_read (1)  \n", fprobes).is_empty());
        assert_eq!(told_beside_two("vfs_read (2)  \n", fprobes), ["ftrace vfs_read"]);
    }
    // Each is a call of its own.
    assert!(told_beside_two("vfs_read (2)  \n", Fprobes::Each).is_empty());
}

#[test]
fn a_user_of_the_function_graph_is_told_beside_links_that_are_known() {
    let graph = "vfs_read (1)  \ttramp: 0xff (ftrace_graph_func+0x0/0x60) ->x";
    let fprobe = "{ent:fprobe_entry+0x0/0x620 ret:fprobe_return+0x0/0x150}";
    let alone = format!("{graph}\tsubops: {fprobe}\n");
    for text in [format!("{graph}\n"), alone.clone()] {
        assert!(told_beside_two(&text, Fprobes::Shared).is_empty(), "{text}");
        let unknown = told(&text, "", &KnownKprobes::default(), &Targets::default());
        assert_eq!(unknown, ["ftrace vfs_read"]);
    }
    for (user, is_out) in [
        ("{ent:trace_graph_entry+0x0/0x20 ret:trace_graph_return+0x0/0x150}", false),
        ("{ent:ftrace_graph_entry_stub+0x0/0x10 ret:hide+0x0/0x10 [rootkit]}", true),
        ("{ent:fprobe_entry+0x0/0x10 [rootkit] ret:fprobe_return+0x0/0x10 [rootkit]}", true),
    ] {
        let text = format!("{graph}\tsubops: {fprobe} {user}\n");
        assert_eq!(told_beside_two(&text, Fprobes::Shared), ["ftrace vfs_read"], "{user}");
        let none = KnownKprobes::default();
        let found = hooks(&ftrace::hooks(text.lines()), &[], &none, &Targets::default());
        assert_eq!(found.unowned[0].stands_out, is_out, "{user}");
    }
}

#[test]
fn a_trampoline_tells_the_function_of_each_of_its_programs() {
    let text = format!("vfs_read {FENTRY}");
    let hooked = ftrace::hooks(text.lines());
    let found = hooks(&hooked, &[], &KnownKprobes::default(), &placed(&[7, 9]));
    assert!(found.unowned.is_empty());
    let functions = vec!["vfs_read".to_owned()];
    assert_eq!(found.functions, BTreeMap::from([(7, functions.clone()), (9, functions)]));
}

#[test]
fn a_trampoline_that_no_program_has_is_told_unless_the_kernel_does_not_place_programs() {
    let none = KnownKprobes::default();
    let text = format!("vfs_read {FENTRY}");
    assert_eq!(told(&text, "", &none, &Targets::default()), ["ftrace vfs_read"]);
    let old = Targets { untold: 1, ..Targets::default() };
    assert!(told(&text, "", &none, &old).is_empty());
    let more = format!("{text}vfs_write {FENTRY}");
    assert_eq!(told(&more, "", &none, &old).len(), 2, "one program has one function");
}

#[test]
fn kprobes_and_other_hooks_are_told_where_nobody_has_them() {
    let kprobe = "do_exit (1) R    \ttramp: 0xff (kprobe_ftrace_handler+0x0/0x1a0)\n";
    let none = KnownKprobes::default();
    let targets = Targets::default();
    assert_eq!(told(kprobe, "", &none, &targets), ["kprobe do_exit by ftrace"]);
    assert!(told(kprobe, "", &known(&["do_exit"]), &targets).is_empty());
    let hook = "do_exit (1) R I  \ttramp: 0xff (hide+0x0/0x90 [rootkit])\n";
    assert_eq!(told(hook, "", &known(&["do_exit"]), &targets), ["ftrace do_exit"]);
    let found = hooks(&ftrace::hooks(hook.lines()), &[], &none, &targets);
    assert!(found.unowned[0].stands_out);
    let What::Ftrace { flags, .. } = &found.unowned[0].instrument.what else { panic!() };
    assert!(flags.starts_with("(1) R I") && flags.ends_with("hide"), "{flags}");
    let many = KnownKprobes {
        many: BTreeMap::from([("do_exit".to_owned(), Many { on_entry: 1, on_return: 0 })]),
        ..KnownKprobes::default()
    };
    let multi = "do_exit (1)     \ttramp: 0xff (fprobe_handler+0x0/0x90)\n";
    assert!(told(multi, "", &many, &targets).is_empty());
}
