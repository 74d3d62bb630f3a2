//! Hosts that are wrong in one way each, and what the preflight must predict for them.

use super::*;

const GIB: u64 = 1 << 30;

/// A host with 24 GiB and 20,000 descriptors, on which a million fit.
fn good() -> Facts {
    Facts {
        kernel: (6, 18),
        io_uring_disabled: 0,
        privileged: false,
        memory_available: 23 * GIB,
        memory_group_left: None,
        descriptors: 20_000,
        descriptors_hard: 20_000,
        memlock: None,
        file_max: 2_466_186,
        files_open: 700,
        nr_open: 1_048_576,
        ports_per_source: 28_232,
        sources: 16_000_000,
        tcp_mem: Some([287_901, 383_868, 575_802]),
        tcp_pages: 2,
        tcp_ehash: Some(4 << 20),
        tcp_max_orphans: 4_000_000,
        tcp_max_tw_buckets: 4_000_000,
        somaxconn: 4096,
        netdev_max_backlog: 65_536,
        conntrack_max: None,
        side: Side::Both,
        shards: 2,
        broker_descriptors: None,
    }
}

const MILLION: Needs = Needs { connections: 1_000_000, storm: true };

/// The limit that stops the million first, and where.
fn stop(change: impl FnOnce(&mut Facts)) -> (String, u64) {
    let mut facts = good();
    change(&mut facts);
    let verdict = check(&facts, MILLION);
    let first = verdict.stops.first().expect("this host is too small");
    assert_eq!(verdict.fits, first.allows);
    assert!(!verdict.is_enough());
    assert!(verdict.to_text().contains(&first.limit));
    (first.limit.clone(), first.allows)
}

#[test]
fn a_million_fits_into_24_gib_with_20_000_descriptors() {
    let verdict = check(&good(), MILLION);
    assert_eq!((verdict.fits, verdict.stops.as_slice()), (1_000_000, [].as_slice()));
    assert!(verdict.notes.is_empty(), "{:?}", verdict.notes);
    assert_eq!(verdict.rings, 51);
    assert!(verdict.memory_needed < 12 * GIB);
}

#[test]
fn too_little_memory_stops_at_what_fits_beside_the_reserve() {
    let (limit, at) = stop(|f| f.memory_available = 6 * GIB);
    assert_eq!(limit, "memory");
    assert!((400_000..550_000).contains(&at), "{at}");
}

#[test]
fn a_memory_control_group_counts_as_memory_does() {
    let (limit, at) = stop(|f| f.memory_group_left = Some(3 * GIB));
    assert_eq!(limit, "memory.max");
    assert!((200_000..320_000).contains(&at), "{at}");
}

#[test]
fn a_host_without_room_for_the_program_itself_holds_nothing() {
    assert_eq!(stop(|f| f.memory_available = GIB), ("memory".into(), 0));
}

#[test]
fn a_thousand_descriptors_are_320_rings_of_1008_in_a_generator_and_fewer_in_a_broker() {
    let generator = |f: &mut Facts| (f.descriptors, f.side) = (1024, Side::Generator);
    assert_eq!(stop(generator), ("RLIMIT_NOFILE".into(), 320 * 1008));
    // 157 in each of two shards, eight ninths of whose places are an even share.
    let share = (157 * 1008 - 64) * 8 / 9;
    assert_eq!(stop(|f| f.descriptors = 1024), ("RLIMIT_NOFILE".into(), 2 * share));
    let one_shard = |f: &mut Facts| (f.descriptors, f.side, f.shards) = (1024, Side::Broker, 1);
    assert_eq!(stop(one_shard), ("RLIMIT_NOFILE".into(), 317 * 1008));
}

#[test]
fn each_connection_is_two_files_where_both_ends_are_here() {
    assert_eq!(stop(|f| f.file_max = 1_000_000), ("fs.file-max".into(), (1_000_000 - 4_796) / 2));
}

#[test]
fn file_max_does_not_bind_the_privileged() {
    let facts = Facts { file_max: 1_000_000, privileged: true, ..good() };
    assert!(check(&facts, MILLION).is_enough());
}

#[test]
fn four_source_addresses_have_ports_for_112_928() {
    assert_eq!(stop(|f| f.sources = 4), ("source ports".into(), 112_928));
}

#[test]
fn buffers_of_all_sockets_are_bounded_by_tcp_mem() {
    let (limit, at) = stop(|f| f.tcp_mem = Some([500, 700, 1000]));
    assert_eq!((limit.as_str(), at), ("net.ipv4.tcp_mem", 998 * 1000 / 8));
}

#[test]
fn locked_memory_bounds_the_rings_of_the_unprivileged_since_6_14() {
    let (limit, at) = stop(|f| f.memlock = Some(8 << 20));
    assert_eq!((limit.as_str(), at), ("RLIMIT_MEMLOCK", 4 * 19_984));
    let generator = |f: &mut Facts| (f.memlock, f.side) = (Some(8 << 20), Side::Generator);
    assert_eq!(stop(generator).1, 5 * 19_984);
    let older = Facts { memlock: Some(8 << 20), kernel: (6, 12), ..good() };
    assert!(check(&older, MILLION).is_enough());
    let root = Facts { memlock: Some(8 << 20), privileged: true, ..good() };
    assert!(check(&root, MILLION).is_enough());
}

