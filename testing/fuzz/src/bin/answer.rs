//! `redirector_fuzz::answer` under libFuzzer: see testing/fuzz/README.md.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| redirector_fuzz::answer(data));
