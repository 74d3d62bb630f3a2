//! Compares what publishers sent with what each subscriber got.

use std::collections::{BTreeMap, HashMap};

use ringmain_mqtt::QoS;
use ringmain_mqtt::topic::{TopicFilter, TopicName};

use crate::client::{Heard, RetainedHeard};
use crate::plan::{ClientIds, ConnectPlan, Expect, Plan, Population};
use crate::stamp::{Account, Flow, Flows, WILL, key, publisher_id};
use crate::stats::Faults;
use crate::template::{Context, Template};

/// Pairs of a filter and a topic that [`Expect::Matching`] compares at most: some seconds of work.
const MATCHES_MAX: u64 = 200_000_000;

/// What a worker knows at the end.
#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
pub(crate) struct WorkerResult {
    pub(crate) rings: usize,
    /// What went wrong, by kind.
    pub(crate) faults: Faults,
    pub(crate) sent: Vec<SentBy>,
    pub(crate) heard: Vec<HeardBy>,
    pub(crate) groups: Vec<GroupHeard>,
    /// Messages of each client that expects its share of all, by population.
    pub(crate) ones: Vec<(u16, u32)>,
    /// Connections that ended without DISCONNECT, by publisher.
    pub(crate) unclean: Vec<(u32, u32)>,
}

/// What a publisher sent.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub(crate) struct SentBy {
    pub(crate) publisher: u32,
    pub(crate) sent: u32,
    /// By stream, where a hash chooses it.
    pub(crate) by_stream: Box<[u32]>,
    /// Message numbers, from and to (exclusive), whose fate is unknown.
    pub(crate) unsure: Vec<(u32, u32)>,
    pub(crate) resent: u32,
}

/// What a subscriber got.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub(crate) struct HeardBy {
    pub(crate) population: u16,
    /// Its number.
    pub(crate) number: u32,
    pub(crate) epoch: u16,
    pub(crate) heard: Heard,
}

/// What the members of a `$share` group got together.
#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
pub(crate) struct GroupHeard {
    pub(crate) population: u16,
    /// The filter, which names the group.
    pub(crate) filter: String,
    /// Streams by key: which messages came.
    pub(crate) streams: HashMap<u64, Bits>,
    pub(crate) duplicates: u64,
    pub(crate) redelivered: u64,
    pub(crate) out_of_order: u64,
    /// Whether a member was away without a session that keeps its messages.
    pub(crate) was_away: bool,
}

/// A set of small numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Bits(Vec<u64>);

impl Bits {
    /// Adds a number; false if it was there.
    pub(crate) fn insert(&mut self, n: u32) -> bool {
        let (word, bit) = (n as usize / 64, 1u64 << (n % 64));
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        let new = self.0[word] & bit == 0;
        self.0[word] |= bit;
        new
    }

    /// Adds all of another set and says how many were there.
    fn unite(&mut self, other: &Self) -> u64 {
        if self.0.len() < other.0.len() {
            self.0.resize(other.0.len(), 0);
        }
        let mut both = 0;
        for (mine, theirs) in self.0.iter_mut().zip(&other.0) {
            both += u64::from((*mine & theirs).count_ones());
            *mine |= theirs;
        }
        both
    }

    /// How many numbers below `end` are in it, and how many others.
    fn below(&self, end: u32) -> (u64, u64) {
        let all: u64 = self.0.iter().map(|w| u64::from(w.count_ones())).sum();
        let whole = end as usize / 64;
        let words = self.0.iter().take(whole).map(|w| u64::from(w.count_ones())).sum::<u64>();
        let rest = self.0.get(whole).map_or(0, |w| w & ((1u64 << (end % 64)) - 1));
        let below = words + u64::from(rest.count_ones());
        (below, all - below)
    }
}

/// How many deliveries a message makes, where that is the same for all of them.
pub(crate) fn fan_out(plan: &Plan) -> Option<u64> {
    if plan.populations.iter().filter(|p| p.publish.is_some()).count() != 1 {
        return None;
    }
    let mut sum = 0;
    for p in plan.populations.iter().filter(|p| !p.subscriptions.is_empty()) {
        sum += match p.expect {
            Expect::Peer(_) | Expect::One(_) => 1,
            Expect::All(_) => u64::from(p.count),
            _ => return None,
        };
    }
    (sum > 0).then_some(sum)
}

