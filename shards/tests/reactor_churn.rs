//! Churn leaves nothing behind. A binary of its own: it counts the descriptors of the process.

mod reactor_common;

use std::io::Write;

use reactor_common::*;

fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[test]
fn twenty_thousand_connects_and_closes_leave_nothing_behind() {
    let (node, seen) = echo_node(&config(2));
    exchange(&mut connect(&node), b"warm");
    eventually("idle", || total(&node).slots_used == 0);
    let before = open_descriptors();
    for n in 0..20_000u32 {
        let mut stream = connect(&node);
        match n % 4 {
            0 => {}
            1 => exchange(&mut stream, b"x"),
            2 => {
                stream.write_all(b"x").unwrap();
                reset_on_drop(&stream);
            }
            _ => {
                reset_on_drop(&stream);
                stream.write_all(b"H1").unwrap();
            }
        }
        drop(stream);
        if n % 512 == 0 {
            // Loopback runs out of ports otherwise: those of reset connections come back at once.
            eventually("drained", || total(&node).connections < 200);
        }
    }
    eventually("all accepted", || total(&node).accepted == 20_001);
    eventually("all closed", || total(&node).slots_used == 0);
    assert_eq!(open_descriptors(), before);
    let stats = finish(node);
    assert_eq!(stats.closed, 20_001);
    assert_eq!(
        seen.get(|s| &s.opened) + seen.get(|s| &s.arrived),
        seen.closed() + stats.handed_over
    );
}
