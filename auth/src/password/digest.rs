//! Digests and message authentication codes by name.

use hmac::{Hmac, KeyInit, Mac as _};
use sha2::Digest;

/// A digest. Some are broken for signatures, yet stored passwords use them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DigestKind {
    /// MD5, 16 bytes.
    Md5,
    /// SHA-1, 20 bytes.
    Sha1,
    /// SHA-256, 32 bytes.
    Sha256,
    /// SHA-512, 64 bytes.
    Sha512,
}

impl DigestKind {
    const NAMES: &[(&str, Self)] = &[
        ("md5", Self::Md5),
        ("sha1", Self::Sha1),
        ("sha256", Self::Sha256),
        ("sha512", Self::Sha512),
    ];

    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(known, _)| *known == name).map(|(_, kind)| *kind)
    }

    pub(crate) fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, kind)| *kind == self).map_or("", |(name, _)| name)
    }

    pub(crate) fn bytes(self) -> usize {
        match self {
            Self::Md5 => 16,
            Self::Sha1 => 20,
            Self::Sha256 => 32,
            Self::Sha512 => 64,
        }
    }

    /// The digest of the parts, one behind the other.
    pub(crate) fn digest(self, parts: &[&[u8]]) -> Box<[u8]> {
        fn of<D: Digest>(parts: &[&[u8]]) -> Box<[u8]> {
            let mut digest = D::new();
            for part in parts {
                digest.update(part);
            }
            Box::from(digest.finalize().as_slice())
        }
        match self {
            Self::Md5 => of::<md5::Md5>(parts),
            Self::Sha1 => of::<sha1::Sha1>(parts),
            Self::Sha256 => of::<sha2::Sha256>(parts),
            Self::Sha512 => of::<sha2::Sha512>(parts),
        }
    }
}

/// HMAC with a digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mac {
    /// HMAC-SHA-1.
    Sha1,
    /// HMAC-SHA-256.
    Sha256,
    /// HMAC-SHA-512.
    Sha512,
}

impl Mac {
    const NAMES: &[(&str, Self)] =
        &[("sha1", Self::Sha1), ("sha256", Self::Sha256), ("sha512", Self::Sha512)];

    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(known, _)| *known == name).map(|(_, mac)| *mac)
    }

    pub(crate) fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, mac)| *mac == self).map_or("", |(name, _)| name)
    }

    /// Bytes of its output.
    pub(crate) fn bytes(self) -> usize {
        self.digest().bytes()
    }

    pub(crate) fn digest(self) -> DigestKind {
        match self {
            Self::Sha1 => DigestKind::Sha1,
            Self::Sha256 => DigestKind::Sha256,
            Self::Sha512 => DigestKind::Sha512,
        }
    }

    /// The code of the parts, one behind the other.
    pub(crate) fn code(self, key: &[u8], parts: &[&[u8]]) -> Box<[u8]> {
        macro_rules! of {
            ($digest:ty) => {{
                let mut mac = <Hmac<$digest>>::new_from_slice(key).expect("HMAC takes any key");
                for part in parts {
                    mac.update(part);
                }
                Box::from(mac.finalize().into_bytes().as_slice())
            }};
        }
        match self {
            Self::Sha1 => of!(sha1::Sha1),
            Self::Sha256 => of!(sha2::Sha256),
            Self::Sha512 => of!(sha2::Sha512),
        }
    }

    /// PBKDF2 (RFC 8018 5.2), which for SCRAM is called Hi.
    pub(crate) fn pbkdf2(
        self,
        password: &[u8],
        salt: &[u8],
        rounds: u32,
        bytes: usize,
    ) -> Box<[u8]> {
        let mut output = vec![0; bytes];
        match self {
            Self::Sha1 => pbkdf2::pbkdf2_hmac::<sha1::Sha1>(password, salt, rounds, &mut output),
            Self::Sha256 => {
                pbkdf2::pbkdf2_hmac::<sha2::Sha256>(password, salt, rounds, &mut output);
            }
            Self::Sha512 => {
                pbkdf2::pbkdf2_hmac::<sha2::Sha512>(password, salt, rounds, &mut output);
            }
        }
        output.into()
    }
}
