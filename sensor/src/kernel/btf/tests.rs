//! A small builder of BTF, and every shape a kernel has or a hostile file could have.

use proptest::prelude::*;

use super::*;

/// Builds BTF type by type; ids count from 1.
#[derive(Default)]
struct Builder {
    types: Vec<u8>,
    strings: Vec<u8>,
    count: u32,
}

impl Builder {
    fn new() -> Self {
        Self { strings: vec![0], ..Self::default() }
    }

    fn string(&mut self, text: &str) -> u32 {
        if text.is_empty() {
            return 0;
        }
        let at = u32::try_from(self.strings.len()).expect("small");
        self.strings.extend_from_slice(text.as_bytes());
        self.strings.push(0);
        at
    }

    fn words(&mut self, words: &[u32]) {
        for word in words {
            self.types.extend_from_slice(&word.to_ne_bytes());
        }
    }

    fn add(&mut self, name: &str, kind: u32, size_or_id: u32, entries: &[u32]) -> u32 {
        let name = self.string(name);
        self.words(&[name, kind << 24, size_or_id]);
        self.words(entries);
        self.count += 1;
        self.count
    }

    fn int(&mut self) -> u32 {
        self.add("int", KIND_INT, 4, &[32])
    }

    /// Members: name, type, offset in bits (with the width of a bit field in the upper byte).
    fn composite(&mut self, name: &str, kind: u32, members: &[(&str, u32, u32)]) -> u32 {
        let name = self.string(name);
        let flag = u32::from(members.iter().any(|member| member.2 >> 24 != 0)) << 31;
        let count = u32::try_from(members.len()).expect("small");
        let entries: Vec<u32> = members
            .iter()
            .flat_map(|(name, type_id, bits)| [self.string(name), *type_id, *bits])
            .collect();
        self.words(&[name, flag | kind << 24 | count, 64]);
        self.words(&entries);
        self.count += 1;
        self.count
    }

    fn build(&self) -> Vec<u8> {
        self.build_with_header(24)
    }

    fn build_with_header(&self, header_len: u32) -> Vec<u8> {
        let mut bytes = MAGIC.to_ne_bytes().to_vec();
        bytes.extend_from_slice(&[1, 0]);
        let types_len = u32::try_from(self.types.len()).expect("small");
        let strings_len = u32::try_from(self.strings.len()).expect("small");
        for word in [header_len, 0, types_len, types_len, strings_len] {
            bytes.extend_from_slice(&word.to_ne_bytes());
        }
        bytes.resize(usize::try_from(header_len).expect("small"), 0xaa);
        bytes.extend_from_slice(&self.types);
        bytes.extend_from_slice(&self.strings);
        bytes
    }
}

#[test]
fn a_plain_member_is_found() {
    let mut builder = Builder::new();
    let int = builder.int();
    builder.composite("task", KIND_STRUCT, &[("a", int, 0), ("b", int, 64)]);
    let bytes = builder.build();
    let btf = Btf::parse(&bytes).expect("parses");
    assert_eq!(btf.member_offset("task.b"), Ok(8));
    assert_eq!(btf.struct_size("task"), Some(64));
}

#[test]
fn a_member_of_an_anonymous_union_in_an_anonymous_struct_is_found() {
    let mut builder = Builder::new();
    let int = builder.int();
    let union = builder.composite("", KIND_UNION, &[("x", int, 0), ("y", int, 0)]);
    let anonymous = builder.composite("", KIND_STRUCT, &[("p", int, 0), ("", union, 32)]);
    builder.composite("file", KIND_STRUCT, &[("f", int, 0), ("", anonymous, 128)]);
    let bytes = builder.build();
    let btf = Btf::parse(&bytes).expect("parses");
    assert_eq!(btf.member_offset("file.y"), Ok(20));
}

#[test]
fn a_path_leads_through_typedefs_and_qualifiers() {
    let mut builder = Builder::new();
    let int = builder.int();
    let inner = builder.composite("inner", KIND_STRUCT, &[("z", int, 96)]);
    let constant = builder.add("", KIND_CONST, inner, &[]);
    let alias = builder.add("inner_t", KIND_TYPEDEF, constant, &[]);
    builder.composite("outer", KIND_STRUCT, &[("i", alias, 256)]);
    let bytes = builder.build();
    let btf = Btf::parse(&bytes).expect("parses");
    assert_eq!(btf.member_offset("outer.i.z"), Ok(44));
}

