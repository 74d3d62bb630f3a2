//! How long it takes to find one of many users: `cargo run --release -p ringmain-auth --example lookup -- 1000000`

use std::error::Error;
use std::fmt::Write;
use std::hint::black_box;
use std::time::Instant;

use ringmain_auth::users::{By, Snapshot};

const LOOKUPS: usize = 1_000_000;

fn main() -> Result<(), Box<dyn Error>> {
    let users: usize = std::env::args().nth(1).map_or(Ok(1_000_000), |text| text.parse())?;
    let mut text = String::new();
    for n in 0..users {
        // As long as a hash of the default.
        writeln!(
            text,
            "{{\"username\":\"device-{n:09}\",\"hash\":\"$argon2id$v=19$m=19456,t=2,p=1$\
             MDEyMzQ1Njc4OWFiY2RlZg$BaW4fpaHKjCZWAGDYdvtrxLvSh/SRTUPoEiB6ytkbCs\",\"attributes\":{{\"tenant\":\"t{}\"}}}}",
            n % 100
        )?;
    }
    let bytes = text.len();
    let begun = Instant::now();
    let snapshot = Snapshot::parse(text.into(), "example")?;
    println!("{users} users, {bytes} bytes, read in {:?}", begun.elapsed());
    // A linear congruential walk: every lookup is somewhere else in memory.
    let mut names = Vec::with_capacity(LOOKUPS);
    let mut n = 12_345_usize;
    for _ in 0..LOOKUPS {
        n = n.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        names.push(format!("device-{:09}", (n >> 20) % users));
    }
    let begun = Instant::now();
    let mut found = 0_usize;
    for name in &names {
        found += usize::from(black_box(snapshot.get(By::Username, name)).is_some());
    }
    let known = begun.elapsed() / LOOKUPS as u32;
    let begun = Instant::now();
    for name in &names {
        found += usize::from(black_box(snapshot.get(By::ClientId, name)).is_some());
    }
    let unknown = begun.elapsed() / LOOKUPS as u32;
    println!("{found} of {LOOKUPS} found; a lookup takes {known:?}, one in vain {unknown:?}");
    Ok(())
}
