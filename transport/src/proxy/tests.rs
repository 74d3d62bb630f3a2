//! Headers of the specification, of an independent implementation, and bad ones.

use super::*;

/// `tests/fixtures/proxy_vectors.py` made these.
const VECTORS: &str = include_str!("../../tests/fixtures/proxy_vectors.txt");

fn vector(name: &str) -> Vec<u8> {
    let line = VECTORS.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    let hex = line.unwrap_or_else(|| panic!("no vector {name}")).as_bytes();
    let digit = |byte: u8| char::from(byte).to_digit(16).unwrap() as u8;
    hex.chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}

fn whole(bytes: &[u8]) -> Header {
    match parse(bytes) {
        Ok(Parsed::Whole { len, header }) if len == bytes.len() => *header,
        other => panic!("{other:?} of {bytes:?}"),
    }
}

fn refused(bytes: &[u8]) -> String {
    match parse(bytes) {
        Err(refused) => refused.sentence,
        Ok(parsed) => panic!("{parsed:?} of {bytes:?}"),
    }
}

fn ends(source: &str, destination: &str) -> Header {
    let (source, destination) = (source.parse().ok(), destination.parse().ok());
    Header { source, destination, ..Header::default() }
}

/// A header of version 2: command, family, what follows.
fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = V2_SIGNATURE.to_vec();
    bytes.extend_from_slice(&[0x20 | command, family]);
    bytes.extend_from_slice(&(body.len() as u16).to_be_bytes());
    bytes.extend_from_slice(body);
    bytes
}

const V4: [u8; 12] = [192, 0, 2, 1, 198, 51, 100, 2, 0xDC, 4, 0x22, 0xB3];

fn v4_with(tlvs: &[u8]) -> Vec<u8> {
    v2(1, 0x11, &[&V4, tlvs].concat())
}

// T12
#[test]
fn headers_of_an_independent_implementation_mean_the_same_here() {
    let v4 = ends("192.0.2.1:56324", "198.51.100.2:8883");
    let v6 = ends("[2001:db8::1]:1", "[2001:db8::2]:65535");
    assert_eq!(whole(&vector("v1_tcp4")), v4);
    assert_eq!(whole(&vector("v1_tcp6")), v6);
    assert_eq!(whole(&vector("v1_unknown")), Header::default());
    assert_eq!(whole(&vector("v2_tcp4")), v4);
    assert_eq!(whole(&vector("v2_tcp6")), v6);
    assert_eq!(whole(&vector("v2_unix")), Header::default());
    assert_eq!(whole(&vector("v2_local")), Header { local: true, ..Header::default() });
    let authority = whole(&vector("v2_authority"));
    assert_eq!(authority.authority.as_deref(), Some("mqtt.example"));
    assert_eq!(authority.alpn.as_deref(), Some(&b"mqtt"[..]));
    let ssl = whole(&vector("v2_ssl"));
    assert_eq!(ssl.verified_common_name(), Some("device 7"));
    let ssl = ssl.ssl.unwrap();
    assert_eq!(ssl.version.as_deref(), Some("TLSv1.3"));
    assert_eq!(ssl.cipher.as_deref(), Some("TLS_AES_256_GCM_SHA384"));
    let unverified = whole(&vector("v2_ssl_unverified"));
    assert_eq!(unverified.verified_common_name(), None);
    assert_eq!(unverified.ssl.unwrap().common_name.as_deref(), Some("device 8"));
    assert_eq!(whole(&vector("v2_checksum")).authority.as_deref(), Some("x"));
}

// T12
#[test]
fn a_header_in_any_pieces_is_partial_until_it_is_whole() {
    for line in VECTORS.lines() {
        let name = line.split(' ').next().unwrap();
        let mut bytes = vector(name);
        for len in 0..bytes.len() {
            assert_eq!(parse(&bytes[..len]), Ok(Parsed::Partial), "{name}, {len} bytes");
        }
        let header_len = bytes.len();
        bytes.extend_from_slice(b"\x10\x0c");
        match parse(&bytes) {
            Ok(Parsed::Whole { len, .. }) => assert_eq!(len, header_len, "{name}"),
            other => panic!("{name}: {other:?}"),
        }
    }
}

