//! Bounds of an incident: how many findings it keeps, and how much each may carry.

use jiff::Timestamp;

use super::key::{Key, key};
use crate::finding::{Evidence, Finding, PackageSince, Severity};
use crate::package::history::PackageChange;

/// Findings an incident keeps; more than there are detectors.
pub const MAX_FINDINGS: usize = 64;
/// Pieces of evidence, arguments, ancestors and techniques a finding keeps of each.
const MAX_PIECES: usize = 32;
/// Bytes of text a finding keeps: what a process chose must not fill memory and disk.
const MAX_TEXT: usize = 16 * 1024;
/// Bytes of one text among them.
const MAX_ONE_TEXT: usize = 2048;

/// How a finding was taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// Kept, as the first of its kind.
    Kept,
    /// The same as one kept: counted there.
    Repeated,
    /// No room.
    Omitted,
}

/// Makes every number, text and list short, so that the finding can be stored and
/// read back.
pub(super) fn trim(finding: &mut Finding) {
    finding.confidence = tidy(finding.confidence).clamp(0.0, 1.0);
    finding.evidence.retain(|evidence| !matches!(evidence, Evidence::Repeated { .. }));
    let cut = finding.evidence.len().saturating_sub(MAX_PIECES);
    finding.evidence.truncate(MAX_PIECES);
    if cut > 0 {
        let text = format!("{cut} further pieces of evidence were left out");
        finding.evidence.push(Evidence::Note { text });
    }
    finding.attack.truncate(MAX_PIECES);
    finding.process.cmdline.truncate(MAX_PIECES);
    finding.process.ancestors.truncate(MAX_PIECES);

    let mut room = MAX_TEXT;
    for text in own_texts(finding) {
        shorten(text, &mut room);
    }
    for evidence in &mut finding.evidence {
        trim_evidence(evidence, &mut room);
    }
    let Finding { process, attack, .. } = finding;
    let lists = process.cmdline.iter_mut().chain(&mut process.ancestors).chain(attack);
    for text in lists {
        shorten(text, &mut room);
    }
}

/// Adds `finding` to `findings`, whose keys are `keys`; `omitted` counts what has no place there.
pub(super) fn take(
    findings: &mut Vec<Finding>,
    keys: &mut Vec<Key>,
    omitted: &mut u64,
    finding: Finding,
) -> Taken {
    let wanted = key(&finding);
    let same = keys.iter().position(|known| *known == wanted);
    if let Some(same) = same.and_then(|at| findings.get_mut(at)) {
        count_again(same, finding);
        return Taken::Repeated;
    }
    if findings.len() < MAX_FINDINGS {
        findings.push(finding);
        keys.push(wanted);
        return Taken::Kept;
    }
    let news = findings.iter().all(|kept| kept.detector != finding.detector);
    match dispensable(findings) {
        Some(index) if news || weight(&findings[index]) < weight(&finding) => {
            *omitted += count(&findings.remove(index));
            keys.remove(index);
            findings.push(finding);
            keys.push(wanted);
            Taken::Kept
        }
        _ => {
            *omitted += 1;
            Taken::Omitted
        }
    }
}

/// What is to be expected is missed least.
fn weight(finding: &Finding) -> Severity {
    if finding.suppressed_by.is_some() { Severity::Info } else { finding.severity }
}

/// How often what `finding` says was seen.
pub(super) fn count(finding: &Finding) -> u64 {
    repeated(finding).map_or(1, |(count, ..)| count)
}

/// Count, first and latest time, where it was seen more than once.
pub(super) fn repeated(finding: &Finding) -> Option<(u64, Timestamp, Timestamp)> {
    finding.evidence.iter().find_map(|evidence| match evidence {
        Evidence::Repeated { count, first, last } => Some((*count, *first, *last)),
        _ => None,
    })
}

/// Counts `again` in `kept`; the worse of the two stays, the earlier where they are alike.
fn count_again(kept: &mut Finding, again: Finding) {
    let (count, first, last) = repeated(kept).unwrap_or((1, kept.time, kept.time));
    let (first, last) = (first.min(again.time), last.max(again.time));
    // What was told once without being suppressed is not to be expected; info tells nothing.
    let spoken = |one: &Finding| one.suppressed_by.is_none() && one.severity > Severity::Info;
    let told = spoken(kept) || spoken(&again);
    let by = kept.suppressed_by.take().or_else(|| again.suppressed_by.clone());
    if again.severity > kept.severity {
        *kept = again;
    }
    kept.suppressed_by = by.filter(|_| !told);
    kept.evidence.retain(|evidence| !matches!(evidence, Evidence::Repeated { .. }));
    kept.evidence.push(Evidence::Repeated { count: count.saturating_add(1), first, last });
}

