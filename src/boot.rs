//! From a valid configuration to a running broker, and from a signal to its end.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use ringmain_control::Running;

use crate::config::{Config, Sources};
use crate::logging::Logging;
use crate::notify::Supervisor;
use crate::plane::{self, DataPlane, Event, Notifier, Start};
use crate::signals::{self, Signal};
use crate::{admin, doctor};

/// Why the broker did not start.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// Signals cannot be caught.
    #[error("cannot catch signals: {0}")]
    Signals(std::io::Error),
    /// The control plane says why.
    #[error("cannot start: {0}")]
    Control(#[from] ringmain_control::Error),
    /// The data plane says why.
    #[error("cannot start: {0}")]
    Plane(String),
}

/// Runs the broker until it is told to stop or fails. `sources` are read again on SIGHUP.
///
/// # Errors
/// When it cannot start.
pub fn run(
    config: Config,
    sources: &Sources,
    logging: &Logging,
    start: Start,
) -> Result<ExitCode, BootError> {
    let (sender, events) = channel();
    let notifier = Notifier(sender);
    // Before the first thread of the data plane, so that none of them takes the signals.
    let to_root = notifier.0.clone();
    signals::catch(move |signal| to_root.send(Event::Signal(signal)).is_ok())
        .map_err(BootError::Signals)?;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), node = config.node.name, "starting");
    for problem in doctor::preflight(config.limits.max_connections.into()) {
        tracing::warn!("{problem} (ringmain doctor)");
    }
    // Opened first: if it cannot be, no client has been served yet.
    let supervisor = Supervisor::from_env();
    let opened = admin::open(&config)
        .inspect_err(|why| supervisor.status(&format!("cannot start: {why}")))?;
    let config = Arc::new(config);
    let plane = start(Arc::clone(&config), notifier)
        .inspect_err(|why| supervisor.status(&format!("cannot start: {why}")))
        .map_err(BootError::Plane)?;
    let control = opened.serve(plane.questions())?;
    admin::say(&control);
    let root = Root {
        config,
        sources,
        logging,
        supervisor,
        plane,
        control: Some(control),
        listening: String::new(),
        deadline: None,
    };
    Ok(root.run(&events))
}

/// The root's state while the broker runs.
struct Root<'a> {
    config: Arc<Config>,
    sources: &'a Sources,
    logging: &'a Logging,
    supervisor: Supervisor,
    plane: Box<dyn DataPlane>,
    /// `None` in tests.
    control: Option<Running>,
    /// Where, as its supervisor is told; empty before the start is over.
    listening: String,
    /// When the process ends though shards are still at work; `None` before a signal to stop.
    deadline: Option<Instant>,
}

