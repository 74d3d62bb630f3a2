//! What the screen shows, as data, and how it is drawn: no terminal here.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Style, Stylize as _};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Paragraph, Row, Table};
use ringmain_control::api::Slowness;

use super::lines::{SHARD_COLUMNS, STAGE_COLUMNS, shard_cells, stage_cells, title};
use super::rates::Seen;
use crate::observe::format::{bytes, count, grouped, name, ns};

/// A share of a shard's time that calls for a look: it has little left.
const BUSY: f64 = 0.8;
/// Time without a CPU that is felt.
const STOLEN: f64 = 0.05;

/// A part of the screen that scrolls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Panel {
    /// Shards.
    #[default]
    Shards,
    /// Stages.
    Stages,
    /// Slowest clients.
    Clients,
    /// Slowest topics.
    Topics,
}

impl Panel {
    const ALL: [Self; 4] = [Self::Shards, Self::Stages, Self::Clients, Self::Topics];

    fn moved(self, by: usize) -> Self {
        Self::ALL[(self as usize + by) % Self::ALL.len()]
    }
}

/// The state of the screen.
#[derive(Debug, Default)]
pub(super) struct View {
    /// What was seen last.
    pub seen: Seen,
    /// Whether it stays as it is.
    pub paused: bool,
    /// Why there was nothing to see, if so.
    pub trouble: Option<String>,
    /// Where arrows go.
    focus: Panel,
    /// First row shown, by `Panel as usize`.
    from: [usize; Panel::ALL.len()],
}

/// What a key does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    /// Stay as it is, or go on.
    Pause,
    /// Next panel.
    Next,
    /// The panel before.
    Previous,
    /// A row up.
    Up,
    /// A row down.
    Down,
}

impl View {
    /// Does what a key says.
    pub(super) fn press(&mut self, key: Key) {
        let last = self.rows(self.focus).saturating_sub(1);
        let from = &mut self.from[self.focus as usize];
        match key {
            Key::Pause => self.paused = !self.paused,
            Key::Next => self.focus = self.focus.moved(1),
            Key::Previous => self.focus = self.focus.moved(Panel::ALL.len() - 1),
            Key::Up => *from = from.saturating_sub(1),
            Key::Down => *from = (*from + 1).min(last),
        }
    }

    fn rows(&self, panel: Panel) -> usize {
        match panel {
            Panel::Shards => self.seen.shards.len(),
            Panel::Stages => self.seen.stages.values().filter(|s| s.count > 0).count(),
            Panel::Clients => self.seen.clients.len(),
            Panel::Topics => self.seen.topics.len(),
        }
    }
}

/// Draws the view.
pub(super) fn render(frame: &mut Frame<'_>, view: &View) {
    let height = frame.area().height;
    // Shards get what they need, but no more than half of the screen.
    let shards = (view.seen.shards.len() as u16).saturating_add(3).min((height / 2).max(4));
    let stages = (view.rows(Panel::Stages) as u16 + 3).max(10);
    let [top, first, second, third] = Layout::vertical([
        Constraint::Length(2),
        Constraint::Length(shards),
        Constraint::Length(stages),
        Constraint::Min(3),
    ])
    .areas(frame.area());
    draw_title(frame, top, view);
    draw_shards(frame, first, view);
    let [left, middle, right] =
        Layout::horizontal([Constraint::Min(82), Constraint::Length(30), Constraint::Length(26)])
            .areas(second);
    draw_stages(frame, left, view);
    draw_drops(frame, middle, &view.seen);
    draw_memory(frame, right, &view.seen);
    let [left, right] = Layout::horizontal([Constraint::Fill(1), Constraint::Fill(1)]).areas(third);
    draw_slow(frame, left, view, Panel::Clients);
    draw_slow(frame, right, view, Panel::Topics);
}

fn draw_title(frame: &mut Frame<'_>, area: Rect, view: &View) {
    let state = match (&view.trouble, view.paused) {
        (Some(why), _) => Span::from(format!(" {why}")).red().bold(),
        (None, true) => Span::from(" paused: p goes on").yellow().bold(),
        (None, false) => Span::from(" q quits  p pauses  tab and arrows move").dim(),
    };
    let first = Line::from(vec![
        Span::from(" ringmain top ").bold().reversed(),
        Span::from(format!("  {}", title(&view.seen))),
    ]);
    frame.render_widget(Paragraph::new(vec![first, Line::from(state)]), area);
}

