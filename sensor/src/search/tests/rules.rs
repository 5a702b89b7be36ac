//! Which rule leads to a library.

use super::*;

#[test]
fn each_rule_leads_to_its_library() {
    let mut case = Case::new(runpath(
        &["librun.so", "libcache.so.1", "libdefault.so", "libenv.so", "lib/libpath.so"],
        "/nowhere:$ORIGIN/../lib",
    ));
    let origin = case.library("/opt/app/lib/librun.so");
    let cached = case.library("/usr/local/lib/libcache.so.1.2");
    case.disk.files.insert("/usr/local/lib/libcache.so.1".into(), cached);
    case.cached("libcache.so.1", "/usr/local/lib/libcache.so.1");
    let default = case.library("/usr/lib/libdefault.so");
    let variable = case.library("/home/x/libenv.so");
    case.start.library_path = Some("/home/y;/home/x".to_owned());
    let path = case.library("/work/lib/libpath.so");
    for (file, how) in [
        (origin, "RUNPATH $ORIGIN/../lib of /opt/app/bin/run"),
        (cached, "ld.so.cache"),
        (default, "default directory /usr/lib"),
        (variable, "LD_LIBRARY_PATH /home/x"),
        (path, "path lib/libpath.so in /opt/app/bin/run"),
    ] {
        assert_eq!(case.found_by(file), how);
    }
    let found = case.explain(origin);
    assert_eq!(found.path, Some("/opt/app/bin/../lib/librun.so".into()));
    assert_eq!(found.asked_by().as_deref(), Some("/opt/app/bin/run as librun.so"));
    assert_eq!(case.found_by(case.start.modules[0].file), "the kernel");
}

#[test]
fn a_runpath_serves_its_own_module_and_an_rpath_all_below() {
    for (names, how) in [
        (
            runpath(&["libouter.so"], "/opt/lib"),
            "dlopen, perhaps by RUNPATH /opt/lib of /opt/app/bin/run",
        ),
        (rpath(&["libouter.so"], "/opt/lib"), "RPATH /opt/lib of /opt/app/bin/run"),
    ] {
        let mut case = Case::new(names);
        case.module("/opt/lib/libouter.so", needs(&["libinner.so"]));
        let inner = case.library("/opt/lib/libinner.so");
        assert_eq!(case.found_by(inner), how);
    }
    // A module that has a RUNPATH is asked for no RPATH, not even its program's.
    let mut case = Case::new(rpath(&["libouter.so"], "/opt/lib"));
    case.module("/opt/lib/libouter.so", runpath(&["libinner.so"], "/opt/inner"));
    let inner = case.library("/opt/lib/libinner.so");
    assert_eq!(case.found_by(inner), "dlopen, perhaps by RPATH /opt/lib of /opt/app/bin/run");
}

#[test]
fn an_rpath_beside_a_runpath_does_not_count() {
    let names = Names { rpath: Some("/opt/r".to_owned()), ..runpath(&["libx.so"], "/opt/lib") };
    let mut case = Case::new(names);
    let library = case.library("/opt/r/libx.so");
    assert_eq!(case.found_by(library), "dlopen with a path");
}

#[test]
fn the_environment_comes_before_a_runpath_and_after_an_rpath() {
    for (names, how) in [
        (runpath(&["libx.so"], "/opt/lib"), "LD_LIBRARY_PATH /opt/lib"),
        (rpath(&["libx.so"], "/opt/lib"), "RPATH /opt/lib of /opt/app/bin/run"),
    ] {
        let mut case = Case::new(names);
        case.start.library_path = Some("/opt/lib".to_owned());
        let library = case.library("/opt/lib/libx.so");
        assert_eq!(case.found_by(library), how);
    }
}

#[test]
fn more_rights_ignore_the_environment_and_an_origin_outside_the_system() {
    let mut case = Case::new(runpath(&["libx.so", "liby.so"], "$ORIGIN/../lib:/srv"));
    case.start.secure = true;
    case.start.library_path = Some("/opt/app/lib".to_owned());
    case.start.preloads.push((Preload::Variable, "/opt/app/lib/libz.so".to_owned()));
    let origin = case.library("/opt/app/lib/libx.so");
    let plain = case.library("/srv/liby.so");
    let preloaded = case.library("/opt/app/lib/libz.so");
    assert_eq!(case.found_by(origin), "dlopen with a path");
    assert_eq!(case.found_by(plain), "RUNPATH /srv of /opt/app/bin/run");
    assert_eq!(case.found_by(preloaded), "dlopen with a path");
}

