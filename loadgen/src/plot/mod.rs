//! Line charts as SVG text: no scripts, no fonts, nothing from elsewhere.

use std::fmt::Write as _;

/// How a value becomes a place on an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// From 0, or from below when values are.
    Linear,
    /// By decades; values below 1 are drawn at 1.
    Log,
    /// For quantiles from 0 to 1: each nine has the same room.
    Nines,
}

/// A line.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// For the legend.
    pub name: String,
    /// In the order of x.
    pub points: Vec<(f64, f64)>,
    /// Drawn with dashes.
    pub dashed: bool,
}

/// A chart. Without a point it is not drawn.
#[derive(Clone, Debug)]
pub struct Chart<'a> {
    /// Above it.
    pub title: &'a str,
    /// Below the x axis.
    pub x_label: &'a str,
    /// Scale of x.
    pub x: Scale,
    /// Scale of y.
    pub y: Scale,
    /// The text of a y tick.
    pub y_text: fn(f64) -> String,
    /// Its lines.
    pub series: Vec<Series>,
    /// Places on x with a name: begins of stages.
    pub marks: Vec<(f64, String)>,
}

/// Size of a chart in its own units, and the room around the lines.
const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 86.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 46.0;
const BOTTOM: f64 = 42.0;
/// Points a line keeps: two for each unit of width. The highest and lowest of a bucket stay, so
/// that no peak is lost.
const BUCKETS: usize = 860;
/// Colours that are told apart in both themes, and by most who see fewer colours.
const COLOURS: [&str; 6] = ["#2b7fff", "#e8590c", "#0ca678", "#9c36b5", "#c2255c", "#868e96"];

impl Chart<'_> {
    /// The chart as an `<svg>` element; `None` when there is nothing to draw.
    #[must_use]
    pub fn svg(&self) -> Option<String> {
        let all = || self.series.iter().flat_map(|s| &s.points).filter(|p| finite(p));
        all().next()?;
        let x = Axis::over(self.x, all().map(|p| p.0), LEFT, WIDTH - RIGHT);
        let y = Axis::over(self.y, all().map(|p| p.1), HEIGHT - BOTTOM, TOP);
        let mut out = String::new();
        let _ = write!(
            out,
            "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{title}\">\
             <text x=\"{LEFT}\" y=\"16\" class=\"title\">{title}</text>",
            title = escape(self.title)
        );
        self.grid(&mut out, &x, &y);
        self.draw_marks(&mut out, &x);
        for (n, series) in self.series.iter().enumerate() {
            draw_line(&mut out, series, COLOURS[n % COLOURS.len()], &x, &y);
        }
        self.legend(&mut out);
        out.push_str("</svg>");
        Some(out)
    }

    fn grid(&self, out: &mut String, x: &Axis, y: &Axis) {
        for tick in y.ticks() {
            let at = y.place(tick);
            let text = escape(&(self.y_text)(tick));
            let (left, right) = (LEFT - 8.0, WIDTH - RIGHT);
            let _ = write!(
                out,
                "<line x1=\"{LEFT}\" x2=\"{right}\" y1=\"{at:.1}\" y2=\"{at:.1}\" class=\"grid\"/>\
                 <text x=\"{left}\" y=\"{:.1}\" class=\"tick\" text-anchor=\"end\">{text}</text>",
                at + 4.0
            );
        }
        let bottom = HEIGHT - BOTTOM;
        for tick in x.ticks() {
            let at = x.place(tick);
            let text = if self.x == Scale::Nines { percent(tick) } else { plain(tick) };
            let _ = write!(
                out,
                "<line x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{bottom}\" y2=\"{:.1}\" class=\"axis\"/>\
                 <text x=\"{at:.1}\" y=\"{:.1}\" class=\"tick\" text-anchor=\"middle\">{text}</text>",
                bottom + 4.0,
                bottom + 17.0
            );
        }
        let _ = write!(
            out,
            "<line x1=\"{LEFT}\" x2=\"{}\" y1=\"{bottom}\" y2=\"{bottom}\" class=\"axis\"/>\
             <text x=\"{}\" y=\"{}\" class=\"tick\" text-anchor=\"middle\">{}</text>",
            WIDTH - RIGHT,
            f64::midpoint(LEFT, WIDTH - RIGHT),
            HEIGHT - 6.0,
            escape(self.x_label)
        );
    }

    fn draw_marks(&self, out: &mut String, x: &Axis) {
        for (at, name) in &self.marks {
            let at = x.place(*at);
            if !(LEFT..=WIDTH - RIGHT).contains(&at) {
                continue;
            }
            let _ = write!(
                out,
                "<line x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{TOP}\" y2=\"{}\" class=\"mark\"/>\
                 <text x=\"{:.1}\" y=\"{}\" class=\"tick\">{}</text>",
                HEIGHT - BOTTOM,
                at + 3.0,
                TOP + 9.0,
                escape(name)
            );
        }
    }

    fn legend(&self, out: &mut String) {
        let mut at = LEFT;
        for (n, series) in self.series.iter().enumerate().filter(|(_, s)| !s.points.is_empty()) {
            let _ = write!(
                out,
                "<rect x=\"{at:.0}\" y=\"25\" width=\"12\" height=\"4\" fill=\"{}\"/>\
                 <text x=\"{:.0}\" y=\"31\" class=\"tick\">{}</text>",
                COLOURS[n % COLOURS.len()],
                at + 17.0,
                escape(&series.name)
            );
            at += 34.0 + 7.0 * series.name.chars().count() as f64;
        }
    }
}

