//! What differs between this host's baselines and another's.
//!
//! Only what a person can act on: libraries by soname and build-id, who calls and who asks by path,
//! names, methods, and times that lie beyond what the sensor tolerates of a stream. How often something
//! was seen, and when, is no difference.

use std::collections::{BTreeMap, BTreeSet};

use sensor_stats::{Rule, Shift};
use serde::Serialize;

use super::shift::{CONSTRUCTOR, LINK};
use super::subject::Baseline;
use super::subject_name::SubjectName;
use crate::host::{ModuleId, seconds};

/// Times of a stream before it is compared.
const SAMPLES_MIN: u64 = 20;

/// One program's differences.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// The subject here, or there where it is only there.
    pub subject: String,
    /// The subject there, where it is another build of the same program.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub other_build: Option<String>,
    /// What differs; never empty.
    pub differs: Vec<Differs>,
}

/// One difference.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum Differs {
    /// The program is known on one of both only.
    Program {
        /// It is known here.
        here: bool,
    },
    /// The program is another build.
    Build {
        /// Here.
        here: String,
        /// There.
        there: String,
    },
    /// Builds of a library; none where it is not known.
    Library {
        /// Its soname, as far as its file name tells.
        soname: String,
        /// `path build` here.
        here: Vec<String>,
        /// `path build` there.
        there: Vec<String>,
    },
    /// Something else that only one of both knows.
    Known {
        /// `caller`, `asker`, `variable`, `helper`, `instrument` or `method`.
        kind: &'static str,
        /// Which.
        name: String,
        /// It is known here.
        here: bool,
    },
    /// The median of a stream of times.
    Times {
        /// Which.
        stream: String,
        /// Here, seconds.
        seconds_here: f64,
        /// There, seconds.
        seconds_there: f64,
    },
}

/// Compares the baselines of this host with those of another, subject by subject; builds of one program
/// of which each host has one other are compared as well.
#[must_use]
pub fn differences(
    here: &BTreeMap<String, Baseline>,
    there: &BTreeMap<String, Baseline>,
) -> Vec<Difference> {
    let rest = |own: &BTreeMap<String, Baseline>, other: &BTreeMap<String, Baseline>| {
        let mut rest: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
        for subject in own.keys().filter(|subject| !other.contains_key(*subject)) {
            let SubjectName { path, home, .. } = SubjectName::of(subject);
            rest.entry((path.to_owned(), home.to_owned())).or_default().push(subject.clone());
        }
        rest
    };
    let (own, mut others) = (rest(here, there), rest(there, here));
    let mut found = Vec::new();
    for (subject, baseline) in here {
        if let Some(other) = there.get(subject) {
            found.push((subject.clone(), None, of(baseline, other)));
        }
    }
    for (program, subjects) in own {
        let candidates = others.get(&program).map(Vec::as_slice);
        if let ([own], Some([other])) = (subjects.as_slice(), candidates)
            && let (Some(ours), Some(theirs)) = (here.get(own), there.get(other))
        {
            let build = |subject: &str| SubjectName::of(subject).build.to_owned();
            let mut differs = vec![Differs::Build { here: build(own), there: build(other) }];
            differs.extend(of(ours, theirs));
            found.push((own.clone(), Some(other.clone()), differs));
            others.remove(&program);
            continue;
        }
        let alone = |subject| (subject, None, vec![Differs::Program { here: true }]);
        found.extend(subjects.into_iter().map(alone));
    }
    let alone = |subject| (subject, None, vec![Differs::Program { here: false }]);
    found.extend(others.into_values().flatten().map(alone));
    let mut found: Vec<Difference> = found
        .into_iter()
        .filter(|(_, _, differs)| !differs.is_empty())
        .map(|(subject, other_build, differs)| Difference { subject, other_build, differs })
        .collect();
    found.sort_by(|a, b| a.subject.cmp(&b.subject));
    found
}

fn of(here: &Baseline, there: &Baseline) -> Vec<Differs> {
    let mut differs = libraries(here, there);
    differs.extend(names("caller", callers(here), &callers(there)));
    differs.extend(names("asker", askers(here), &askers(there)));
    for (kind, own, other) in [
        ("variable", &here.environment, &there.environment),
        ("helper", &here.helpers, &there.helpers),
        ("instrument", &here.instruments, &there.instruments),
    ] {
        differs.extend(names(kind, own.clone(), other));
    }
    let methods = |baseline: &Baseline| -> BTreeSet<String> {
        baseline.methods.keys().map(ToString::to_string).collect()
    };
    differs.extend(names("method", methods(here), &methods(there)));
    for (stream, own) in &here.shifts {
        let other = there.shifts.get(stream);
        differs.extend(other.and_then(|other| times(stream, own, other)));
    }
    differs
}

