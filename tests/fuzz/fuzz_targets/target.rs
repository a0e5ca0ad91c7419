//! Hands libFuzzer's input to the target that the variable `FUZZ_TARGET` names.
#![no_main]

use std::sync::OnceLock;

use fuzz::Target;

static TARGET: OnceLock<Target> = OnceLock::new();

fn chosen() -> &'static Target {
    TARGET.get_or_init(|| {
        let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
        match fuzz::target(&name) {
            Some(target) => target,
            None => panic!("FUZZ_TARGET=`{name}` is none of {:?}", fuzz::TARGETS),
        }
    })
}

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let _ = (chosen().read)(input);
});
