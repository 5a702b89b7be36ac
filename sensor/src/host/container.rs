//! Container and pod of a process, from the text of `/proc/PID/cgroup`.

/// Where a process runs, as far as its control group tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Container {
    /// Container id (64 hex digits), or the machine's name for systemd-nspawn and lxc.
    pub(crate) id: Option<String>,
    /// UID of the Kubernetes pod.
    pub(crate) pod: Option<String>,
}

/// Names longer than this are not ids.
const LONGEST_NAME: usize = 128;

impl Container {
    /// Reads `hierarchy:controllers:path` lines; the first that names a container counts.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        text.lines()
            .take(64)
            .filter_map(|line| line.splitn(3, ':').nth(2))
            .map(Self::from_path)
            .find(|found| *found != Self::default())
    }

    fn from_path(path: &str) -> Self {
        let mut found = Self::default();
        let mut parent = "";
        for segment in path.split('/').filter(|s| !s.is_empty() && s.len() <= LONGEST_NAME) {
            if let Some(pod) = pod_uid(segment) {
                found.pod = Some(pod);
            }
            if let Some(id) = container_id(segment, parent) {
                found.id = Some(id);
            }
            parent = segment;
        }
        found
    }
}

/// `pod<uid>` (cgroupfs driver) or `kubepods-burstable-pod<uid_with_underscores>.slice` (systemd).
fn pod_uid(segment: &str) -> Option<String> {
    let name = segment.strip_suffix(".slice").unwrap_or(segment);
    let uid = name.strip_prefix("pod").or_else(|| Some(name.rsplit_once("-pod")?.1))?;
    let uid = uid.replace('_', "-");
    // Static pods have the 32 hex digits of a configuration hash for a UID.
    let hex = uid.bytes().filter(u8::is_ascii_hexdigit).count();
    let dashes = uid.bytes().filter(|byte| *byte == b'-').count();
    let shaped = hex == 32 && hex + dashes == uid.len() && (dashes == 0 || dashes == 4);
    shaped.then_some(uid)
}

fn container_id(segment: &str, parent: &str) -> Option<String> {
    let name = segment.strip_suffix(".scope").unwrap_or(segment);
    if is_id(name) {
        return Some(name.to_owned());
    }
    // docker-, libpod-, cri-containerd-, crio-; their conmon is outside the container.
    if let Some((runtime, id)) = name.rsplit_once('-')
        && is_id(id)
        && !runtime.ends_with("conmon")
    {
        return Some(id.to_owned());
    }
    let machine = name
        .strip_prefix("machine-")
        .or_else(|| segment.strip_prefix("systemd-nspawn@")?.strip_suffix(".service"))
        .or_else(|| name.strip_prefix("lxc.payload."))
        .or_else(|| (parent == "lxc").then_some(name))?;
    (!machine.is_empty() && name != "machine").then(|| machine.replace("\\x2d", "-"))
}

fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    const UID: &str = "2a3c1f0e-1111-2222-3333-444455556666";

    fn parsed(line: &str) -> (Option<String>, Option<String>) {
        let found = Container::parse(line).unwrap_or_default();
        (found.id, found.pod)
    }

    #[test]
    fn runtimes_name_their_containers() {
        let id = Some(ID.to_owned());
        for path in [
            format!("0::/system.slice/docker-{ID}.scope\n"),
            format!("12:pids:/docker/{ID}\n"),
            format!("0::/machine.slice/libpod-{ID}.scope/container\n"),
            format!(
                "0::/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{ID}.scope"
            ),
            format!("0::/../../docker-{ID}.scope"),
        ] {
            assert_eq!(parsed(&path), (id.clone(), None), "{path}");
        }
    }

    #[test]
    fn kubernetes_tells_container_and_pod() {
        let want = (Some(ID.to_owned()), Some(UID.to_owned()));
        let under = UID.replace('-', "_");
        for path in [
            format!("0::/kubepods/burstable/pod{UID}/{ID}"),
            format!(
                "0::/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{under}.slice/\
                 cri-containerd-{ID}.scope"
            ),
            format!("0::/kubepods.slice/kubepods-pod{under}.slice/crio-{ID}.scope"),
        ] {
            assert_eq!(parsed(&path), want, "{path}");
        }
    }

    #[test]
    fn machines_have_names() {
        assert_eq!(parsed("0::/machine.slice/machine-web\\x2d1.scope/payload").0.unwrap(), "web-1");
        assert_eq!(parsed("0::/machine.slice/systemd-nspawn@db.service/payload").0.unwrap(), "db");
        assert_eq!(parsed("0::/lxc.payload.mail/init.scope").0.unwrap(), "mail");
        assert_eq!(parsed("4:cpu:/lxc/mail").0.unwrap(), "mail");
    }

    #[test]
    fn ordinary_services_are_in_no_container() {
        for path in [
            "0::/",
            "0::/system.slice/ssh.service",
            "0::/user.slice/user-0.slice/session-3.scope",
            "0::/machine.slice",
            "0::/system.slice/crio-conmon.scope",
            "1:name=systemd:/init.scope",
            "",
        ] {
            assert_eq!(Container::parse(path), None, "{path}");
        }
        let conmon = format!("0::/machine.slice/libpod-conmon-{ID}.scope");
        assert_eq!(Container::parse(&conmon), None);
    }

    proptest::proptest! {
        #[test]
        fn any_text_parses_without_panic(text in ".{0,300}") {
            let _ = Container::parse(&text);
        }
    }
}
