use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::Instant;

use super::*;
use crate::cache::Cache;
use crate::config::{Common, OnFailure};
use crate::fixture;
use crate::source::{Inputs, Pending, Source};

/// A source that does as it is told.
#[derive(Debug)]
struct Fake {
    says: Box<dyn Says>,
    takes_ms: u64,
    inputs: Inputs,
    takes: Takes,
    asked: AtomicUsize,
}

trait Says: Fn(Ask<'_>) -> Decision + Send + Sync {}
impl<F: Fn(Ask<'_>) -> Decision + Send + Sync> Says for F {}
impl std::fmt::Debug for dyn Says {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Says")
    }
}

impl Fake {
    fn new(says: impl Fn(Ask<'_>) -> Decision + Send + Sync + 'static) -> Self {
        let (takes, asked) = (Takes::Password, AtomicUsize::new(0));
        Self { says: Box::new(says), takes_ms: 0, inputs: Inputs::NONE, takes, asked }
    }

    fn slow(mut self, takes_ms: u64) -> Self {
        self.takes_ms = takes_ms;
        self
    }

    fn cached(mut self) -> Self {
        self.inputs = Inputs::USERNAME.and(Inputs::PASSWORD);
        self
    }
}

impl Source for Fake {
    fn takes(&self) -> Takes {
        self.takes
    }

    fn inputs(&self) -> Inputs {
        self.inputs
    }

    fn decide<'a>(&'a self, ask: Ask<'a>) -> Pending<'a, Decision> {
        self.asked.fetch_add(1, Relaxed);
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(self.takes_ms)).await;
            (self.says)(ask)
        })
    }
}

fn allow(_: Ask<'_>) -> Decision {
    Decision::Allow(Box::default())
}

fn ignore(_: Ask<'_>) -> Decision {
    Decision::Ignore
}

fn deny(_: Ask<'_>) -> Decision {
    Decision::Deny(Denial::credentials("no"))
}

fn only(name: &'static str) -> impl Fn(Ask<'_>) -> Decision + Send + Sync {
    move |ask| if ask.username() == Some(name) { allow(ask) } else { Decision::Ignore }
}

/// A clock that moves when it is told to.
fn deps() -> (Deps, Arc<AtomicU64>) {
    let now_ms = Arc::new(AtomicU64::new(1_700_000_100_000));
    let clock = Arc::clone(&now_ms);
    let cache = Arc::new(Cache::new(crate::config::Cache::default()).expect("a cache"));
    (Deps { clock: Arc::new(move || clock.load(Relaxed)), cache, cache_enabled: true }, now_ms)
}

fn chain_of(stages: Vec<(Arc<Fake>, Common)>) -> Arc<Chain> {
    let stages = stages.into_iter().zip(1..).map(|((fake, common), id)| {
        Arc::new(Stage::new(id, format!("s{id}").into(), fake, common))
    });
    let after = Arc::new(Rules::new(Vec::new()));
    Arc::new(Chain { allow_anonymous: false, stages: stages.collect(), after })
}

fn chain(fakes: Vec<Fake>) -> Arc<Chain> {
    chain_of(fakes.into_iter().map(|fake| (Arc::new(fake), Common::default())).collect())
}

fn decide(chain: &Chain, request: &Request) -> Verdict {
    fixture::run(chain.decide(request, &deps().0))
}

fn reason(verdict: &Verdict) -> Option<ReasonCode> {
    match verdict {
        Verdict::Deny(denial) => Some(denial.reason),
        _ => None,
    }
}

// AU01
#[test]
fn the_first_that_allows_or_denies_decides() {
    let client = fixture::client("c", "u", "p");
    let Verdict::Allow(identity) =
        decide(&chain(vec![Fake::new(ignore), Fake::new(allow), Fake::new(deny)]), &client)
    else {
        panic!("refused")
    };
    assert_eq!((identity.username.as_deref(), &*identity.authenticator), (Some("u"), "s2"));
    let verdict = decide(&chain(vec![Fake::new(deny), Fake::new(allow)]), &client);
    assert_eq!(reason(&verdict), Some(ReasonCode::BAD_USER_NAME_OR_PASSWORD));
}

// AU01 AU02
#[test]
fn whom_nobody_knows_is_anonymous() {
    let (nobody, somebody) = (fixture::client("c", "", ""), fixture::client("c", "u", "p"));
    for fakes in [vec![], vec![Fake::new(ignore), Fake::new(ignore)]] {
        let mut chain = Arc::into_inner(chain(fakes)).expect("the only one");
        let verdict = decide(&chain, &nobody);
        assert_eq!(reason(&verdict), Some(ReasonCode::NOT_AUTHORIZED));
        assert_eq!(reason(&decide(&chain, &somebody)), Some(ReasonCode::BAD_USER_NAME_OR_PASSWORD));
        // 0x05 and 0x04 of version 3.
        assert_eq!(ReasonCode::NOT_AUTHORIZED.to_v3_connack(), 5);
        assert_eq!(ReasonCode::BAD_USER_NAME_OR_PASSWORD.to_v3_connack(), 4);
        chain.allow_anonymous = true;
        for client in [&nobody, &somebody] {
            let Verdict::Allow(identity) = decide(&chain, client) else { panic!("refused") };
            // A name that nobody has checked is nobody's name.
            assert_eq!((identity.username.as_deref(), &*identity.authenticator), (None, ""));
        }
    }
}

