//! Which file systems may be touched: one that waits for a server or a daemon may wait for ever.

use std::collections::HashMap;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::filesystem;

use super::root::path_of;

/// Device number as mountinfo and maps print it: of the superblock, not `st_dev`.
pub(crate) type Device = (u32, u32);

/// Mounts looked at in one namespace; the kernel's default limit is 100,000.
const MAX_MOUNTS: usize = 100_000;
/// Layers of one overlay; the kernel takes 500.
const MAX_LAYERS: usize = 500;

/// The mounts of one namespace, as far as they matter here.
#[derive(Clone, Debug, Default)]
pub(crate) struct Mounts {
    /// `None` for a file system that answers by itself, else its type.
    devices: HashMap<Device, Option<Arc<str>>>,
    /// Where those are mounted that do not.
    remote: Vec<(Box<[u8]>, Arc<str>)>,
    /// Device of what is mounted last at `/`.
    root: Option<Device>,
    /// Nothing is known, so that any path may hang.
    unknown: bool,
}

/// Whether files on a device may be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Yes.
    Local,
    /// They may hang: a file system of this type.
    Remote(Arc<str>),
    /// Nothing is known about the device.
    Unknown,
}

/// One mount, whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MountLine {
    pub(crate) device: Device,
    /// Directory of its file system that is mounted.
    pub(crate) root: PathBuf,
    /// Where.
    pub(crate) point: PathBuf,
    /// It answers by itself.
    pub(crate) is_own: bool,
    /// Directories that an overlay is made of, the one that is written to first.
    pub(crate) layers: Vec<PathBuf>,
}

struct Mount<'a> {
    device: Device,
    root: &'a [u8],
    point: Vec<u8>,
    kind: &'a str,
    options: &'a [u8],
}

// === impl Mounts ===

impl Mounts {
    /// Reads the text of `/proc/PID/mountinfo`. Files on `trusted` may be opened whatever their
    /// file system is: the host itself lives there.
    pub(crate) fn parse(text: &[u8], trusted: Option<Device>) -> Self {
        let mut mounts = Self::default();
        let mut kinds: HashMap<&str, Arc<str>> = HashMap::new();
        for line in text.split(|byte| *byte == b'\n').take(MAX_MOUNTS) {
            let Some(mount) = parse_line(line) else { continue };
            if mount.point == b"/" {
                mounts.root = Some(mount.device);
            }
            if filesystem::is_own(mount.kind, mount.device.0 != 0) || trusted == Some(mount.device)
            {
                mounts.devices.entry(mount.device).or_insert(None);
                continue;
            }
            let kind = Arc::clone(kinds.entry(mount.kind).or_insert_with(|| mount.kind.into()));
            mounts.devices.insert(mount.device, Some(Arc::clone(&kind)));
            mounts.remote.push((mount.point.into(), kind));
        }
        mounts
    }

    /// Of a process whose mounts cannot be read.
    pub(crate) fn unknown() -> Self {
        Self { unknown: true, ..Self::default() }
    }

    /// Entries held.
    pub(crate) fn len(&self) -> usize {
        self.devices.len() + self.remote.len()
    }

    /// Where the root directory is.
    pub(crate) fn root(&self) -> Option<Device> {
        self.root
    }

    pub(crate) fn reach(&self, device: Device) -> Reach {
        match self.devices.get(&device) {
            Some(None) => Reach::Local,
            Some(Some(kind)) => Reach::Remote(Arc::clone(kind)),
            None => Reach::Unknown,
        }
    }

    /// Whether a look-up of `path` could touch a mount that may hang.
    pub(crate) fn may_hang(&self, path: &Path) -> bool {
        let path = path.as_os_str().as_bytes();
        self.unknown
            || self.remote.iter().any(|(point, _)| {
                let point: &[u8] = if **point == *b"/" { b"" } else { point };
                path.strip_prefix(point).is_some_and(|rest| rest.first().is_none_or(|c| *c == b'/'))
            })
    }
}

