//! The terminal: raw mode, an alternate screen, keys.

use std::io::{self, Stderr};
use std::time::Duration;

use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::event::{Event, KeyCode, KeyEventKind, KeyModifiers, poll, read};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};

use crate::run;
use crate::snapshot::Snapshot;

use super::view::{View, render};

/// A terminal that shows a view. Invariant: while it lives, the terminal is in raw mode.
#[derive(Debug)]
pub(super) struct Screen {
    terminal: Terminal<CrosstermBackend<Stderr>>,
    view: View,
}

impl Screen {
    /// Takes the terminal.
    ///
    /// # Errors
    /// When it is none.
    pub(super) fn open(view: View) -> io::Result<Self> {
        enable_raw_mode()?;
        let opened = execute!(io::stderr(), EnterAlternateScreen)
            .and_then(|()| Terminal::new(CrosstermBackend::new(io::stderr())));
        match opened {
            Ok(terminal) => Ok(Self { terminal, view }),
            Err(e) => {
                give_back();
                Err(e)
            }
        }
    }

    /// Draws a snapshot, and takes the keys that were pressed: `q` and Ctrl-C end the run in good
    /// order.
    pub(super) fn see(&mut self, snapshot: &Snapshot) {
        while poll(Duration::ZERO).unwrap_or(false) {
            if read().is_ok_and(|event| ends(&event)) {
                self.view.stopping = true;
                run::interrupt();
            }
        }
        self.view.see(snapshot);
        // A terminal that went away does not end the run.
        let _ = self.terminal.draw(|frame| render(frame, &self.view));
    }
}

fn ends(event: &Event) -> bool {
    let Event::Key(key) = event else { return false };
    let control = key.modifiers.contains(KeyModifiers::CONTROL);
    key.kind == KeyEventKind::Press
        && matches!((key.code, control), (KeyCode::Char('q'), false) | (KeyCode::Char('c'), true))
}

fn give_back() {
    let _ = execute!(io::stderr(), LeaveAlternateScreen);
    let _ = disable_raw_mode();
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
        let _ = self.terminal.show_cursor();
    }
}