/// The finding that is missed least: of the lowest severity among those whose detector speaks more
/// than once, so that many findings of one kind push out no other kind; the latest of them.
fn dispensable(findings: &[Finding]) -> Option<usize> {
    let alone = |finding: &Finding| {
        findings.iter().filter(|other| other.detector == finding.detector).count() == 1
    };
    let indexed = || findings.iter().enumerate().rev();
    indexed()
        .filter(|(_, finding)| !alone(finding))
        .min_by_key(|(_, finding)| weight(finding))
        .or_else(|| indexed().min_by_key(|(_, finding)| weight(finding)))
        .map(|(index, _)| index)
}

fn own_texts(finding: &mut Finding) -> impl Iterator<Item = &mut String> {
    let Finding { id, detector, title, host, process, subject, explained_by, .. } = finding;
    [id, detector, title, host, subject, &mut process.exe]
        .into_iter()
        .chain(explained_by)
        .chain(&mut process.container)
        .chain(&mut process.pod)
}

fn trim_code(evidence: &mut Evidence, room: &mut usize) {
    match evidence {
        Evidence::Code {
            module,
            build_id,
            place,
            function,
            expected,
            actual,
            expected_code,
            actual_code,
            leads_to,
            leads_to_module,
            leads_to_build_id,
            explained_by,
            ..
        } => {
            expected_code.truncate(MAX_PIECES);
            actual_code.truncate(MAX_PIECES);
            let texts = [module, place, function, expected, actual, leads_to, leads_to_module];
            let ids = build_id.iter_mut().chain(leads_to_build_id);
            let more = expected_code.iter_mut().chain(actual_code).chain(explained_by).chain(ids);
            texts.into_iter().chain(more).for_each(|text| shorten(text, room));
        }
        Evidence::Mapping { module, build_id, problem, address, memory, .. } => {
            let texts = [module, problem, address, memory];
            texts.into_iter().chain(build_id).for_each(|text| shorten(text, room));
        }
        _ => {}
    }
}

fn trim_write(evidence: &mut Evidence, room: &mut usize) {
    match evidence {
        Evidence::Writer { exe, cmdline, ancestors, ways, place, .. } => {
            for list in [cmdline, ancestors, ways] {
                list.truncate(MAX_PIECES);
                for text in list {
                    shorten(text, room);
                }
            }
            shorten(exe, room);
            shorten(place, room);
        }
        Evidence::Protection { module, place, access, .. } => {
            for text in [module, place, access] {
                shorten(text, room);
            }
        }
        _ => {}
    }
}

fn trim_opened(evidence: &mut Evidence, room: &mut usize) {
    if let Evidence::Opened {
        library,
        caller_module,
        caller_build_id,
        caller,
        known,
        seconds,
        ..
    } = evidence
    {
        known.truncate(MAX_PIECES);
        let texts = [library, caller_module, caller].into_iter().chain(caller_build_id);
        texts.chain(known).for_each(|text| shorten(text, room));
        *seconds = seconds.map(tidy);
    }
}

fn trim_slot(evidence: &mut Evidence, room: &mut usize) {
    if let Evidence::Slot {
        module,
        slot,
        slot_kind,
        symbol,
        expected,
        expected_module,
        actual,
        actual_module,
        actual_build_id,
    } = evidence
    {
        let modules = [module, expected_module, actual_module];
        let texts = [slot, slot_kind, symbol, expected, actual].into_iter().chain(modules);
        texts.chain(actual_build_id).for_each(|text| shorten(text, room));
    }
}

