//! Any bytes as a SCRAM message, a file of users, or users of another broker: no panic, and what is read
//! survives being written. Input: one byte of choices, then text.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringmain_auth::password::Scheme;
use ringmain_auth::sources::scram::{ClientFinal, ClientFirst};
use ringmain_auth::users::import::{Algorithm, Format, Options, parse};
use ringmain_auth::users::{By, Record, Snapshot};

fuzz_target!(|input: &[u8]| {
    let Some((&choice, bytes)) = input.split_first() else { return };
    match choice % 6 {
        0 => first(bytes),
        1 => last(bytes),
        2 => users(bytes),
        n => {
            let Ok(text) = std::str::from_utf8(bytes) else { return };
            let format = [Format::Mosquitto, Format::EmqxCsv, Format::EmqxJson][usize::from(n - 3)];
            imported(format, text, choice);
        }
    }
});

fn first(bytes: &[u8]) {
    let Ok(first) = ClientFirst::parse(bytes) else { return };
    // The two parts are the message: both go into the signature.
    assert_eq!(format!("{}{}", first.gs2_header, first.bare).as_bytes(), bytes);
    assert!(!first.username.is_empty() && !first.nonce.is_empty());
    assert!(!first.nonce.contains(','));
}

fn last(bytes: &[u8]) {
    let Ok(last) = ClientFinal::parse(bytes) else { return };
    assert!(bytes.starts_with(last.without_proof.as_bytes()));
    assert!(!last.nonce.is_empty());
}

fn users(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    for line in text.lines() {
        if let Ok(record) = Record::parse(line) {
            assert_eq!(Record::parse(&record.to_string()).as_ref(), Ok(&record));
        }
    }
    if let Ok(users) = Snapshot::parse(text.into(), "f") {
        for line in text.split('\n').map(str::trim).filter(|line| !line.starts_with('#')) {
            if let Ok(record) = Record::parse(line) {
                assert_eq!(users.get(record.by, &record.name).as_ref(), Some(&record));
            }
        }
    }
}

fn imported(format: Format, text: &str, choice: u8) {
    let names = ["sha256", "md5", "bcrypt", "pbkdf2-sha512"];
    let name = names[usize::from(choice >> 6)];
    let Ok(algorithm) = Algorithm::named(name, choice & 32 != 0, 1) else { unreachable!() };
    // One round: the time of a hash is not what is tested here.
    let options = Options { by: By::Username, algorithm, scheme: Scheme::Sha256 };
    let Ok(records) = parse(format, text, &options) else { return };
    for record in records {
        assert_eq!(Record::parse(&record.to_string()).as_ref(), Ok(&record));
    }
}
