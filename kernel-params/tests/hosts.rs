//! Ten wrong hosts, ten right predictions; what fresh installs need; dangerous advice found; changed and
//! changed back byte for byte.

mod tree;

use std::collections::BTreeMap;
use std::fs;

use ringmain_kernel_params::apply::{self, Step};
use ringmain_kernel_params::doctor::{Report, examine};
use ringmain_kernel_params::{Goal, Profile, Verdict, examples};
use tree::{Distribution, Tree};

const MILLION: Goal =
    Goal { profile: Profile::ManyConnections, connections: 1_000_000, rate: 200_000 };

fn report(tree: &Tree) -> Report {
    examine(&tree.host(), MILLION).unwrap()
}

/// A Debian 13 on which a million fit, when `change` has made it worse: what stops it first, and where.
fn stop(change: impl FnOnce(&Tree)) -> (String, u64) {
    let tree = Tree::of(Distribution::Debian13);
    change(&tree);
    let report = report(&tree);
    let stop = report.capacity.stops.first().expect("something stops it");
    assert_eq!(report.capacity.fits, stop.allows);
    assert!(report.to_text(false).contains(&format!("growth stops at {} of 1000000", stop.allows)));
    assert!(!report.is_healthy() && report.warnings()[0].contains(&stop.limit));
    (stop.limit.clone(), stop.allows)
}

fn finding<'a>(report: &'a Report, name: &str) -> &'a ringmain_kernel_params::Finding {
    report.findings.iter().find(|f| f.name == name).unwrap_or_else(|| panic!("no {name}"))
}

#[test]
fn wrong_host_1_has_descriptors_for_a_login_only() {
    // 16 shards with 17 rings of 1,008 slots: three descriptors for each ring, eight for each shard, 64 for the
    // rest; eight ninths of a shard's places are an even share.
    let share = (17 * 1008 - 64) * 8 / 9;
    assert_eq!(stop(|t| t.limits(1024, 524_288, 8 << 20)), ("RLIMIT_NOFILE".into(), 16 * share));
}

#[test]
fn wrong_host_2_has_a_small_table_of_files() {
    let (limit, at) = stop(|t| t.sysctl("fs.file-max", "600000"));
    assert_eq!((limit.as_str(), at), ("fs.file-max", 600_000 - 1_312 - 4_096));
}

#[test]
fn wrong_host_3_has_too_little_memory() {
    let (limit, at) =
        stop(|t| t.set("proc/meminfo", "MemTotal: 4000000 kB\nMemAvailable: 3500000 kB"));
    assert_eq!(limit, "memory");
    assert!((300_000..400_000).contains(&at), "{at}");
}

#[test]
fn wrong_host_4_has_a_bound_in_a_group_above_its_own() {
    let (limit, at) = stop(|t| {
        let group = "sys/fs/cgroup/system.slice";
        t.set(&format!("{group}/ringmain.service/memory.max"), "max");
        t.set(&format!("{group}/memory.max"), "2147483648");
        t.set(&format!("{group}/memory.current"), "83886080");
        t.set(&format!("{group}/memory.stat"), "anon 1000\nsock 2500\ninactive_file 33554432\n");
    });
    // Files that were not used of late are given back.
    let left = (2 << 30) - (80 << 20) + (32 << 20);
    assert_eq!((limit.as_str(), at), ("memory.max", (left - (512 << 20)) / 5_380));
}

#[test]
fn of_two_bounded_groups_the_one_with_less_left_binds() {
    let (limit, at) = stop(|t| {
        let (group, own) = ("sys/fs/cgroup/system.slice", "ringmain.service");
        t.set(&format!("{group}/{own}/memory.max"), "2147483648");
        t.set(&format!("{group}/{own}/memory.current"), "0");
        t.set(&format!("{group}/memory.max"), "4294967296");
        t.set(&format!("{group}/memory.current"), "3221225472");
    });
    assert_eq!((limit.as_str(), at), ("memory.max", ((1 << 30) - (512 << 20)) / 5_380));
}