/// The account of a run; `None` when nothing was to be checked.
pub(crate) fn account(plan: &Plan, results: &[WorkerResult]) -> Option<Account> {
    if plan.populations.iter().all(|p| p.expect == Expect::None) {
        return None;
    }
    let sent = results.iter().flat_map(|r| &r.sent).map(|s| (s.publisher, s)).collect();
    let books = Books { plan, sent, nothing: SentBy::default() };
    let unclean: HashMap<u32, u32> =
        results.iter().flat_map(|r| r.unclean.iter().copied()).collect();
    let mut total = Account::default();
    for heard in results.iter().flat_map(|r| &r.heard) {
        match &heard.heard {
            Heard::Flows(flows) => total.add(&books.flows(heard, flows, &unclean)),
            Heard::Retained(retained) => {
                if let Expect::Retained(p) = plan.populations[usize::from(heard.population)].expect
                {
                    total.add(&books.retained(p, retained));
                }
            }
            // The group has it.
            Heard::Last(_) => {}
        }
    }
    books.groups(results, &mut total);
    books.ones(results, &mut total);
    Some(total)
}

struct Books<'a> {
    plan: &'a Plan,
    sent: HashMap<u32, &'a SentBy>,
    nothing: SentBy,
}

impl Books<'_> {
    fn sent_by(&self, publisher: u32) -> &SentBy {
        self.sent.get(&publisher).copied().unwrap_or(&self.nothing)
    }

    /// The publishers of a population, by their number and their name in stamps.
    fn publishers(&self, population: u16) -> impl Iterator<Item = (u32, u32)> + use<'_> {
        let p = &self.plan.populations[usize::from(population)];
        (p.first..p.first + p.count).map(move |n| (n, publisher_id(population, n)))
    }

    fn topic(&self, population: u16) -> Option<&Template> {
        Some(&self.plan.populations[usize::from(population)].publish.as_ref()?.topic)
    }

    /// How many messages a publisher sent on a stream.
    fn sent_on(&self, topic: &Template, number: u32, publisher: u32, stream: u32) -> u32 {
        let by = self.sent_by(publisher);
        if topic.is_hashed() {
            by.by_stream.get(stream as usize).copied().unwrap_or(0)
        } else {
            topic.sent_on(stream, u64::from(number), by.sent)
        }
    }

    fn flows(&self, heard: &HeardBy, flows: &Flows, unclean: &HashMap<u32, u32>) -> Account {
        let mut total = Account::default();
        match self.plan.populations[usize::from(heard.population)].expect {
            Expect::Stream => {
                flows.iter().for_each(|(_, f)| total.add(&f.account(None, heard.epoch)));
            }
            Expect::Peer(p) => {
                self.publisher(heard, flows, p, heard.number, &mut total);
            }
            Expect::All(p) => {
                for (number, _) in self.publishers(p) {
                    self.publisher(heard, flows, p, number, &mut total);
                }
            }
            Expect::Matching(p) => self.matching(heard, flows, p, &mut total),
            Expect::Wills(p) => {
                for (_, id) in self.publishers(p) {
                    let due = unclean.get(&id).copied().unwrap_or(0);
                    let flow = flows.get(key(WILL | id, 0)).cloned().unwrap_or_default();
                    total.add(&flow.account(Some(due), heard.epoch));
                }
            }
            Expect::None | Expect::One(_) | Expect::SharedGroup(_) | Expect::Retained(_) => {}
        }
        total
    }

    /// All streams of one publisher.
    fn publisher(&self, heard: &HeardBy, flows: &Flows, p: u16, number: u32, total: &mut Account) {
        let Some(topic) = self.topic(p) else { return };
        for stream in 0..topic.streams() {
            self.stream(heard, flows, p, number, stream, total);
        }
    }

    fn stream(
        &self,
        heard: &HeardBy,
        flows: &Flows,
        p: u16,
        number: u32,
        stream: u32,
        total: &mut Account,
    ) {
        let Some(topic) = self.topic(p) else { return };
        let publisher = publisher_id(p, number);
        let sent = self.sent_on(topic, number, publisher, stream);
        let empty = Flow::default();
        let flow = flows.get(key(publisher, stream)).unwrap_or(&empty);
        let mut account = flow.account(Some(sent), heard.epoch);
        let by = self.sent_by(publisher);
        if account.lost > 0 && !by.unsure.is_empty() {
            let lost = flow.lost(sent, heard.epoch).flat_map(|(from, to)| from..to);
            let unsure = lost.filter(|&seq| is_unsure(topic, number, stream, seq, by)).count();
            account.lost -= unsure as u64;
            account.abandoned += unsure as u64;
        }
        let repeats = account.duplicates.min(u64::from(by.resent));
        account.duplicates -= repeats;
        account.redelivered += repeats;
        total.add(&account);
    }

    /// The streams whose topics the subscriber's filters match.
    fn matching(&self, heard: &HeardBy, flows: &Flows, p: u16, total: &mut Account) {
        let Some(topic) = self.topic(p) else { return };
        let subscriber = &self.plan.populations[usize::from(heard.population)];
        let filters = filters(subscriber, heard.number);
        let publishers = &self.plan.populations[usize::from(p)];
        let pairs = u64::from(publishers.count) * u64::from(topic.streams()) * filters.len() as u64;
        if pairs.saturating_mul(u64::from(subscriber.count)) > MATCHES_MAX {
            // What came is checked for gaps, but not for streams that never came.
            for (k, flow) in flows.iter() {
                let number = (k >> 32) as u32 & ((1 << 24) - 1);
                let mut account = Account::default();
                if (k >> 32) as u32 >> 24 == u32::from(p) {
                    self.stream(heard, flows, p, number, k as u32, &mut account);
                } else {
                    account = flow.account(None, heard.epoch);
                }
                total.add(&account);
            }
            return;
        }
        let parsed: Vec<_> =
            filters.iter().filter_map(|f| TopicFilter::parse(f, 128).ok()).collect();
        for (number, _) in self.publishers(p) {
            for stream in 0..topic.streams() {
                let Some(message) = topic.message_on(stream, u64::from(number)) else { continue };
                let text = rendered(topic, publishers, number, message);
                let Ok(name) = TopicName::parse(&text, 128) else { continue };
                if parsed.iter().any(|f| f.matches(&name)) {
                    self.stream(heard, flows, p, number, stream, total);
                }
            }
        }
    }

    fn retained(&self, p: u16, heard: &RetainedHeard) -> Account {
        let mut account = Account { duplicates: heard.duplicates, ..Account::default() };
        let Some(topic) = self.topic(p) else { return account };
        for (number, publisher) in self.publishers(p) {
            let got = heard.by_publisher.get(&publisher).map_or(&[][..], Vec::as_slice);
            let topics =
                if topic.is_numbered() { self.sent_by(publisher).sent } else { topic.streams() };
            for index in 0..topics {
                // With a topic for each message its sequence number is the index.
                let last = if topic.is_numbered() {
                    index + 1
                } else {
                    self.sent_on(topic, number, publisher, index)
                };
                match (last, got.get(index as usize).copied().unwrap_or(0)) {
                    (0, 0) => {}
                    (0, _) => account.unsent += 1,
                    (_, 0) => account.lost += 1,
                    (last, seq) if last == seq => account.received += 1,
                    // An older value than the last one.
                    _ => account.out_of_order += 1,
                }
            }
            account.unsent += got.iter().skip(topics as usize).filter(|&&g| g > 0).count() as u64;
        }
        account
    }

    fn groups(&self, results: &[WorkerResult], total: &mut Account) {
        let mut groups: BTreeMap<(u16, &str), GroupHeard> = BTreeMap::new();
        for heard in results.iter().flat_map(|r| &r.groups) {
            let group = groups.entry((heard.population, heard.filter.as_str())).or_default();
            group.duplicates += heard.duplicates;
            group.redelivered += heard.redelivered;
            group.out_of_order += heard.out_of_order;
            group.was_away |= heard.was_away;
            for (k, bits) in &heard.streams {
                group.duplicates += group.streams.entry(*k).or_default().unite(bits);
            }
        }
        for ((population, _), group) in &groups {
            let Expect::SharedGroup(p) = self.plan.populations[usize::from(*population)].expect
            else {
                continue;
            };
            total.add(&self.group(p, group));
        }
    }

    fn group(&self, p: u16, group: &GroupHeard) -> Account {
        let mut account = Account {
            duplicates: group.duplicates,
            redelivered: group.redelivered,
            out_of_order: group.out_of_order,
            ..Account::default()
        };
        let Some(topic) = self.topic(p) else { return account };
        let (mut unsure, mut resent) = (0, 0);
        for (number, publisher) in self.publishers(p) {
            for stream in 0..topic.streams() {
                let sent = self.sent_on(topic, number, publisher, stream);
                let came = group.streams.get(&key(publisher, stream));
                let (received, others) = came.map_or((0, 0), |bits| bits.below(sent));
                account.received += received;
                account.lost += u64::from(sent) - received;
                account.unsent += others;
            }
            let by = self.sent_by(publisher);
            unsure += by.unsure.iter().map(|(from, to)| u64::from(to - from)).sum::<u64>();
            resent += u64::from(by.resent);
        }
        let abandoned = account.lost.min(unsure);
        account.lost -= abandoned;
        account.abandoned = abandoned;
        if group.was_away {
            account.missed = std::mem::take(&mut account.lost);
        }
        let repeats = account.duplicates.min(resent);
        account.duplicates -= repeats;
        account.redelivered += repeats;
        account
    }

    /// Each client of a population has as many messages as any other.
    fn ones(&self, results: &[WorkerResult], total: &mut Account) {
        for (index, population) in self.plan.populations.iter().enumerate() {
            let Expect::One(p) = population.expect else { continue };
            let sent: u64 =
                self.publishers(p).map(|(_, id)| u64::from(self.sent_by(id).sent)).sum();
            let all = results.iter().flat_map(|r| &r.ones);
            let mine = all.filter(|(p, _)| usize::from(*p) == index).map(|(_, n)| u64::from(*n));
            total.add(&shares(sent, u64::from(population.count), mine));
        }
    }
}

