//! Rules of made-up and of real functions.

use std::fs::File;

use proptest::prelude::*;

use super::*;

fn common(instructions: &[u8]) -> Common {
    Common {
        code_align: 1,
        data_align: -8,
        return_register: 16,
        instructions: instructions.to_vec(),
        numbers: Numbers { stack_pointer: 7, frame_pointer: 6 },
        augmented: true,
    }
}

/// As every `x86_64` CIE begins: CFA = rsp + 8, return address at CFA - 8.
const ENTRY: &[u8] = &[0x0c, 7, 8, 0x90, 1];

#[test]
fn a_frame_with_a_frame_pointer_is_followed_from_entry_to_exit() {
    // push rbp; mov rbp, rsp; body; leave: as gcc writes it.
    let body = [0x41, 0x0e, 16, 0x86, 2, 0x43, 0x0d, 6, 0x4a, 0x0c, 7, 8];
    let at = |into| {
        let row = common(ENTRY).row(&body, into).unwrap();
        (row.cfa.unwrap(), row.return_address, row.frame_pointer)
    };
    assert_eq!(at(0), ((7, 8), Saved::At(-8), Saved::Same));
    assert_eq!(at(1), ((7, 16), Saved::At(-8), Saved::At(-16)));
    assert_eq!(at(9), ((6, 16), Saved::At(-8), Saved::At(-16)));
    assert_eq!(at(14).0, (7, 8));
}

#[test]
fn remembered_and_restored_rules_come_back() {
    let body = [0x0e, 32, 0x86, 4, 0x0a, 0x41, 0x0e, 8, 0xc6, 0x41, 0x0b];
    let at = |into| {
        let row = common(ENTRY).row(&body, into).unwrap();
        (row.cfa.unwrap().1, row.frame_pointer)
    };
    assert_eq!(at(0), (32, Saved::At(-32)));
    assert_eq!(at(1), (8, Saved::Same));
    assert_eq!(at(2), (32, Saved::At(-32)));
    assert!(common(ENTRY).row(&[0x0b], 0).is_none(), "nothing was remembered");
}

#[test]
fn a_frame_address_by_expression_is_not_covered() {
    assert!(common(ENTRY).row(&[0x0f, 2, 0, 0], 0).unwrap().cfa.is_none());
}

#[test]
fn the_steps_of_real_functions_are_found() {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let libc = maps.lines().find_map(|line| line.split_once('/')).map(|(_, path)| path);
    let own = std::env::current_exe().unwrap();
    for path in [own, std::path::PathBuf::from(format!("/{}", libc.unwrap()))] {
        let file = File::open(path).unwrap();
        let headers = Headers::read(&file).unwrap();
        let starts = super::super::unwind::read_fde_starts(&file, &headers).unwrap();
        let every = starts.len() / 500 + 1;
        let mut covered = 0;
        let sample: Vec<u64> = starts.iter().copied().step_by(every).collect();
        for start in &sample {
            let Some(step) = read_step(&file, &headers, *start) else { continue };
            covered += 1;
            if headers.machine == Machine::X86_64 && step.base == Base::StackPointer {
                assert!(matches!(step.return_address, Saved::At(-8) | Saved::Lost), "{step:?}");
            }
        }
        assert!(covered * 100 >= sample.len() * 95, "{covered} of {}", sample.len());
    }
}

proptest! {
    #[test]
    fn any_instructions_are_total(
        first in proptest::collection::vec(any::<u8>(), 0..40),
        body in proptest::collection::vec(any::<u8>(), 0..200),
        into in any::<u64>(),
    ) {
        let _ = common(&first).row(&body, into);
    }

    #[test]
    fn any_cie_is_total(mut cie in proptest::collection::vec(any::<u8>(), 0..80), zero: bool) {
        if zero && cie.len() > 8 {
            cie[..9].copy_from_slice(&[0, 0, 0, 0, 1, b'z', b'P', b'R', 0]);
        }
        if let Some(common) = Common::parse(&cie, Machine::Aarch64) {
            let _ = common.row(&cie, 7);
        }
    }
}
