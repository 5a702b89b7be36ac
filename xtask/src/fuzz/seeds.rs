//! Inputs that fuzzing starts from: small files of this machine, and small ones made here.

use std::path::Path;
use std::{fs, io};

use crate::repo;

/// Where small ELF files of either width are looked for.
const ELF_FOLDERS: [&str; 7] = [
    "/bin",
    "/sbin",
    "/lib/x86_64-linux-gnu",
    "/lib/aarch64-linux-gnu",
    "/lib64",
    "/lib32",
    "/usr/lib32",
];
/// Files taken of one folder, and their size.
const ELF_FILES: usize = 6;
const ELF_BYTES: u64 = 48 << 10;
/// Texts of the kernel and of loaders.
const TEXTS: [&str; 6] = [
    "/proc/self/maps",
    "/proc/self/mountinfo",
    "/proc/self/auxv",
    "/proc/self/cgroup",
    "/etc/ld.so.conf",
    "/etc/ld.so.preload",
];
/// Sizes of the records' kinds in wire order (`sensor-common/src/record.rs`).
const RECORDS: [usize; 10] = [80, 664, 72, 672, 1360, 80, 144, 80, 296, 40];

type Seeds = Vec<(String, Vec<u8>)>;

/// Writes the seeds of a target, unless they are there.
pub(super) fn write(target: &str, folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let seeds = match target {
        "elf" => elf(),
        "eh_frame" => vec![("x86_64".to_owned(), eh_frame(0)), ("aarch64".to_owned(), eh_frame(1))],
        "link_map" => link_map(),
        "maps" => texts(),
        "btf" => vec![("types".to_owned(), btf())],
        "records" => records(),
        "baselines" => exports(),
        "orders" => orders(),
        "recording" => recordings()?,
        _ => databases(),
    };
    for (name, bytes) in seeds.into_iter().chain(regressions(target)?) {
        let path = folder.join(format!("seed-{name}"));
        if !path.exists() {
            fs::write(path, bytes)?;
        }
    }
    Ok(())
}

/// What once broke a reader.
fn regressions(target: &str) -> io::Result<Seeds> {
    let folder = repo::root().join("fuzz/regressions").join(target);
    if !folder.is_dir() {
        return Ok(Seeds::new());
    }
    let read = |entry: io::Result<fs::DirEntry>| {
        let entry = entry?;
        Ok((entry.file_name().to_string_lossy().into_owned(), fs::read(entry.path())?))
    };
    fs::read_dir(folder)?.map(read).collect()
}

/// The smallest dynamic files of each folder.
fn elf() -> Seeds {
    let mut seeds = Seeds::new();
    for folder in ELF_FOLDERS {
        let Ok(entries) = fs::read_dir(folder) else { continue };
        let sized = entries.flatten().filter_map(|entry| {
            let metadata = fs::metadata(entry.path()).ok()?;
            (metadata.is_file() && metadata.len() <= ELF_BYTES).then_some((metadata.len(), entry))
        });
        let mut sized: Vec<_> = sized.collect();
        sized.sort_by_key(|(size, entry)| (*size, entry.path()));
        let read = sized.into_iter().filter_map(|(_, entry)| {
            let bytes = fs::read(entry.path()).ok()?;
            let name = entry.file_name().to_string_lossy().into_owned();
            bytes.starts_with(b"\x7fELF").then_some((name, bytes))
        });
        seeds.extend(read.take(ELF_FILES));
    }
    seeds
}

/// A search table, one CIE and the record of one function of 32 bytes at 0x100, asked for its tenth.
/// It pushes its frame pointer, has a frame by it, and takes both back.
fn eh_frame(machine: u8) -> Vec<u8> {
    const TABLE: &[u8] = &[1, 0x1b, 3, 0x3b, 16, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 44, 0, 0, 0];
    let cie: [u8; 24] = match machine {
        0 => *b"\x14\0\0\0\0\0\0\0\x01zR\0\x01\x78\x10\x01\x1b\x0c\x07\x08\x90\x01\0\0",
        _ => *b"\x14\0\0\0\0\0\0\0\x01zR\0\x04\x78\x1e\x01\x1b\x0c\x1f\0\0\0\0\0",
    };
    let function: &[u8] = &[
        28, 0, 0, 0, 28, 0, 0, 0, 0xcc, 0, 0, 0, 32, 0, 0, 0, 0, 0x41, 0x0e, 16, 0x86, 2, 0x43,
        0x0d, 6, 0x0a, 0x41, 0x0c, 7, 8, 0x0b, 0,
    ];
    [&[machine, 10, 1][..], TABLE, &cie, function, &[0; 4]].concat()
}

