//! Compiles `proto/` to Rust and to a descriptor set, in pure Rust: no `protoc` to install.

use std::{env, error::Error, fs, path::Path};

use prost::Message as _;

const PROTOS: [&str; 12] = [
    "strongroom/v1/audit.proto",
    "strongroom/v1/budgets.proto",
    "strongroom/v1/calls.proto",
    "strongroom/v1/credentials.proto",
    "strongroom/v1/erasure.proto",
    "strongroom/v1/identities.proto",
    "strongroom/v1/kms.proto",
    "strongroom/v1/leases.proto",
    "strongroom/v1/prices.proto",
    "strongroom/v1/tenants.proto",
    "strongroom/v1/usage.proto",
    "strongroom/v1/virtual_keys.proto",
];

#[expect(clippy::disallowed_methods, reason = "cargo names OUT_DIR in the environment")]
fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto/strongroom");
    let descriptors = protox::compile(PROTOS, ["proto"])?;
    let out = env::var("OUT_DIR")?;
    fs::write(Path::new(&out).join("strongroom.binpb"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure().build_transport(false).bytes(".").compile_fds(descriptors)?;
    Ok(())
}