impl Root<'_> {
    fn run(mut self, events: &Receiver<Event>) -> ExitCode {
        loop {
            let event = match self.deadline {
                None => events.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(at) => events.recv_timeout(at.saturating_duration_since(Instant::now())),
            };
            let ended = match event {
                Ok(event) => self.on_event(event),
                Err(RecvTimeoutError::Timeout) => {
                    let grace_ms = self.config.node.shutdown_grace_ms;
                    tracing::warn!(grace_ms, "shards did not end in time; ending without them");
                    Some(ExitCode::SUCCESS)
                }
                // The signal thread holds a sender as long as the process lives.
                Err(RecvTimeoutError::Disconnected) => Some(ExitCode::FAILURE),
            };
            if let Some(code) = ended {
                return code;
            }
        }
    }

    fn on_event(&mut self, event: Event) -> Option<ExitCode> {
        match (event, self.deadline) {
            (Event::Ready(addresses), None) => {
                self.ready(&addresses);
                None
            }
            (Event::Ready(_), Some(_)) => None,
            (Event::Signal(Signal::Reload), None) => {
                self.reload_and_tell();
                None
            }
            (Event::Signal(Signal::Reload), Some(_)) => {
                tracing::warn!("shutting down: the configuration is not read again");
                None
            }
            (Event::Signal(Signal::Stop), None) => {
                let grace = Duration::from_millis(self.config.node.shutdown_grace_ms);
                tracing::info!(grace_ms = self.config.node.shutdown_grace_ms, "shutting down");
                self.supervisor.stopping(grace, "closing connections");
                self.deadline = Some(Instant::now() + grace);
                self.set_listening(false);
                self.plane.shut_down(grace);
                None
            }
            (Event::Signal(Signal::Stop), Some(_)) => {
                tracing::warn!("told to stop again: ending at once");
                Some(ExitCode::FAILURE)
            }
            (Event::Stopped, Some(_)) => {
                let lost_lines = self.logging.lost();
                if lost_lines > 0 {
                    tracing::warn!(lost_lines, "stderr did not take the log in time");
                }
                tracing::info!("stopped");
                Some(ExitCode::SUCCESS)
            }
            (Event::Stopped, None) => {
                tracing::error!("the shards ended without being told to");
                Some(ExitCode::FAILURE)
            }
            (Event::Failed(reason), _) => {
                tracing::error!("{reason}");
                self.supervisor.status(&reason);
                Some(ExitCode::FAILURE)
            }
        }
    }

    /// What `/ready` says.
    fn set_listening(&self, listening: bool) {
        if let Some(control) = &self.control {
            control.set_listening(listening);
        }
    }

    fn ready(&mut self, addresses: &[String]) {
        for address in addresses {
            tracing::info!(%address, "listening");
        }
        self.hint();
        self.listening = format!("listening on {}", addresses.join(", "));
        self.supervisor.ready(&self.listening);
        self.set_listening(true);
        self.logging.ready();
    }

    /// A broker that nobody can reach looks broken: say how to open it.
    fn hint(&self) {
        if self.config.is_loopback_only() {
            tracing::info!(
                "only this host can connect; to open the broker to the network, use \
                 --listen tcp://0.0.0.0:1883 --listen tcp://[::]:1883 or [[listeners]] in a \
                 configuration file; without [[authentication]] anybody there can then connect"
            );
        }
        let open = self.config.listeners.iter().enumerate();
        let open = open.filter(|(at, _)| !self.config.authentication.asks(*at));
        for (_, listener) in open.filter(|(_, l)| !l.url.is_local()) {
            tracing::warn!(
                listener = listener.name,
                "anybody who reaches this listener can connect: add [[authentication]], see \
                 docs/user/authentication.md"
            );
        }
    }

    fn reload_and_tell(&mut self) {
        if self.listening.is_empty() {
            // Whoever waits for the end of the start must not take the end of this for it.
            self.reload();
            return;
        }
        self.supervisor.reloading();
        let outcome = self.reload();
        self.supervisor.ready(&format!("{}; {outcome}", self.listening));
    }

    /// What came of it, in a few words.
    fn reload(&mut self) -> String {
        let config = match self.sources.load() {
            Ok(config) => config,
            Err(errors) => {
                for error in &errors.0 {
                    tracing::error!("{error}");
                }
                tracing::error!("nothing was changed: the configuration has errors");
                return "a reload changed nothing: the configuration has errors".to_owned();
            }
        };
        let changes = match Config::diff_live(&self.config, &config) {
            Ok(changes) if changes.is_empty() => {
                self.plane.refresh();
                tracing::info!("the configuration is the same as before");
                return "a reload found nothing new".to_owned();
            }
            Ok(changes) => changes,
            Err(keys) => {
                for key in &keys {
                    tracing::error!("{key}");
                }
                tracing::error!("nothing was changed: some keys need a restart");
                return "a reload changed nothing: some keys need a restart".to_owned();
            }
        };
        if let Err(errors) = plane::check_files(&config) {
            errors.iter().for_each(|error| tracing::error!("{error}"));
            tracing::error!("nothing was changed: some files cannot be used");
            return "a reload changed nothing: some files cannot be used".to_owned();
        }
        for change in &changes.keys {
            tracing::info!(key = change.key, old = change.old, new = change.new, "changed");
        }
        if changes.touches("log") {
            self.logging.set_level(&config.log.level);
        }
        self.config = Arc::new(config);
        self.plane.apply(Arc::clone(&self.config), &changes);
        format!("a reload changed {} keys", changes.keys.len())
    }
}

#[cfg(test)]
#[path = "boot_tests.rs"]
mod tests;