/// Two modules, and a second namespace, in both widths.
fn link_map() -> Seeds {
    let made = |width: u64| {
        let at = |word: u64| 0x1000 + word * width;
        let words = [
            [2, at(8), 0, 0, 0x7f00, at(24)],
            [0, 0, 0x5500, at(40), 0x5600, at(16)],
            [0, 0, 0, 0, 0x7700, 0],
            [0x7800, 0, at(8), 0, 0, 0],
            [2, at(32), 0, 0, 0x7f00, 0],
            [0, 0, 0x9900, at(40), 0x9a00, 0],
            [0, 0, 0, 0, 0x62_696c, 0],
        ];
        let words = words.as_flattened().iter().flat_map(|word| {
            let len = usize::try_from(width).unwrap_or(8);
            word.to_le_bytes().into_iter().take(len)
        });
        [u8::from(width == 4)].into_iter().chain(words).collect()
    };
    vec![("wide".to_owned(), made(8)), ("narrow".to_owned(), made(4))]
}

fn texts() -> Seeds {
    let read = TEXTS
        .iter()
        .filter_map(|path| Some((path.rsplit('/').next()?.to_owned(), fs::read(path).ok()?)));
    read.collect()
}

/// `struct s { int a; struct { int b[4]; }; }`, a function, and one type of most other kinds.
fn btf() -> Vec<u8> {
    const STRINGS: &[u8] = b"\0int\0s\0a\0b\0f\0t\0";
    let kind = |kind: u32, members: u32| kind << 24 | members;
    let types: [u32; 51] = [
        1,
        kind(1, 0),
        4,
        0x0100_0020, // 1: int
        0,
        kind(3, 0),
        0,
        1,
        1,
        4, // 2: int[4]
        0,
        kind(4, 1),
        16,
        9,
        2,
        0, // 3: struct { b }
        5,
        kind(4, 2),
        20,
        7,
        1,
        0,
        0,
        3,
        32, // 4: struct s
        13,
        kind(8, 0),
        4, // 5: typedef t
        0,
        kind(10, 0),
        5, // 6: const
        0,
        kind(2, 0),
        6, // 7: pointer
        0,
        kind(13, 1),
        1,
        7,
        7, // 8: int (a)
        11,
        kind(12, 0),
        8, // 9: f
        7,
        kind(6, 1),
        4,
        9,
        1, // 10: enum
        0,
        kind(9, 0),
        1,
        0, // 11: volatile, and the beginning of no type
    ];
    let types: Vec<u8> = types.iter().flat_map(|word| word.to_le_bytes()).collect();
    let length = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap_or(0);
    let types = types.get(..types.len() - 4).unwrap_or_default();
    let head = [24, 0, length(types), length(types), length(STRINGS)];
    let head = head.iter().flat_map(|word: &u32| word.to_le_bytes());
    [0x9f, 0xeb, 1, 0]
        .into_iter()
        .chain(head)
        .chain(types.iter().copied())
        .chain(STRINGS.iter().copied())
        .collect()
}

/// One of each kind, all zero but for the header's kind.
fn records() -> Seeds {
    let made = |(kind, size): (u16, usize)| {
        let mut bytes = vec![0; size + 1];
        for (byte, value) in bytes.iter_mut().skip(25).zip(kind.to_le_bytes()) {
            *byte = value;
        }
        (kind.to_string(), bytes)
    };
    (1..).zip(RECORDS).map(made).collect()
}

/// Kept recordings as files, and the text of one's steps: all of it, and step by step.
fn recordings() -> io::Result<Seeds> {
    let folder = repo::root().join("sensor/tests/recordings");
    let mut seeds = Seeds::new();
    for name in ["clean", "attacked", "upgraded", "decided"] {
        let file = fs::read(folder.join(format!("{name}.rec")))?;
        seeds.push((name.to_owned(), [&[0], &file[..]].concat()));
    }
    let steps = fs::read(folder.join("steps.jsonl"))?;
    for (number, line) in steps.split(|byte| *byte == b'\n').enumerate() {
        seeds.push((format!("step-{number}"), [&[1], line].concat()));
    }
    seeds.push(("steps".to_owned(), [&[1], &steps[..]].concat()));
    Ok(seeds)
}