#[test]
fn connection_tracking_has_a_table_of_its_own() {
    let (limit, at) = stop(|f| f.conntrack_max = Some(262_144));
    assert_eq!((limit.as_str(), at), ("net.netfilter.nf_conntrack_max", 258_048));
}

#[test]
fn an_old_kernel_or_forbidden_rings_stop_at_none() {
    assert_eq!(stop(|f| f.kernel = (5, 15)), ("kernel".into(), 0));
    assert_eq!(stop(|f| f.io_uring_disabled = 2), ("kernel.io_uring_disabled".into(), 0));
}

#[test]
fn a_broker_with_a_descriptor_for_each_connection_stops_at_its_limit() {
    let (limit, at) = stop(|f| f.broker_descriptors = Some(20_000));
    assert_eq!((limit.as_str(), at), ("RLIMIT_NOFILE of the broker", 19_936));
}

#[test]
fn of_several_limits_the_tightest_comes_first() {
    let memory_available = 9 * GIB / 2;
    let facts = Facts { sources: 12, conntrack_max: Some(262_144), memory_available, ..good() };
    let verdict = check(&facts, MILLION);
    let names: Vec<&str> = verdict.stops.iter().map(|f| f.limit.as_str()).collect();
    assert_eq!(names, ["net.netfilter.nf_conntrack_max", "memory", "source ports"]);
    assert_eq!(verdict.fits, 258_048);
}

#[test]
fn a_remote_broker_costs_this_host_one_end_only() {
    let here = check(&good(), MILLION).memory_needed;
    let there = check(&Facts { side: Side::Generator, ..good() }, MILLION).memory_needed;
    assert!(there * 3 < here * 2, "{there} {here}");
}

#[test]
fn limits_on_ending_connections_are_notes_for_a_storm_and_nothing_without() {
    let facts = Facts { tcp_max_orphans: 131_072, tcp_max_tw_buckets: 131_072, ..good() };
    let verdict = check(&facts, MILLION);
    assert!(verdict.is_enough());
    assert_eq!(verdict.notes.len(), 2, "{:?}", verdict.notes);
    assert!(check(&facts, Needs { storm: false, ..MILLION }).notes.is_empty());
}

#[test]
fn long_chains_of_established_connections_are_a_note() {
    let facts = Facts { tcp_ehash: Some(262_144), ..good() };
    let note = &check(&facts, MILLION).notes[0];
    assert!(
        note.contains("looks at 7 connections") && note.contains("thash_entries=2097152"),
        "{note}"
    );
    let verdict = check(&Facts { side: Side::Generator, ..facts }, MILLION);
    assert!(verdict.notes.is_empty(), "one end: {:?}", verdict.notes);
}

#[test]
fn what_a_namespace_does_not_show_stops_nothing() {
    let verdict = check(&Facts { tcp_mem: None, tcp_ehash: None, ..good() }, MILLION);
    assert!(verdict.is_enough() && verdict.notes.is_empty());
}

#[test]
fn a_short_backlog_of_the_loopback_interface_is_a_note_where_it_matters() {
    let facts = Facts { netdev_max_backlog: 1000, ..good() };
    assert!(check(&facts, MILLION).notes[0].contains("netdev_max_backlog"));
    assert!(check(&facts, Needs { connections: 20_000, storm: true }).notes.is_empty());
    assert!(check(&Facts { side: Side::Generator, ..facts }, MILLION).notes.is_empty());
}

#[test]
fn what_the_kernel_prints_is_understood() {
    assert_eq!(numbers("32768\t60999\n"), [32_768, 60_999]);
    assert_eq!(
        tcp_pages("sockets: used 14\nTCP: inuse 1 orphan 0 tw 1 alloc 1 mem 386\nUDP: mem 7"),
        386
    );
    assert!(effective_capability("Name:\tx\nCapEff:\t000001ffffffffff\n", CAP_SYS_ADMIN));
    assert!(!effective_capability("CapEff:\t0000000000000400\n", CAP_SYS_ADMIN));
}

#[test]
fn a_broker_whose_clients_are_elsewhere_needs_no_ports() {
    let facts = Facts { side: Side::Broker, sources: 1, ..good() };
    assert!(check(&facts, MILLION).is_enough());
}

#[test]
fn this_host_answers_every_question() {
    let facts = Facts::of(&Host::here(), Side::Broker);
    assert!(facts.kernel >= (6, 1) && facts.memory_available > 0 && facts.descriptors > 0);
    assert!(facts.file_max > 0 && facts.ports_per_source > 0);
    assert!(facts.tcp_mem.is_none_or(|[low, _, high]| high > low));
}
