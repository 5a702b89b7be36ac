//! The mount at a process's root, from the text of `/proc/PID/mountinfo`: which device, and of which
//! layers an overlay consists.

use super::home::short_digest;

/// What is mounted at `/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RootMount<'a> {
    /// Device number of the superblock, kernel form.
    pub(super) dev: u32,
    /// Directory of that file system that is the root.
    pub(super) directory: &'a str,
    kind: &'a str,
    options: &'a str,
}

// === impl RootMount ===

impl<'a> RootMount<'a> {
    /// The last one, which covers those before.
    pub(super) fn parse(mountinfo: &'a str) -> Option<Self> {
        mountinfo.lines().rev().find_map(|line| Self::of_line(line, "/"))
    }

    /// `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue`
    /// (Documentation/filesystems/proc.rst, 3.5).
    fn of_line(line: &'a str, point: &str) -> Option<Self> {
        let (mount, file_system) = line.split_once(" - ")?;
        let mut fields = mount.split(' ').skip(2);
        let (major, minor) = fields.next()?.split_once(':')?;
        let directory = fields.next()?;
        if fields.next()? != point {
            return None;
        }
        let (major, minor): (u32, u32) = (major.parse().ok()?, minor.parse().ok()?);
        let mut fields = file_system.split(' ');
        let kind = fields.next()?;
        let options = fields.nth(1)?;
        Some(Self { dev: (major << 20) | (minor & 0xf_ffff), directory, kind, options })
    }

    /// The same root directory, whichever mount leads to it.
    pub(super) fn same(&self, other: &Self) -> bool {
        (self.dev, self.directory) == (other.dev, other.directory)
    }

    /// Digest of the layers that containers of one image share. `is_init`: whether a layer is one
    /// that Docker makes for each container, in front of those of the image.
    pub(super) fn image(&self, is_init: impl FnOnce(&str) -> bool) -> Option<String> {
        if self.kind != "overlay" {
            return None;
        }
        let mut lowers: Vec<String> = Vec::new();
        let mut upper = "";
        for option in self.options.split(',') {
            // `lowerdir+` and `datadir+` name one each, from 6.8 on (fs/overlayfs/params.c).
            match option.split_once('=') {
                Some(("lowerdir", all)) => lowers.extend(split_layers(all)),
                Some(("lowerdir+" | "datadir+", one)) => lowers.push(one.to_owned()),
                Some(("upperdir", dir)) => upper = dir,
                _ => {}
            }
        }
        let first = lowers.first()?;
        if lowers.len() > 1 && (is_docker_upper(upper) || is_init(first)) {
            lowers.remove(0);
        }
        Some(short_digest(&lowers.join("\n")))
    }
}

/// Devices, kernel form, of what is mounted at these points.
pub(super) fn devices(mountinfo: &str, points: &[&str]) -> Vec<u32> {
    let found = |point: &&str| {
        let mut lines = mountinfo.lines().rev();
        lines.find_map(|line| RootMount::of_line(line, point)).map(|mount| mount.dev)
    };
    points.iter().filter_map(found).collect()
}

/// A colon in a name is written as `\:`, and the backslash of it as `\134` (`seq_show_option` of the
/// kernel).
fn split_layers(layers: &str) -> Vec<String> {
    const COLON: char = '\u{1}';
    let layers = layers.replace(r"\134:", &COLON.to_string());
    layers.split(':').filter(|layer| !layer.is_empty()).map(str::to_owned).collect()
}

/// `/var/lib/docker/overlay2/<64 hex digits>/diff`: its first lower layer is `<the same>-init`
/// (moby, daemon/graphdriver/overlay2).
fn is_docker_upper(upper: &str) -> bool {
    upper
        .strip_suffix("/diff")
        .and_then(|path| path.rsplit_once("/overlay2/"))
        .is_some_and(|(_, id)| id.len() == 64 && id.bytes().all(|b| b.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn line(options: &str) -> String {
        format!("22 1 0:40 / / rw,relatime - overlay overlay rw,{options}\n")
    }

    fn image(options: &str) -> Option<String> {
        RootMount::parse(&line(options)).unwrap().image(|_| false)
    }

    #[test]
    fn containers_of_one_image_have_the_same_layers_below() {
        let one = image("lowerdir=/s/2/fs:/s/1/fs,upperdir=/s/7/fs,workdir=/s/7/work").unwrap();
        let two = image("lowerdir=/s/2/fs:/s/1/fs,upperdir=/s/8/fs,workdir=/s/8/work").unwrap();
        assert_eq!(one, two);
        let child = image("lowerdir=/s/3/fs:/s/2/fs:/s/1/fs,upperdir=/s/9/fs").unwrap();
        assert_ne!(one, child, "an image built on it is another");
        assert_eq!(image("lowerdir+=/s/2/fs,lowerdir+=/s/1/fs,upperdir=/x"), Some(one));
    }

    #[test]
    fn the_layer_that_docker_makes_per_container_is_left_out() {
        let container = |id: char| {
            let id: String = std::iter::repeat_n(id, 64).collect();
            let dir = "/var/lib/docker/overlay2";
            image(&format!("lowerdir={dir}/l/{id}:{dir}/l/A:{dir}/l/B,upperdir={dir}/{id}/diff"))
        };
        assert_eq!(container('a'), container('b'));
        let told = |first: &str| {
            let line = line(&format!("lowerdir={first}:/s/2/fs:/s/1/fs,upperdir=/s/9/fs"));
            RootMount::parse(&line).unwrap().image(|layer| layer == first)
        };
        assert_eq!(told("/s/7/fs"), told("/s/8/fs"));
    }

    #[test]
    fn what_covers_the_root_counts() {
        let text = "1 1 8:1 / / rw - ext4 /dev/sda1 rw\n2 1 8:2 /sub / rw - btrfs /dev/sdb rw\n\
                    3 1 8:3 / /usr rw shared:1 - ext4 /dev/sdc rw\n";
        let root = RootMount::parse(text).unwrap();
        assert_eq!((root.dev, root.directory), (8 << 20 | 2, "/sub"));
        assert_eq!(root.image(|_| false), None);
        assert_eq!(devices(text, &["/", "/usr", "/var"]), [8 << 20 | 2, 8 << 20 | 3]);
        assert_eq!(RootMount::parse(""), None);
    }

    #[test]
    fn a_colon_in_the_name_of_a_layer_divides_nothing() {
        assert_eq!(split_layers(r"/a\134:b:/c"), ["/a\u{1}b", "/c"]);
    }

    proptest! {
        #[test]
        fn any_text_parses_without_panic(text in "[ -~\n]{0,300}") {
            if let Some(root) = RootMount::parse(&text) {
                let _ = root.image(|_| true);
            }
            let _ = devices(&text, &["/"]);
        }

        #[test]
        fn any_options_parse_without_panic(options in ".{0,200}") {
            if let Some(root) = RootMount::parse(&line(&options)) {
                let _ = root.image(|_| true);
            }
        }
    }
}
