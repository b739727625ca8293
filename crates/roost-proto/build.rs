//! Compiles every `.proto` file below `proto/` without protoc, and writes one Rust file per package
//! and the descriptors that server reflection hands out. What is done with them is in `src/lib.rs`.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use prost::Message;

/// Packages that only nodes of one hub use: reflection does not show them.
const INTERNAL: &str = "roost.internal.";

fn main() -> Result<(), Box<dyn Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../proto");
    println!("cargo::rerun-if-changed={}", root.display());
    let mut files = Vec::new();
    collect(&root, &mut files)?;
    files.sort();

    let descriptors = protox::compile(&files, [&root])?;
    let mut public = descriptors.clone();
    public.file.retain(|file| !file.package().starts_with(INTERNAL));
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    fs::write(out.join("descriptors.bin"), public.encode_to_vec())?;

    tonic_prost_build::configure()
        .bytes(".")
        // A map in sorted order: equal messages have equal bytes.
        .btree_map(".")
        // Payloads and credentials never reach a log: these get a `Debug` by hand.
        .skip_debug([
            ".roost.control.v1.Payload",
            ".roost.device.v1.Payload",
            ".roost.device.v1.Hello",
        ])
        .emit_rerun_if_changed(false)
        .compile_fds(descriptors)?;
    Ok(())
}

/// Adds every `.proto` file below `dir` to `files`.
fn collect(dir: &Path, files: &mut Vec<PathBuf>) -> Result<(), Box<dyn Error>> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|ext| ext == "proto") {
            files.push(path);
        }
    }
    Ok(())
}
