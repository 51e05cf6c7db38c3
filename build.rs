//! Compiles the contract of `proto/` without `protoc`, and embeds the sources of the contract and of the
//! built-in catalogs, so that run-time catalogs can import them.

use std::{
    env,
    error::Error,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

/// The contract: gets Rust types. The catalogs are served from their descriptors alone.
const CONTRACT: [&str; 5] = [
    "fanfare/v1/admin.proto",
    "fanfare/v1/catalog.proto",
    "fanfare/v1/edge.proto",
    "fanfare/v1/realtime.proto",
    "fanfare/v1/reason.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let contract = protox::compile(CONTRACT, ["proto"]).map_err(|e| format!("{e:?}"))?;
    tonic_prost_build::configure().bytes(".").compile_well_known_types(false).compile_fds(contract)?;

    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("proto");
    let mut names = Vec::new();
    collect(&root, &root, &mut names)?;
    names.sort();
    let mut table = String::from("&[\n");
    for name in &names {
        writeln!(table, "    ({name:?}, include_str!({:?})),", root.join(name).display().to_string())?;
    }
    table.push(']');
    fs::write(PathBuf::from(env::var("OUT_DIR")?).join("sources.rs"), table)?;
    Ok(())
}

/// All `.proto` files below `folder`, relative to `root`, with forward slashes.
fn collect(root: &Path, folder: &Path, names: &mut Vec<String>) -> Result<(), Box<dyn Error>> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(root, &path, names)?;
        } else if path.extension().is_some_and(|e| e == "proto") {
            let name = path.strip_prefix(root)?.to_str().ok_or("a file name is not UTF-8")?;
            names.push(name.replace('\\', "/"));
        }
    }
    Ok(())
}