#[test]
fn wrong_host_5_tracks_connections_in_a_table_of_the_default_size() {
    let (limit, at) = stop(|t| {
        t.sysctl("net.netfilter.nf_conntrack_max", "262144");
        t.sysctl("net.netfilter.nf_conntrack_count", "12");
    });
    assert_eq!((limit.as_str(), at), ("net.netfilter.nf_conntrack_max", 258_048));
}

#[test]
fn wrong_host_6_has_buffers_for_a_small_machine() {
    let (limit, at) = stop(|t| t.sysctl("net.ipv4.tcp_mem", "500\t700\t1003"));
    assert_eq!((limit.as_str(), at), ("net.ipv4.tcp_mem", 1000 * 1000 / 8));
}

#[test]
fn wrong_host_7_forbids_rings() {
    assert_eq!(stop(|t| t.sysctl("kernel.io_uring_disabled", "2")).0, "kernel.io_uring_disabled");
}

#[test]
fn wrong_host_8_has_a_kernel_that_lacks_what_is_needed() {
    assert_eq!(stop(|t| t.sysctl("kernel.osrelease", "5.15.0-113-generic")), ("kernel".into(), 0));
}

#[test]
fn wrong_host_9_bounds_locked_memory_on_a_kernel_that_counts_rings() {
    let (limit, at) = stop(|t| {
        t.sysctl("kernel.osrelease", "6.18.2");
        t.limits(20_000, 20_000, 8 << 20);
    });
    assert_eq!((limit.as_str(), at), ("RLIMIT_MEMLOCK", 4 * 19_984));
}

#[test]
fn wrong_host_10_is_wrong_twice_and_the_tighter_one_comes_first() {
    let tree = Tree::of(Distribution::Debian13);
    tree.sysctl("fs.file-max", "600000");
    tree.limits(1024, 1024, 8 << 20);
    let report = report(&tree);
    let names: Vec<&str> = report.capacity.stops.iter().map(|s| s.limit.as_str()).collect();
    assert_eq!(names, ["RLIMIT_NOFILE", "fs.file-max"]);
}

#[test]
fn a_million_fits_on_fresh_installs_of_kernels_from_6_1_that_allow_rings() {
    for distribution in Distribution::ALL {
        let report = report(&Tree::of(distribution));
        let first = report.capacity.stops.first().map(|s| s.limit.as_str());
        let expected = match distribution {
            Distribution::Debian12 | Distribution::Debian13 | Distribution::Ubuntu2404 => None,
            Distribution::Rhel9 => Some("kernel"),
            Distribution::Rhel10 => Some("kernel.io_uring_disabled"),
        };
        assert_eq!(first, expected, "{distribution:?}");
        assert!(report.hardware.cores == 16 && report.hardware.queues == 16, "{distribution:?}");
        let dangers: Vec<&str> = report
            .findings
            .iter()
            .filter(|f| f.verdict == Verdict::Hazard)
            .map(|f| f.name.as_str())
            .collect();
        assert_eq!(dangers, [""; 0], "a fresh {distribution:?} is not dangerous");
    }
}

#[test]
fn advice_that_does_harm_is_found_when_it_was_followed() {
    let tree = Tree::of(Distribution::Debian13);
    let followed = [
        ("net.ipv4.tcp_tw_recycle", "1"),
        ("net.ipv4.tcp_tw_reuse", "1"),
        ("net.ipv4.tcp_rmem", "1024 4096 16384"),
        ("net.ipv4.tcp_wmem", "1024 4096 16384"),
        ("net.core.optmem_max", "25165824"),
        ("net.ipv4.tcp_syncookies", "2"),
        ("net.ipv4.tcp_abort_on_overflow", "1"),
        ("net.ipv4.tcp_timestamps", "0"),
        ("net.ipv4.tcp_sack", "0"),
        ("net.ipv4.tcp_low_latency", "1"),
        ("net.ipv4.tcp_fin_timeout", "1"),
        ("net.core.netdev_budget", "50000"),
        ("vm.overcommit_memory", "2"),
        ("vm.min_free_kbytes", "16777216"),
        ("net.core.somaxconn", "128"),
    ];
    for (name, value) in followed {
        tree.sysctl(name, value);
    }
    let report = report(&tree);
    for (name, value) in followed {
        let found = finding(&report, name);
        assert_eq!(found.verdict, Verdict::Hazard, "{name} = {value}");
        assert!(
            !found.hazards.is_empty() && report.to_text(false).contains(&found.hazards[0][..40])
        );
    }
    assert_eq!(report.warnings().len(), followed.len());
}