#[test]
fn a_bit_field_is_refused_where_bytes_are_wanted() {
    let mut builder = Builder::new();
    let int = builder.int();
    builder.composite("binprm", KIND_STRUCT, &[("flag", int, 1 << 24 | 64), ("whole", int, 96)]);
    let bytes = builder.build();
    let btf = Btf::parse(&bytes).expect("parses");
    let path = "binprm.flag".to_owned();
    assert_eq!(btf.member_offset("binprm.flag"), Err(MemberError::BitField { path }));
    assert_eq!(btf.member_offset("binprm.whole"), Ok(12));
    // Unless its place is wanted in bits.
    assert_eq!(btf.member_offset("binprm.flag#bit"), Ok(64));
    assert_eq!(btf.member_offset("binprm.whole#bit"), Ok(96));
}

#[test]
fn structs_of_one_name_must_agree() {
    let mut builder = Builder::new();
    let int = builder.int();
    builder.composite("dup", KIND_STRUCT, &[("same", int, 0), ("moved", int, 32)]);
    builder.composite("dup", KIND_STRUCT, &[("same", int, 0), ("moved", int, 64)]);
    let bytes = builder.build();
    let btf = Btf::parse(&bytes).expect("parses");
    assert_eq!(btf.member_offset("dup.same"), Ok(0));
    assert!(matches!(btf.member_offset("dup.moved"), Err(MemberError::Ambiguous { count: 2, .. })));
}

#[test]
fn what_is_missing_is_named() {
    let mut builder = Builder::new();
    let int = builder.int();
    builder.composite("task", KIND_STRUCT, &[("a", int, 0)]);
    let bytes = builder.build();
    let btf = Btf::parse(&bytes).expect("parses");
    assert!(matches!(btf.member_offset("nope.a"), Err(MemberError::NoStruct { .. })));
    assert!(matches!(btf.member_offset("task.z"), Err(MemberError::NoMember { .. })));
    assert!(matches!(btf.member_offset("task.a.b"), Err(MemberError::NoMember { .. })));
    for path in ["", "task", "task.", ".a"] {
        assert!(
            matches!(btf.member_offset(path), Err(MemberError::BadPath { .. })),
            "{path:?} was accepted"
        );
    }
}

#[test]
fn a_longer_header_is_tolerated() {
    let mut builder = Builder::new();
    let int = builder.int();
    builder.composite("task", KIND_STRUCT, &[("a", int, 8)]);
    let bytes = builder.build_with_header(40);
    let btf = Btf::parse(&bytes).expect("parses");
    assert_eq!(btf.member_offset("task.a"), Ok(1));
}

#[test]
fn types_before_one_of_an_unknown_kind_are_usable() {
    let mut builder = Builder::new();
    let int = builder.int();
    builder.composite("early", KIND_STRUCT, &[("a", int, 8)]);
    builder.add("strange", 25, 0, &[]);
    builder.composite("late", KIND_STRUCT, &[("a", int, 8)]);
    let bytes = builder.build();
    let btf = Btf::parse(&bytes).expect("parses");
    assert_eq!(btf.unread(), Some(&BtfError::UnknownKind { id: 3, kind: 25 }));
    assert_eq!(btf.member_offset("early.a"), Ok(1));
    assert!(matches!(btf.member_offset("late.a"), Err(MemberError::NoStruct { .. })));
}

#[test]
fn a_typedef_of_itself_does_not_hang() {
    let mut builder = Builder::new();
    let itself = builder.add("loop_t", KIND_TYPEDEF, 1, &[]);
    builder.composite("task", KIND_STRUCT, &[("a", itself, 0)]);
    let bytes = builder.build();
    let btf = Btf::parse(&bytes).expect("parses");
    assert!(matches!(btf.member_offset("task.a.b"), Err(MemberError::Inconsistent { .. })));
}

#[test]
fn an_anonymous_struct_inside_itself_does_not_hang() {
    let mut builder = Builder::new();
    builder.composite("", KIND_STRUCT, &[("", 1, 0)]);
    builder.composite("task", KIND_STRUCT, &[("", 1, 0)]);
    let bytes = builder.build();
    let btf = Btf::parse(&bytes).expect("parses");
    assert!(matches!(btf.member_offset("task.a"), Err(MemberError::NoMember { .. })));
}