/// The account of `clients` clients that were to get `sent` messages in equal shares.
fn shares(sent: u64, clients: u64, got: impl Iterator<Item = u64>) -> Account {
    let clients = clients.max(1);
    let (share, mut more) = (sent / clients, sent % clients);
    let mut account = Account::default();
    for got in got {
        // Where the shares are uneven, some clients have one more.
        let due = if got > share && more > 0 {
            more -= 1;
            share + 1
        } else {
            share
        };
        account.received += got.min(due);
        account.lost += due.saturating_sub(got);
        account.duplicates += got.saturating_sub(due);
    }
    account.lost += more;
    account
}

/// Whether the publisher does not know what became of a message.
fn is_unsure(topic: &Template, number: u32, stream: u32, seq: u32, by: &SentBy) -> bool {
    if topic.is_hashed() {
        // Which message of the stream it was cannot be told from its number.
        return true;
    }
    let turns = u64::from(topic.streams());
    let first = topic.message_on(stream, u64::from(number)).unwrap_or(0);
    let message = first + u64::from(seq) * turns;
    by.unsure.iter().any(|&(from, to)| (u64::from(from)..u64::from(to)).contains(&message))
}

/// A client's identifier.
pub(crate) fn client_id(connect: &ConnectPlan, number: u64) -> String {
    match &connect.ids {
        ClientIds::Template(t) => t.render(number, ""),
        ClientIds::List(ids) => ids[number as usize % ids.len()].clone(),
    }
}