#[test]
fn preloads_are_told_by_their_list() {
    let mut case = Case::new(needs(&[]));
    case.cached("libcache.so", "/usr/lib/libcache.so");
    for (list, name) in [
        (Preload::Variable, "/tmp/liba.so"),
        (Preload::Variable, "libcache.so"),
        (Preload::File, "/etc/evil.so"),
        (Preload::Audit, "./audit.so"),
    ] {
        case.start.preloads.push((list, name.to_owned()));
    }
    let variable = case.library("/tmp/liba.so");
    let cached = case.library("/usr/lib/libcache.so");
    let file = case.library("/etc/evil.so");
    let audit = case.library("/work/audit.so");
    for (library, how) in [
        (variable, "LD_PRELOAD /tmp/liba.so"),
        (cached, "LD_PRELOAD libcache.so, ld.so.cache"),
        (file, "/etc/ld.so.preload /etc/evil.so"),
        (audit, "LD_AUDIT ./audit.so"),
    ] {
        assert_eq!(case.found_by(library), how);
    }
    let weak = case.explain(audit).weak;
    assert!(matches!(&weak[..], [Weakness { why: Why::Current(None), hit: true, .. }]), "{weak:?}");
}

#[test]
fn tokens_are_replaced_as_glibc_does() {
    for (element, path) in [
        ("${ORIGIN}/lib", "/opt/app/bin/lib/libx.so"),
        ("/usr/$LIB/x", "/usr/lib/x86_64-linux-gnu/x/libx.so"),
        ("/opt/${PLATFORM}", "/opt/x86_64/libx.so"),
        ("/opt", "/opt/glibc-hwcaps/x86-64-v3/libx.so"),
        ("$ORIGIN/$LIB", "/opt/app/bin/lib64/libx.so"),
    ] {
        let mut case = Case::new(runpath(&["libx.so"], element));
        let library = case.library(path);
        let how = format!("RUNPATH {element} of /opt/app/bin/run");
        assert_eq!(case.found_by(library), how);
    }
    let mut case = Case::new(runpath(&["libx.so"], "/opt/{ORIGIN}"));
    let library = case.library("/opt/app/bin/libx.so");
    assert_ne!(case.found_by(library), "RUNPATH /opt/{ORIGIN} of /opt/app/bin/run");
}

#[test]
fn musl_inherits_both_lists_skips_empty_elements_and_reads_no_cache() {
    let mut case = Case::new(runpath(&["libouter.so"], "/opt/lib::$ORIGIN/x"));
    case.start.loader = Loader::Musl;
    case.cached("libcache.so", "/opt/c/libcache.so");
    let names = needs(&["libinner.so", "libcache.so", "libsystem.so"]);
    case.module("/opt/lib/libouter.so", names);
    let inner = case.library("/opt/app/bin/x/libinner.so");
    let cached = case.library("/opt/c/libcache.so");
    let system = case.library("/usr/lib/libsystem.so");
    assert_eq!(case.found_by(inner), "RUNPATH $ORIGIN/x of /opt/app/bin/run");
    assert!(case.explain(inner).weak.is_empty(), "an empty element is none");
    assert_eq!(case.found_by(cached), "dlopen with a path");
    assert_eq!(case.found_by(system), "default directory /usr/lib");
    // A token it does not know spoils the whole list.
    let mut case = Case::new(runpath(&["libx.so"], "/opt/lib:/$LIB"));
    case.start.loader = Loader::Musl;
    let library = case.library("/opt/lib/libx.so");
    assert_eq!(case.found_by(library), "dlopen with a path");
}

#[test]
fn a_library_opened_later_may_come_by_a_list_of_any_module() {
    let mut case = Case::new(needs(&["libhost.so"]));
    case.module("/usr/lib/libhost.so", runpath(&[], "$ORIGIN/host"));
    let plugin = case.library("/usr/lib/host/libplugin.so");
    assert_eq!(
        case.found_by(plugin),
        "dlopen, perhaps by RUNPATH $ORIGIN/host of /usr/lib/libhost.so"
    );
    let other = case.library("/srv/other.so");
    assert_eq!(case.found_by(other), "dlopen with a path");
    case.start.cwd = Some("/srv".into());
    assert!(case.explain(other).in_current);
}

#[test]
fn a_file_that_is_no_longer_at_its_path_is_not_guessed_about() {
    let mut case = Case::new(runpath(&["libx.so"], "/opt/lib"));
    let library = case.library("/opt/lib/libx.so");
    case.disk.put("/opt/lib/libx.so");
    let told = case.found_by(library);
    assert_eq!(told, "not known: its path does not lead to it now");
    case.start.preloads.push((Preload::Variable, "/proc/self/fd/5".to_owned()));
    let told = case.found_by(library);
    assert_eq!(told, "LD_PRELOAD /proc/self/fd/5, which leads nowhere now");
}

#[test]
fn a_name_that_leads_elsewhere_by_a_link_is_followed() {
    let mut case = Case::new(runpath(&["liblapack.so.3"], "/opt/lib"));
    let library = case.library("/opt/real/libopenblas.so.0.3");
    case.disk.files.insert("/opt/lib/liblapack.so.3".into(), library);
    assert_eq!(case.found_by(library), "RUNPATH /opt/lib of /opt/app/bin/run");
}
