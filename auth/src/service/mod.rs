//! The thread that answers.

mod build;
mod denials;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use flume::{Receiver, Sender};
use ringmain_mqtt::ReasonCode;

use crate::config::{Config, ConfigError};
use crate::lockout::Lockout;
use crate::{Answer, Denial, Phase, Request, Verdict};
use build::Built;
use denials::Denials;

/// Unix milliseconds.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// Where answers go: called on the thread of the service, so it must not wait.
pub type Answers = Arc<dyn Fn(Answer) + Send + Sync>;

/// The clock of the system.
#[must_use]
pub fn system_clock() -> Clock {
    Arc::new(|| {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        since.as_millis() as u64
    })
}

/// Lives on: the composition root. The thread ends when this and all handles are dropped.
#[derive(Debug)]
pub struct Service {
    handle: Handle,
    orders: Sender<Order>,
    thread: JoinHandle<()>,
}

/// Lives on: each shard. Asks the service, and never waits for it.
#[derive(Clone, Debug)]
pub struct Handle {
    requests: Sender<Request>,
    stats: Arc<Counters>,
}

/// What the composition root wants.
#[derive(Debug)]
enum Order {
    Reload(Box<Config>, Sender<Result<(), Vec<ConfigError>>>),
    Refresh,
    Drain(Sender<usize>),
    End,
}

/// What the service has done, and how much it remembers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Clients admitted.
    pub allowed: u64,
    /// Clients refused.
    pub denied: u64,
    /// Questions to clients.
    pub challenged: u64,
    /// Clients that were told that the server is busy.
    pub busy: u64,
    /// Requests that did not fit into the queue: their shards answered.
    pub refused: u64,
    /// Clients that have to wait after failures; they count as denied too.
    pub locked: u64,
    /// Requests that wait in the queue.
    pub waiting: u64,
    /// Decisions remembered, as of the last answer.
    pub cached: u64,
    /// Failures remembered, as of the last answer.
    pub suspects: u64,
}

#[derive(Debug, Default)]
struct Counters {
    allowed: AtomicU64,
    denied: AtomicU64,
    challenged: AtomicU64,
    busy: AtomicU64,
    refused: AtomicU64,
    locked: AtomicU64,
    cached: AtomicU64,
    suspects: AtomicU64,
}

impl Service {
    /// Reads what the authenticators need, and throws it away.
    ///
    /// # Errors
    /// All that is wrong with the configuration, unreadable files included.
    pub fn check(config: &Config) -> Result<(), Vec<ConfigError>> {
        Built::new(config, None, &system_clock()).map(drop)
    }

    /// Reads what the authenticators need, and starts the thread.
    ///
    /// # Errors
    /// All that is wrong with the configuration, unreadable files included; nothing runs then.
    pub fn start(
        config: &Config,
        clock: Clock,
        answers: Answers,
    ) -> Result<Self, Vec<ConfigError>> {
        let built = Built::new(config, None, &clock)?;
        let (requests, asked) = flume::bounded(config.settings.queue_max);
        // Reloads are rare, and each is answered before the next.
        let (orders, ordered) = flume::bounded(4);
        let stats = Arc::new(Counters::default());
        let core = Arc::new(Core {
            clock,
            answers,
            stats: Arc::clone(&stats),
            built: ArcSwap::from_pointee(built),
            denials: Denials::default(),
            reloading: tokio::sync::Mutex::default(),
        });
        let failed = |error: std::io::Error| {
            vec![ConfigError::new("auth", format!("cannot start: {error}"))]
        };
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_all().max_blocking_threads(4).build().map_err(failed)?;
        let thread = std::thread::Builder::new()
            .name("ringmain-auth".to_owned())
            .spawn(move || runtime.block_on(core.serve(asked, ordered)))
            .map_err(failed)?;
        Ok(Self { handle: Handle { requests, stats }, orders, thread })
    }

    /// For a shard.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Changes the configuration. Authenticators whose entry is the same keep what they know; the size of the
    /// queue stays. Waits until it is done, so not for a shard to call.
    ///
    /// # Errors
    /// All that is wrong; everything stays as it was then.
    pub fn reload(&self, config: Config) -> Result<(), Vec<ConfigError>> {
        let ended = || vec![ConfigError::new("auth", "the service has ended")];
        let (reply, answer) = flume::bounded(1);
        self.orders.send(Order::Reload(Box::new(config), reply)).map_err(|_| ended())?;
        answer.recv().map_err(|_| ended())?
    }

    /// Looks at once whether files and key sets have changed, instead of when it is time. Returns before that is done;
    /// what is wrong with them is in the log, and they stay as they were.
    pub fn refresh(&self) {
        // Full: others are on their way.
        let _ = self.orders.try_send(Order::Refresh);
    }

    /// Forgets all decisions; returns how many. Waits until it is done. // AU15
    #[must_use]
    pub fn drain_cache(&self) -> usize {
        let (reply, answer) = flume::bounded(1);
        let sent = self.orders.send(Order::Drain(reply));
        sent.ok().and_then(|()| answer.recv().ok()).unwrap_or_default()
    }

    /// Ends the thread. Requests that it has are not answered any more.
    pub fn stop(self) {
        let _ = self.orders.send(Order::End);
        let _ = self.thread.join();
    }
}

