//! Session tickets that any shard can open: the keys of a configuration, and nothing else.
//!
//! A set of keys never changes, so shards read it without a lock or a shared counter (rustls' own
//! rotator takes a lock per ticket and reads the clock). Rotation makes a new set, which knows one
//! key of old ([`TlsContext::with_new_ticket_key`](super::TlsContext::with_new_ticket_key)). Keys
//! are in memory only: a restart forgets them, and clients do a full handshake.

use std::fmt;
use std::sync::Arc;

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};
use rustls::server::ProducesTickets;

use super::call;

/// How often the caller should rotate: what a stolen key opens is bounded by it (RFC 5077, section
/// 5.5, wants keys changed; six hours is what rustls does).
pub const TICKET_KEY_ROTATION_S: u64 = 6 * 3600;
/// A ticket is taken for this long: as long as its key is one of the two that are kept.
pub const TICKET_LIFETIME_S: u32 = 12 * 3600;
/// Longer ones are not tried. A ticket holds the client's certificates, which rustls keeps below
/// 64 KiB; what is beyond this resumes nothing, and costs a full handshake.
const TICKET_BYTES_MAX: usize = 16 * 1024;

const NAME_LEN: usize = 16;
const TIME_LEN: usize = 8;

/// The current key and the one before.
pub(super) struct TicketKeys {
    current: Arc<TicketKey>,
    previous: Option<Arc<TicketKey>>,
}

/// Layout of a ticket: name of the key, nonce, sealed (time of issue, session), tag.
struct TicketKey {
    name: [u8; NAME_LEN],
    key: LessSafeKey,
}

/// The system has no random numbers.
#[derive(Debug)]
pub(super) struct NoRandom;

impl TicketKeys {
    pub(super) fn new() -> Result<TicketKeys, NoRandom> {
        Ok(TicketKeys { current: Arc::new(TicketKey::new()?), previous: None })
    }

    /// A set with a new key, which still opens what this set's current one sealed.
    pub(super) fn rotated(&self) -> Result<TicketKeys, NoRandom> {
        let current = Arc::new(TicketKey::new()?);
        Ok(TicketKeys { current, previous: Some(Arc::clone(&self.current)) })
    }
}

impl ProducesTickets for TicketKeys {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        TICKET_LIFETIME_S
    }

    fn encrypt(&self, session: &[u8]) -> Option<Vec<u8>> {
        self.current.seal(session, call::now_s()?)
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let keys = [Some(&self.current), self.previous.as_ref()];
        let key = keys.into_iter().flatten().find(|key| ticket.starts_with(&key.name))?;
        key.open(ticket, call::now_s()?)
    }
}

impl TicketKey {
    fn new() -> Result<TicketKey, NoRandom> {
        let mut secret = [0; 32];
        let mut name = [0; NAME_LEN];
        let random = SystemRandom::new();
        random.fill(&mut secret).map_err(|_| NoRandom)?;
        random.fill(&mut name).map_err(|_| NoRandom)?;
        let key = UnboundKey::new(&CHACHA20_POLY1305, &secret).map_err(|_| NoRandom)?;
        Ok(TicketKey { name, key: LessSafeKey::new(key) })
    }

    /// With a random nonce: 96 bits bear 2^32 tickets of a key, 200,000 a second for six hours.
    fn seal(&self, session: &[u8], now_s: u64) -> Option<Vec<u8>> {
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce).ok()?;
        let head = NAME_LEN + NONCE_LEN;
        let mut ticket =
            Vec::with_capacity(head + TIME_LEN + session.len() + CHACHA20_POLY1305.tag_len());
        ticket.extend_from_slice(&self.name);
        ticket.extend_from_slice(&nonce);
        ticket.extend_from_slice(&now_s.to_be_bytes());
        ticket.extend_from_slice(session);
        let nonce = Nonce::assume_unique_for_key(nonce);
        let sealed = &mut ticket[head..];
        let tag = self.key.seal_in_place_separate_tag(nonce, Aad::from(self.name), sealed).ok()?;
        ticket.extend_from_slice(tag.as_ref());
        (ticket.len() <= TICKET_BYTES_MAX).then_some(ticket)
    }

    fn open(&self, ticket: &[u8], now_s: u64) -> Option<Vec<u8>> {
        if ticket.len() > TICKET_BYTES_MAX {
            return None;
        }
        let (nonce, sealed) = ticket.get(NAME_LEN..)?.split_at_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut sealed = sealed.to_vec();
        let opened = self.key.open_in_place(nonce, Aad::from(self.name), &mut sealed).ok()?;
        let (issued_s, session) = opened.split_first_chunk::<TIME_LEN>()?;
        // A clock that was set back makes a ticket of the future: as good as none.
        let age_s = now_s.checked_sub(u64::from_be_bytes(*issued_s))?;
        (age_s <= u64::from(TICKET_LIFETIME_S)).then(|| session.to_vec())
    }
}

impl fmt::Debug for TicketKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TicketKeys")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::call::Call;

    #[test]
    fn a_ticket_is_opened_by_its_key_and_the_next_one_but_not_the_one_after() {
        let first = TicketKeys::new().unwrap();
        let second = first.rotated().unwrap();
        let third = second.rotated().unwrap();
        let _call = Call::at(1_000);
        let ticket = first.encrypt(b"session").unwrap();
        assert_eq!(first.decrypt(&ticket).unwrap(), b"session");
        assert_eq!(second.decrypt(&ticket).unwrap(), b"session");
        assert_eq!(third.decrypt(&ticket), None);
    }

    #[test]
    fn a_ticket_that_is_old_or_changed_or_of_the_future_is_not_opened() {
        let keys = TicketKeys::new().unwrap();
        let ticket = {
            let _call = Call::at(1_000);
            keys.encrypt(b"session").unwrap()
        };
        for (now_s, opened) in [(999, false), (1_000, true), (44_200, true), (44_201, false)] {
            let _call = Call::at(now_s);
            assert_eq!(keys.decrypt(&ticket).is_some(), opened, "at {now_s}");
        }
        let _call = Call::at(1_000);
        for at in 0..ticket.len() {
            let mut changed = ticket.clone();
            changed[at] ^= 1;
            assert_eq!(keys.decrypt(&changed), None, "byte {at}");
            assert_eq!(keys.decrypt(&ticket[..at]), None, "{at} bytes");
        }
    }
}
