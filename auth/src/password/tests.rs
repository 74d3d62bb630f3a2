use super::*;

/// Made by: `argon2-cffi`, `hash_secret(b"correct horse", b"0123456789abcdef", time_cost=2, memory_cost=256,
/// parallelism=1, hash_len=32, type=Type.ID)`; `bcrypt.hashpw(b"correct horse", b"$2b$04$abcdefghijklmnopqrstuu")`.
const FOREIGN: &[&str] = &[
    "$argon2id$v=19$m=256,t=2,p=1$MDEyMzQ1Njc4OWFiY2RlZg$BaW4fpaHKjCZWAGDYdvtrxLvSh/SRTUPoEiB6ytkbCs",
    "$2b$04$abcdefghijklmnopqrstuujydOTSfIH/d5oUHpsygqV5X9xJLQc6e",
];

/// `hashlib.pbkdf2_hmac(name, b"correct horse", b"somesalt", 1000).hex()`.
const PBKDF2: &[(&str, &str)] = &[
    ("sha1", "4543ddcac5ce30174fa7916b18cbc4573b5f4bb7"),
    ("sha256", "dd45cb1d1d9db0102b7ea1f0ba486b7543bd8097dcd41be632ad063ddf6c3fa1"),
    (
        "sha512",
        "9164f18dbe5b9a3c826b3f154ed56cca93cb6b3a2f9ee49a3f1e49b72534e8f9\
         40a43c0c160303ad4f03dec7e388b6a064e103d41823504f5f0661f9c3ae25ce",
    ),
];

/// `hashlib.new(name, salt + password).hexdigest()` with salt `somesalt`, and with both the other way round.
const DIGESTS: &[(&str, &str, &str)] = &[
    ("md5", "0a0d2a2558a3f28df1a79537c7f70b8c", "37d1cb206f0deabfe7a11c5e6168402c"),
    (
        "sha1",
        "938c16b13253e134fd7d9fbc7abf0f013d781982",
        "9f425b431ad9946237b4c3ed82ca8d81ee020491",
    ),
    (
        "sha256",
        "bb6c1ad7b7c388b06f8259d793228b1a09540aa0f36f34bd3caa5721c0fa9211",
        "94e7fe1b9e2605a8a59b8afd4c5ab75d88d4bc2f3e788cb12dbcf2b7bd4f4334",
    ),
    (
        "sha512",
        "2e90161359c00b9a28b8f4d27d307417f573f6fabafa2de099d4e2061c5fa4d5\
         d5eaed14d6991403d1e657ab6e41a1ca39bc725810df0118d4acbbd7b49046cb",
        "02d84337eaf332dac9abd52d9ddea331f8a50dae3a658914b1d407d612c578b8\
         a4991a06f5347266205fc7aa3ff35bef2ec8e21962e8d29915fce8c25ff6a8c1",
    ),
];

fn b64(hex: &str) -> String {
    BASE64.encode(crate::text::from_hex(hex).expect("hexadecimal"))
}

fn accepts_only_the_password(text: &str) {
    let hash: Hash = text.parse().expect(text);
    assert!(hash.verify(b"correct horse"), "{text}");
    assert!(!hash.verify(b"correct horsf"), "{text}");
    assert!(!hash.verify(b""), "{text}");
    assert_eq!(hash.to_string().parse::<Hash>().as_ref(), Ok(&hash), "{text}");
}

// AU05
#[test]
fn hashes_that_others_made_are_verified() {
    for text in FOREIGN {
        accepts_only_the_password(text);
    }
    let salt = BASE64.encode("somesalt");
    for (name, hex) in PBKDF2 {
        accepts_only_the_password(&format!("$pbkdf2-{name}$i=1000${salt}${}", b64(hex)));
    }
    for (name, prefix, suffix) in DIGESTS {
        accepts_only_the_password(&format!("${name}$prefix${salt}${}", b64(prefix)));
        accepts_only_the_password(&format!("${name}$suffix${salt}${}", b64(suffix)));
        let swapped: Hash =
            format!("${name}$prefix${salt}${}", b64(suffix)).parse().expect("a hash");
        assert!(!swapped.verify(b"correct horse"), "{name}");
    }
    accepts_only_the_password(&format!("$plain${}", BASE64.encode("correct horse")));
}

// AU05
#[test]
fn a_new_hash_of_each_scheme_accepts_only_its_password() {
    for (name, scheme) in Scheme::NAMES {
        let made = Hash::make(*scheme, b"correct horse").expect(name);
        accepts_only_the_password(&made.to_string());
        let again = Hash::make(*scheme, b"correct horse").expect(name);
        assert_ne!(made, again, "{name} has no salt");
    }
}

#[test]
fn bcrypt_does_not_cut_a_long_password_silently() {
    let error = Hash::make(Scheme::Bcrypt, &[b'x'; 73]).expect_err("too long");
    assert!(error.contains("72 bytes"), "{error}");
}

#[test]
fn a_hash_that_would_stop_the_node_is_refused() {
    for (text, says) in [
        ("", "begins with $"),
        ("plaintext", "begins with $"),
        (
            "$argon2id$v=19$m=4194304,t=2,p=1$MDEyMzQ1Njc4OWFiY2RlZg$BaW4fpaHKjCZWAGDYdvtrw",
            "m=4194304",
        ),
        ("$argon2id$m=256,t=2,p=1$MDEyMzQ1Njc4OWFiY2RlZg$BaW4fpaHKjCZWAGDYdvtrw", "v=19"),
        ("$argon2id$v=19$m=16,t=2,p=4$MDEyMzQ1Njc4OWFiY2RlZg$BaW4fpaHKjCZWAGDYdvtrw", "each lane"),
        ("$2b$31$abcdefghijklmnopqrstuujydOTSfIH/d5oUHpsygqV5X9xJLQc6e", "cost"),
        ("$pbkdf2-sha256$i=4000000000$c2FsdA$BaW4fpaHKjCZWAGDYdvtrw", "i=4000000000"),
        ("$pbkdf2-sha256$i=1$c2FsdA$AAAA", "16 bytes"),
        ("$sha265$prefix$c2FsdA$AAAA", "nearest: $sha256$"),
        ("$sha256$middle$c2FsdA$AAAA", "prefix or suffix"),
        ("$sha256$prefix$c2FsdA$AAAA", "has 3 bytes, not 32"),
        ("$plain$*", "not base64"),
    ] {
        let error = text.parse::<Hash>().expect_err(text);
        assert!(error.contains(says), "{text}: {error}");
    }
}