#[test]
fn a_value_is_raised_to_what_the_goal_needs_and_never_lowered() {
    let tree = Tree::of(Distribution::Debian13);
    tree.sysctl("net.core.somaxconn", "65536");
    tree.sysctl("net.ipv4.tcp_mem", "1 2 99999999");
    let report = report(&tree);
    assert_eq!(finding(&report, "net.core.somaxconn").verdict, Verdict::Good);
    assert_eq!(finding(&report, "net.ipv4.tcp_mem").proposed, None);
    let backlog = finding(&report, "net.ipv4.tcp_max_syn_backlog");
    assert_eq!((backlog.verdict, backlog.proposed.as_deref()), (Verdict::Change, Some("16384")));
    let table = finding(&report, "net.ipv4.tcp_ehash_entries");
    assert_eq!(table.proposed.as_deref(), Some("1048576"));
    assert!(report.to_text(false).contains("boot with thash_entries=1048576"));
}

#[test]
fn interrupts_and_queues_are_spread_over_the_cpus_of_the_cards_node() {
    let tree = Tree::of(Distribution::Debian13);
    tree.set("proc/irq/41/smp_affinity_list", "0");
    tree.set("sys/class/net/eth0/queues/tx-3/xps_cpus", "ffff");
    let spread = report(&tree);
    let found: Vec<(&str, Option<&str>)> = spread
        .findings
        .iter()
        .filter(|f| {
            f.verdict == Verdict::Change && ["queue", "interrupt"].contains(&f.kind.as_str())
        })
        .map(|f| (f.name.as_str(), f.proposed.as_deref()))
        .collect();
    assert_eq!(
        found,
        [("eth0/queues/tx-3/xps_cpus", Some("8")), ("proc/irq/41/smp_affinity_list", Some("1"))]
    );
    // With fewer queues than cores packets are handed on to all.
    tree.card(2);
    let steered = report(&tree);
    assert_eq!(finding(&steered, "eth0/queues/rx-1/rps_cpus").proposed.as_deref(), Some("ffff"));
}

#[test]
fn under_latency_deep_sleeps_are_forbidden_and_shallow_ones_not() {
    let tree = Tree::of(Distribution::Debian13);
    let goal = Goal { profile: Profile::Latency, ..MILLION };
    let report = examine(&tree.host(), goal).unwrap();
    let idle: Vec<&str> = report
        .findings
        .iter()
        .filter(|f| f.name.contains("cpuidle") && f.verdict == Verdict::Change)
        .map(|f| f.name.as_str())
        .collect();
    assert_eq!(idle.len(), 16);
    assert!(idle.iter().all(|name| name.ends_with("state3/disable")));
}