fn block(view: &View, panel: Panel, title: &'static str) -> Block<'static> {
    let block = Block::bordered().title(title);
    if view.focus == panel { block.border_style(Style::new().fg(Color::Cyan)) } else { block }
}

fn draw_shards(frame: &mut Frame<'_>, area: Rect, view: &View) {
    let rows = view.seen.shards.iter().skip(view.from[Panel::Shards as usize]).map(|s| {
        let row = Row::new(shard_cells(s));
        if !s.up || s.stalled_ms.is_some() {
            row.red().bold()
        } else if s.stolen >= STOLEN {
            row.magenta()
        } else if s.busy >= BUSY {
            row.yellow()
        } else {
            row
        }
    });
    let widths = [5, 4, 6, 7, 6, 6, 9, 9, 9, 9, 9, 12, 16].map(Constraint::Length);
    let table = Table::new(rows, widths).header(Row::new(SHARD_COLUMNS).bold());
    frame.render_widget(table.block(block(view, Panel::Shards, " shards ")), area);
}

fn draw_stages(frame: &mut Frame<'_>, area: Rect, view: &View) {
    let rows = stage_cells(&view.seen);
    let rows = rows.into_iter().skip(view.from[Panel::Stages as usize]).map(Row::new);
    let widths = [11, 9, 8, 8, 8, 8, 11, 9].map(Constraint::Length);
    let table = Table::new(rows, widths).header(Row::new(STAGE_COLUMNS).bold());
    frame.render_widget(table.block(block(view, Panel::Stages, " stages ")), area);
}

fn draw_drops(frame: &mut Frame<'_>, area: Rect, seen: &Seen) {
    let rows = seen.drops.iter().map(|(reason, d)| {
        let row = Row::new([reason.clone(), grouped(d.count), count(d.per_s)]);
        if d.per_s > 0.0 { row.red() } else { row }
    });
    let widths = [Constraint::Min(12), Constraint::Length(9), Constraint::Length(7)];
    let head = Row::new(["reason", "copies", "per s"]).bold();
    let block = Block::bordered().title(" dropped ");
    frame.render_widget(Table::new(rows, widths).header(head).block(block), area);
}

fn draw_memory(frame: &mut Frame<'_>, area: Rect, seen: &Seen) {
    let resident = ("resident".to_owned(), seen.resident_bytes);
    let parts = seen.memory.iter().map(|(name, bytes)| (name.clone(), *bytes));
    let rows = std::iter::once(resident).chain(parts).map(|(name, n)| Row::new([name, bytes(n)]));
    let widths = [Constraint::Min(13), Constraint::Length(9)];
    let block = Block::bordered().title(" memory ");
    frame.render_widget(Table::new(rows, widths).block(block), area);
}

fn draw_slow(frame: &mut Frame<'_>, area: Rect, view: &View, panel: Panel) {
    let (list, title, what) = match panel {
        Panel::Topics => (&view.seen.topics, " slowest topics, of ten minutes ", "topic"),
        _ => (&view.seen.clients, " slowest clients, of ten minutes ", "client"),
    };
    let room = usize::from(area.width.saturating_sub(36)).max(8);
    let row = |s: &Slowness| {
        Row::new([name(&s.name, room), ns(s.max_ns), ns(s.mean_ns), s.slowest_stage.clone()])
    };
    let rows = list.iter().skip(view.from[panel as usize]).map(row);
    let widths =
        [Constraint::Min(8), Constraint::Length(9), Constraint::Length(9), Constraint::Length(11)];
    let head = Row::new([what, "slowest", "mean", "mostly in"]).bold();
    frame.render_widget(
        Table::new(rows, widths).header(head).block(block(view, panel, title)),
        area,
    );
}

#[cfg(test)]
mod tests {
    use super::super::rates::tests::seen;
    use super::*;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    fn drawn(view: &View, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| render(frame, view)).unwrap();
        let buffer = terminal.backend().buffer();
        let row = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>();
        (0..height).map(row).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn the_screen_shows_shards_stages_drops_memory_clients_and_topics() {
        let view = View { seen: seen(), ..View::default() };
        let screen = drawn(&view, 130, 40);
        for text in [
            "40 connections",
            "stolen",
            "30 %",
            "1.50 ms",
            "send",
            "queue_full",
            "resident",
            "till-7",
            "shop/7",
            "q quits",
        ] {
            assert!(screen.contains(text), "{text} is missing in\n{screen}");
        }
    }

    #[test]
    fn a_pause_and_a_broker_that_is_gone_are_shown() {
        let mut view = View { seen: seen(), ..View::default() };
        view.press(Key::Pause);
        assert!(view.paused && drawn(&view, 130, 40).contains("paused"));
        view.trouble = Some("nobody listens".to_owned());
        assert!(drawn(&view, 130, 40).contains("nobody listens"));
    }

    #[test]
    fn arrows_scroll_the_panel_that_tab_chose_and_stop_at_its_ends() {
        let mut view = View { seen: seen(), ..View::default() };
        view.press(Key::Up);
        (0..9).for_each(|_| view.press(Key::Down));
        assert_eq!(view.from, [1, 0, 0, 0]);
        let screen = drawn(&view, 130, 40);
        assert!(!screen.contains("│0     3"), "shard 0 is out of view:\n{screen}");
        view.press(Key::Previous);
        assert_eq!(view.focus, Panel::Topics);
        view.press(Key::Next);
        view.press(Key::Next);
        assert_eq!(view.focus, Panel::Stages);
    }

    #[test]
    fn a_small_terminal_and_an_empty_view_are_drawn_without_a_panic() {
        for (width, height) in [(1, 1), (20, 5), (80, 24), (300, 100)] {
            drawn(&View { seen: seen(), ..View::default() }, width, height);
            drawn(&View::default(), width, height);
        }
    }
}
