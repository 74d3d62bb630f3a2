//! What a user sees while a run goes on: a screen on a terminal, lines elsewhere, or nothing.

mod lines;
mod screen;
mod view;

use std::io::{self, IsTerminal as _};

use crate::cli::options::Outputs;
use crate::job::Job;
use crate::snapshot::Snapshot;

use self::lines::Lines;
use self::screen::Screen;
pub use self::view::{View, render};

/// How progress is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Show {
    /// A screen, redrawn with each snapshot.
    Screen,
    /// A line a second.
    Lines,
    /// Nothing.
    Nothing,
}

impl Show {
    /// What the options ask for: a screen where stderr is a terminal that somebody can press keys
    /// at.
    #[must_use]
    pub fn of(outputs: &Outputs) -> Self {
        let terminal = || io::stderr().is_terminal() && io::stdin().is_terminal();
        match (outputs.quiet, outputs.plain) {
            (true, _) => Self::Nothing,
            (false, false) if terminal() => Self::Screen,
            (false, _) => Self::Lines,
        }
    }
}

/// Shows snapshots. Gives the terminal back when it goes.
#[derive(Debug)]
pub struct Live(Kind);

#[derive(Debug)]
enum Kind {
    Screen(Box<Screen>),
    Lines(Lines),
    Nothing,
}

/// Opens a view of a run. A terminal that cannot be had becomes lines.
#[must_use]
pub fn open(show: Show, job: &Job) -> Live {
    Live(match show {
        Show::Nothing => Kind::Nothing,
        Show::Lines => Kind::Lines(Lines::default()),
        Show::Screen => match Screen::open(View::of(job)) {
            Ok(screen) => Kind::Screen(Box::new(screen)),
            Err(_) => Kind::Lines(Lines::default()),
        },
    })
}

impl Live {
    /// Shows a snapshot.
    pub fn see(&mut self, snapshot: &Snapshot) {
        match &mut self.0 {
            Kind::Screen(screen) => screen.see(snapshot),
            Kind::Lines(lines) => {
                if let Some(line) = lines.line(snapshot) {
                    eprintln!("{line}");
                }
            }
            Kind::Nothing => {}
        }
    }
}