/// `36 35 98:0 /below /mnt rw,noatime master:1 - ext3 /dev/root rw` (Documentation/filesystems/proc.rst).
fn parse_line(line: &[u8]) -> Option<Mount<'_>> {
    let mut fields = line.split(|byte| *byte == b' ');
    let device = std::str::from_utf8(fields.nth(2)?).ok()?;
    let (major, minor) = device.split_once(':')?;
    let root = fields.next()?;
    let point = unescape(fields.next()?);
    let mut fields = fields.skip_while(|field| *field != b"-");
    let kind = fields.nth(1)?;
    Some(Mount {
        device: (major.parse().ok()?, minor.parse().ok()?),
        root,
        point,
        kind: std::str::from_utf8(kind).ok()?,
        options: fields.nth(1).unwrap_or_default(),
    })
}

// === impl MountLine ===

impl MountLine {
    /// A path below the mount, as one below the root of its file system.
    pub(crate) fn within(&self, rest: &Path) -> PathBuf {
        self.root.strip_prefix("/").unwrap_or(&self.root).join(rest)
    }
}

/// Every mount of a mountinfo, in its order.
pub(crate) fn lines(text: &[u8]) -> impl Iterator<Item = MountLine> {
    let lines = text.split(|byte| *byte == b'\n').take(MAX_MOUNTS);
    lines.filter_map(|line| {
        let mount = parse_line(line)?;
        Some(MountLine {
            device: mount.device,
            root: path_of(&unescape(mount.root)),
            is_own: filesystem::is_own(mount.kind, mount.device.0 != 0),
            layers: if mount.kind == "overlay" { layers(mount.options) } else { Vec::new() },
            point: path_of(&mount.point),
        })
    })
}

/// `upperdir` and `lowerdir` of an overlay (fs/overlayfs/params.c `ovl_show_options`), those with an
/// absolute path.
fn layers(options: &[u8]) -> Vec<PathBuf> {
    let (mut upper, mut lower) = (Vec::new(), Vec::new());
    for option in options.split(|byte| *byte == b',') {
        let Some(equals) = option.iter().position(|byte| *byte == b'=') else { continue };
        let (name, value) = (option.get(..equals), option.get(equals + 1..).unwrap_or_default());
        match name {
            Some(b"upperdir") => upper.push(value),
            // One each for `lowerdir+`, else separated by colons.
            Some(b"lowerdir+") => lower.push(value),
            Some(b"lowerdir") => lower.extend(value.split(|byte| *byte == b':')),
            _ => {}
        }
    }
    let paths = upper.into_iter().chain(lower).map(|layer| path_of(&unescape(layer)));
    paths.filter(|path| path.is_absolute()).take(MAX_LAYERS).collect()
}

/// Replaces `\012` and its like by the byte they stand for.
pub(crate) fn unescape(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        if let (b'\\', Some((code, after))) = (first, after.split_at_checked(3))
            && let Some(byte) = octal(code)
        {
            bytes.push(byte);
            rest = after;
            continue;
        }
        bytes.push(*first);
        rest = after;
    }
    bytes
}

