//! Embeds the programs that `cargo xtask build-ebpf` has built.
use std::{env, fs, path::PathBuf};

fn main() {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let target = env::var_os("CARGO_TARGET_DIR")
        .map(PathBuf::from)
        .unwrap_or_else(|| PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it")).join("../target"));
    let object = target.join("ebpf/redirector-ebpf");
    println!("cargo:rerun-if-changed={}", object.display());
    fs::copy(&object, out.join("redirector-ebpf"))
        .unwrap_or_else(|_| panic!("{} is missing: run `cargo xtask build-ebpf`", object.display()));
}
