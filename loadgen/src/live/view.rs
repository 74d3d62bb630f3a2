//! What the screen shows, as data, and how it is drawn: no terminal here.

use std::collections::VecDeque;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Style, Stylize as _};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Gauge, Paragraph, Row, Sparkline, Table};

use crate::job::Job;
use crate::quantity::{grouped, show_bytes, show_ns};
use crate::report::Latency;
use crate::snapshot::Snapshot;
use crate::stats::Counters;

/// Intervals that the curves show: a minute.
const HISTORY: usize = 240;

/// The state of the screen.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// The run's name and target.
    pub title: String,
    /// Names of all stages.
    pub stages: Vec<String>,
    /// The last snapshot.
    pub last: Snapshot,
    /// Deliveries (else messages sent, else connections ready) a second, oldest first.
    pub rates: VecDeque<u64>,
    /// p99 of each interval in µs, oldest first.
    pub latencies: VecDeque<u64>,
    /// Whether the user asked for the end.
    pub stopping: bool,
}

/// What went wrong, by name; only what did.
pub(super) fn errors(c: &Counters) -> Vec<(&'static str, u64)> {
    let all = [
        ("failed", c.failed),
        ("retries", c.retries),
        ("broken", c.broken),
        ("duplicates", c.duplicates),
        ("unsent", c.unsent),
        ("refused", c.refused_messages),
        ("protocol errors", c.protocol_errors),
        ("pings unanswered", c.pings_unanswered),
        ("sessions lost", c.sessions_lost),
    ];
    all.into_iter().filter(|(_, n)| *n > 0).collect()
}

impl View {
    /// Before the first snapshot.
    #[must_use]
    pub fn of(job: &Job) -> Self {
        Self {
            title: format!("{} → {}", job.name, job.plan.target),
            stages: job.plan.stages.iter().map(|s| s.name.clone()).collect(),
            ..Self::default()
        }
    }

    /// Takes a snapshot.
    pub fn see(&mut self, snapshot: &Snapshot) {
        let r = &snapshot.rates;
        let rate = [r.delivered, r.sent, r.ready].into_iter().find(|rate| *rate > 0.0);
        push(&mut self.rates, rate.unwrap_or(0.0) as u64);
        push(&mut self.latencies, main_latency(snapshot).map_or(0, |l| l.corrected.p99 / 1000));
        self.last = snapshot.clone();
    }
}

fn push(into: &mut VecDeque<u64>, value: u64) {
    if into.len() == HISTORY {
        into.pop_front();
    }
    into.push_back(value);
}

/// The interval's latency that matters most.
fn main_latency(s: &Snapshot) -> Option<&Latency> {
    ["delivery", "ack", "connect"]
        .iter()
        .filter_map(|name| s.interval.get(*name))
        .find(|l| l.corrected.count > 0)
}

/// Draws the view.
pub fn render(frame: &mut Frame<'_>, view: &View) {
    let latencies = view.last.cumulative.values().filter(|l| l.corrected.count > 0).count() as u16;
    let [title, stage, counts, curves, table, bottom] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(3),
        Constraint::Length(5),
        Constraint::Length(6),
        Constraint::Length(latencies + 3),
        Constraint::Min(1),
    ])
    .areas(frame.area());
    draw_title(frame, title, view);
    draw_stage(frame, stage, view);
    draw_counts(frame, counts, &view.last);
    draw_curves(frame, curves, view);
    draw_latencies(frame, table, &view.last);
    draw_bottom(frame, bottom, view);
}

fn draw_title(frame: &mut Frame<'_>, area: Rect, view: &View) {
    let state = if view.stopping { "stopping …" } else { "q stops" };
    let line = Line::from(vec![
        Span::from(" ringmain-load ").bold().reversed(),
        Span::from(format!(" {} ", view.title)),
        Span::from(format!("{:.0} s ", view.last.elapsed.as_secs_f64())).bold(),
        Span::from(state).dim(),
    ]);
    frame.render_widget(line, area);
}

