# A workspace without dependencies from outside: a library, a build script, a procedural macro
# (which rustc loads from the build tree), a program and its tests.
mkdir -p /tmp/tree/app/src /tmp/tree/derive/src
cd /tmp/tree
export CARGO_HOME=/tmp/cargo
printf '[workspace]\nmembers = ["app", "derive"]\nresolver = "2"\n' >Cargo.toml
cat >derive/Cargo.toml <<'EOF'
[package]
name = "derive"
version = "0.1.0"
edition = "2021"
[lib]
proc-macro = true
EOF
cat >derive/src/lib.rs <<'EOF'
use proc_macro::TokenStream;
#[proc_macro]
pub fn forty_two(_: TokenStream) -> TokenStream {
    "42u64".parse().unwrap()
}
EOF
cat >app/Cargo.toml <<'EOF'
[package]
name = "app"
version = "0.1.0"
edition = "2021"
build = "build.rs"
[dependencies]
derive = { path = "../derive" }
EOF
cat >app/build.rs <<'EOF'
fn main() {
    println!("cargo:rustc-env=ROUND={}", std::env::var("ROUND").unwrap());
}
EOF
cat >app/src/main.rs <<'EOF'
use std::collections::BTreeMap;
fn count(text: &str) -> BTreeMap<char, u64> {
    text.chars().fold(BTreeMap::new(), |mut map, c| {
        *map.entry(c).or_insert(0) += derive::forty_two!();
        map
    })
}
fn main() {
    let threads: Vec<_> = (0..4)
        .map(|n| std::thread::spawn(move || count(&format!("thread {n} of {}", env!("ROUND")))))
        .collect();
    for thread in threads {
        println!("{:?}", thread.join().unwrap());
    }
}
#[test]
fn letters_are_counted() {
    assert_eq!(count("aa")[&'a'], 84);
}
EOF
cargo build --offline
cargo test --offline
cargo run --offline --release
