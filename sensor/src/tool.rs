//! Instruments that rewire the processes they look into, by what they leave there.
//!
//! A name is a hint for whoever reads a finding and excuses nothing: anyone can call a file so.

/// What one of them looks like from outside.
#[derive(Debug, PartialEq, Eq)]
pub struct Tool {
    /// As its makers call it.
    pub name: &'static str,
    /// Its libraries' file names begin so; a memfd's name counts as one.
    libraries: &'static [&'static str],
    /// Functions whose slots it fills with its own.
    rewires: &'static [&'static str],
}

/// heaptrack's `src/track/heaptrack_inject.cpp`, namespace `hooks`.
const ALLOCATION: &[&str] =
    &["malloc", "free", "realloc", "calloc", "cfree", "posix_memalign", "dlopen", "dlclose"];

const TOOLS: &[Tool] = &[
    tool("Frida", &["frida-agent", "frida-gadget", "libfrida-gadget"], &[]),
    tool("heaptrack", &["libheaptrack_inject.so", "libheaptrack_preload.so"], ALLOCATION),
    tool("uftrace", &["libmcount"], &[]),
    tool("valgrind", &["vgpreload_"], &[]),
    tool("DynamoRIO", &["libdynamorio.so"], &[]),
    tool("rr", &["librrpreload"], &[]),
    tool("GDB's in-process agent", &["libinproctrace.so"], &[]),
    tool("bpftime", &["libbpftime-agent.so"], &[]),
];

const fn tool(
    name: &'static str,
    libraries: &'static [&'static str],
    rewires: &'static [&'static str],
) -> Tool {
    Tool { name, libraries, rewires }
}

/// Whose library a file seems to be, by the path the kernel shows for it.
#[must_use]
pub fn by_library(path: &str) -> Option<&'static Tool> {
    let path = path.strip_prefix("/memfd:").unwrap_or(path);
    let name = path.rsplit('/').next().unwrap_or_default();
    let named = |tool: &&Tool| tool.libraries.iter().any(|start| name.starts_with(start));
    TOOLS.iter().find(named)
}

impl Tool {
    /// Whether slots of this function lead into its library wherever it is in use.
    #[must_use]
    pub fn rewires(&self, function: &str) -> bool {
        self.rewires.contains(&function)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tool_is_known_by_its_library() {
        let name = |path| by_library(path).map(|tool| tool.name);
        assert_eq!(name("/memfd:frida-agent-64.so (deleted)"), Some("Frida"));
        assert_eq!(name("/usr/lib/heaptrack/libheaptrack_inject.so"), Some("heaptrack"));
        assert_eq!(name("/usr/lib/libcrypto.so.3"), None);
        assert_eq!(name("/srv/frida-agent/libc.so.6"), None);
        assert_eq!(name(""), None);
    }

    #[test]
    fn a_tool_rewires_what_it_is_made_for_and_nothing_else() {
        let heaptrack = by_library("libheaptrack_inject.so").unwrap();
        assert!(heaptrack.rewires("malloc"));
        assert!(!heaptrack.rewires("RSA_public_decrypt"));
        assert!(!by_library("frida-agent.so").unwrap().rewires("malloc"));
    }
}