/// A client's user name and password.
pub(crate) fn credentials(
    connect: &ConnectPlan,
    number: u64,
    client_id: &str,
) -> (Option<String>, Option<String>) {
    if let Some(list) = connect.credentials.as_ref().filter(|l| !l.is_empty()) {
        let (user, password) = &list[number as usize % list.len()];
        return (Some(user.clone()), Some(password.clone()));
    }
    let username = connect.username.as_ref().map(|t| t.render(number, client_id));
    let of = Context {
        number,
        client_id,
        username: username.as_deref().unwrap_or_default(),
        message: 0,
    };
    let password = connect.password.as_ref().map(|t| {
        let mut out = String::new();
        t.render_to(&mut out, &of);
        out
    });
    (username, password)
}

/// A client's text of a template.
pub(crate) fn rendered(template: &Template, of: &Population, number: u32, message: u64) -> String {
    let number = u64::from(number);
    let client_id = client_id(&of.connect, number);
    let (username, _) = credentials(&of.connect, number, &client_id);
    let username = username.as_deref().unwrap_or_default();
    let mut out = String::new();
    template.render_to(&mut out, &Context { number, client_id: &client_id, username, message });
    out
}

/// A client's filters, without `$share/GROUP/`.
fn filters(population: &Population, number: u32) -> Vec<String> {
    let mut filters = Vec::new();
    for subscription in &population.subscriptions {
        for copy in 0..subscription.copies {
            let text = rendered(&subscription.filter, population, number, u64::from(copy));
            let bare = text.strip_prefix("$share/").and_then(|rest| rest.split_once('/'));
            filters.push(bare.map_or(text.clone(), |(_, filter)| filter.to_owned()));
        }
    }
    filters
}

