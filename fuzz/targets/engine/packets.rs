//! Packets of clients, from fuzzer bytes: mostly right, so that they reach what lies behind the
//! decoder.

pub(crate) const CLIENT_IDS: [&str; 6] = ["a", "b", "c", "dd", "e-e", "f6"];
const TOPICS: [&str; 8] = ["t", "t/1", "t/2", "u/1/x", "u/2/x", "$SYS/x", "", "t/+"];
const FILTERS: [&str; 16] = [
    "t",
    "t/1",
    "t/+",
    "#",
    "+/+",
    "u/#",
    "u/+/x",
    "$SYS/#",
    "$share/g/t/#",
    "$share/g/#",
    "$share/h/t/1",
    "$queue/t/1",
    "$oshare/g/u/#",
    "$exclusive/t/1",
    "t/#/x",
    "+",
];

/// The input, read from its start; zeros after its end.
pub(crate) struct Bytes<'a>(pub(crate) &'a [u8]);

impl<'a> Bytes<'a> {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    pub(crate) fn take(&mut self, n: usize) -> &'a [u8] {
        let (head, rest) = self.0.split_at(n.min(self.0.len()));
        self.0 = rest;
        head
    }

    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[usize::from(self.byte()) % choices.len()]
    }
}

fn string(out: &mut Vec<u8>, text: &[u8]) {
    out.extend((text.len() as u16).to_be_bytes());
    out.extend(text);
}

fn varint(out: &mut Vec<u8>, mut n: usize) {
    loop {
        let more = n > 127;
        out.push((n & 127) as u8 | if more { 128 } else { 0 });
        n >>= 7;
        if !more {
            return;
        }
    }
}

fn framed(first: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    varint(&mut out, body.len());
    out.extend(body);
    out
}

fn properties(out: &mut Vec<u8>, props: &[u8]) {
    varint(out, props.len());
    out.extend(props);
}

pub(crate) fn connect(bytes: &mut Bytes<'_>) -> Vec<u8> {
    let version = bytes.of(&[5, 4, 3, 5]);
    let id = bytes.of(&CLIENT_IDS);
    let id = if bytes.byte() == 0xff { "" } else { id };
    let (bits, more) = (bytes.byte(), bytes.byte());
    let will = bits & 4 != 0;
    let mut flags = bits & 0b10; // Clean Start
    if will {
        flags |= 4 | (bits & 0x20) | if bits & 0x18 == 0x18 { 8 } else { bits & 0x18 };
    }
    let mut body = Vec::new();
    string(&mut body, if version == 3 { b"MQIsdp" } else { b"MQTT" });
    body.extend([version, flags]);
    body.extend(u16::from(more & 3).to_be_bytes());
    if version == 5 {
        let mut props = Vec::new();
        props.push(0x11);
        props.extend([0u32, 0, 4, 7200, u32::MAX][usize::from(more >> 2) % 5].to_be_bytes());
        if more & 0x20 != 0 {
            props.extend([0x21, 0, 1 + (more >> 6)]); // Receive Maximum
        }
        if more & 0x40 != 0 {
            props.extend([0x22, 0, 2]); // Topic Alias Maximum
        }
        if more & 0x80 != 0 {
            props.extend([0x27, 0, 0, 0, 40]); // Maximum Packet Size
        }
        if bits & 0x40 != 0 {
            props.extend([0x15, 0, 1, b'm', 0x16, 0, 1, b'd']); // Authentication Method, Data
        }
        properties(&mut body, &props);
    }
    string(&mut body, id.as_bytes());
    if will {
        if version == 5 {
            properties(&mut body, &[0x18, 0, 0, 0, more % 4]); // Will Delay Interval
        }
        string(&mut body, bytes.of(&TOPICS).as_bytes());
        string(&mut body, b"will");
    }
    framed(0x10, &body)
}

