#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| apt_ostree::fuzz::configuration(data));
