//! Signals of the operating system, as events on a channel.

use std::io;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// What the operator asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM or SIGINT: stop.
    Stop,
    /// SIGHUP: read the configuration again.
    Reload,
}

/// Calls `deliver` from a thread of its own for each signal, until it returns false.
///
/// # Errors
/// When the signals cannot be caught or there is no thread to be had.
pub fn catch(mut deliver: impl FnMut(Signal) -> bool + Send + 'static) -> io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        for number in signals.forever() {
            let signal = if number == SIGHUP { Signal::Reload } else { Signal::Stop };
            if !deliver(signal) {
                break;
            }
        }
    })?;
    Ok(())
}
