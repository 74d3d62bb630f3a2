//! Says who was refused and why, to the operator; not more often than somebody can read.

use std::sync::{Mutex, PoisonError};

use crate::{Denial, Request};

/// Lines a second. Whoever guesses passwords must not fill the log: the rest is only counted.
const PER_SECOND_MAX: u32 = 10;

/// Lives on: the service.
#[derive(Debug, Default)]
pub(super) struct Denials(Mutex<Window>);

#[derive(Debug, Default)]
struct Window {
    second: u64,
    said: u32,
    unsaid: u64,
}

impl Denials {
    pub(super) fn say(&self, request: &Request, denial: &Denial, now_ms: u64) {
        let (says, unsaid) = self.count(now_ms / 1000);
        if unsaid > 0 {
            tracing::info!(unsaid, "clients were refused that this log does not name");
        }
        if says {
            let Request { peer, listener, .. } = request;
            tracing::info!(
                %peer,
                listener,
                client_id = &*request.client_id,
                username = request.username.as_deref(),
                reason = format_args!("{:#04x}", denial.reason.0),
                "refused: {}",
                denial.text
            );
        }
    }

    /// Whether there is a line left, and how many had none in the seconds before this one.
    fn count(&self, second: u64) -> (bool, u64) {
        let mut window = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut unsaid = 0;
        if window.second != second {
            unsaid = window.unsaid;
            *window = Window { second, said: 0, unsaid: 0 };
        }
        let says = window.said < PER_SECOND_MAX;
        if says {
            window.said += 1;
        } else {
            window.unsaid += 1;
        }
        (says, unsaid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // AU16
    #[test]
    fn who_guesses_does_not_fill_the_log() {
        let denials = Denials::default();
        let said = (0..100).filter(|_| denials.count(7).0).count();
        assert_eq!(said, PER_SECOND_MAX as usize);
        assert_eq!(denials.count(8), (true, 90), "the rest is counted");
        assert_eq!(denials.count(8), (true, 0));
    }
}
