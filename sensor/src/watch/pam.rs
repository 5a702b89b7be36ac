//! What a change of PAM's files comes to, from the files of the root as they were and as they are.

use std::collections::{BTreeMap, BTreeSet};

use super::change::{PamEffect, Preloaded};
use super::examine::Look;
use super::spot::{Role, Spot};
use super::state::{Content, State, TOLD_MAX};
use crate::pam::{self, Line, Services};

/// The module that an entry of the file at `path` names.
pub(super) fn module(path: &str, entry: &str) -> Option<String> {
    let line = if path == pam::CONF { Line::parse_conf(entry) } else { Line::parse(entry) };
    line?.named_module().map(str::to_owned)
}

/// Who is concerned by the new state of a service's file, all others being as they were told.
pub(super) fn effect(told: &BTreeMap<Spot, State>, spot: &Spot, after: &State) -> PamEffect {
    let Some(name) = Services::of(&spot.path).filter(|_| spot.role == Role::PamService) else {
        return PamEffect::default();
    };
    let before = services(told.iter());
    let others = told.iter().filter(|(other, _)| *other != spot);
    let now = services(others.chain([(spot, after)]));
    let mut services = now.with(name);
    let opened = services.iter().filter(|one| now.opens(one) && !before.opens(one)).cloned();
    let opened: Vec<String> = opened.take(TOLD_MAX).collect();
    services.truncate(TOLD_MAX);
    PamEffect { services, opened }
}

fn services<'a>(states: impl Iterator<Item = (&'a Spot, &'a State)>) -> Services {
    let files = states.filter(|(spot, state)| {
        spot.role == Role::PamService && matches!(*state.content, Content::Entries(_))
    });
    Services::new(files.map(|(spot, state)| (spot.path.as_str(), state.content.entries())))
}

/// The modules that `lines` of the file at `path` name, as they are now.
pub(super) fn modules(path: &str, lines: &BTreeSet<&String>, look: &Look) -> Vec<Preloaded> {
    let named: BTreeSet<String> = lines.iter().filter_map(|line| module(path, line)).collect();
    named.iter().take(TOLD_MAX).map(|module| named_module(module, look)).collect()
}

fn named_module(module: &str, look: &Look) -> Preloaded {
    if let Some(known) = look.libraries.iter().find(|library| library.path == module) {
        return known.clone();
    }
    let own = |(spot, _): &(&Spot, &State)| {
        spot.role == Role::PamModule && !module.contains('/') && pam::base(&spot.path) == module
    };
    let found = look.states.iter().filter(own).find_map(|(spot, state)| itself(spot, state));
    found.unwrap_or_else(|| Preloaded { path: module.to_owned(), ..Preloaded::default() })
}

/// A module that is watched; `None` where there is no such file.
pub(super) fn itself(spot: &Spot, state: &State) -> Option<Preloaded> {
    let build_id = match &*state.content {
        Content::Loader { build_id, .. } => build_id.clone(),
        _ => None,
    };
    Some(Preloaded { build_id, ..Preloaded::of(&spot.path, &state.file?) })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::state::Identity;
    use super::*;

    fn spot(role: Role, path: &str) -> Spot {
        Spot { role, path: path.to_owned() }
    }

    fn state(lines: &[&str]) -> State {
        let entries = lines.iter().map(|line| (*line).to_owned()).collect();
        let file = Some(Identity { ino: 5, mode: 0o644, ..Identity::default() });
        State { file, content: Arc::new(Content::Entries(entries)), ..State::default() }
    }

    #[test]
    fn a_line_in_a_shared_file_opens_every_service_that_includes_it() {
        let common = spot(Role::PamService, "/etc/pam.d/common-auth");
        let closed = state(&["auth required pam_unix.so"]);
        let told: BTreeMap<Spot, State> = [
            (common.clone(), closed.clone()),
            (spot(Role::PamService, "/etc/pam.d/sshd"), state(&["@include common-auth"])),
            (spot(Role::PamService, "/etc/pam.d/cron"), state(&["auth required pam_deny.so"])),
        ]
        .into();
        let open = state(&["auth sufficient pam_permit.so", "auth required pam_unix.so"]);
        let effect = super::effect(&told, &common, &open);
        assert_eq!(effect.services, ["common-auth", "sshd"]);
        assert_eq!(effect.opened, ["common-auth", "sshd"]);
        assert!(super::effect(&told, &common, &closed).opened.is_empty());
    }

    #[test]
    fn what_stood_open_before_is_not_opened() {
        let file = spot(Role::PamService, "/etc/pam.d/kiosk");
        let told = [(file.clone(), state(&["auth required pam_permit.so"]))].into();
        let more = state(&["auth required pam_permit.so", "session required pam_unix.so"]);
        assert!(super::effect(&told, &file, &more).opened.is_empty());
    }

    #[test]
    fn modules_are_found_by_name_and_by_path() {
        let mut look = Look::default();
        let own = spot(Role::PamModule, "/usr/lib/security/pam_x.so");
        look.states.insert(own, state(&[]));
        let elsewhere =
            Preloaded { path: "/tmp/y.so".to_owned(), mode: 0o777, ..Preloaded::default() };
        look.libraries.push(elsewhere.clone());
        let lines = ["auth required pam_x.so", "auth required /tmp/y.so", "auth required pam_z.so"];
        let lines: Vec<String> = lines.map(str::to_owned).into();
        let found = modules("/etc/pam.d/sshd", &lines.iter().collect(), &look);
        assert_eq!(found.len(), 3);
        assert_eq!(found[0], elsewhere);
        assert_eq!((found[1].path.as_str(), found[1].mode), ("/usr/lib/security/pam_x.so", 0o644));
        assert_eq!((found[2].path.as_str(), &found[2].file), ("pam_z.so", &None));
    }
}
