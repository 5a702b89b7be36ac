//! One package's header as rpm stores it: an index of tags and their data
//! (rpm, `docs/manual/format_header.md`; the database leaves out the magic).

use jiff::Timestamp;

use super::super::Record;
use super::super::digest::{Algorithm, Digest};
use super::super::index::{Package, Place, word};

/// `hdrchkTags` and `hdrchkData` of rpm's `lib/header.c`; the data less than rpm allows.
const MAX_TAGS: usize = 0xffff;
const MAX_DATA: usize = 64 << 20;
const ENTRY: usize = 16;
/// `PATH_MAX` of the kernel.
const MAX_PATH: usize = 4096;

/// `include/rpm/rpmtag.h`.
const NAME: u32 = 1000;
const VERSION: u32 = 1001;
const RELEASE: u32 = 1002;
const EPOCH: u32 = 1003;
const INSTALL_TIME: u32 = 1008;
const ARCH: u32 = 1022;
const FILE_DIGESTS: u32 = 1035;
const FILE_FLAGS: u32 = 1037;
const DIR_INDEXES: u32 = 1116;
const BASE_NAMES: u32 = 1117;
const DIR_NAMES: u32 = 1118;
const FILE_DIGEST_ALGO: u32 = 5011;

const TYPE_INT32: u32 = 4;
const TYPE_STRING: u32 = 6;
const TYPE_STRING_ARRAY: u32 = 8;

/// `RPMFILE_CONFIG` of `include/rpm/rpmfiles.h`.
const FLAG_CONFIG: u32 = 1;

/// A header's two parts, lengths checked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Header<'a> {
    index: &'a [u8],
    data: &'a [u8],
}

/// One file of a package.
#[derive(Debug)]
pub(super) struct PackagedFile<'a> {
    pub(super) path: Vec<u8>,
    digest: &'a [u8],
    flags: u32,
}

// === impl Header ===

impl<'a> Header<'a> {
    pub(super) fn parse(blob: &'a [u8]) -> Option<Self> {
        let tags = usize::try_from(be32(blob, 0)?).ok()?;
        let size = usize::try_from(be32(blob, 4)?).ok()?;
        if tags > MAX_TAGS || size > MAX_DATA {
            return None;
        }
        let (index, data) = blob.get(8..)?.split_at_checked(tags * ENTRY)?;
        Some(Self { index, data: data.get(..size)? })
    }

    /// What is said of the package; `None` without a name, version or architecture, as the keys
    /// that packages are signed with are kept.
    pub(super) fn package(&self, row: i64) -> Option<Package> {
        let version = word(self.string(VERSION)?)?;
        let release = word(self.string(RELEASE)?)?;
        let installed = self.integers(INSTALL_TIME).next();
        Some(Package {
            name: word(self.string(NAME)?)?.into(),
            version: format!("{version}-{release}").into(),
            arch: word(self.string(ARCH)?)?.into(),
            epoch: self.integers(EPOCH).next().filter(|epoch| *epoch != 0),
            place: Place::Rpm { row },
            since: installed.and_then(|time| Timestamp::from_second(i64::from(time)).ok()),
            previous: None,
        })
    }

    /// The files; those whose directory is missing are left out.
    pub(super) fn files(self) -> impl Iterator<Item = PackagedFile<'a>> {
        let folders: Vec<&[u8]> = self.strings(DIR_NAMES).collect();
        let mut digests = self.strings(FILE_DIGESTS);
        let mut flags = self.integers(FILE_FLAGS);
        let names = self.strings(BASE_NAMES).zip(self.integers(DIR_INDEXES));
        names.filter_map(move |(name, folder)| {
            // Taken before anything is left out: the arrays run side by side.
            let digest = digests.next().unwrap_or_default();
            let flags = flags.next().unwrap_or_default();
            let folder = folders.get(usize::try_from(folder).ok()?)?;
            if folder.len().max(name.len()) > MAX_PATH {
                return None;
            }
            Some(PackagedFile { path: [folder, name].concat(), digest, flags })
        })
    }

    /// `pgpHashAlgo` of RFC 4880; MD5 where the package is older than the tag.
    pub(super) fn algorithm(&self) -> Option<Algorithm> {
        match self.integers(FILE_DIGEST_ALGO).next() {
            None | Some(1) => Some(Algorithm::Md5),
            Some(2) => Some(Algorithm::Sha1),
            Some(8) => Some(Algorithm::Sha256),
            Some(10) => Some(Algorithm::Sha512),
            Some(_) => None,
        }
    }

    /// Count and data (up to the end of all data) of a tag of one type.
    fn tag(&self, tag: u32, kind: u32) -> Option<(usize, &'a [u8])> {
        let entry = self
            .index
            .chunks_exact(ENTRY)
            .find(|entry| be32(entry, 0) == Some(tag) && be32(entry, 4) == Some(kind))?;
        let offset = usize::try_from(be32(entry, 8)?).ok()?;
        let count = usize::try_from(be32(entry, 12)?).ok()?;
        Some((count, self.data.get(offset..)?))
    }

    fn string(&self, tag: u32) -> Option<&'a [u8]> {
        let (_, data) = self.tag(tag, TYPE_STRING)?;
        data.split(|byte| *byte == 0).next()
    }

    fn strings(&self, tag: u32) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let (count, data) = self.tag(tag, TYPE_STRING_ARRAY).unwrap_or_default();
        data.split(|byte| *byte == 0).take(count)
    }

    fn integers(&self, tag: u32) -> impl Iterator<Item = u32> + use<'a> {
        let (count, data) = self.tag(tag, TYPE_INT32).unwrap_or_default();
        data.chunks_exact(4).take(count).filter_map(|bytes| be32(bytes, 0))
    }
}

fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

// === impl PackagedFile ===

impl PackagedFile<'_> {
    pub(super) fn record(&self, algorithm: Option<Algorithm>) -> Record {
        let digest = algorithm.and_then(|algorithm| Digest::from_hex(algorithm, self.digest));
        Record { digest, config: self.flags & FLAG_CONFIG != 0, written: None }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A header with these tags: tag, type, count, data.
    fn header(tags: &[(u32, u32, u32, &[u8])]) -> Vec<u8> {
        let (mut index, mut data) = (Vec::new(), Vec::new());
        for (tag, kind, count, bytes) in tags {
            for word in [*tag, *kind, u32::try_from(data.len()).unwrap(), *count] {
                index.extend(word.to_be_bytes());
            }
            data.extend_from_slice(bytes);
        }
        let mut blob = u32::try_from(tags.len()).unwrap().to_be_bytes().to_vec();
        blob.extend(u32::try_from(data.len()).unwrap().to_be_bytes());
        [blob, index, data].concat()
    }

    const TAGS: [(u32, u32, u32, &[u8]); 12] = [
        (NAME, TYPE_STRING, 1, b"xz-libs\0"),
        (VERSION, TYPE_STRING, 1, b"5.6.1\0"),
        (RELEASE, TYPE_STRING, 1, b"1.fc41\0"),
        (EPOCH, TYPE_INT32, 1, &[0, 0, 0, 1]),
        (ARCH, TYPE_STRING, 1, b"x86_64\0"),
        (INSTALL_TIME, TYPE_INT32, 1, &[0x65, 0, 0, 0]),
        (DIR_NAMES, TYPE_STRING_ARRAY, 2, b"/usr/lib64/\0/etc/\0"),
        (DIR_INDEXES, TYPE_INT32, 3, &[0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 1]),
        (BASE_NAMES, TYPE_STRING_ARRAY, 3, b"liblzma.so.5\0lost\0xz.conf\0"),
        (
            FILE_DIGESTS,
            TYPE_STRING_ARRAY,
            3,
            b"d41d8cd98f00b204e9800998ecf8427e\0\x00900150983cd24fb0d6963f7d28e17f72\0",
        ),
        (FILE_FLAGS, TYPE_INT32, 3, &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 17]),
        (63, 7, 16, b"0123456789abcdef"),
    ];

    #[test]
    fn a_header_gives_its_package_and_files() {
        let blob = header(&TAGS);
        let header = Header::parse(&blob).unwrap();
        let package = header.package(7).unwrap();
        assert_eq!((&*package.name, &*package.version), ("xz-libs", "5.6.1-1.fc41"));
        assert_eq!((&*package.arch, package.epoch), ("x86_64", Some(1)));
        assert_eq!(package.since.unwrap().as_second(), 0x6500_0000);
        let files: Vec<_> = header.files().collect();
        let paths: Vec<_> = files.iter().map(|file| file.path.as_slice()).collect();
        assert_eq!(paths, [&b"/usr/lib64/liblzma.so.5"[..], b"/etc/xz.conf"]);
        let record = files[1].record(header.algorithm());
        assert_eq!(record.digest.unwrap().to_string(), "900150983cd24fb0d6963f7d28e17f72");
        assert!(record.config && !files[0].record(None).config);
    }

    #[test]
    fn a_header_that_is_cut_anywhere_is_none_or_less() {
        let blob = header(&TAGS);
        for length in 0..blob.len() {
            assert!(Header::parse(&blob[..length]).is_none(), "{length}");
        }
        let key = header(&[(NAME, TYPE_STRING, 1, b"gpg-pubkey\0")]);
        assert!(Header::parse(&key).unwrap().package(1).is_none());
    }

    proptest! {
        #[test]
        fn any_bytes_are_total(blob in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Some(header) = Header::parse(&blob) {
                let _ = (header.package(1), header.files().count(), header.algorithm());
            }
        }

        #[test]
        fn any_damage_is_total(at in 0_usize..400, value: u8) {
            let mut blob = header(&TAGS);
            let at = at % blob.len();
            blob[at] = value;
            if let Some(header) = Header::parse(&blob) {
                let algorithm = header.algorithm();
                let _ = header.package(1);
                for file in header.files() {
                    let _ = file.record(algorithm);
                }
            }
        }
    }
}
