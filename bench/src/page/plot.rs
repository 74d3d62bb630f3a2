//! Bars: one group for each case, one bar for each contender, a line from the least to the most.

use std::fmt::Write as _;

use serde_json::Value;

use super::{escape, figure, list};

/// Figures that are plotted; tables have the others.
const PLOTTED: &[&str] = &[
    "ns_per_message",
    "p99_us",
    "p999_us",
    "idle_bytes",
    "subscription_bytes",
    "offline_bytes",
    "connect_us",
    "connect_subscribe_us",
    "reconnect_us",
    "back_s",
    "insert_ns",
    "bytes",
    "lookup_ns",
    "store_ns",
    "plus_us",
    "replay_per_s",
    "forwarded",
    "slope_kib_per_min",
    "cpu_share",
    "ns",
];
const WIDTH: f64 = 480.0;
/// Room for the names at the left, and for the numbers at the right.
const LEFT: f64 = 92.0;
const RIGHT: f64 = 66.0;
const BAR: f64 = 14.0;
const GAP: f64 = 4.0;
const TITLE: f64 = 22.0;
const GROUP: f64 = 20.0;
/// From this ratio of the longest to the shortest bar on, lengths are logarithms.
const LOGARITHMIC_FROM: f64 = 50.0;

struct Bar {
    case: String,
    contender: String,
    median: f64,
    min: f64,
    max: f64,
}

/// The plot of one figure: none when it is not plotted or nobody has it.
pub(super) fn bars(results: &Value, kind: &Value) -> Option<String> {
    let key = kind["key"].as_str()?;
    if !PLOTTED.contains(&key) {
        return None;
    }
    let bars: Vec<Bar> =
        list(&results["summary"]).iter().filter_map(|s| Bar::of(s, kind)).collect();
    if bars.is_empty() {
        return None;
    }
    let label = kind["label"].as_str().unwrap_or(key);
    let less = kind["less_is_better"].as_bool().unwrap_or(true);
    let decimals = kind["decimals"].as_u64().unwrap_or(0) as usize;
    Some(draw(label, less, decimals, &bars))
}

impl Bar {
    fn of(summary: &Value, kind: &Value) -> Option<Self> {
        let f = figure(summary, kind);
        let median = f["median"].as_f64()?;
        Some(Self {
            case: summary["case"].as_str()?.to_owned(),
            contender: summary["contender"].as_str()?.to_owned(),
            median,
            min: f["min"].as_f64().unwrap_or(median),
            max: f["max"].as_f64().unwrap_or(median),
        })
    }

    fn class(&self) -> &'static str {
        match self.contender.as_str() {
            "floor" => "floor",
            name if name.starts_with("ringmain") => "ours",
            _ => "peer",
        }
    }
}

fn draw(label: &str, less: bool, decimals: usize, bars: &[Bar]) -> String {
    let most = bars.iter().map(|b| b.max).fold(0.0, f64::max);
    let least = bars.iter().map(|b| b.min).fold(f64::INFINITY, f64::min);
    let logarithmic = least > 0.0 && most / least >= LOGARITHMIC_FROM;
    let length = |value: f64| {
        let share = if logarithmic {
            // The shortest bar is a twentieth of the longest.
            0.05 + 0.95 * (value / least).ln() / (most / least).ln()
        } else {
            value / most
        };
        share.clamp(0.0, 1.0) * (WIDTH - LEFT - RIGHT)
    };
    let mut body = String::new();
    let mut y = TITLE;
    let mut case = "";
    for bar in bars {
        if bar.case != case {
            case = &bar.case;
            y += GROUP;
            put(
                &mut body,
                format_args!(
                    "<text x=\"0\" y=\"{:.0}\" font-weight=\"600\">{}</text>",
                    y - 6.0,
                    escape(case)
                ),
            );
        }
        let middle = y + BAR / 2.0;
        put(
            &mut body,
            format_args!(
                "<text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"end\">{}</text>\
                 <rect class=\"{}\" x=\"{LEFT}\" y=\"{y}\" width=\"{:.1}\" height=\"{BAR}\"/>\
                 <line class=\"range\" x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{middle}\" y2=\"{middle}\"/>\
                 <text x=\"{:.1}\" y=\"{:.0}\">{:.decimals$}</text>",
                LEFT - 6.0,
                middle + 4.0,
                escape(&bar.contender),
                bar.class(),
                length(bar.median),
                LEFT + length(bar.min),
                LEFT + length(bar.max),
                LEFT + length(bar.max) + 4.0,
                middle + 4.0,
                bar.median,
            ),
        );
        y += BAR + GAP;
    }
    let better = if less { "less is better" } else { "more is better" };
    let scale = if logarithmic { ", logarithmic" } else { "" };
    format!(
        "<svg width=\"{WIDTH}\" height=\"{y}\" viewBox=\"0 0 {WIDTH} {y}\" role=\"img\" \
         aria-label=\"{0}\"><text x=\"0\" y=\"14\" font-weight=\"700\">{0} ({better}{scale})</text>{body}</svg>",
        escape(label)
    )
}

fn put(out: &mut String, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("a String takes any text");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bar(contender: &str, median: f64) -> Bar {
        Bar {
            case: "w1".to_owned(),
            contender: contender.to_owned(),
            median,
            min: median,
            max: median,
        }
    }

    #[test]
    fn bars_are_as_long_as_their_values_until_they_differ_too_much() {
        let near = draw("ns", true, 0, &[bar("ringmain/1", 50.0), bar("mosquitto", 100.0)]);
        let whole = WIDTH - LEFT - RIGHT;
        assert!(near.contains(&format!("width=\"{whole:.1}\"")), "{near}");
        assert!(near.contains(&format!("width=\"{:.1}\"", whole / 2.0)), "{near}");
        assert!(!near.contains("logarithmic"));
        let far = draw("ns", true, 0, &[bar("floor", 1.0), bar("mosquitto", 100.0)]);
        assert!(far.contains("logarithmic") && far.contains("class=\"floor\""));
    }

    #[test]
    fn nothing_negative_gets_a_length() {
        let svg = draw("KiB", true, 1, &[bar("x", -5.0), bar("y", 10.0)]);
        assert!(svg.contains("width=\"0.0\""), "{svg}");
    }
}
