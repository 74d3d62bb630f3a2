//! The terminal: raw mode, an alternate screen, keys.

use std::io::{self, Stdout};
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::time::Duration;

use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::event::{Event, KeyCode, KeyEventKind, KeyModifiers, poll, read};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use ringmain_control::client::{Client, ClientError};

use super::Look;
use super::draw::{Key, View, render};
use super::rates::Seen;

/// Between two looks at the keyboard: what a person does not notice.
const KEYS_EVERY: Duration = Duration::from_millis(50);

/// Shows the node until somebody presses `q` or Ctrl-C. A broker that goes away is said so on the screen, and looked
/// for again: it may be on its way back.
///
/// # Errors
/// When the broker can not be asked at the start, or the terminal can not be used.
pub(super) fn run(client: &Client, interval: Duration) -> Result<(), Box<dyn std::error::Error>> {
    let mut before = Look::at(client)?;
    let looks = looker(client.clone(), interval);
    let mut screen = Screen::open()?;
    let mut view = View::default();
    view.seen = Seen::between(&before.node, &before.node, &before.slow);
    loop {
        match looks.try_recv() {
            Ok(Ok(now)) if !now.is_news_after(&before) => view.trouble = None,
            Ok(Ok(now)) => {
                if !view.paused {
                    view.seen = Seen::between(&before.node, &now.node, &now.slow);
                }
                view.trouble = None;
                before = now;
            }
            Ok(Err(why)) => view.trouble = Some(why.to_string()),
            Err(TryRecvError::Empty) => {}
            Err(TryRecvError::Disconnected) => return Ok(()),
        }
        screen.draw(&view)?;
        if poll(KEYS_EVERY)? {
            match read()? {
                event if ends(&event) => return Ok(()),
                event => key(&event).into_iter().for_each(|key| view.press(key)),
            }
        }
    }
}

/// Looks in a thread of its own, so that a broker that is slow to answer does not make keys slow. Ends with the
/// receiver.
fn looker(client: Client, interval: Duration) -> Receiver<Result<Look, ClientError>> {
    let (send, receive) = sync_channel(1);
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(interval);
            if send.send(Look::at(&client)).is_err() {
                return;
            }
        }
    });
    receive
}

fn ends(event: &Event) -> bool {
    let Event::Key(key) = event else { return false };
    let control = key.modifiers.contains(KeyModifiers::CONTROL);
    key.kind == KeyEventKind::Press
        && matches!((key.code, control), (KeyCode::Char('q'), false) | (KeyCode::Char('c'), true))
}

fn key(event: &Event) -> Option<Key> {
    let Event::Key(key) = event else { return None };
    let pressed = matches!(key.kind, KeyEventKind::Press | KeyEventKind::Repeat);
    match key.code {
        _ if !pressed => None,
        KeyCode::Char('p') => Some(Key::Pause),
        KeyCode::Tab | KeyCode::Right => Some(Key::Next),
        KeyCode::BackTab | KeyCode::Left => Some(Key::Previous),
        KeyCode::Up => Some(Key::Up),
        KeyCode::Down => Some(Key::Down),
        _ => None,
    }
}

/// Invariant: while it lives, the terminal is in raw mode.
struct Screen(Terminal<CrosstermBackend<Stdout>>);

impl Screen {
    fn open() -> io::Result<Self> {
        enable_raw_mode()?;
        let opened = execute!(io::stdout(), EnterAlternateScreen)
            .and_then(|()| Terminal::new(CrosstermBackend::new(io::stdout())));
        opened.map(Self).inspect_err(|_| give_back())
    }

    fn draw(&mut self, view: &View) -> io::Result<()> {
        self.0.draw(|frame| render(frame, view)).map(|_| ())
    }
}

fn give_back() {
    let _ = execute!(io::stdout(), LeaveAlternateScreen);
    let _ = disable_raw_mode();
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
        let _ = self.0.show_cursor();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ratatui::crossterm::event::KeyEvent;

    #[test]
    fn q_and_control_c_end_and_other_keys_do_what_the_title_says() {
        let plain = |code| Event::Key(KeyEvent::new(code, KeyModifiers::NONE));
        let control = |c| Event::Key(KeyEvent::new(KeyCode::Char(c), KeyModifiers::CONTROL));
        assert!(ends(&plain(KeyCode::Char('q'))) && ends(&control('c')));
        assert!(!ends(&plain(KeyCode::Char('c'))) && !ends(&Event::FocusGained));
        assert_eq!(key(&plain(KeyCode::Char('p'))), Some(Key::Pause));
        assert_eq!(key(&plain(KeyCode::Tab)), Some(Key::Next));
        assert_eq!(key(&plain(KeyCode::Char('x'))), None);
    }
}