// AU10
#[test]
fn a_valid_login_cannot_take_the_client_identifier_of_somebody_else() {
    let bind = Some("${username}-*".parse().expect("a binding"));
    let common = Common { bind_client_id: bind, ..Common::default() };
    let chain = chain_of(vec![(Arc::new(Fake::new(allow)), common)]);
    assert!(matches!(decide(&chain, &fixture::client("a-1", "a", "p")), Verdict::Allow(_)));
    let verdict = decide(&chain, &fixture::client("b-1", "a", "p"));
    assert_eq!(reason(&verdict), Some(ReasonCode::NOT_AUTHORIZED));
}

#[test]
fn what_authenticators_add_is_merged_and_seen_by_later_ones() {
    let first = Fake::new(|_| {
        let mut identity = Identity {
            username: Some("cn".into()),
            expires_at: Some(2_000_000_000),
            ..Identity::default()
        };
        identity.set_attribute("a", "1").expect("fits");
        Decision::Add(Box::new(identity))
    });
    let second = Fake::new(|ask| {
        assert_eq!((ask.username(), ask.so_far.attribute("a")), (Some("cn"), Some("1")));
        let mut identity =
            Identity { expires_at: Some(1_900_000_000), superuser: true, ..Identity::default() };
        identity.set_attribute("b", "2").expect("fits");
        Decision::Allow(Box::new(identity))
    });
    let Verdict::Allow(identity) =
        decide(&chain(vec![first, second]), &fixture::client("c", "u", "p"))
    else {
        panic!("refused")
    };
    assert_eq!(identity.username.as_deref(), Some("cn"));
    assert_eq!((identity.expires_at, identity.superuser), (Some(1_900_000_000), true));
    assert_eq!(identity.attributes.len(), 2);
}

// AU18
#[test]
fn a_slow_source_does_not_delay_those_who_need_another_or_are_cached() {
    let slow = Fake::new(only("slow")).slow(10_000).cached();
    let quick = Arc::new(Fake::new(only("quick")));
    let slow = Arc::new(slow);
    let common = || Common { max_in_flight: 4, timeout_ms: 20_000, ..Common::default() };
    let quick_chain = chain_of(vec![(quick, common())]);
    let slow_chain = chain_of(vec![(slow, common())]);
    let (deps, _) = deps();
    fixture::run(async {
        // One is known before the trouble begins.
        let known = fixture::client("c", "slow", "known");
        assert!(matches!(slow_chain.decide(&known, &deps).await, Verdict::Allow(_)));
        let begun = Instant::now();
        let waiting: Vec<_> = (0..4)
            .map(|n| {
                let (chain, deps) = (Arc::clone(&slow_chain), deps.clone());
                let client = fixture::client("c", "slow", &n.to_string());
                tokio::spawn(async move { chain.decide(&client, &deps).await })
            })
            .collect();
        tokio::task::yield_now().await;
        let other = fixture::client("c", "quick", "p");
        assert!(matches!(quick_chain.decide(&other, &deps).await, Verdict::Allow(_)));
        assert!(matches!(slow_chain.decide(&known, &deps).await, Verdict::Allow(_)), "cached");
        let fifth = fixture::client("c", "slow", "fifth");
        assert!(matches!(slow_chain.decide(&fifth, &deps).await, Verdict::Busy), "bounded");
        // The clock of the test moves only when all wait.
        assert_eq!(begun.elapsed(), Duration::ZERO);
        for verdict in waiting {
            assert!(matches!(verdict.await, Ok(Verdict::Allow(_))));
        }
        assert!(begun.elapsed() >= Duration::from_secs(10));
    });
}

// AU18
#[test]
fn a_source_that_does_not_answer_in_time_denies_or_is_passed_over() {
    let stuck = || Arc::new(Fake::new(allow).slow(60_000).cached());
    let late = Common { timeout_ms: 100, ..Common::default() };
    let passed = Common { on_failure: OnFailure::Ignore, ..late.clone() };
    let client = fixture::client("c", "u", "p");
    let verdict = decide(&chain_of(vec![(stuck(), late)]), &client);
    assert_eq!(reason(&verdict), Some(ReasonCode::SERVER_UNAVAILABLE));
    let next = (Arc::new(Fake::new(allow)), Common::default());
    let verdict = decide(&chain_of(vec![(stuck(), passed), next]), &client);
    assert!(matches!(verdict, Verdict::Allow(identity) if &*identity.authenticator == "s2"));
}

