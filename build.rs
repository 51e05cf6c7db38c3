//! Compiles the contract and the catalogs of `proto/` without `protoc`.

use std::{env, error::Error, fs, path::PathBuf};

use protox::prost::Message as _;

/// The contract: gets Rust types. The catalogs are served from their descriptors alone.
const CONTRACT: [&str; 4] = [
    "fanfare/v1/realtime.proto",
    "fanfare/v1/edge.proto",
    "fanfare/v1/catalog.proto",
    "fanfare/v1/reason.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let contract = protox::compile(CONTRACT, ["proto"]).map_err(|e| format!("{e:?}"))?;
    fs::write(out.join("contract.binpb"), contract.encode_to_vec())?;
    tonic_prost_build::configure().bytes(".").compile_well_known_types(false).compile_fds(contract)?;
    Ok(())
}
