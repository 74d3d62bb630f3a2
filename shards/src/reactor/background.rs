//! Tells the net task of an executor that other tasks live there too, so that it shares the core.

use std::cell::Cell;

thread_local! {
    static TASKS: Cell<u32> = const { Cell::new(0) };
}

/// Held by a task that shares an executor with the net task. While any exists, the net task yields
/// about every millisecond and sleeps at most 2 ms; with none it sleeps until something happens.
#[derive(Debug)]
pub struct BackgroundTask(());

impl BackgroundTask {
    /// Registers with the executor of the calling thread.
    #[must_use]
    pub fn register() -> Self {
        TASKS.with(|n| n.set(n.get() + 1));
        Self(())
    }
}

impl Drop for BackgroundTask {
    fn drop(&mut self) {
        TASKS.with(|n| n.set(n.get() - 1));
    }
}

pub(super) fn tasks() -> u32 {
    TASKS.with(Cell::get)
}