fn draw_line(out: &mut String, series: &Series, colour: &str, x: &Axis, y: &Axis) {
    let mut points = String::new();
    for (px, py) in thin(&series.points) {
        let _ = write!(points, "{:.1},{:.1} ", x.place(px), y.place(py));
    }
    let dash = if series.dashed { " stroke-dasharray=\"5 4\"" } else { "" };
    let _ = write!(
        out,
        "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.8\"{dash}/>",
        points.trim_end()
    );
}

fn finite(point: &(f64, f64)) -> bool {
    point.0.is_finite() && point.1.is_finite()
}

/// At most two points for each bucket along x: its lowest and its highest.
fn thin(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let points: Vec<(f64, f64)> = points.iter().copied().filter(finite).collect();
    if points.len() <= 2 * BUCKETS {
        return points;
    }
    let mut kept = Vec::with_capacity(2 * BUCKETS);
    for bucket in points.chunks(points.len().div_ceil(BUCKETS)) {
        let by_y = |a: &&(f64, f64), b: &&(f64, f64)| a.1.total_cmp(&b.1);
        let (low, high) = (bucket.iter().min_by(by_y), bucket.iter().max_by(by_y));
        if let (Some(&low), Some(&high)) = (low, high) {
            let (first, second) = if low.0 <= high.0 { (low, high) } else { (high, low) };
            kept.extend([first, second]);
        }
    }
    kept
}

/// Values on one side, places on the other.
struct Axis {
    scale: Scale,
    low: f64,
    high: f64,
    from: f64,
    to: f64,
}

impl Axis {
    fn over(scale: Scale, values: impl Iterator<Item = f64>, from: f64, to: f64) -> Self {
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        for value in values {
            low = low.min(value);
            high = high.max(value);
        }
        match scale {
            Scale::Linear => {
                low = low.min(0.0);
                high = if high > low { high } else { low + 1.0 };
            }
            Scale::Log => {
                low = 10f64.powf(low.max(1.0).log10().floor());
                high = 10f64.powf(high.max(1.0).log10().ceil()).max(low * 10.0);
            }
            Scale::Nines => {
                low = low.clamp(0.0, 0.5);
                high = high.clamp(0.9, 0.999_999_999);
            }
        }
        Self { scale, low, high, from, to }
    }

    fn place(&self, value: f64) -> f64 {
        let along = |v: f64| match self.scale {
            Scale::Linear => v,
            Scale::Log => v.max(1.0).log10(),
            Scale::Nines => -(1.0 - v.clamp(0.0, 0.999_999_999)).log10(),
        };
        let (low, high) = (along(self.low), along(self.high));
        self.from + (along(value) - low) / (high - low) * (self.to - self.from)
    }