impl Handle {
    /// Asks. The answer comes by the callback that the service was started with.
    ///
    /// # Errors
    /// Gives the request back when the queue is full or the service has ended: answer 0x88 or 0x89. // AU18
    #[expect(clippy::result_large_err, reason = "the request goes back to who has to answer it")]
    pub fn try_send(&self, request: Request) -> Result<(), Request> {
        self.requests.try_send(request).map_err(|error| {
            self.stats.refused.fetch_add(1, Relaxed);
            error.into_inner()
        })
    }

    /// What the service has done.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let stats = &*self.stats;
        Stats {
            allowed: stats.allowed.load(Relaxed),
            denied: stats.denied.load(Relaxed),
            challenged: stats.challenged.load(Relaxed),
            busy: stats.busy.load(Relaxed),
            refused: stats.refused.load(Relaxed),
            locked: stats.locked.load(Relaxed),
            waiting: self.requests.len() as u64,
            cached: stats.cached.load(Relaxed),
            suspects: stats.suspects.load(Relaxed),
        }
    }
}

/// Lives on: the thread of the service.
struct Core {
    clock: Clock,
    answers: Answers,
    stats: Arc<Counters>,
    built: ArcSwap<Built>,
    denials: Denials,
    reloading: tokio::sync::Mutex<()>,
}

impl Core {
    async fn serve(self: Arc<Self>, asked: Receiver<Request>, ordered: Receiver<Order>) {
        self.built.load().spawn_upkeep(&self.clock, None);
        loop {
            tokio::select! {
                biased;
                order = ordered.recv_async() => match order {
                    Ok(Order::Reload(config, reply)) => {
                        // It reads files: clients are served meanwhile.
                        let core = Arc::clone(&self);
                        tokio::spawn(async move { reply.send(core.reload(*config).await) });
                    }
                    Ok(Order::Refresh) => {
                        let core = Arc::clone(&self);
                        tokio::spawn(async move { core.built.load_full().refresh(&core.clock).await });
                    }
                    Ok(Order::Drain(reply)) => {
                        let _ = reply.send(self.built.load().deps.cache.drain());
                    }
                    Ok(Order::End) | Err(_) => return,
                },
                request = asked.recv_async() => match request {
                    Ok(request) => {
                        // Bounded: each request is inside one stage, and a full stage answers at once.
                        tokio::spawn(Arc::clone(&self).answer(request));
                    }
                    Err(_) => return,
                },
            }
        }
    }

    async fn reload(&self, config: Config) -> Result<(), Vec<ConfigError>> {
        // One after the other.
        let _alone = self.reloading.lock().await;
        let (old, clock) = (self.built.load_full(), Arc::clone(&self.clock));
        // Reads files.
        let before = Arc::clone(&old);
        let task = tokio::task::spawn_blocking(move || Built::new(&config, Some(&before), &clock));
        let built =
            task.await.map_err(|error| vec![ConfigError::new("auth", error.to_string())])??;
        built.spawn_upkeep(&self.clock, Some(&old));
        self.built.store(Arc::new(built));
        Ok(())
    }

    async fn answer(self: Arc<Self>, request: Request) {
        let token = request.token;
        let verdict = self.decide(&request).await;
        let counter = match &verdict {
            Verdict::Allow(_) => &self.stats.allowed,
            Verdict::Deny(_) => &self.stats.denied,
            Verdict::Challenge { .. } => &self.stats.challenged,
            Verdict::Busy => &self.stats.busy,
        };
        counter.fetch_add(1, Relaxed);
        if let Verdict::Deny(denial) = &verdict {
            self.denials.say(&request, denial, (self.clock)());
        }
        (self.answers)(Answer { token, verdict });
    }

    async fn decide(&self, request: &Request) -> Verdict {
        let built = self.built.load_full();
        let (lockout, peer) = (&built.lockout, request.peer);
        // Of SCRAM the user is known only at the end: the address counts, and the name of CONNECT if any.
        let user = request.username.as_deref();
        if matches!(request.phase, Phase::Connect)
            && let Some(wait_s) = lockout.locked_s(user, peer, (self.clock)())
        {
            self.stats.locked.fetch_add(1, Relaxed);
            let text = format!("too many failures: it has to wait {wait_s} s");
            return Verdict::Deny(Denial::new(ReasonCode::BANNED, text));
        }
        let verdict = built.chain(request.listener).decide(request, &built.deps).await;
        self.count_failure(lockout, request, &verdict);
        self.stats.cached.store(built.deps.cache.len() as u64, Relaxed);
        self.stats.suspects.store(lockout.len() as u64, Relaxed);
        verdict
    }

    fn count_failure(&self, lockout: &Lockout, request: &Request, verdict: &Verdict) {
        let (user, peer) = (request.username.as_deref(), request.peer);
        match verdict {
            Verdict::Allow(_) => lockout.succeeded(user, peer),
            Verdict::Deny(denial)
                if request.has_credentials()
                    && [ReasonCode::BAD_USER_NAME_OR_PASSWORD, ReasonCode::NOT_AUTHORIZED]
                        .contains(&denial.reason) =>
            {
                if lockout.failed(user, peer, (self.clock)()) {
                    tracing::warn!(%peer, username = user, "too many failed logins: locked out for a while");
                }
            }
            Verdict::Deny(_) | Verdict::Challenge { .. } | Verdict::Busy => {}
        }
    }
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Core").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
