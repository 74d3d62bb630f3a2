//! Threads that do nothing but hash passwords.

use std::thread;

use flume::{Receiver, Sender, TrySendError};
use tokio::sync::oneshot;

use crate::config::Hashing;

type Job = Box<dyn FnOnce() + Send>;

/// Lives on: the service; its workers are threads of their own, so that a hash delays no other client.
///
/// At most `queue_max` hashes wait. One that nobody waits for any more is skipped.
#[derive(Debug)]
pub(crate) struct Hashers {
    jobs: Sender<Job>,
    /// So that a queue without workers is full, not closed.
    _todo: Receiver<Job>,
}

/// The queue is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Full;

impl Hashers {
    /// Starts the workers. They end when this is dropped.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub(crate) fn start(config: &Hashing) -> Result<Self, String> {
        let (jobs, todo) = flume::bounded(config.queue_max);
        for number in 0..config.workers {
            let todo: Receiver<Job> = todo.clone();
            thread::Builder::new()
                .name(format!("ringmain-hash-{number}"))
                .spawn(move || todo.iter().for_each(|job| job()))
                .map_err(|error| format!("cannot start a thread for password hashes: {error}"))?;
        }
        Ok(Self { jobs, _todo: todo })
    }

    /// Lets a worker do something.
    ///
    /// # Errors
    /// When as many wait as may.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Full> {
        let (done, result) = oneshot::channel();
        let job = Box::new(move || {
            if !done.is_closed() {
                let _ = done.send(work());
            }
        });
        match self.jobs.try_send(job) {
            Ok(()) => result.await.map_err(|_| Full),
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => Err(Full),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    // AU18
    #[test]
    fn a_full_queue_of_hashes_is_said_at_once() {
        let hashers = Hashers::start(&Hashing { workers: 1, queue_max: 1 }).expect("started");
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let (release, held) = flume::bounded::<()>(0);
        let (begun, begins) = flume::bounded::<()>(1);
        runtime.block_on(async {
            let busy = hashers.run(move || {
                begun.send(()).expect("somebody waits");
                held.recv().expect("released");
            });
            let mut busy = Box::pin(busy);
            // The first poll gives it to the worker.
            assert!(futures_poll(&mut busy).await.is_none());
            begins.recv_timeout(Duration::from_secs(60)).expect("the worker has it");
            let mut waits = Box::pin(hashers.run(|| 7));
            assert!(futures_poll(&mut waits).await.is_none());
            assert_eq!(hashers.run(|| 8).await, Err(Full));
            release.send(()).expect("held");
            assert_eq!(busy.await, Ok(()));
            assert_eq!(waits.await, Ok(7));
        });
    }

    async fn futures_poll<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
        std::future::poll_fn(|context| {
            let polled = std::pin::Pin::new(&mut *future).poll(context);
            std::task::Poll::Ready(match polled {
                std::task::Poll::Ready(output) => Some(output),
                std::task::Poll::Pending => None,
            })
        })
        .await
    }
}