#[test]
fn members_of_members_are_looked_at_within_one_budget() {
    let mut builder = Builder::new();
    // Ids count from 1: each is an anonymous member of the type of that id, the struct itself.
    builder.composite("s", KIND_STRUCT, &[("", 1, 0); 100]);
    let bytes = builder.build();
    let btf = Btf::parse(&bytes).unwrap();
    let outer = btf.type_by_id(1).unwrap();
    let mut budget = 5 * 101 + 7;
    assert!(btf.resolve(outer, &["x"], "s.x", &mut budget).is_err());
    assert_eq!(budget, 7, "each look at the struct costs its members");
    assert!(matches!(btf.member_offset("s.x"), Err(MemberError::NoMember { .. })));
}

#[test]
fn a_struct_of_more_members_than_there_are_is_truncated() {
    let mut builder = Builder::new();
    builder.composite("s", KIND_STRUCT, &[("a", 1, 0)]);
    builder.words(&[0, KIND_STRUCT << 24 | 0xffff, 4]);
    let error = Btf::parse(&builder.build()).unwrap_err();
    assert!(matches!(error, BtfError::Truncated { what: "a type", at: 24 }), "{error:?}");
}

#[test]
fn every_truncation_is_an_error_or_a_shorter_table() {
    let mut builder = Builder::new();
    let int = builder.int();
    builder.composite("task", KIND_STRUCT, &[("a", int, 0)]);
    let bytes = builder.build();
    for len in 0..bytes.len() {
        assert!(Btf::parse(&bytes[..len]).is_err(), "{len} bytes were accepted");
    }
    assert_eq!(Btf::parse(b"\x00\x00").expect_err("refused"), BtfError::Magic { magic: 0 });
}

#[test]
fn functions_are_found_by_name() {
    let mut builder = Builder::new();
    let int = builder.int();
    let proto = builder.add("", KIND_FUNC_PROTO, int, &[]);
    builder.add("security_mmap_file", KIND_FUNC, proto, &[]);
    let bytes = builder.build();
    let btf = Btf::parse(&bytes).expect("parses");
    let found = btf.functions(&["security_mmap_file", "other"]);
    assert_eq!(found, [KernelFunction { name: "security_mmap_file", id: proto + 1 }]);
}

#[test]
fn an_excerpt_keeps_names_and_ids_and_nothing_else() {
    let wanted = [
        KernelFunction { name: "security_mmap_file", id: 70_001 },
        KernelFunction { name: "do_exit", id: 3 },
    ];
    let bytes = excerpt(&wanted);
    let own = Btf::parse(&bytes).expect("parses");
    assert_eq!(own.unread(), None);
    assert_eq!(own.len(), 70_001);
    assert_eq!(own.functions(&["do_exit", "security_mmap_file"]), [wanted[1], wanted[0]]);
    assert!(aya::Btf::parse(&bytes, aya::Endianness::default()).is_ok());
    assert_eq!(Btf::parse(&excerpt(&[])).expect("parses").len(), 0);
}

#[test]
fn the_running_kernel_places_the_tgid_after_the_tid() {
    let bytes = match std::fs::read(crate::kernel::BTF_PATH) {
        Ok(bytes) => bytes,
        Err(error) => {
            println!("not tried: {}: {error}", crate::kernel::BTF_PATH);
            return;
        }
    };
    let btf = Btf::parse(&bytes).expect("parses");
    assert_eq!(btf.unread(), None);
    // Declared one after the other in include/linux/sched.h since 2.6.
    let tid = btf.member_offset("task_struct.pid").expect("resolves");
    assert_eq!(btf.member_offset("task_struct.tgid"), Ok(tid + 4));
}

proptest! {
    #[test]
    fn no_bytes_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..400), real in any::<bool>()) {
        if real && bytes.len() > 24 {
            bytes[..2].copy_from_slice(&MAGIC.to_ne_bytes());
            bytes[4..8].copy_from_slice(&24_u32.to_ne_bytes());
        }
        if let Ok(btf) = Btf::parse(&bytes) {
            drop(btf.member_offset("a.b"));
        }
    }

    #[test]
    fn no_flipped_byte_panics(at in 0_usize..400, value in any::<u8>()) {
        let mut builder = Builder::new();
        let int = builder.int();
        let alias = builder.add("alias", KIND_TYPEDEF, int, &[]);
        let union = builder.composite("", KIND_UNION, &[("x", alias, 0), ("y", int, 0)]);
        builder.composite("task", KIND_STRUCT, &[("a", int, 0), ("", union, 32)]);
        let mut bytes = builder.build();
        let at = at % bytes.len();
        bytes[at] = value;
        if let Ok(btf) = Btf::parse(&bytes) {
            for path in ["task.a", "task.y", "task.x.z"] {
                drop(btf.member_offset(path));
            }
        }
    }
}