#[test]
fn the_longest_line_of_the_specification_fits_and_one_byte_more_does_not() {
    // Section 2.1, its "worst case".
    let longest = b"PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff \
        ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n";
    assert_eq!(longest.len(), V1_BYTES_MAX);
    assert_eq!(whole(longest), Header::default());
    let mut longer = longest.to_vec();
    longer.insert(20, b'f');
    assert!(refused(&longer).contains("more than 107 bytes"));
    assert!(refused(&longer[..V1_BYTES_MAX]).contains("more than 107 bytes"));
}

#[test]
fn lines_that_the_grammar_does_not_have_are_refused() {
    let table = [
        "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\n",
        "PROXY TCP4  192.0.2.1 192.0.2.2 1 2\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 1 2 \r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 1 2 3\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 01 2\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 +1 2\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 1 65536\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 1 -2\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.256 1 2\r\n",
        "PROXY TCP4 192.0.2.01 192.0.2.2 1 2\r\n",
        "PROXY TCP4 ::1 ::2 1 2\r\n",
        "PROXY TCP6 192.0.2.1 192.0.2.2 1 2\r\n",
        "PROXY TCP6 ::1%eth0 ::2 1 2\r\n",
        "PROXY TCP6 [::1] ::2 1 2\r\n",
        "PROXY tcp4 192.0.2.1 192.0.2.2 1 2\r\n",
        "PROXY UDP4 192.0.2.1 192.0.2.2 1 2\r\n",
        "PROXY \r\n",
        "PROXY UNKNOWNX\r\n",
        "proxy TCP4 192.0.2.1 192.0.2.2 1 2\r\n",
        "PROXY\tTCP4 192.0.2.1 192.0.2.2 1 2\r\n",
    ];
    for line in table {
        let _: String = refused(line.as_bytes());
    }
    assert!(refused(b"PROXY TCP4 192.0\x00").contains("character"));
    assert!(refused(b"PROXY UNKNOWN \x13\r\n").contains("character"));
    assert!(refused(b"PROXY UNKNOWN \r \r\n").contains("character"));
    assert_eq!(whole(b"PROXY UNKNOWN\r\n"), Header::default());
    assert!(refused(b"\x10\x0c\0\x04MQTT").contains("no PROXY header"));
}

#[test]
fn versions_commands_and_families_that_do_not_exist_are_refused() {
    let mut other = v2(1, 0x11, &V4);
    other[12] = 0x31;
    assert!(refused(&other).contains("version"));
    assert!(refused(&v2(2, 0x11, &V4)).contains("command"));
    assert!(refused(&v2(1, 0x12, &V4)).contains("datagrams"));
    assert!(refused(&v2(1, 0x41, &V4)).contains("family"));
    assert!(refused(&v2(1, 0x11, &V4[..11])).contains("shorter"));
    assert!(refused(&v2(1, 0x21, &[0; 35])).contains("shorter"));
    assert!(refused(&v2(1, 0x31, &[0; 215])).contains("shorter"));
    assert!(refused(&v2(1, 0x11, &[0; 4097])).contains("4096"));
    let mut wrong = vector("v2_tcp4");
    wrong[11] = b'x';
    assert!(refused(&wrong).contains("no PROXY header"));
    // Section 2.2: what LOCAL brings along is thrown away, its family too.
    for body in [&[][..], &V4, &[1, 2, 3]] {
        assert!(whole(&v2(0, 0x11, body)).local);
    }
    assert_eq!(whole(&v2(1, 0, &[])), Header::default());
}

