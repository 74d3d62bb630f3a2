//! Requests about clients, out, and the answers, in.

use std::sync::Arc;

use crate::engine::auth::{AuthRequest, AuthVerdict, Authenticator};
use crate::engine::ids::ConnId;

/// Answers handed to the machine in one turn: each may be a CONNECT, some ten microseconds of work.
pub(super) const TURN_VERDICTS_MAX: usize = 256;

/// Lives on: its shard.
pub(super) struct Verdicts {
    answers: flume::Receiver<(ConnId, AuthVerdict)>,
    authenticator: Option<Arc<dyn Authenticator>>,
    /// Requests that nobody took: their clients hear in the next turn that the broker is busy. A machine asks no more
    /// with [`AUTH_OPEN_MAX`](crate::engine::auth::AUTH_OPEN_MAX) open, of which these are some.
    refused: Vec<ConnId>,
}

impl Verdicts {
    pub(super) fn new(
        answers: flume::Receiver<(ConnId, AuthVerdict)>,
        authenticator: Option<Arc<dyn Authenticator>>,
    ) -> Self {
        Self { answers, authenticator, refused: Vec::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.refused.is_empty() && self.answers.is_empty()
    }

    pub(super) fn pop(&mut self) -> Option<(ConnId, AuthVerdict)> {
        match self.refused.pop() {
            Some(conn) => Some((conn, AuthVerdict::Busy)),
            None => self.answers.try_recv().ok(),
        }
    }

    pub(super) fn ask(&mut self, request: Box<AuthRequest>) {
        let conn = request.conn;
        if !self.authenticator.as_ref().is_some_and(|authenticator| authenticator.ask(request)) {
            self.refused.push(conn);
        }
    }
}
