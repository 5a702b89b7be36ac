//! The programs that `pam_exec` runs for a service (`modules/pam_exec/pam_exec.c`, Linux-PAM 1.3 to
//! 1.7).

use super::{Named, Reader};
use crate::pam::{CONF, Line, SERVICE_DIRS, base, entries};

const WHY: &str = "pam_exec is configured to run it";
const MODULE: &str = "pam_exec.so";
/// `PAM_SUBSTACK_MAX_LEVEL`.
const DEPTH_MAX: usize = 16;
/// Options that stand before the program.
const OPTIONS: [&str; 6] = ["debug", "expose_authtok", "seteuid", "quiet", "quiet_log", "stdout"];
const WITH_VALUE: [&str; 2] = ["log=", "type="];

/// Of these services and of what they include.
pub(super) fn programs(reader: &mut Reader<'_>, services: &[String]) -> Vec<Named> {
    let mut found = Vec::new();
    for service in services {
        of_service(reader, service, 0, &mut found);
    }
    if let Some(bytes) = reader.read(CONF) {
        let lines = entries(&bytes);
        found.extend(lines.iter().filter_map(|line| program(&Line::parse_conf(line)?)));
    }
    found
}

fn of_service(reader: &mut Reader<'_>, service: &str, depth: usize, found: &mut Vec<Named>) {
    if depth >= DEPTH_MAX {
        reader.partial = true;
        return;
    }
    let name = base(service);
    let paths = SERVICE_DIRS.iter().map(|dir| format!("{dir}/{name}"));
    let Some(bytes) = paths.into_iter().find_map(|path| reader.read(&path)) else { return };
    for line in entries(&bytes).iter().filter_map(|entry| Line::parse(entry)) {
        match line.named_module() {
            Some(_) => found.extend(program(&line)),
            None => of_service(reader, &line.module, depth + 1, found),
        }
    }
}

fn program(line: &Line) -> Option<Named> {
    line.named_module().filter(|module| base(module) == MODULE)?;
    let is_option = |word: &str| {
        OPTIONS.contains(&word) || WITH_VALUE.iter().any(|option| word.starts_with(option))
    };
    let path = line.arguments.iter().find(|word| !is_option(word))?;
    path.starts_with('/').then(|| Named { path: path.clone(), why: WHY })
}
