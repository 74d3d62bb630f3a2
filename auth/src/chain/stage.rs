//! One authenticator in its place: time limit, bound, memory.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

use crate::Clock;
use crate::bind::Bind;
use crate::cache::{Cache, Found};
use crate::config::{Common, OnFailure};
use crate::source::{Ask, Decision, Inputs, Source, Takes};

/// What a chain needs besides its authenticators.
#[derive(Clone)]
pub(crate) struct Deps {
    pub(crate) clock: Clock,
    pub(crate) cache: Arc<Cache>,
    pub(crate) cache_enabled: bool,
}

/// Lives on: the service. Never more than `max_in_flight` requests are inside, so that a slow source holds up
/// nobody but its own clients.
#[derive(Debug)]
pub(crate) struct Stage {
    /// Tells it from all others of this process, earlier ones included.
    pub(crate) id: u64,
    pub(crate) name: Box<str>,
    pub(crate) source: Arc<dyn Source>,
    common: Common,
    room: Semaphore,
}

impl Stage {
    pub(crate) fn new(id: u64, name: Box<str>, source: Arc<dyn Source>, common: Common) -> Self {
        let room = Semaphore::new(common.max_in_flight);
        Self { id, name, source, common, room }
    }

    pub(crate) fn takes(&self) -> Takes {
        self.source.takes()
    }

    pub(crate) fn bind(&self) -> Option<&Bind> {
        self.common.bind_client_id.as_ref()
    }

    /// What the source says, or said a moment ago. Takes no longer than the time limit.
    pub(crate) async fn ask(&self, ask: Ask<'_>, deps: &Deps) -> Decision {
        let inputs = self.source.inputs();
        let remember = deps.cache_enabled && self.common.cache && inputs != Inputs::NONE;
        let found = remember.then(|| {
            let generation = self.source.generation();
            deps.cache.look(self.id, generation, inputs, ask, (deps.clock)())
        });
        if let Some(Found::Known(decision)) = found {
            return decision;
        }
        let Ok(_room) = self.room.try_acquire() else { return Decision::Busy };
        let decision = match found {
            Some(Found::Somebody(flight)) => self.wait(flight).await,
            Some(Found::Nobody(flight)) => {
                let decision = self.find_out(ask).await;
                flight.land(&decision, (deps.clock)());
                decision
            }
            Some(Found::Known(_)) | None => self.find_out(ask).await,
        };
        match decision {
            Decision::Failed(text) if self.common.on_failure == OnFailure::Ignore => {
                tracing::warn!(authenticator = %self.name, "is passed over: {text}");
                Decision::Ignore
            }
            decision => decision,
        }
    }

    async fn find_out(&self, ask: Ask<'_>) -> Decision {
        timeout(self.limit(), self.source.decide(ask)).await.unwrap_or_else(|_| self.late())
    }

    /// Waits for somebody who asked the same, as long as for an own question.
    async fn wait(&self, mut flight: watch::Receiver<Option<Decision>>) -> Decision {
        match timeout(self.limit(), flight.wait_for(Option::is_some)).await {
            Ok(Ok(decision)) => decision.clone().unwrap_or(Decision::Busy),
            Ok(Err(_)) => Decision::Busy,
            Err(_) => self.late(),
        }
    }

    fn limit(&self) -> Duration {
        Duration::from_millis(self.common.timeout_ms)
    }

    fn late(&self) -> Decision {
        Decision::Failed(format!("no answer within {} ms", self.common.timeout_ms))
    }
}
