//! What libFuzzer drives: `WEFT_FUZZ=target weft-fuzz -max_total_time=600 found/ corpus/target/`.

#![no_main]
#![allow(unsafe_code, reason = "libFuzzer finds the function by its name, which counts as such")]

use std::sync::OnceLock;

/// The target that is asked for.
static TARGET: OnceLock<weft_fuzz::Target> = OnceLock::new();

fn chosen() -> weft_fuzz::Target {
    let name = std::env::var("WEFT_FUZZ").unwrap_or_default();
    weft_fuzz::target(&name).unwrap_or_else(|| {
        let names: Vec<_> = weft_fuzz::TARGETS.iter().map(|(name, _)| *name).collect();
        eprintln!("WEFT_FUZZ names no target; there are {}", names.join(", "));
        std::process::exit(2)
    })
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| TARGET.get_or_init(chosen)(data));