fn libraries(here: &Baseline, there: &Baseline) -> Vec<Differs> {
    let by_name = |baseline: &Baseline| {
        let mut by_name: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
        for (module, _) in &baseline.libraries {
            // What stands for a build-id tells nothing on another host.
            let build = module.build_id().unwrap_or("-").to_owned();
            let shown = format!("{} {build}", module.path);
            by_name.entry(soname(module).to_owned()).or_default().insert(build, shown);
        }
        by_name
    };
    let (here, there) = (by_name(here), by_name(there));
    let all: BTreeSet<&String> = here.keys().chain(there.keys()).collect();
    let none = BTreeMap::new();
    let mut differs = Vec::new();
    for name in all {
        let (own, other) = (here.get(name).unwrap_or(&none), there.get(name).unwrap_or(&none));
        if !own.keys().eq(other.keys()) {
            let shown = |builds: &BTreeMap<String, String>| builds.values().cloned().collect();
            let (here, there) = (shown(own), shown(other));
            differs.push(Differs::Library { soname: name.clone(), here, there });
        }
    }
    differs
}

/// `FUNCTION by PATH`, without versions: that a library has another build is told of the library.
fn callers(baseline: &Baseline) -> BTreeSet<String> {
    let each = baseline.callers.iter().flat_map(|(function, callers)| {
        callers.modules.iter().map(move |one| format!("{function} by {}", stem(&one.path)))
    });
    each.collect()
}

fn askers(baseline: &Baseline) -> BTreeSet<String> {
    let each = baseline.openings.askers.iter().flat_map(|(library, askers)| {
        askers.iter().map(move |one| format!("{} by {}", stem(library), stem(&one.path)))
    });
    each.collect()
}

fn names(kind: &'static str, here: BTreeSet<String>, there: &BTreeSet<String>) -> Vec<Differs> {
    let missing: Vec<String> = there.difference(&here).cloned().collect();
    let own = here.into_iter().filter(|name| !there.contains(name));
    let mut differs: Vec<Differs> =
        own.map(|name| Differs::Known { kind, name, here: true }).collect();
    differs.extend(missing.into_iter().map(|name| Differs::Known { kind, name, here: false }));
    differs
}

/// Where one's median is beyond the other's small level: the machines' speeds are not known.
fn times(stream: &str, here: &Shift, there: &Shift) -> Option<Differs> {
    let known = |shift: &Shift| shift.yardstick().filter(|known| known.count >= SAMPLES_MIN);
    let (own, other) = (known(here)?, known(there)?);
    let rule = if stream == LINK || stream == CONSTRUCTOR { Rule::LINK } else { Rule::AUTH };
    let beyond = own.median_us > other.levels(&rule, None).small_us
        || other.median_us > own.levels(&rule, None).small_us;
    let told = |us: u64| seconds(us.saturating_mul(1000));
    beyond.then(|| Differs::Times {
        stream: stream.to_owned(),
        seconds_here: told(own.median_us),
        seconds_there: told(other.median_us),
    })
}

/// The file's name up to the first number of its version: `liblzma.so.5` of `liblzma.so.5.6.1`.
fn soname(module: &ModuleId) -> &str {
    let name = module.name();
    let Some(at) = name.find(".so.").map(|at| at + 4) else { return name };
    let rest = name.get(at..).unwrap_or_default();
    let end = rest.find('.').map_or(name.len(), |end| at + end);
    name.get(..end).unwrap_or(name)
}