/// One packet, for the version that the first byte says; perhaps with a byte changed.
pub(crate) fn packet(bytes: &mut Bytes<'_>) -> Vec<u8> {
    let (what, how) = (bytes.byte(), bytes.byte());
    let v5 = how & 1 == 0;
    let mut out = match what % 16 {
        0..=4 => publish(bytes, v5),
        5..=7 => subscribe(bytes, v5),
        8 => unsubscribe(bytes, v5),
        9 | 10 => ack(bytes, 0x40, v5),
        11 => ack(bytes, bytes_first(what), v5),
        12 => ack(bytes, 0x62, v5),
        13 if v5 && how & 2 != 0 => {
            let method = if how & 4 == 0 { b'm' } else { b'n' };
            framed(0xf0, &[bytes.of(&[0x18, 0x19]), 4, 0x15, 0, 1, method])
        }
        13 => framed(0xc0, &[]),
        14 if v5 && how & 2 != 0 => framed(0xe0, &[bytes.of(&[0, 4, 0x81])]),
        14 => framed(0xe0, &[]),
        _ => connect(bytes),
    };
    if how & 0xf0 == 0xf0 {
        let (at, value) = (usize::from(bytes.byte()), bytes.byte());
        let len = out.len();
        out[at % len] = value;
    }
    out
}

fn bytes_first(what: u8) -> u8 {
    if what & 0x10 == 0 { 0x50 } else { 0x70 }
}

fn publish(bytes: &mut Bytes<'_>, v5: bool) -> Vec<u8> {
    let (bits, id) = (bytes.byte(), bytes.byte() % 4 + 1);
    let topic = bytes.of(&TOPICS);
    let qos = [0, 1, 2, 1][usize::from(bits % 4)];
    let dup = if qos == 0 { 0 } else { bits & 8 };
    let mut body = Vec::new();
    string(&mut body, topic.as_bytes());
    if qos > 0 {
        body.extend([0, id]);
    }
    if v5 {
        let mut props = Vec::new();
        if bits & 0x10 != 0 {
            props.extend([0x02, 0, 0, 0, 2]); // Message Expiry Interval
        }
        if bits & 0x20 != 0 || topic.is_empty() {
            props.extend([0x23, 0, id]); // Topic Alias
        }
        if bits & 0x40 != 0 {
            props.extend([0x26, 0, 1, b'k', 0, 1, b'v']);
        }
        properties(&mut body, &props);
    }
    let payload = [0usize, 1, 40, 300, 20_000][usize::from(bits >> 5) % 5];
    body.resize(body.len() + payload, b'p');
    framed(0x30 | dup | (qos << 1) | u8::from(bits & 0x80 != 0), &body)
}

fn subscribe(bytes: &mut Bytes<'_>, v5: bool) -> Vec<u8> {
    let (id, n) = (bytes.byte() % 4 + 1, bytes.byte());
    let mut body = vec![0, id];
    if v5 {
        properties(&mut body, if n & 0x80 == 0 { &[] } else { &[0x0b, 7] });
    }
    for _ in 0..n % 3 + 1 {
        let filter = bytes.of(&FILTERS);
        let options = bytes.byte();
        string(&mut body, filter.as_bytes());
        let qos = options % 3;
        let shared = filter.starts_with('$');
        let no_local = if shared { 0 } else { options & 4 };
        let handling = if options & 0x30 == 0x30 { 0 } else { options & 0x30 };
        body.push(if v5 { qos | no_local | (options & 8) | handling } else { qos });
    }
    framed(0x82, &body)
}

fn unsubscribe(bytes: &mut Bytes<'_>, v5: bool) -> Vec<u8> {
    let mut body = vec![0, bytes.byte() % 4 + 1];
    if v5 {
        body.push(0);
    }
    string(&mut body, bytes.of(&FILTERS).as_bytes());
    framed(0xa2, &body)
}

fn ack(bytes: &mut Bytes<'_>, first: u8, v5: bool) -> Vec<u8> {
    let (id, bits) = (bytes.byte() % 8, bytes.byte());
    let first =
        if bits & 1 == 0 { first } else { [0x40, 0x50, 0x62, 0x70][usize::from(bits / 2 % 4)] };
    let mut body = vec![0, id];
    if v5 && bits & 0x80 != 0 && first != 0x62 && first != 0x70 {
        body.push(0x97);
    }
    framed(first, &body)
}
