//! Small messages on their way to another shard: bytes of their batch instead of an allocation each.
//!
//! A message that is allocated on one core and freed on another costs both of them a cache line and an
//! atomic operation for each of its two or three allocations. The bytes of a batch travel with it and
//! come back with a later one, so a small message that nobody has to keep is never allocated.
//! (docs/adr/0018)
//!
//! ```text
//!   0          8           16        20         24         26     27
//!   publisher │ created_ms │ expiry_s │ props_len │ topic_len │ flags │ topic │ properties │ payload
//! ```

use ringmain_mqtt::QoS;

use super::mail::Mail;
use super::message::Outgoing;

/// Larger ones are shared: copying them twice costs more than what the sharing costs.
pub const PACKED_MAX: usize = 1024;
const HEADER: usize = 27;
const RETAIN: u8 = 4;
const EXPIRY_FORWARDED: u8 = 8;

/// Where a message lies in [`Batch::packed`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    at: u32,
    len: u32,
}

/// Mail of one turn for one shard, in order.
///
/// Invariant: every [`Mail::Packed`] in it lies in its `packed`.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// The mail.
    pub mail: Vec<Mail>,
    /// Bytes that [`Mail::Packed`] refers to.
    pub packed: Vec<u8>,
}

impl Batch {
    /// Mails in it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.mail.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.mail.is_empty()
    }

    /// Puts a message behind the others: its bytes if it is small and nobody keeps it, else a reference.
    pub fn push_publish(&mut self, out: &mut Outgoing<'_>) {
        let bytes = out.topic.len() + out.props.len() + out.payload.len();
        let mail = if out.owned.is_none() && bytes <= PACKED_MAX {
            Mail::Packed(pack(&mut self.packed, out))
        } else {
            Mail::Publish(out.own())
        };
        self.mail.push(mail);
    }

    /// Moves all of another batch behind this one's mail.
    pub fn append(&mut self, other: &mut Self) {
        let base = self.packed.len() as u32;
        self.packed.append(&mut other.packed);
        self.mail.extend(other.mail.drain(..).map(|mail| match mail {
            Mail::Packed(span) => Mail::Packed(Span { at: base + span.at, ..span }),
            mail => mail,
        }));
    }

    /// Empties it, for reuse.
    pub fn clear(&mut self) {
        self.mail.clear();
        self.packed.clear();
    }

    /// Takes it apart, a batch for each mail: for drivers that deliver one at a time.
    pub fn take_letters(&mut self) -> impl Iterator<Item = Self> + '_ {
        let packed = std::mem::take(&mut self.packed);
        self.mail.drain(..).map(move |mail| match mail {
            Mail::Packed(span) => Self {
                mail: vec![Mail::Packed(Span { at: 0, ..span })],
                packed: span.of(&packed).to_vec(),
            },
            mail => Self::from(mail),
        })
    }
}

impl From<Mail> for Batch {
    /// A batch of one mail that is not packed.
    fn from(mail: Mail) -> Self {
        debug_assert!(!matches!(mail, Mail::Packed(_)), "its bytes are elsewhere");
        Self { mail: vec![mail], packed: Vec::new() }
    }
}

impl Span {
    fn of(self, packed: &[u8]) -> &[u8] {
        &packed[self.at as usize..(self.at + self.len) as usize]
    }

    /// The message, borrowed from the batch.
    ///
    /// # Panics
    /// When the span is of another batch.
    #[must_use]
    pub fn unpack(self, packed: &[u8]) -> Outgoing<'_> {
        let (header, body) = self.of(packed).split_at(HEADER);
        let u32_at =
            |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("4 bytes"));
        let u64_at =
            |at: usize| u64::from_le_bytes(header[at..at + 8].try_into().expect("8 bytes"));
        let topic_len = usize::from(u16::from_le_bytes([header[24], header[25]]));
        let flags = header[26];
        let (topic, body) = body.split_at(topic_len);
        let (props, payload) = body.split_at(u32_at(20) as usize);
        Outgoing {
            // The decoder checked it; a slice that is no UTF-8 would be a bug of ours.
            topic: std::str::from_utf8(topic).unwrap_or(""),
            props,
            payload,
            qos: QoS::from_bits(flags & 3).unwrap_or(QoS::AtMostOnce),
            retain: flags & RETAIN != 0,
            expiry_forwarded: flags & EXPIRY_FORWARDED != 0,
            expiry_s: u32_at(16),
            publisher: u64_at(0),
            created_ms: u64_at(8),
            owned: None,
            backing: None,
        }
    }
}