// T12
#[test]
fn malformed_tlvs_are_refused() {
    let table: [(&[u8], &str); 13] = [
        (&[4], "longer than the header"),
        (&[4, 0], "longer than the header"),
        (&[4, 0, 1], "longer than the header"),
        (&[4, 0, 0, 4, 0xFF, 0xFF, 0], "longer than the header"),
        (&[2, 0, 1, 0xFF], "authority is no UTF-8"),
        (&[2, 0, 1, 0], "authority is no UTF-8"),
        (&[2, 0, 1, b'a', 2, 0, 1, b'b'], "two parts authority"),
        (&[3, 0, 3, 0, 0, 0], "checksum has not 4 bytes"),
        (&[3, 0, 4, 0, 0, 0, 0], "checksum is wrong"),
        (&[0x20, 0, 4, 1, 0, 0, 0], "SSL part is too short"),
        (&[0x20, 0, 6, 1, 0, 0, 0, 0, 0x22], "longer than the header"),
        (&[0x20, 0, 9, 1, 0, 0, 0, 0, 0x22, 0, 2, b'a'], "longer than the header"),
        (&[0x20, 0, 9, 3, 0, 0, 0, 0, 0x22, 0, 1, 0xFF], "CN is no UTF-8"),
    ];
    for (tlvs, why) in table {
        let said = refused(&v4_with(tlvs));
        assert!(said.contains(why), "{tlvs:?}: {said}");
    }
    let long = |kind: u8, len: usize| [&[kind, 0, len as u8][..], &vec![b'a'; len]].concat();
    let long_authority = [&[2, 1, 0][..], &[b'a'; 256]].concat();
    assert!(refused(&v4_with(&long_authority)).contains("255"));
    assert!(refused(&v4_with(&long(5, 129))).contains("128"));
    whole(&v4_with(&long(5, 128)));
    // What nobody knows is skipped, and so is padding.
    whole(&v4_with(&[0xEE, 0, 1, 9, 4, 0, 2, 0, 0, 0x30, 0, 1, b'n']));
}

#[test]
fn every_changed_bit_of_a_header_with_a_checksum_is_noticed_or_is_no_header() {
    let good = vector("v2_checksum");
    for at in 0..good.len() {
        for bit in 0..8 {
            let mut changed = good.clone();
            changed[at] ^= 1 << bit;
            match parse(&changed) {
                Err(_) | Ok(Parsed::Partial) => {}
                // LOCAL throws the checksum away with the rest; a checksum under another type is
                // none.
                Ok(Parsed::Whole { header, .. }) => {
                    let crc_type = good.windows(3).position(|tlv| tlv == [3, 0, 4]).unwrap();
                    assert!(header.local || at == crc_type || at == 15, "byte {at}, bit {bit}");
                }
            }
        }
    }
}

#[test]
fn a_common_name_counts_only_with_a_certificate_that_was_verified() {
    let named = |client: u8, verify: u8| {
        let tlvs = [0x20, 0, 9, client, 0, 0, 0, verify, 0x22, 0, 1, b'c'];
        whole(&v4_with(&tlvs)).verified_common_name().map(str::to_owned)
    };
    assert_eq!(named(0x01 | 0x02, 0).as_deref(), Some("c"));
    assert_eq!(named(0x01 | 0x04, 0).as_deref(), Some("c"), "in the session that was resumed");
    assert_eq!(named(0x01 | 0x02, 1), None, "verification failed");
    assert_eq!(named(0x01, 0), None, "no certificate, no error");
    assert_eq!(named(0x02, 0), None, "no TLS");
}

// T12
#[test]
fn only_who_is_trusted_speaks_for_others() {
    let trusted = Trusted::new(vec!["10.0.0.0/8".parse().unwrap()]).unwrap();
    assert!(trusted.must_send("10.1.2.3".parse().unwrap()));
    assert!(trusted.must_send("::ffff:10.1.2.3".parse().unwrap()));
    let stranger = "192.0.2.9".parse().unwrap();
    assert!(!trusted.must_send(stranger));
    assert!(refuse_untrusted(&vector("v1_tcp4"), stranger).is_err());
    assert!(refuse_untrusted(&vector("v2_tcp4"), stranger).is_err());
    assert!(refuse_untrusted(b"\x10\x0c\0\x04MQTT", stranger).is_ok());
    let many = vec!["10.0.0.0/8".parse().unwrap(); TRUSTED_MAX + 1];
    assert!(Trusted::new(many).is_err());
}
