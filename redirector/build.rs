//! Copies the programs' objects, which `cargo xtask build-ebpf` makes, to where the crate embeds
//! them from.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

fn main() {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR for build scripts"));
    println!("cargo::rerun-if-env-changed=CARGO_TARGET_DIR");
    for name in ["redirector-ebpf", "redirector-ebpf-debug"] {
        copy_object(&target_dir(&out).join("ebpf").join(name), &out.join(name));
    }
}

fn copy_object(object: &Path, to: &Path) {
    println!("cargo::rerun-if-changed={}", object.display());
    if let Err(error) = fs::copy(object, to) {
        println!(
            "cargo::error=failed to copy the programs for the kernel from {}: {error}",
            object.display()
        );
        println!(
            "cargo::error=`cargo xtask build-ebpf` makes them; run it once, and again whenever \
                redirector-ebpf or redirector-common change"
        );
    }
}

/// Cargo's target directory. A build script gets it only from the environment; otherwise it is the
/// outermost directory above our own output that cargo marked.
fn target_dir(out: &Path) -> PathBuf {
    if let Some(dir) =
        env::var_os("CARGO_TARGET_DIR").map(PathBuf::from).filter(|dir| dir.is_absolute())
    {
        return dir;
    }
    // With `--target`, cargo marks the directory of that target too, just below.
    let marked = |dir: &&Path| dir.join("CACHEDIR.TAG").is_file();
    let outermost = out.ancestors().skip_while(|dir| !marked(dir)).take_while(marked).last();
    outermost
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"), Path::to_path_buf)
}
