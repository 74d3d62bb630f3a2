//! PROXY headers: no panic, and what is whole is the same in any pieces.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringmain_transport::proxy::{HEADER_BYTES_MAX, Parsed, parse};

fuzz_target!(|input: &[u8]| {
    let all = parse(input);
    match &all {
        Ok(Parsed::Whole { len, .. }) => {
            assert!(*len <= input.len() && *len <= HEADER_BYTES_MAX);
            // What follows a header does not change it.
            assert_eq!(parse(&input[..*len]), all);
            for len in 0..*len {
                assert_eq!(parse(&input[..len]), Ok(Parsed::Partial));
            }
        }
        Ok(Parsed::Partial) => assert!(input.len() < HEADER_BYTES_MAX),
        // What is refused does not become good by more of it.
        Err(_) => assert!(parse(&[input, b"\r\n"].concat()).is_err()),
    }
});
