//! More libraries than any program has, in less time than any takes.

use std::{fs, path::Path, process::Command};

use anyhow::Result;

use crate::{
    lab::{Machine, must},
    running::{PATIENCE, Sensor, Settings, State, same},
};

const LIBRARIES: u32 = 10_000;
/// Opens the first of its directory's libraries, then the next, a millisecond apart.
const MAIN: &str = "#include <dlfcn.h>\n#include <stdio.h>\n#include <stdlib.h>\n#include <unistd.h>\n\
int main(int argc, char **argv)\n{\n\tchar path[4096];\n\tif (argc != 3)\n\t\treturn 2;\n\
\tfor (int i = 0; i < atoi(argv[2]); i++) {\n\
\t\tsnprintf(path, sizeof path, \"%s/lib%d.so\", argv[1], i);\n\
\t\tvoid *library = dlopen(path, RTLD_NOW);\n\t\tif (!library)\n\
\t\t\treturn fprintf(stderr, \"%s\\n\", dlerror()), 1;\n\t\tdlclose(library);\n\t\tusleep(1000);\n\
\t}\n\treturn 0;\n}\n";

/// Ten thousand files, each a library of its own, and a program that opens them.
fn build(dir: &Path) -> Result<()> {
    let cc = |args: &[&str]| must(Command::new("cc").current_dir(dir).args(args), "", PATIENCE);
    fs::write(dir.join("empty.c"), "int one(void) { return 1; }\n")?;
    fs::write(dir.join("main.c"), MAIN)?;
    cc(&["-shared", "-fPIC", "-nostdlib", "-s", "-o", "lib.so", "empty.c"])?;
    cc(&["-o", "opener", "main.c", "-ldl"])?;
    let library = fs::read(dir.join("lib.so"))?;
    for number in 0..LIBRARIES {
        fs::write(dir.join(format!("lib{number}.so")), &library)?;
    }
    Ok(())
}

#[test]
fn ten_thousand_libraries_within_a_minute_lose_nothing() {
    let machine = Machine::acquire().unwrap();
    let state = State::new().unwrap();
    let dir = tempfile::Builder::new().prefix("halfsecond-flood-").tempdir().unwrap();
    build(dir.path()).unwrap();
    let sensor = Sensor::start(&machine, state.path(), Settings::default()).unwrap();
    let before = sensor.scrape().unwrap().sum("halfsecond_events_total", &[("kind", "map")]);
    let mut opener = Command::new(dir.path().join("opener"));
    let opener = opener.arg(dir.path()).arg(LIBRARIES.to_string());
    must(opener, "", PATIENCE * 2).unwrap();
    let wanted = before + f64::from(LIBRARIES);
    let scrape = sensor
        .scrape_until("all of them", |scrape| {
            scrape.sum("halfsecond_events_total", &[("kind", "map")]) >= wanted
        })
        .unwrap();
    let lost = scrape.sum("halfsecond_records_lost_total", &[]);
    let dropped = scrape.sum("halfsecond_queue_dropped_total", &[("queue", "analysis")]);
    assert!(same(lost, 0.0) && same(dropped, 0.0), "{lost} lost, {dropped} dropped");
    println!(
        "{LIBRARIES} libraries: {:?} {:?}",
        scrape.show("halfsecond_libraries_traced_total"),
        scrape.show("halfsecond_queue_dropped_total"),
    );
    sensor.stop().unwrap();
}