fn draw_stage(frame: &mut Frame<'_>, area: Rect, view: &View) {
    let s = &view.last;
    let share = match s.stage_planned {
        Some(planned) if !planned.is_zero() => {
            s.stage_elapsed.as_secs_f64() / planned.as_secs_f64()
        }
        _ if s.stage_kind == "connect" => s.counters.live as f64 / s.clients.max(1) as f64,
        _ => 0.0,
    };
    let label = match s.stage_planned {
        Some(planned) => {
            format!("{:.0} of {:.0} s", s.stage_elapsed.as_secs_f64(), planned.as_secs_f64())
        }
        None => format!("{:.0} s", s.stage_elapsed.as_secs_f64()),
    };
    let path: Vec<Span<'_>> = view
        .stages
        .iter()
        .enumerate()
        .map(|(n, name)| {
            let text = Span::from(format!(" {name} "));
            if n == s.stage { text.bold().cyan() } else { text.dim() }
        })
        .collect();
    let gauge = Gauge::default()
        .block(Block::bordered().title(Line::from(path)))
        .gauge_style(Style::new().fg(Color::Cyan))
        .ratio(share.clamp(0.0, 1.0))
        .label(label);
    frame.render_widget(gauge, area);
}

fn draw_counts(frame: &mut Frame<'_>, area: Rect, s: &Snapshot) {
    let c = &s.counters;
    let n = |n: u64| grouped(n as f64);
    let rate = |r: f64| grouped(r);
    let mut rows = vec![
        Line::from(format!(
            "connections {} live of {} ({} ready/s), {} opening, {} waiting",
            n(c.live),
            n(s.clients),
            rate(s.rates.ready),
            n(c.opening),
            n(c.waiting)
        )),
        Line::from(format!(
            "messages    {} sent ({}/s), {} delivered ({}/s), {} acknowledged ({}/s)",
            n(c.sent),
            rate(s.rates.sent),
            n(c.delivered),
            rate(s.rates.delivered),
            n(c.acked),
            rate(s.rates.acked)
        )),
    ];
    let mut cost = format!("CPU         generator {:.0} %", s.generator_cpu * 100.0);
    if let Some(cpu) = s.broker_cpu {
        cost.push_str(&format!(", broker {:.0} %", cpu * 100.0));
    }
    if let Some(broker) = &s.broker {
        cost.push_str(&format!(", {} resident", show_bytes(broker.rss as f64)));
    }
    rows.push(Line::from(cost));
    frame.render_widget(Paragraph::new(rows).block(Block::bordered()), area);
}

fn draw_curves(frame: &mut Frame<'_>, area: Rect, view: &View) {
    let [left, right] =
        Layout::horizontal([Constraint::Percentage(50), Constraint::Percentage(50)]).areas(area);
    let rate = format!(" rate {}/s ", grouped(view.rates.back().copied().unwrap_or(0) as f64));
    let p99 = view.latencies.back().copied().unwrap_or(0) as f64 * 1000.0;
    let latency = format!(" p99 {} ", show_ns(p99));
    for (area, title, values, colour) in
        [(left, rate, &view.rates, Color::Green), (right, latency, &view.latencies, Color::Yellow)]
    {
        // The newest values, as many as there is room for.
        let room = usize::from(area.width.saturating_sub(2));
        let values: Vec<u64> =
            values.iter().skip(values.len().saturating_sub(room)).copied().collect();
        let curve = Sparkline::default()
            .block(Block::bordered().title(title))
            .style(Style::new().fg(colour))
            .data(values);
        frame.render_widget(curve, area);
    }
}