// AU15: 100 k reconnects of 1 k users
#[test]
fn a_hundred_thousand_reconnects_of_a_thousand_users_ask_a_thousand_times() {
    let source = Arc::new(Fake::new(allow).slow(50).cached());
    let common = Common { max_in_flight: 100_000, ..Common::default() };
    let chain = chain_of(vec![(Arc::clone(&source), common)]);
    let (deps, now_ms) = deps();
    fixture::run(async {
        for round in 0..10 {
            // All at once, so that each user waits in ten places.
            let mut tasks = tokio::task::JoinSet::new();
            for n in 0..10_000 {
                let (chain, deps) = (Arc::clone(&chain), deps.clone());
                let client = fixture::client("c", &format!("user{}", n % 1_000), "p");
                tasks.spawn(async move { chain.decide(&client, &deps).await });
            }
            while let Some(verdict) = tasks.join_next().await {
                assert!(matches!(verdict, Ok(Verdict::Allow(_))), "{round}");
            }
            now_ms.fetch_add(5_000, Relaxed);
        }
    });
    assert_eq!(source.asked.load(Relaxed), 1_000);
}

// AU15
#[test]
fn who_waits_for_the_same_question_waits_no_longer_than_for_an_own_one() {
    let source = Arc::new(Fake::new(allow).slow(60_000).cached());
    let common = Common { timeout_ms: 200, ..Common::default() };
    let chain = chain_of(vec![(Arc::clone(&source), common)]);
    let (deps, _) = deps();
    fixture::run(async {
        let begun = Instant::now();
        let client = fixture::client("c", "u", "p");
        let (a, b) = tokio::join!(chain.decide(&client, &deps), chain.decide(&client, &deps));
        assert_eq!(reason(&a), Some(ReasonCode::SERVER_UNAVAILABLE));
        assert_eq!(reason(&b), Some(ReasonCode::SERVER_UNAVAILABLE));
        assert!(begun.elapsed() < Duration::from_secs(1));
    });
    assert_eq!(source.asked.load(Relaxed), 1);
}

fn method_client(method: &str) -> Request {
    let mut request = fixture::client("c", "", "");
    request.method = Some(method.into());
    request.data = Some([].into());
    request
}

fn method_fake(says: impl Fn(Ask<'_>) -> Decision + Send + Sync + 'static) -> Fake {
    Fake { takes: Takes::Method("SCRAM-SHA-256"), ..Fake::new(says) }
}

// C09: [MQTT-4.12.0-1]
#[test]
fn an_unknown_method_is_answered_with_bad_authentication_method() {
    let chain = chain(vec![Fake::new(allow), method_fake(allow)]);
    for method in ["GSS-SPNEGO", "SCRAM-SHA-512", "", "scram-sha-256"] {
        let verdict = decide(&chain, &method_client(method));
        assert_eq!(reason(&verdict), Some(ReasonCode::BAD_AUTHENTICATION_METHOD), "{method}");
    }
    assert!(matches!(decide(&chain, &method_client("SCRAM-SHA-256")), Verdict::Allow(_)));
}

// AU11
#[test]
fn facts_do_not_stand_in_for_the_method_that_a_client_names() {
    let facts = Fake { takes: Takes::Facts, ..Fake::new(allow) };
    let verdict = decide(&chain(vec![facts, method_fake(deny)]), &method_client("SCRAM-SHA-256"));
    assert_eq!(reason(&verdict), Some(ReasonCode::BAD_USER_NAME_OR_PASSWORD));
    let refusing = Fake { takes: Takes::Facts, ..Fake::new(deny) };
    let verdict =
        decide(&chain(vec![refusing, method_fake(allow)]), &method_client("SCRAM-SHA-256"));
    assert!(matches!(verdict, Verdict::Deny(_)));
}

// AU11 S-95: [MQTT-4.12.1-2]
#[test]
fn re_authentication_fails_with_not_authorized_and_changes_nobody() {
    let named = |name: &'static str| {
        chain(vec![method_fake(move |_| {
            Decision::Allow(Box::new(Identity {
                username: Some(name.into()),
                ..Identity::default()
            }))
        })])
    };
    let mut request = method_client("SCRAM-SHA-256");
    request.phase = Phase::Reauthenticate { username: Some("a".into()) };
    assert!(matches!(decide(&named("a"), &request), Verdict::Allow(_)));
    assert_eq!(reason(&decide(&named("b"), &request)), Some(ReasonCode::NOT_AUTHORIZED));
    let refused = decide(&chain(vec![method_fake(deny)]), &request);
    assert_eq!(reason(&refused), Some(ReasonCode::NOT_AUTHORIZED), "not 0x86");
}

#[test]
fn what_has_expired_meanwhile_admits_nobody() {
    let expired = Fake::new(|ask| {
        Decision::Allow(Box::new(Identity { expires_at: Some(ask.now_s), ..Identity::default() }))
    });
    let verdict = decide(&chain(vec![expired]), &fixture::client("c", "u", "p"));
    assert_eq!(reason(&verdict), Some(ReasonCode::NOT_AUTHORIZED));
}
