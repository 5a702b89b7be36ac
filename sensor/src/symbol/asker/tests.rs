//! Walks over made-up stacks in this very process.

use proptest::prelude::*;

use super::*;

#[test]
fn every_form_of_call_is_known_and_other_code_is_not() {
    let calls: [&[u8]; 9] = [
        &[0x90, 0x90, 0xe8, 1, 2, 3, 4],
        &[0xff, 0xd0],
        &[0x41, 0xff, 0xd3],
        &[0xff, 0x15, 1, 2, 3, 4],
        &[0xff, 0x50, 0x18],
        &[0xff, 0x94, 0x24, 1, 2, 3, 4],
        &[0xff, 0x54, 0x24, 8],
        &[0xff, 0x14, 0xc5, 1, 2, 3, 4],
        &[0x90, 0xff, 0x14, 0x24],
    ];
    for call in calls {
        assert!(ends_in_call(call, Machine::X86_64), "{call:x?}");
    }
    let others: [&[u8]; 6] =
        [&[], &[0xe8], &[0xff, 0xe0], &[0x48, 0x89, 0xe5], &[0xff, 0x25, 1, 2, 3, 4], &[0x90; 7]];
    for other in others {
        assert!(!ends_in_call(other, Machine::X86_64), "{other:x?}");
    }
    let arm = |word: u32| ends_in_call(&word.to_le_bytes(), Machine::Aarch64);
    assert!(arm(0x9400_0010) && arm(0xd63f_0260) && arm(0xd73f_0a75));
    assert!(!arm(0x1400_0010) && !arm(0xd65f_03c0) && !arm(0xd61f_0260));
}

#[test]
fn a_libc_elsewhere_is_no_libc() {
    let process = Process::open(std::process::id()).unwrap();
    let (stack, mut steps) = (Stack::default(), no_steps());
    let walk = Walk::new(&process, &stack, &mut steps);
    let libc = process.maps.iter().find(|vma| vma.exec && is_libc(split(&vma.path).1));
    let Some(libc) = libc else { return println!("not tried: this libc is the loader") };
    assert!(walk.in_runtime(libc.start) && walk.in_libc(libc.start + 1));
    let own = process.maps.iter().find(|vma| vma.exec && vma.path.contains("/deps/sensor"));
    assert!(!walk.in_runtime(own.unwrap().start));
    let elsewhere = Vma { path: "/tmp/libc.so.6".into(), ..libc.clone() };
    let loader = walk.loader.unwrap();
    assert_ne!(split(&loader.path).0, split(&elsewhere.path).0);
}

#[test]
fn a_stack_of_nothing_but_the_own_code_names_it() {
    let pid = std::process::id();
    let inside = a_stack_of_nothing_but_the_own_code_names_it as fn() as usize as u64;
    // Some place behind a call instruction near here.
    let process = Process::open(pid).unwrap();
    let (stack, mut steps) = (Stack::default(), no_steps());
    let mut walk = Walk::new(&process, &stack, &mut steps);
    let vma = process.maps.find(inside).unwrap();
    let behind = (inside..inside + 4096).find(|at| walk.is_behind_call(vma, *at)).unwrap();
    let mut words = vec![0; 16];
    (words[3], words[5], words[7]) = (vma.start, 0x1234, behind);
    let sp = 0x7fff_0000_0000;
    // The code before it is in the loader, and cannot be unwound from there.
    let ip = walk.loader.and_then(|loader| {
        process.maps.iter().find(|vma| vma.exec && vma.same_file(loader)).map(|vma| vma.start)
    });
    let stack = Stack { ip: ip.unwrap(), sp, fp: 0, lr: 0, words: words.into() };
    let asker = Symbolizer::default().asker(pid, &stack, &[inside]).unwrap().unwrap();
    assert_eq!((asker.place.addr, asker.unwound), (behind, false));
    assert!(asker.place.module.is_some());
}

#[test]
fn code_that_maps_by_itself_is_its_own_asker() {
    let inside = code_that_maps_by_itself_is_its_own_asker as fn() as usize as u64;
    let stack = Stack { ip: inside, sp: 0x7fff_0000_0000, ..Stack::default() };
    let pid = std::process::id();
    let asker = Symbolizer::default().asker(pid, &stack, &[inside]).unwrap().unwrap();
    assert!(asker.unwound && asker.place.addr == inside);
}

#[test]
fn the_memory_of_another_program_names_nobody() {
    let pid = std::process::id();
    let inside = the_memory_of_another_program_names_nobody as fn() as usize as u64;
    let local = 0_u64;
    let sp = &raw const local as usize as u64;
    let ask = |sp, code: &[u64]| {
        // No code is where the thread was.
        let stack = Stack { ip: 8, sp, ..Stack::default() };
        Symbolizer::default().asker(pid, &stack, code)
    };
    let gone = |answer| matches!(answer, Err(VerifyError::Gone { .. }));
    let elsewhere = 0x5500_0000_1000;
    assert!(gone(ask(sp, &[elsewhere])), "none of its code is there");
    assert!(!gone(ask(sp, &[elsewhere, inside])), "a library may be gone");
    assert!(gone(ask(sp, &[sp])), "its stack is no code");
    // Where no code is known that lies at random, the stack decides.
    assert!(!gone(ask(sp, &[])) && !gone(ask(sp, &[0x40_1000])) && !gone(ask(0, &[])));
    assert!(gone(ask(0x1000, &[])) && gone(ask(0x1000, &[0x40_1000])));
    // Code that has vanished from the same memory is told as what is in no file.
    let found = ask(sp, &[inside]).unwrap().unwrap();
    assert_eq!((found.place.memory.as_str(), found.unwound), ("unmapped", true));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_total(bytes in proptest::collection::vec(any::<u8>(), 0..9)) {
        ends_in_call(&bytes, Machine::X86_64);
        ends_in_call(&bytes, Machine::Aarch64);
    }

    #[test]
    fn any_stack_is_total(
        (ip, sp, fp, lr) in (any::<u64>(), any::<u64>(), any::<u64>(), any::<u64>()),
        words in proptest::collection::vec(any::<u64>(), 0..512),
        near in any::<bool>(),
        code_there in proptest::collection::vec(any::<u64>(), 0..4),
    ) {
        let pid = std::process::id();
        let process = Process::open(pid).unwrap();
        let code: Vec<&Vma> = process.maps.iter().filter(|vma| vma.exec).collect();
        let pick = |word: u64| {
            let vma = code[index(word) % code.len()];
            vma.start + word % (vma.end - vma.start)
        };
        let placed = |word: u64| if near { pick(word) } else { word };
        let words = words.into_iter().map(placed).collect();
        let stack = Stack { ip: placed(ip), sp, fp, lr: placed(lr), words };
        let _ = Symbolizer::default().asker(pid, &stack, &code_there);
    }
}
