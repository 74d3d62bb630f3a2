//! `routes-1M`, `routes-10M`: a million filters over a hundred connections, 15 of 100 with wildcards.

use std::time::{Duration, Instant};

use crate::client::Client;
use crate::scenario::{
    Against, Case, Cx, Failure, FigureKind, Figures, Scale, Scenario, Target, fails, grown_by,
    less, more, target, traffic,
};

pub(crate) static ROUTES_1M: Routes = Routes {
    name: "routes-1M",
    about: "1,000,000 subscriptions of 100 clients, 15 % wildcards: insert, bytes, publish beside them",
    count: 1_000_000,
};
pub(crate) static ROUTES_10M: Routes = Routes {
    name: "routes-10M",
    about: "10,000,000 subscriptions of 100 clients, 15 % wildcards: insert, bytes, publish beside them",
    count: 10_000_000,
};

pub(crate) struct Routes {
    name: &'static str,
    about: &'static str,
    count: u32,
}

const CLIENTS: u32 = 100;
/// Messages that look for a route among all.
const LOOKUPS: u32 = 50_000;

impl Scenario for Routes {
    fn name(&self) -> &'static str {
        self.name
    }

    fn about(&self) -> &'static str {
        self.about
    }

    fn figures(&self) -> &'static [FigureKind] {
        const {
            &[
                less("insert_ns", "insert CPU ns", 0),
                more("inserts_per_s", "inserts/s", 0),
                less("bytes", "bytes each", 0),
                less("lookup_ns", "publish CPU ns, among all", 0),
                less("lookup_before_ns", "among none", 0),
                less("pairs_ns", "pairs w16 CPU ns, among all", 0),
            ]
        }
    }

    fn cases(&self, scale: &Scale) -> Vec<Case> {
        let count = scale.pick(self.count, self.count / 20);
        vec![Case::of(format!("{count} filters"), count)]
    }

    fn measure(&self, cx: &Cx<'_>, case: &Case) -> Result<Figures, Failure> {
        let mut server = cx.start()?;
        let wrong = |e: std::io::Error| Failure::Contender(e.to_string());
        let each = case.count / CLIENTS;
        let mut clients = Vec::new();
        for n in 0..CLIENTS {
            clients.push(Client::connect(server.address, &format!("routes-{n}")).map_err(wrong)?);
        }
        let mut publisher = Client::connect(server.address, "routes-p").map_err(wrong)?;
        // A few topics of which nobody knows, before there is a table.
        let lookup = |publisher: &mut Client, from: u32| {
            let topics = (0..LOOKUPS).map(|i| {
                let n = from + (i * 7919) % case.count;
                (filter(n - n % 20), &b"0123456789abcdef"[..])
            });
            publisher.publish(topics, false, 512)
        };
        let idle = cx.sample(&mut server)?;
        lookup(&mut publisher, case.count).map_err(wrong)?;
        let before = cx.sample(&mut server)?;
        let began = Instant::now();
        for (n, client) in (0..CLIENTS).zip(&mut clients) {
            let filters: Vec<String> = (n * each..(n + 1) * each).map(filter).collect();
            client.subscribe(&filters, 200, 16).map_err(wrong)?;
        }
        let seconds = began.elapsed().as_secs_f64();
        std::thread::sleep(Duration::from_secs(1));
        let full = cx.sample(&mut server)?;
        lookup(&mut publisher, 0).map_err(wrong)?;
        let looked = cx.sample(&mut server)?;
        let mut arrived = 0;
        for client in &mut clients {
            let all = u64::from(LOOKUPS);
            arrived += client.count_publishes(Duration::from_millis(50), all).map_err(wrong)?.0;
        }
        if arrived < u64::from(LOOKUPS) {
            return fails(format!("{arrived} of {LOOKUPS} messages found their subscriber"));
        }
        let args = Case::command("", "pair -c 100 -s 42 -F 16").args;
        let pairs = cx.load(&mut server, &traffic::timed(cx, &args))?;
        let pairs = traffic::figures(&pairs, false)?;
        let count = f64::from(each * CLIENTS);
        let cpu = |a, b| grown_by(a, b, |s| s.cpu_ns);
        let (idle, before, full) = (idle.as_ref(), before.as_ref(), full.as_ref());
        Ok(Figures::from([
            ("insert_ns", cpu(before, full) / count),
            ("inserts_per_s", count / seconds),
            ("bytes", grown_by(before, full, |s| s.anonymous) / count),
            ("lookup_ns", cpu(full, looked.as_ref()) / f64::from(LOOKUPS)),
            ("lookup_before_ns", cpu(idle, before) / f64::from(LOOKUPS)),
            ("pairs_ns", pairs["ns_per_message"]),
        ]))
    }

    fn targets(&self) -> &'static [Target] {
        const {
            &[
                target("", "insert_ns", Against::AtMost(667.0)),
                target("", "bytes", Against::AtMost(176.0)),
            ]
        }
    }

    fn remarks(&self, _: &Scale) -> Vec<String> {
        vec![
            "from outside a route cannot be told from the subscription that made it: 80 B and 96 B \
             are the targets; publishes are QoS 1, one by one, and deliver once where the table is \
             full"
                .to_owned(),
        ]
    }

    fn on_request(&self) -> bool {
        self.count > 1_000_000
    }
}

/// 17 of 20 exact, one with `+` at the end, one with `+` within, one with `#`.
fn filter(n: u32) -> String {
    let (region, site) = (n % 97, n / 97);
    match n % 20 {
        17 => format!("r/{region}/{site}/s{n}/+"),
        18 => format!("r/{region}/+/s{n}/state"),
        19 => format!("r/{region}/{site}/s{n}/#"),
        _ => format!("r/{region}/{site}/s{n}/state"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fifteen_of_a_hundred_filters_have_wildcards_and_all_differ() {
        let filters: Vec<String> = (0..10_000).map(filter).collect();
        let wild = filters.iter().filter(|f| f.contains(['+', '#'])).count();
        assert_eq!(wild, 1500);
        let unique: std::collections::BTreeSet<&String> = filters.iter().collect();
        assert_eq!(unique.len(), filters.len());
    }
}
