//! The contract of Strongroom, `strongroom.v1`: generated from the `.proto` files beside this one,
//! whose comments are the API manual.

/// Messages, clients and servers of package `strongroom.v1`.
pub mod v1 {
    #![allow(clippy::all, clippy::pedantic, missing_docs, reason = "generated code")]

    tonic::include_proto!("strongroom.v1");
}

/// The compiled contract: every service, method and comment, for reflection and for tests that
/// enumerate it.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/strongroom.binpb"));

/// Every method of the contract as `Service/Method`.
pub fn methods() -> Vec<String> {
    use prost::Message as _;

    // What the build has written is readable.
    let contract = prost_types::FileDescriptorSet::decode(DESCRIPTORS).unwrap_or_default();
    let ours = contract.file.iter().filter(|file| file.package() == "strongroom.v1");
    ours.flat_map(|file| &file.service)
        .flat_map(|service| {
            service.method.iter().map(|method| format!("{}/{}", service.name(), method.name()))
        })
        .collect()
}