fn databases() -> Seeds {
    let apk = b"\x01C:Q1aaaaaaaaaaaaaaaaaaaaaaaaaaa=\nP:x\nV:1-r0\nA:x86_64\nF:usr/bin\nR:x\n\
        a:0:0:755\nZ:Q1qqqqqqqqqqqqqqqqqqqqqqqqqqo=\n\n";
    let dpkg = b"\x02Package: x\nStatus: install ok installed\nArchitecture: amd64\n\
        Multi-Arch: same\nVersion: 1:2-3\nConffiles:\n /etc/x 0123456789abcdef0123456789abcdef\n\n\
        \0/.\n/usr\n/usr/bin\n/usr/bin/x\n\x000123456789abcdef0123456789abcdef  usr/bin/x\n";
    let dpkg_log = b"\x062026-11-20 06:10:02 upgrade x:amd64 1:2-3 1:2-4\n\
        2026-11-20 06:10:03 install y:all <none> 1\n2026-11-20 06:10:04 remove y:all 1 <none>\n";
    let apk_log = b"\x07Running `apk upgrade` at 2026-11-22 11:30:00\n\
        (1/2) Upgrading x (1-r0 -> 1-r1)\n(2/2) Purging y@edge (1-r0)\n";
    let header = rpm_header();
    let sqlite = sqlite(&header);
    let size = u16::try_from(sqlite.len()).unwrap_or(u16::MAX).to_le_bytes();
    let log = [0x377f_0682_u32, 3_007_000, 512, 0, 1, 2, 0, 0];
    let log: Vec<u8> = log.iter().flat_map(|word| word.to_be_bytes()).collect();
    vec![
        ("ld-cache".to_owned(), ld_cache()),
        ("apk".to_owned(), apk.to_vec()),
        ("dpkg".to_owned(), dpkg.to_vec()),
        ("rpm".to_owned(), [&[3], &sqlite[..]].concat()),
        ("rpm-log".to_owned(), [&[4], &size[..], &sqlite, &log].concat()),
        ("rpm-header".to_owned(), [&[5], &header[..]].concat()),
        ("dpkg-log".to_owned(), dpkg_log.to_vec()),
        ("apk-log".to_owned(), apk_log.to_vec()),
    ]
}

/// An export of one program.
fn exports() -> Seeds {
    let export = concat!(
        "{\"format\":\"halfsecond-baselines\",\"version\":1,\"host\":\"h\",\"sensor\":\"1\",",
        "\"exported\":\"2026-11-21T10:00:00Z\",\"observations\":20,\"subjects\":1}\n",
        "{\"subject\":\"/x ab\",\"baseline\":{\"starts\":9,\"since_new\":9,\"late\":1,",
        "\"methods\":{\"publickey\":9},\"first_seen\":null,\"last_seen\":null,",
        "\"libraries\":[[{\"path\":\"/a.so\",\"build\":\"01\"},",
        "{\"first\":\"2026-11-20T10:00:00Z\",\"last\":\"2026-11-20T10:00:00Z\"}]],",
        "\"callers\":{\"f\":{\"calls\":1,\"modules\":[{\"path\":\"/a.so\",\"build\":\"01\"}]}},",
        "\"environment\":[\"LD_PRELOAD=/a.so\"],\"helpers\":[\"/b\"],",
        "\"link\":{\"total\":1,\"latest_us\":[5]},\"shares\":{},",
        "\"auth\":{\"publickey\":{\"total\":1,\"latest_us\":[5]}},",
        "\"shifts\":{\"link\":{\"reference\":[[60,40]],\"wealth\":[9,0,0,9,0,0]}}}}\n",
        "{\"signature\":null}\n",
    );
    vec![("export".to_owned(), export.as_bytes().to_vec())]
}

/// One order of each kind, a request about an incident, and names of files.
fn orders() -> Seeds {
    let forget = b"\0{\"version\":1,\"act\":{\"act\":\"forget\",\"subject\":\"/x ab\"}}";
    let approve =
        b"\0{\"version\":1,\"act\":{\"act\":\"approve\",\"subject\":\"/x ab\",\"approvals\":\
        [{\"time\":\"2026-11-22T15:00:00Z\",\"who\":\"al\",\"why\":\"x\",\"object\":\
        {\"kind\":\"library\",\"module\":{\"path\":\"/a.so\",\"build\":\"01\"}}}]}}";
    let suppress = b"\x01{\"id\":\"a1\",\"decision\":{\"verb\":\"suppress\",\"time\":\
        \"2026-11-22T15:00:00Z\",\"who\":\"al\",\"why\":\"x\",\"uid\":0,\"until\":\
        \"2026-11-23T15:00:00Z\"}}";
    let names = b"\x02017950-12-0001.json\0x.taken\0x.answer\0../x.json\0.refused";
    let all: [(&str, &[u8]); 4] =
        [("forget", forget), ("approve", approve), ("suppress", suppress), ("names", names)];
    all.map(|(name, bytes)| (name.to_owned(), bytes.to_vec())).into()
}