fn pack(packed: &mut Vec<u8>, out: &Outgoing<'_>) -> Span {
    let at = packed.len();
    let mut header = [0; HEADER];
    header[..8].copy_from_slice(&out.publisher.to_le_bytes());
    header[8..16].copy_from_slice(&out.created_ms.to_le_bytes());
    header[16..20].copy_from_slice(&out.expiry_s.to_le_bytes());
    header[20..24].copy_from_slice(&(out.props.len() as u32).to_le_bytes());
    header[24..26].copy_from_slice(&(out.topic.len() as u16).to_le_bytes());
    header[26] = out.qos as u8
        | if out.retain { RETAIN } else { 0 }
        | if out.expiry_forwarded { EXPIRY_FORWARDED } else { 0 };
    let len = HEADER + out.topic.len() + out.props.len() + out.payload.len();
    packed.reserve(len);
    for part in [&header[..], out.topic.as_bytes(), out.props, out.payload] {
        packed.extend_from_slice(part);
    }
    debug_assert!(u32::try_from(packed.len()).is_ok(), "a turn reads less than 4 GiB");
    Span { at: at as u32, len: len as u32 }
}

impl Mail {
    /// The publish that a mail brings, packed or shared; `None` for other mail.
    #[must_use]
    pub fn publish<'a>(&'a self, packed: &'a [u8]) -> Option<Outgoing<'a>> {
        match self {
            Self::Publish(msg) => Some(Outgoing::of(msg)),
            Self::Packed(span) => Some(span.unpack(packed)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn outgoing<'a>(topic: &'a str, payload: &'a [u8]) -> Outgoing<'a> {
        Outgoing {
            props: b"\x03\x00\x01x",
            qos: QoS::ExactlyOnce,
            expiry_forwarded: true,
            expiry_s: 77,
            publisher: 0x1122_3344_5566_7788,
            ..Outgoing::internal(topic, payload, 99, true)
        }
    }

    fn same(a: &Outgoing<'_>, b: &Outgoing<'_>) {
        assert_eq!((a.topic, a.props, a.payload), (b.topic, b.props, b.payload));
        assert_eq!((a.qos, a.retain, a.expiry_forwarded), (b.qos, b.retain, b.expiry_forwarded));
        assert_eq!(
            (a.expiry_s, a.publisher, a.created_ms),
            (b.expiry_s, b.publisher, b.created_ms)
        );
    }

    #[test]
    fn a_packed_message_comes_out_as_it_went_in_wherever_its_batch_goes() {
        let (mut first, mut second) = (Batch::default(), Batch::default());
        let large = vec![7; PACKED_MAX];
        first.push_publish(&mut outgoing("a/b", b"payload"));
        first.push_publish(&mut outgoing("large", &large));
        second.mail.push(Mail::StatsAsk);
        second.push_publish(&mut outgoing("", b""));
        second.push_publish(&mut outgoing("c", b"1"));
        first.append(&mut second);
        assert!(second.is_empty() && second.packed.is_empty());
        let letters: Vec<Batch> = first.take_letters().collect();
        assert!(first.is_empty());
        let of = |n: usize| letters[n].mail[0].publish(&letters[n].packed);
        same(&of(0).unwrap(), &outgoing("a/b", b"payload"));
        assert!(matches!(letters[1].mail[0], Mail::Publish(_)), "too large to be packed");
        same(&of(1).unwrap(), &outgoing("large", &large));
        assert!(of(2).is_none());
        same(&of(3).unwrap(), &outgoing("", b""));
        same(&of(4).unwrap(), &outgoing("c", b"1"));
    }

    #[test]
    fn a_message_that_somebody_keeps_is_shared() {
        let mut batch = Batch::default();
        let mut out = outgoing("t", b"x");
        let kept = out.own();
        batch.push_publish(&mut out);
        let [Mail::Publish(msg)] = &batch.mail[..] else { panic!("{batch:?}") };
        assert!(Arc::ptr_eq(msg, &kept));
    }
}