/// All files below a tree, with their bytes.
fn snapshot(tree: &Tree) -> BTreeMap<String, Vec<u8>> {
    fn walk(folder: &std::path::Path, found: &mut BTreeMap<String, Vec<u8>>) {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                walk(&path, found);
            } else {
                found.insert(path.to_string_lossy().into_owned(), fs::read(&path).unwrap());
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(tree.root(), &mut found);
    found
}

#[test]
fn what_was_applied_and_persisted_is_healthy_and_undone_byte_for_byte() {
    let tree = Tree::of(Distribution::Ubuntu2404);
    tree.sysctl("net.ipv4.tcp_syncookies", "2");
    tree.set("etc/sysctl.d/90-ringmain.conf", "# somebody's own");
    let undo_file = tree.root().with_extension("undo.json");
    let before = snapshot(&tree);
    let steps = apply::plan(&tree.host(), &report(&tree).findings, true).unwrap();
    assert!(steps.len() > 8, "{steps:?}");
    let outcomes = apply::apply(&tree.host(), &steps, &undo_file).unwrap();
    assert!(outcomes.iter().all(|o| o.error.is_none()), "{outcomes:?}");
    assert_ne!(snapshot(&tree), before);
    let after = report(&tree);
    let left: Vec<&str> =
        after.findings.iter().filter(|f| f.wants_change()).map(|f| f.name.as_str()).collect();
    // What only a boot or a start of the service changes.
    assert_eq!(left, ["net.ipv4.tcp_ehash_entries"]);
    assert!(
        tree.text("etc/sysctl.d/90-ringmain.conf").unwrap().contains("net.core.somaxconn = 16384")
    );
    let undone = apply::undo(&tree.host(), &undo_file, false).unwrap();
    assert!(undone.left.is_empty() && undone.failed.is_empty(), "{undone:?}");
    // Folders that were made for the files stay, empty.
    assert_eq!(snapshot(&tree), before);
    assert!(!undo_file.exists());
}

#[test]
fn a_second_apply_is_refused_until_the_first_is_undone() {
    let tree = Tree::of(Distribution::Debian12);
    let undo_file = tree.root().with_extension("second.json");
    let steps = apply::plan(&tree.host(), &report(&tree).findings, false).unwrap();
    apply::apply(&tree.host(), &steps, &undo_file).unwrap();
    tree.sysctl("net.core.somaxconn", "4096");
    let before = snapshot(&tree);
    let refused = apply::apply(&tree.host(), &steps, &undo_file).unwrap_err().to_string();
    assert!(refused.contains("is there already") && refused.contains("--undo"), "{refused}");
    assert_eq!(snapshot(&tree), before);
    fs::remove_file(undo_file).unwrap();
}

#[test]
fn what_somebody_changed_since_is_left_alone_unless_forced() {
    let tree = Tree::of(Distribution::Debian12);
    let undo_file = tree.root().with_extension("changed.json");
    let steps = apply::plan(&tree.host(), &report(&tree).findings, false).unwrap();
    apply::apply(&tree.host(), &steps, &undo_file).unwrap();
    tree.sysctl("net.core.somaxconn", "12345");
    let undone = apply::undo(&tree.host(), &undo_file, false).unwrap();
    assert_eq!(undone.left, ["proc/sys/net/core/somaxconn"]);
    assert_eq!(tree.text("proc/sys/net/core/somaxconn").unwrap(), "12345\n");
    let undone = apply::undo(&tree.host(), &undo_file, true).unwrap();
    assert!(undone.left.is_empty());
    assert_eq!(tree.text("proc/sys/net/core/somaxconn").unwrap(), "4096\n");
}

#[test]
fn a_step_that_fails_says_what_to_type_and_does_not_stop_the_others() {
    let tree = Tree::of(Distribution::Debian12);
    let undo_file = tree.root().with_extension("fails.json");
    let step = |path: &str, after: &str| Step {
        path: path.into(),
        before: Some("4096\n".into()),
        after: after.into(),
        kernel: true,
    };
    let steps = [step("proc/sys/net/core/none", "1"), step("proc/sys/net/core/somaxconn", "8192")];
    let outcomes = apply::apply(&tree.host(), &steps, &undo_file).unwrap();
    assert!(outcomes[0].error.is_some() && outcomes[1].error.is_none());
    assert_eq!(outcomes[0].command, "sysctl -w net.core.none='1'");
    assert_eq!(tree.text("proc/sys/net/core/somaxconn").unwrap(), "8192");
    fs::remove_file(undo_file).unwrap();
}

#[test]
fn the_example_files_are_what_the_data_says() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("profiles");
    for profile in Profile::ALL {
        for (name, text) in examples::files(profile).unwrap() {
            let path = folder.join(profile.name()).join(name);
            if std::env::var_os("RINGMAIN_BLESS").is_some() {
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(&path, &text).unwrap();
            }
            let there = fs::read_to_string(&path).unwrap_or_default();
            assert!(
                there == text,
                "{} is not up to date: RINGMAIN_BLESS=1 cargo test -p ringmain-kernel-params",
                path.display()
            );
        }
    }
}