/// Whether what a population expects reaches it although its clients are away.
pub(crate) fn is_durable(plan: &Plan, population: &Population) -> bool {
    let at_least_once = |q: QoS| q > QoS::AtMostOnce;
    let publishers = population.expect.population().map(|p| &plan.populations[usize::from(p)]);
    let heard = publishers.and_then(|p| p.publish.as_ref()).is_none_or(|p| at_least_once(p.qos));
    population.connect.keeps_session()
        && heard
        && population.subscriptions.iter().all(|s| at_least_once(s.qos))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Pace, PublishPlan, SubscribePlan};
    use crate::size::Size;
    use crate::stamp::Manner;
    use std::time::Duration;

    fn plan(topic: &str, expect: Expect) -> Plan {
        let mut plan = Plan::new("127.0.0.1:1883".parse().unwrap());
        let connect = || ConnectPlan::new(ringmain_mqtt::Version::V5, "c%i".parse().unwrap());
        let mut subscribers = Population::idle("subscribers", 2, connect());
        subscribers.subscriptions =
            vec![SubscribePlan::new("t/{0..1}".parse().unwrap(), QoS::AtMostOnce)];
        subscribers.expect = expect;
        let mut publishers = Population::idle("publishers", 2, connect());
        publishers.publish = Some(PublishPlan {
            topic: topic.parse().unwrap(),
            qos: QoS::AtLeastOnce,
            retain: false,
            size: Size::Fixed(24),
            pace: Pace::Every { interval: Duration::from_secs(1) },
            limit: None,
        });
        plan.populations = vec![subscribers, publishers];
        plan
    }

    fn sent(number: u32, sent: u32) -> SentBy {
        SentBy { publisher: publisher_id(1, number), sent, ..SentBy::default() }
    }

    fn heard(number: u32, messages: &[(u32, u32, u32)]) -> HeardBy {
        let mut flows = Flows::default();
        for &(publisher, stream, seq) in messages {
            flows.arrive(key(publisher_id(1, publisher), stream), seq, Manner::default());
        }
        HeardBy { population: 0, number, epoch: 0, heard: Heard::Flows(flows) }
    }

    fn account_of(plan: &Plan, sent: Vec<SentBy>, heard: Vec<HeardBy>) -> Account {
        account(plan, &[WorkerResult { sent, heard, ..WorkerResult::default() }]).unwrap()
    }

    #[test]
    fn a_peer_is_expected_to_be_heard_to_its_last_message() {
        let plan = plan("p/%i", Expect::Peer(1));
        let heard = vec![heard(0, &[(0, 0, 0), (0, 0, 1)]), heard(1, &[(1, 0, 0)])];
        let a = account_of(&plan, vec![sent(0, 2), sent(1, 3)], heard);
        assert_eq!(a, Account { received: 3, lost: 2, ..Account::default() });
    }

    #[test]
    fn only_topics_that_the_filter_matches_are_expected() {
        let plan = plan("t/{0..1}", Expect::Matching(1));
        // Subscriber 0 hears t/0. Publisher 0 begins with t/0, publisher 1 with t/1.
        let got = heard(0, &[(0, 0, 0), (0, 0, 1), (1, 0, 0)]);
        let a = account_of(&plan, vec![sent(0, 3), sent(1, 4)], vec![got]);
        assert_eq!(a, Account { received: 3, lost: 1, ..Account::default() });
    }

    #[test]
    fn what_a_publisher_is_unsure_of_is_not_lost() {
        let plan = plan("p", Expect::All(1));
        let by = SentBy { unsure: vec![(1, 2)], resent: 1, ..sent(0, 3) };
        let got = heard(0, &[(0, 0, 0), (0, 0, 2), (0, 0, 2)]);
        let a = account_of(&plan, vec![by], vec![got]);
        let right = Account { received: 2, abandoned: 1, redelivered: 1, ..Account::default() };
        assert_eq!(a, right);
    }

    #[test]
    fn a_group_gets_each_message_once_in_all() {
        let plan = plan("p", Expect::SharedGroup(1));
        let group = |seqs: &[u32]| {
            let mut bits = Bits::default();
            seqs.iter().for_each(|&s| assert!(bits.insert(s)));
            let streams = HashMap::from([(key(publisher_id(1, 0), 0), bits)]);
            GroupHeard { filter: "$share/g/p".into(), streams, ..GroupHeard::default() }
        };
        let results = [
            WorkerResult {
                sent: vec![sent(0, 100)],
                groups: vec![group(&(0..60).collect::<Vec<_>>())],
                ..WorkerResult::default()
            },
            WorkerResult { groups: vec![group(&[59, 64, 65, 99, 100])], ..WorkerResult::default() },
        ];
        let a = account(&plan, &results).unwrap();
        let right =
            Account { received: 63, lost: 37, duplicates: 1, unsent: 1, ..Account::default() };
        assert_eq!(a, right);
    }

    #[test]
    fn a_retained_topic_must_come_once_with_its_last_message() {
        let plan = plan("r/{0..3}", Expect::Retained(1));
        let mut retained = RetainedHeard::default();
        let id = publisher_id(1, 0);
        // Six messages over four topics: the last ones are 1, 1, 0, 0.
        retained.arrive(id, 0, 1);
        retained.arrive(id, 1, 0);
        retained.arrive(id, 2, 0);
        retained.arrive(id, 2, 0);
        let heard = HeardBy {
            population: 0,
            number: 0,
            epoch: 0,
            heard: Heard::Retained(Box::new(retained)),
        };
        let a = account_of(&plan, vec![sent(0, 6)], vec![heard]);
        let right =
            Account { received: 2, out_of_order: 1, lost: 1, duplicates: 1, ..Account::default() };
        assert_eq!(a, right);
    }

    #[test]
    fn shares_that_are_not_equal_are_lost_and_double() {
        let even = shares(6, 3, [2, 2, 2].into_iter());
        assert_eq!(even, Account { received: 6, ..Account::default() });
        let uneven = shares(5, 3, [2, 1, 2].into_iter());
        assert_eq!(uneven, Account { received: 5, ..Account::default() });
        let wrong = shares(3, 3, [0, 1, 2].into_iter());
        assert_eq!(wrong, Account { received: 2, lost: 1, duplicates: 1, ..Account::default() });
    }

    #[test]
    fn a_will_is_due_for_each_connection_that_was_killed() {
        let plan = plan("p", Expect::Wills(1));
        let mut flows = Flows::default();
        flows.arrive(key(WILL | publisher_id(1, 0), 0), 0, Manner::default());
        let heard = HeardBy { population: 0, number: 0, epoch: 0, heard: Heard::Flows(flows) };
        let unclean = vec![(publisher_id(1, 0), 1), (publisher_id(1, 1), 1)];
        let result = WorkerResult { heard: vec![heard], unclean, ..WorkerResult::default() };
        let a = account(&plan, &[result]).unwrap();
        assert_eq!(a, Account { received: 1, lost: 1, ..Account::default() });
    }
}