    fn ticks(&self) -> Vec<f64> {
        match self.scale {
            Scale::Linear => {
                let step = nice((self.high - self.low) / 5.0);
                let first = (self.low / step).ceil() as i64;
                (first..)
                    .map(|n| n as f64 * step)
                    .take_while(|&t| t <= self.high * 1.000_001)
                    .collect()
            }
            Scale::Log => {
                let decades = self.low.log10().round() as i32..=self.high.log10().round() as i32;
                decades.map(|n| 10f64.powi(n)).collect()
            }
            Scale::Nines => [0.0, 0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999, 0.999_999]
                .into_iter()
                .filter(|t| (self.low..=self.high).contains(t))
                .collect(),
        }
    }
}

/// 1, 2 or 5 times a power of ten, at least `step`.
fn nice(step: f64) -> f64 {
    let decade = 10f64.powf(step.log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|n| n * decade).find(|&n| n >= step).unwrap_or(step)
}

fn plain(value: f64) -> String {
    if value.fract().abs() < 1e-9 { format!("{value:.0}") } else { format!("{value:.2}") }
}

/// `99.9 %`, with as many nines as there are.
fn percent(quantile: f64) -> String {
    let text = format!("{:.5}", quantile * 100.0);
    format!("{} %", text.trim_end_matches('0').trim_end_matches('.'))
}

/// Text that is safe between tags and in attributes.
#[must_use]
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn axis(scale: Scale, low: f64, high: f64) -> Axis {
        Axis::over(scale, [low, high].into_iter(), 0.0, 100.0)
    }

    #[test]
    fn a_linear_axis_starts_at_zero_and_has_round_ticks() {
        let axis = axis(Scale::Linear, 30.0, 100.0);
        assert_eq!((axis.place(0.0), axis.place(100.0)), (0.0, 100.0));
        assert_eq!(axis.ticks(), [0.0, 20.0, 40.0, 60.0, 80.0, 100.0]);
    }

    #[test]
    fn a_log_axis_gives_each_decade_the_same_room() {
        let axis = axis(Scale::Log, 1000.0, 900_000.0);
        assert_eq!(axis.ticks(), [1e3, 1e4, 1e5, 1e6]);
        assert!((axis.place(1e4) - 100.0 / 3.0).abs() < 1e-9);
    }

    #[test]
    fn an_axis_of_nines_gives_each_nine_the_same_room() {
        let axis = axis(Scale::Nines, 0.0, 0.9999);
        assert!((axis.place(0.9) - 25.0).abs() < 1e-6 && (axis.place(0.999) - 75.0).abs() < 1e-6);
        assert_eq!(axis.ticks(), [0.0, 0.5, 0.9, 0.99, 0.999, 0.9999]);
        assert_eq!(percent(0.999), "99.9 %");
    }

    #[test]
    fn thinning_keeps_the_peaks() {
        let mut points: Vec<_> = (0..100_000).map(|n| (f64::from(n), 1.0)).collect();
        points[54_321].1 = 99.0;
        let kept = thin(&points);
        assert!(kept.len() <= 2 * BUCKETS && kept.contains(&(54_321.0, 99.0)));
    }

    fn chart(points: Vec<(f64, f64)>) -> Option<String> {
        let series = vec![Series { name: "a<b".to_owned(), points, dashed: true }];
        let marks = vec![(1.0, "storm".to_owned())];
        let (x, y) = (Scale::Linear, Scale::Linear);
        Chart { title: "T & co", x_label: "s", x, y, y_text: plain, series, marks }.svg()
    }

    #[test]
    fn a_chart_is_one_element_with_its_text_escaped_and_no_number_that_is_none() {
        let svg = chart(vec![(0.0, 5.0), (1.0, f64::NAN), (2.0, 7.0)]).unwrap();
        assert!(svg.starts_with("<svg") && svg.ends_with("</svg>"));
        assert!(svg.contains("T &amp; co") && svg.contains("a&lt;b") && svg.contains("storm"));
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
    }

    #[test]
    fn a_chart_with_equal_values_or_one_point_is_drawn_and_an_empty_one_is_not() {
        assert!(!chart(vec![(0.0, 0.0)]).unwrap().contains("NaN"));
        assert!(!chart(vec![(3.0, 2.0), (3.0, 2.0)]).unwrap().contains("NaN"));
        assert_eq!(chart(vec![]), None);
    }
}
