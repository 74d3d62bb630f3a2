//! How long a password takes to verify: `cargo run --release -p ringmain-auth --example hashes`

use std::hint::black_box;
use std::time::{Duration, Instant};

use ringmain_auth::password::{Hash, Scheme};

const MEASURED: Duration = Duration::from_secs(1);

fn main() -> Result<(), String> {
    for (name, scheme) in Scheme::NAMES {
        let hash = Hash::make(*scheme, b"correct horse")?;
        let (begun, mut count) = (Instant::now(), 0_u32);
        while begun.elapsed() < MEASURED {
            black_box(hash.verify(black_box(b"correct horse")));
            count += 1;
        }
        println!("{name}: {:?}", begun.elapsed() / count);
    }
    Ok(())
}
