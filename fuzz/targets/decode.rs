//! Any bytes, in every version and role: no panic, and what is decoded survives encoding.
//! Input: one byte of choices, then a packet.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringmain_mqtt::{
    ClientIdRules, Forward, Packet, Publish, PublishOut, Role, Rules, Version, connect_version,
    decode, header, header_v31, refusal_version,
};

fuzz_target!(|input: &[u8]| {
    let Some((&choice, bytes)) = input.split_first() else { return };
    let v = [Version::V5, Version::V311, Version::V31][usize::from(choice & 3) % 3];
    let role = if choice & 4 == 0 { Role::Server } else { Role::Client };
    let rules = Rules { strict_utf8: choice & 8 != 0, ..Rules::default() };
    let lenient = choice & 16 != 0;
    let _ = connect_version(bytes);
    let _ = refusal_version(bytes);
    let h = match v {
        Version::V31 => header_v31(bytes, lenient),
        _ => header(bytes, lenient),
    };
    let Ok(Some(mut h)) = h else { return };
    // Most inputs have a wrong length: the body is what there is.
    let body = &bytes[usize::from(h.len)..];
    h.remaining = body.len() as u32;
    let Ok(packet) = decode(h, body, v, role, &rules) else { return };
    survives(&packet, v, role, &rules);
    match packet {
        Packet::Publish(publish) => fans_out(&publish, v),
        Packet::Connect(connect) => {
            let _ = connect.check_client_id(&ClientIdRules::default());
        }
        _ => {}
    }
});

fn survives(packet: &Packet<'_>, v: Version, role: Role, rules: &Rules) {
    let mut wire = Vec::new();
    packet.encode(&mut wire, v);
    let h = header(&wire, false).expect("what is encoded has a header").expect("a whole one");
    assert_eq!(h.total_len(), wire.len());
    let again = decode(h, &wire[usize::from(h.len)..], v, role, rules).expect("decodes again");
    assert_eq!(again, *packet);
    // Walks every view.
    let _ = format!("{packet:?}");
}

/// The fan-out encoder says the same as the plain one.
fn fans_out(publish: &Publish<'_>, v: Version) {
    let ids: Vec<u32> = publish.props.subscription_ids.iter().collect();
    let mut forward = Vec::new();
    publish.props.forward.append_to(&mut forward);
    assert_eq!(forward.len(), publish.props.forward.wire_len());
    let out = PublishOut {
        dup: publish.dup,
        qos: publish.qos,
        retain: publish.retain,
        topic: publish.topic,
        packet_id: publish.packet_id.map_or(0, |id| id.get()),
        message_expiry_s: publish.props.message_expiry_s,
        topic_alias: publish.props.topic_alias,
        subscription_ids: &ids,
        forward: Forward::from_wire(&forward),
        payload_len: publish.payload.len(),
    };
    let mut wire = Vec::new();
    let layout = out.encode_head(&mut wire, v);
    assert_eq!((layout.len, wire.len()), (wire.len(), out.head_len(v)));
    wire.extend_from_slice(publish.payload);
    assert_eq!(wire.len(), out.total_len(v));
    let mut plain = Vec::new();
    publish.encode(&mut plain, v);
    assert_eq!(wire, plain);
}