/// `struct cache_file_new` with one entry.
fn ld_cache() -> Vec<u8> {
    let words = [1_u32, 24, 2, 0, 0, 0, 0, 0x303, 72, 81, 0, 0, 0];
    let words = words.iter().flat_map(|word| word.to_le_bytes());
    let head = b"\0glibc-ld.so.cache1.1".iter().copied();
    head.chain(words).chain(*b"libx.so.1\0/lib/libx.so.1\0").collect()
}

/// Tags of one file `/usr/bin/x`: tag, type, offset, count; then their data.
fn rpm_header() -> Vec<u8> {
    let data = b"x\x001\x002\0x86_64\0/usr/bin/\0x\0ab\0\0\0\0\0\0\0\0\x08";
    let tags: [[u32; 4]; 10] = [
        [1000, 6, 0, 1],
        [1001, 6, 2, 1],
        [1002, 6, 4, 1],
        [1022, 6, 6, 1],
        [1118, 8, 13, 1],
        [1117, 8, 23, 1],
        [1035, 8, 25, 1],
        [1116, 4, 28, 1],
        [1037, 4, 28, 1],
        [5011, 4, 32, 1],
    ];
    let count = |number: usize| u32::try_from(number).unwrap_or(0).to_be_bytes();
    let index: Vec<u8> = tags.as_flattened().iter().flat_map(|word| word.to_be_bytes()).collect();
    [&count(tags.len())[..], &count(data.len()), &index, data].concat()
}

/// Two pages of 512 bytes: the schema, and a table with one row.
fn sqlite(blob: &[u8]) -> Vec<u8> {
    const PAGE: usize = 512;
    let schema = [&[6, 23, 29, 29, 1, 13][..], b"tablePackagesPackages\x02"].concat();
    let length = u16::try_from(12 + 2 * blob.len()).unwrap_or(0);
    // Serial types of two bytes each from 128 on.
    let serial = [0x80 | u8::try_from(length >> 7).unwrap_or(0), (length & 0x7f).to_le_bytes()[0]];
    let row = [&[4, 0][..], &serial, blob].concat();
    let mut file = b"SQLite format 3\0\x02\0\x01\x01\0\x40\x20\x20".to_vec();
    file.resize(100, 0);
    for (start, payload) in [(100, schema), (0, row)] {
        let length = u16::try_from(payload.len()).unwrap_or(0);
        let size =
            [0x80 | u8::try_from(length >> 7).unwrap_or(0), (length & 0x7f).to_le_bytes()[0]];
        let cell = [&size[..], &[1], &payload].concat();
        let at = PAGE - cell.len();
        let head = u16::try_from(at).unwrap_or(0).to_be_bytes();
        let mut page = file.split_off(file.len() - start);
        page.extend([13, 0, 0, 0, 1, head[0], head[1], 0, head[0], head[1]]);
        page.resize(at, 0);
        page.extend(cell);
        file.extend(page);
    }
    file
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_has_seeds_and_keeps_those_that_are_there() {
        let folder = std::env::temp_dir().join(format!("halfsecond-seeds-{}", std::process::id()));
        for target in [
            "elf",
            "eh_frame",
            "link_map",
            "maps",
            "btf",
            "records",
            "cache",
            "baselines",
            "orders",
            "recording",
        ] {
            let folder = folder.join(target);
            write(target, &folder).unwrap();
            let first = fs::read_dir(&folder).unwrap().next().unwrap().unwrap().path();
            fs::write(&first, "kept").unwrap();
            write(target, &folder).unwrap();
            assert_eq!(fs::read(&first).unwrap(), b"kept", "{target}");
        }
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_database_is_two_whole_pages() {
        let file = sqlite(&rpm_header());
        assert_eq!(file.len(), 1024);
        assert!(file.ends_with(&rpm_header()));
    }
}
