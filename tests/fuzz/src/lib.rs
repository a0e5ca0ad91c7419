//! What strangers can hand in, against everything that reads it.
//!
//! A target reads one kind of input and asserts what must hold of any: nothing panics, what is read
//! comes out as it went in, and how input is cut into chunks changes nothing. The same targets run in
//! three ways: over the seeds and over thousands of changed ones with every run of the tests, and for
//! as long as one likes under libFuzzer (`tests/fuzz/run`). An input that breaks one becomes a seed.

mod files;
mod log;
mod names;
mod stored;
mod wire;

/// Something that reads input.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// What it is called on the command line, and its folder of seeds.
    pub name: &'static str,
    /// Reads the input; says whether it was accepted. Panics when something is wrong with the reader.
    pub read: fn(&[u8]) -> bool,
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target { name: "answer", read: wire::answer },
    Target { name: "box", read: stored::sealed_box },
    Target { name: "broker-config", read: files::broker_config },
    Target { name: "certificate", read: names::certificate },
    Target { name: "context", read: stored::context },
    Target { name: "envelope", read: stored::envelope },
    Target { name: "leaf", read: log::leaf },
    Target { name: "names", read: names::names },
    Target { name: "native-path", read: wire::native_path },
    Target { name: "note", read: log::note },
    Target { name: "policy", read: log::policy },
    Target { name: "prices", read: files::prices },
    Target { name: "proof", read: log::proof },
    Target { name: "proxy-config", read: files::proxy_config },
    Target { name: "request", read: wire::request },
    Target { name: "stream", read: wire::stream },
    Target { name: "tiles", read: log::tiles },
    Target { name: "virtual-key", read: names::virtual_key },
];

/// The target of this name.
pub fn target(name: &str) -> Option<Target> {
    TARGETS.iter().copied().find(|target| target.name == name)
}

fn text(input: &[u8]) -> Option<&str> {
    std::str::from_utf8(input).ok()
}