fn trim_evidence(evidence: &mut Evidence, room: &mut usize) {
    match evidence {
        Evidence::Slot { .. } => trim_slot(evidence, room),
        Evidence::Caller { function, caller_module, caller, known, stack } => {
            known.truncate(MAX_PIECES);
            stack.truncate(MAX_PIECES);
            let texts = [function, caller_module, caller].into_iter().chain(known).chain(stack);
            texts.for_each(|text| shorten(text, room));
        }
        Evidence::Opened { .. } => trim_opened(evidence, room),
        Evidence::Library { path, build_id, inode } => {
            [path, inode].into_iter().chain(build_id).for_each(|text| shorten(text, room));
        }
        Evidence::Code { .. } | Evidence::Mapping { .. } => trim_code(evidence, room),
        Evidence::Writer { .. } | Evidence::Protection { .. } => trim_write(evidence, room),
        Evidence::Audit { callback, callback_module, callback_build_id, .. } => {
            let texts = [callback, callback_module].into_iter().chain(callback_build_id);
            texts.for_each(|text| shorten(text, room));
        }
        Evidence::Package { path, package, purl, previous, content, digest, .. } => {
            let optional = purl.iter_mut().chain(previous).chain(digest);
            [path, package, content]
                .into_iter()
                .chain(optional)
                .for_each(|text| shorten(text, room));
        }
        Evidence::Search { found_by, asked_by, seen_as, on_host, not_told, odd } => {
            odd.truncate(MAX_PIECES);
            let optional = asked_by.iter_mut().chain(not_told).chain(odd);
            let texts = [found_by, seen_as, on_host].into_iter().chain(optional);
            texts.for_each(|text| shorten(text, room));
        }
        Evidence::File { mode, .. } => shorten(mode, room),
        Evidence::Timing {
            metric,
            seconds,
            baseline_seconds,
            limit_seconds,
            module,
            module_seconds,
            ..
        } => {
            let numbers = [seconds, baseline_seconds, limit_seconds];
            numbers.into_iter().chain(module_seconds).for_each(|number| *number = tidy(*number));
            [metric].into_iter().chain(module).for_each(|text| shorten(text, room));
        }
        Evidence::Environment { name, value } => {
            shorten(name, room);
            shorten(value, room);
        }
        Evidence::LoaderConfig {
            file,
            what,
            root,
            actions,
            before,
            after,
            added,
            removed,
            meanwhile,
        } => {
            for text in [file, what, root, before, after] {
                shorten(text, room);
            }
            for list in [actions, added, removed, meanwhile] {
                list.truncate(MAX_PIECES);
                for text in list {
                    shorten(text, room);
                }
            }
        }
        Evidence::Instrument { what, name, file, offset, symbol, owner, package, details } => {
            details.truncate(MAX_PIECES);
            let optional = [file, offset, symbol, owner, package].into_iter().flatten();
            let texts = [what, name].into_iter().chain(optional).chain(details);
            texts.for_each(|text| shorten(text, room));
        }
        Evidence::PamStack { .. } => trim_pam(evidence, room),
        Evidence::Since { .. } => trim_since(evidence, room),
        Evidence::Exec { path, cmdline } => {
            cmdline.truncate(MAX_PIECES);
            [path].into_iter().chain(cmdline).for_each(|text| shorten(text, room));
        }
        Evidence::Session { sign, missing, user, .. } => {
            [sign, missing].into_iter().chain(user).for_each(|text| shorten(text, room));
        }
        Evidence::Libpam { verdict, libpam, user } => {
            [verdict, libpam].into_iter().chain(user).for_each(|text| shorten(text, room));
        }
        Evidence::Connection { peer, method, since_accept_seconds, .. } => {
            *since_accept_seconds = tidy(*since_accept_seconds);
            peer.iter_mut().chain(method).for_each(|text| shorten(text, room));
        }
        Evidence::Note { text } => shorten(text, room),
        Evidence::Repeated { .. } => {}
    }
}

fn trim_pam(evidence: &mut Evidence, room: &mut usize) {
    let Evidence::PamStack {
        file,
        what,
        root,
        actions,
        before,
        after,
        added,
        removed,
        meanwhile,
        services,
        opened,
    } = evidence
    else {
        return;
    };
    for text in [file, what, root, before, after] {
        shorten(text, room);
    }
    // The worst first: there is room for so much.
    for list in [opened, actions, added, removed, meanwhile, services] {
        list.truncate(MAX_PIECES);
        for text in list {
            shorten(text, room);
        }
    }
}

fn trim_since(evidence: &mut Evidence, room: &mut usize) {
    let Evidence::Since { packages, files, not_told, .. } = evidence else { return };
    packages.truncate(MAX_PIECES);
    for PackageSince { change, files } in packages {
        let PackageChange { package, arch, old, new, .. } = change;
        files.truncate(MAX_PIECES);
        let optional = [arch, old, new].into_iter().flatten();
        let texts = [package].into_iter().chain(optional).chain(files);
        texts.for_each(|text| shorten(text, room));
    }
    files.truncate(MAX_PIECES);
    not_told.truncate(MAX_PIECES);
    let texts = files.iter_mut().map(|file| &mut file.file).chain(not_told);
    texts.for_each(|text| shorten(text, room));
}

/// A finite number of at most 15 digits: JSON has no others, and reads these back as they were.
fn tidy(number: f64) -> f64 {
    if number.is_finite() { (number.clamp(-1e9, 1e9) * 1e6).round() / 1e6 } else { 0.0 }
}

fn shorten(text: &mut String, room: &mut usize) {
    let most = MAX_ONE_TEXT.min(*room);
    if text.len() > most {
        text.truncate(text.floor_char_boundary(most));
        text.push('…');
    }
    *room -= text.len().min(*room);
}