/// The path without a library's version.
fn stem(path: &str) -> &str {
    path.rfind(".so").and_then(|at| path.get(..at)).unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Method;
    use jiff::Timestamp;

    const SSHD: &str = "/usr/sbin/sshd ab";

    fn module(path: &str, build: &str) -> ModuleId {
        ModuleId { path: path.to_owned(), build: build.to_owned() }
    }

    fn learned() -> Baseline {
        let mut baseline = Baseline::default();
        for (path, build) in [("/lib/liblzma.so.5.4.1", "01"), ("/lib/libc.so.6", "inode:1:2:3")] {
            baseline.add_library(&module(path, build), Timestamp::UNIX_EPOCH, false);
        }
        baseline.add_caller("RSA_public_decrypt", &module("/usr/sbin/sshd", "ab"));
        baseline.add_opening("/lib/nss.so", &module("/lib/libc.so.6", "02"));
        for _ in 0..30 {
            baseline.add_start(Timestamp::UNIX_EPOCH, Some(Method::Publickey));
            baseline.add_constructors(300_000);
        }
        baseline
    }

    fn of_one(subject: &str, baseline: Baseline) -> BTreeMap<String, Baseline> {
        [(subject.to_owned(), baseline)].into()
    }

    fn told(here: Baseline, there: Baseline) -> Vec<Differs> {
        let found = differences(&of_one(SSHD, here), &of_one(SSHD, there));
        found.into_iter().flat_map(|one| one.differs).collect()
    }

    #[test]
    fn what_was_seen_more_often_or_under_another_inode_is_the_same() {
        let mut there = learned();
        there.add_start(Timestamp::UNIX_EPOCH, Some(Method::Publickey));
        there.libraries[1].0.build = "inode:7:8:9".to_owned();
        assert_eq!(told(learned(), there), []);
    }

    #[test]
    fn another_build_of_a_library_is_one_difference_by_its_soname() {
        let mut there = learned();
        there.libraries[0].0 = module("/lib/liblzma.so.5.6.1", "02");
        let expected = Differs::Library {
            soname: "liblzma.so.5".to_owned(),
            here: vec!["/lib/liblzma.so.5.4.1 01".to_owned()],
            there: vec!["/lib/liblzma.so.5.6.1 02".to_owned()],
        };
        assert_eq!(told(learned(), there), [expected]);
    }

    #[test]
    fn callers_askers_names_and_methods_are_told_by_side() {
        let mut there = learned();
        there.add_caller("RSA_public_decrypt", &module("/lib/liblzma.so.5.6.1", "02"));
        there.add_opening("/lib/nss.so", &module("/lib/evil.so", "03"));
        there.add_helper("/usr/bin/keys");
        there.add_start(Timestamp::UNIX_EPOCH, Some(Method::Password));
        let mut here = learned();
        here.add_variable("LD_LIBRARY_PATH");
        let known = |kind, name: &str, here| Differs::Known { kind, name: name.to_owned(), here };
        let expected = [
            known("caller", "RSA_public_decrypt by /lib/liblzma", false),
            known("asker", "/lib/nss by /lib/evil", false),
            known("variable", "LD_LIBRARY_PATH", true),
            known("helper", "/usr/bin/keys", false),
            known("method", "password", false),
        ];
        assert_eq!(told(here, there), expected);
    }

    #[test]
    fn times_differ_only_beyond_what_is_tolerated_of_machines() {
        let timed = |ns: u64| {
            let mut baseline = learned();
            baseline.shifts.clear();
            (0..30).for_each(|_| baseline.add_constructors(ns));
            baseline
        };
        assert_eq!(told(timed(300_000), timed(2_000_000)), []);
        let found = told(timed(300_000), timed(480_000_000));
        let [Differs::Times { stream, seconds_here, seconds_there }] = found.as_slice() else {
            panic!("{found:?}");
        };
        assert_eq!(stream, CONSTRUCTOR);
        assert!(*seconds_here < 0.001 && *seconds_there > 0.4, "{found:?}");
    }

    #[test]
    fn builds_of_one_program_are_compared_and_lone_ones_are_told() {
        let here = of_one(SSHD, learned());
        let mut there = of_one("/usr/sbin/sshd cd", learned());
        let found = differences(&here, &there);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].other_build.as_deref(), Some("/usr/sbin/sshd cd"));
        let build = Differs::Build { here: "ab".to_owned(), there: "cd".to_owned() };
        assert_eq!(found[0].differs, [build]);
        there.insert("/usr/sbin/sshd ef".to_owned(), learned());
        let found = differences(&here, &there);
        let sides: Vec<_> = found.iter().map(|one| (&*one.subject, &one.differs[0])).collect();
        let (mine, theirs) = (Differs::Program { here: true }, Differs::Program { here: false });
        let expected =
            [(SSHD, &mine), ("/usr/sbin/sshd cd", &theirs), ("/usr/sbin/sshd ef", &theirs)];
        assert_eq!(sides, expected);
        assert_eq!(differences(&here, &here), []);
    }
}
