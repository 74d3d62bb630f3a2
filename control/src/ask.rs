//! Questions to the node, few at a time.

use std::sync::Arc;
use std::time::Duration;

use flume::{Receiver, Sender};
use hyper::StatusCode;
use ringmain_shards::observe::{ANSWER_WITHIN_MS, NodeView, Question, TurnSpan};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use crate::http::Refusal;

/// Beyond the time within which the node answers: for the way there and back.
const PATIENCE: Duration = Duration::from_millis(500);
/// What was seen so recently is shown again, so that many who look cost as much as four a second.
pub(crate) const FRESH: Duration = Duration::from_millis(250);

/// Lives on: the thread of the control plane. At most one question of each kind is under way.
#[derive(Debug)]
pub(crate) struct Asker {
    questions: Sender<Question>,
    within: Duration,
    seen: Mutex<Option<Seen>>,
    recording: Mutex<()>,
}

/// The last answer, or why there was none.
#[derive(Clone, Debug)]
struct Seen {
    at: Instant,
    answer: Result<Arc<NodeView>, Refusal>,
}

impl Asker {
    pub(crate) fn new(questions: Sender<Question>) -> Self {
        // Twice: it may be looking at the shards for itself when it is asked.
        let within = 2 * Duration::from_millis(ANSWER_WITHIN_MS) + PATIENCE;
        Self { questions, within, seen: Mutex::new(None), recording: Mutex::new(()) }
    }

    /// The same, with less patience.
    #[cfg(test)]
    pub(crate) fn within(mut self, within: Duration) -> Self {
        self.within = within;
        self
    }

    /// The node as it is, or was a quarter of a second ago. Who asks while somebody asks gets the same answer.
    ///
    /// # Errors
    /// 503 when the node does not answer.
    pub(crate) async fn view(&self) -> Result<Arc<NodeView>, Refusal> {
        let mut seen = self.seen.lock().await;
        if let Some(Seen { at, answer }) = seen.as_ref()
            && at.elapsed() < FRESH
        {
            return answer.clone();
        }
        let (reply, answer) = flume::bounded(1);
        let answer = self.ask(Question::View(reply), answer, self.within).await.map(Arc::from);
        *seen = Some(Seen { at: Instant::now(), answer: answer.clone() });
        answer
    }

    /// Turns of the next `ms` milliseconds.
    ///
    /// # Errors
    /// 503 when the node does not answer, or somebody else has turns recorded.
    pub(crate) async fn turns(&self, ms: u32) -> Result<Vec<TurnSpan>, Refusal> {
        let Ok(_recording) = self.recording.try_lock() else {
            return Err(unavailable("turns are recorded already: ask again when that has ended"));
        };
        let (reply, answer) = flume::bounded(1);
        let within = self.within + Duration::from_millis(ms.into());
        self.ask(Question::Turns { ms, reply }, answer, within).await
    }

    async fn ask<T>(
        &self,
        question: Question,
        answer: Receiver<T>,
        within: Duration,
    ) -> Result<T, Refusal> {
        let asked = async {
            self.questions.send_async(question).await.ok()?;
            answer.recv_async().await.ok()
        };
        match timeout(within, asked).await {
            Ok(Some(answer)) => Ok(answer),
            Ok(None) => Err(unavailable("the shards have ended")),
            Err(_) => {
                let text = format!("the node did not answer within {} ms", within.as_millis());
                Err(unavailable(&text))
            }
        }
    }
}

fn unavailable(error: &str) -> Refusal {
    Refusal::new(StatusCode::SERVICE_UNAVAILABLE, error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake;

    fn run<T>(test: impl Future<Output = T>) -> T {
        // A clock that jumps to the next timer when all wait: no test waits, or is late.
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_time().start_paused(true).build();
        runtime.expect("a runtime").block_on(test)
    }

    #[test]
    fn who_looks_together_asks_once() {
        run(async {
            let (questions, asked) = flume::bounded(4);
            let asker = Asker::new(questions);
            let answer = async {
                let Ok(Question::View(reply)) = asked.recv_async().await else { panic!("a view") };
                reply.send(Box::new(fake::view(1))).expect("is awaited");
            };
            let (first, second, ()) = tokio::join!(asker.view(), asker.view(), answer);
            assert!(Arc::ptr_eq(&first.expect("an answer"), &second.expect("an answer")));
            assert!(asker.view().await.is_ok(), "and so does who comes soon after");
            assert!(asked.is_empty());
        });
    }

    #[test]
    fn after_a_while_the_node_is_asked_again() {
        run(async {
            let (questions, asked) = flume::bounded(4);
            let asker = Asker::new(questions);
            let answers = async {
                for _ in 0..2 {
                    let Ok(Question::View(reply)) = asked.recv_async().await else { panic!() };
                    reply.send(Box::new(fake::view(1))).expect("is awaited");
                }
            };
            let looks = async {
                let first = asker.view().await.expect("an answer");
                tokio::time::sleep(FRESH).await;
                assert!(!Arc::ptr_eq(&first, &asker.view().await.expect("an answer")));
            };
            tokio::join!(answers, looks);
        });
    }

    #[test]
    fn a_node_that_is_silent_is_waited_for_once_and_one_that_has_ended_not_at_all() {
        run(async {
            let (questions, asked) = flume::bounded(1);
            let asker = Asker::new(questions).within(Duration::from_millis(10));
            let (first, second) = tokio::join!(asker.view(), asker.view());
            let text = "the node did not answer within 10 ms";
            assert_eq!(first.expect_err("silence").error, text);
            assert_eq!(second.expect_err("silence").error, text);
            assert_eq!(asked.len(), 1);
            // The question before fills the channel: waiting for room is waiting for the node.
            assert!(asker.turns(5).await.expect_err("silence").error.contains("15 ms"));
            drop(asked);
            let ended = asker.turns(60_000).await.expect_err("nobody is there");
            assert_eq!(ended.error, "the shards have ended");
        });
    }

    #[test]
    fn turns_are_recorded_for_one_at_a_time() {
        run(async {
            let (questions, asked) = flume::bounded(4);
            let asker = Asker::new(questions);
            let answer = async {
                let Ok(Question::Turns { ms: 20, reply }) = asked.recv_async().await else {
                    panic!("turns of 20 ms")
                };
                let second = asker.turns(1).await.expect_err("one at a time");
                assert!(second.error.contains("already"), "{}", second.error);
                reply.send(vec![TurnSpan::default()]).expect("is awaited");
            };
            let (turns, ()) = tokio::join!(asker.turns(20), answer);
            assert_eq!(turns.expect("an answer").len(), 1);
        });
    }

    #[test]
    fn while_turns_are_recorded_the_node_is_looked_at_as_ever() {
        run(async {
            let (questions, asked) = flume::bounded(4);
            let asker = Asker::new(questions);
            let node = async {
                let Ok(Question::Turns { reply, .. }) = asked.recv_async().await else { panic!() };
                let answer = async {
                    let Ok(Question::View(reply)) = asked.recv_async().await else { panic!() };
                    reply.send(Box::new(fake::view(1))).expect("is awaited");
                };
                let (seen, ()) = tokio::join!(asker.view(), answer);
                assert!(seen.is_ok());
                reply.send(Vec::new()).expect("is awaited");
            };
            let (turns, ()) = tokio::join!(asker.turns(1_000), node);
            turns.expect("an answer");
        });
    }
}