fn octal(digits: &[u8]) -> Option<u8> {
    digits.iter().try_fold(0_u8, |value, digit| {
        let digit = digit.checked_sub(b'0').filter(|digit| *digit < 8)?;
        value.checked_mul(8)?.checked_add(digit)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TEXT: &[u8] = b"\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
23 22 0:21 / /proc rw - proc proc rw
24 22 0:52 / /mnt/a\\040b rw,nosuid shared:7 master:3 - fuse.sshfs host: rw,user_id=0
25 22 0:53 / /srv/nfs rw - nfs4 server:/export rw
26 22 8:1 / /mnt/usb rw - fuseblk /dev/sda1 rw
27 22 0:60 / /var/lib/docker/overlay2/x/merged rw - overlay overlay rw
";

    #[test]
    fn what_answers_by_itself_is_local_and_the_rest_is_not() {
        let mounts = Mounts::parse(TEXT, None);
        for device in [(254, 0), (0, 21), (0, 60)] {
            assert_eq!(mounts.reach(device), Reach::Local, "{device:?}");
        }
        for (device, kind) in [((0, 52), "fuse.sshfs"), ((0, 53), "nfs4"), ((8, 1), "fuseblk")] {
            assert_eq!(mounts.reach(device), Reach::Remote(kind.into()));
        }
        assert_eq!(mounts.reach((0, 99)), Reach::Unknown);
        assert_eq!(mounts.root(), Some((254, 0)));
    }

    #[test]
    fn a_path_by_way_of_a_remote_mount_may_hang() {
        let mounts = Mounts::parse(TEXT, None);
        for (path, hangs) in [
            ("/srv/nfs", true),
            ("/srv/nfs/lib/a.so", true),
            ("/srv/nfsd/a.so", false),
            ("/mnt/a b/a.so", true),
            ("/lib/a.so", false),
        ] {
            assert_eq!(mounts.may_hang(Path::new(path)), hangs, "{path}");
        }
    }

    #[test]
    fn where_no_mounts_are_known_any_path_may_hang() {
        assert!(Mounts::unknown().may_hang(Path::new("/lib/a.so")));
        assert_eq!(Mounts::unknown().reach((254, 0)), Reach::Unknown);
    }

    #[test]
    fn a_host_that_lives_on_a_network_is_read_there() {
        let text =
            b"22 1 0:30 / / rw - nfs4 server:/root rw\n25 22 0:31 / /srv rw - nfs4 s:/x rw\n";
        let blind = Mounts::parse(text, None);
        assert!(blind.may_hang(Path::new("/lib/a.so")));
        let mounts = Mounts::parse(text, blind.root());
        assert_eq!(mounts.reach((0, 30)), Reach::Local);
        assert!(!mounts.may_hang(Path::new("/lib/a.so")));
        assert!(mounts.may_hang(Path::new("/srv/a.so")));
    }

    #[test]
    fn an_overlay_tells_its_layers_the_written_one_first() {
        let text = b"27 22 0:60 / /merged rw - overlay overlay rw,lowerdir=/l/a\\040b:/l/2:l/rel,\
            upperdir=/u,workdir=/w\n28 22 0:61 /sub /x rw,a=b master:3 - overlay none rw,lowerdir+=/1,\
            lowerdir+=/2\n29 22 8:1 /srv/x /data rw - ext4 /dev/sda1 rw,upperdir=/no\n";
        let found: Vec<MountLine> = lines(text).collect();
        let paths = |all: &[&str]| all.iter().map(PathBuf::from).collect::<Vec<_>>();
        assert_eq!(found[0].layers, paths(&["/u", "/l/a b", "/l/2"]));
        assert_eq!(found[1].layers, paths(&["/1", "/2"]));
        assert_eq!((&found[1].root, &found[1].point), (&"/sub".into(), &"/x".into()));
        assert_eq!((found[2].device, found[2].layers.len()), ((8, 1), 0));
        assert_eq!(found[2].root, Path::new("/srv/x"));
    }

    #[test]
    fn escapes_stand_for_bytes() {
        assert_eq!(unescape(b"a\\040b\\012\\134c\\04"), b"a b\n\\c\\04");
        assert_eq!(unescape(b"\\777\\"), b"\\777\\");
    }

    #[test]
    fn this_machine_has_a_root() {
        let text = std::fs::read("/proc/self/mountinfo").unwrap();
        assert!(Mounts::parse(&text, None).root().is_some());
    }

    proptest! {
        #[test]
        fn any_text_is_total(text in prop::collection::vec(any::<u8>(), 0..300)) {
            let mounts = Mounts::parse(&text, None);
            let _ = mounts.may_hang(Path::new("/a"));
            let _ = unescape(&text);
            let _ = lines(&text).count();
        }
    }
}