fn draw_latencies(frame: &mut Frame<'_>, area: Rect, s: &Snapshot) {
    let head = Row::new(["latency", "p50", "p90", "p99", "p99.9", "max", "raw p99"]).bold();
    let rows = s.cumulative.iter().filter(|(_, l)| l.corrected.count > 0).map(|(name, l)| {
        let ns = |ns: u64| show_ns(ns as f64);
        let c = &l.corrected;
        Row::new([
            name.clone(),
            ns(c.p50),
            ns(c.p90),
            ns(c.p99),
            ns(c.p999),
            ns(c.max),
            l.raw.map_or(String::new(), |raw| ns(raw.p99)),
        ])
    });
    let widths = [Constraint::Length(10)].into_iter().chain([Constraint::Length(11); 6]);
    let table = Table::new(rows, widths).header(head).block(Block::bordered());
    frame.render_widget(table, area);
}

fn draw_bottom(frame: &mut Frame<'_>, area: Rect, view: &View) {
    let mut lines: Vec<Line<'_>> = errors(&view.last.counters)
        .into_iter()
        .map(|(what, n)| Line::from(format!(" {} {what}", grouped(n as f64))).red())
        .collect();
    if lines.is_empty() {
        lines.push(Line::from(" no errors").green());
    }
    for why in &view.last.void {
        lines.push(Line::from(format!(" VOID: {why}")).bold().magenta());
    }
    frame.render_widget(Paragraph::new(lines), area);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Summary;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use std::time::Duration;

    fn drawn(view: &View, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| render(frame, view)).unwrap();
        let buffer = terminal.backend().buffer();
        let row = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>();
        (0..height).map(row).collect::<Vec<_>>().join("\n")
    }

    fn view() -> View {
        let mut view = View {
            title: "pair → 127.0.0.1:1883".to_owned(),
            stages: vec!["connect".to_owned(), "traffic".to_owned(), "close".to_owned()],
            ..View::default()
        };
        let summary = Summary { count: 9, p50: 80_000, p99: 4_200_000, ..Summary::default() };
        let delivery = Latency { corrected: summary, ..Latency::default() };
        let mut snapshot = Snapshot {
            elapsed: Duration::from_secs(7),
            stage: 1,
            stage_name: "traffic".to_owned(),
            stage_kind: "traffic".to_owned(),
            stage_elapsed: Duration::from_secs(5),
            stage_planned: Some(Duration::from_secs(10)),
            clients: 1000,
            generator_cpu: 0.42,
            broker_cpu: Some(0.31),
            ..Snapshot::default()
        };
        snapshot.counters.live = 1000;
        snapshot.counters.delivered = 1_234_567;
        snapshot.rates.delivered = 98_765.0;
        snapshot.interval.insert("delivery".to_owned(), delivery.clone());
        snapshot.cumulative.insert("delivery".to_owned(), delivery);
        view.see(&snapshot);
        view
    }

    #[test]
    fn the_screen_shows_stage_rates_latencies_costs_and_no_errors() {
        let screen = drawn(&view(), 100, 30);
        for text in [
            "pair → 127.0.0.1:1883",
            "5 of 10 s",
            "1,000 live of 1,000",
            "1,234,567 delivered (98,765/s)",
            "generator 42 %, broker 31 %",
            "4.20 ms",
            "no errors",
            "q stops",
        ] {
            assert!(screen.contains(text), "{text} is missing in\n{screen}");
        }
    }

    #[test]
    fn errors_and_void_reasons_are_shown() {
        let mut view = view();
        view.last.counters.broken = 12;
        view.last.void.push("the generator was starved".to_owned());
        let screen = drawn(&view, 100, 30);
        assert!(screen.contains("12 broken") && screen.contains("VOID: the generator was starved"));
        assert!(!screen.contains("no errors"));
    }

    #[test]
    fn a_small_terminal_and_an_empty_view_are_drawn_without_a_panic() {
        for (width, height) in [(1, 1), (20, 5), (80, 24), (300, 100)] {
            drawn(&view(), width, height);
            drawn(&View::default(), width, height);
        }
    }

    #[test]
    fn the_curves_forget_what_is_older_than_their_room() {
        let mut view = view();
        let snapshot = view.last.clone();
        (0..1000).for_each(|_| view.see(&snapshot));
        assert_eq!((view.rates.len(), view.latencies.len()), (HISTORY, HISTORY));
    }
}
