//! The report as a page of its own: tables and plots, nothing from elsewhere.

use std::fmt::Write as _;

use crate::plot::{Chart, Scale, Series, escape};
use crate::quantity::{grouped, show_bytes, show_ns};

use super::{Latency, Report, Row};

const STYLE: &str = "\
:root{color-scheme:light dark;--fg:#1c1c1e;--dim:#6b6b70;--line:#d8d8dc;--bg:#fff;--card:#f6f6f8}\
@media(prefers-color-scheme:dark){:root{--fg:#ececf0;--dim:#9a9aa2;--line:#3a3a40;--bg:#161618;--card:#1f1f23}}\
body{font:15px/1.5 system-ui,sans-serif;color:var(--fg);background:var(--bg);max-width:920px;margin:2em auto;padding:0 1em}\
h1{font-size:1.5em;margin-bottom:.2em}h2{font-size:1.15em;margin:2em 0 .5em}\
code{font:13px ui-monospace,monospace;overflow-wrap:anywhere}.dim{color:var(--dim)}\
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}\
th,td{text-align:left;padding:.25em .7em;border-bottom:1px solid var(--line);vertical-align:top;overflow-wrap:anywhere}\
th{font-weight:600}td.n,th.n{text-align:right;white-space:nowrap}\
svg{width:100%;height:auto;background:var(--card);border-radius:8px;margin:.6em 0}\
.title{font:600 13px system-ui,sans-serif;fill:var(--fg)}.tick{font:11px system-ui,sans-serif;fill:var(--dim)}\
.grid{stroke:var(--line)}.axis{stroke:var(--dim)}.mark{stroke:var(--dim);stroke-dasharray:2 3}\
.badge{display:inline-block;padding:.1em .6em;border-radius:6px;color:#fff;font-weight:600}\
.good{background:#2b8a3e}.bad{background:#c92a2a}.void{background:#862e9c}\
details{margin:.6em 0}summary{cursor:pointer}";

/// Writes the page.
pub(super) fn page(report: &Report) -> String {
    let mut out = String::with_capacity(64 * 1024);
    let name = if report.name.is_empty() { "run" } else { &report.name };
    let _ = write!(
        out,
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\">\
         <title>ringmain-load: {0}</title><style>{STYLE}</style></head><body><h1>{0} {1}</h1>",
        escape(name),
        badge(report)
    );
    if !report.description.is_empty() {
        let _ = write!(out, "<p>{}</p>", escape(&report.description));
    }
    let _ = write!(out, "<p class=\"dim\"><code>{}</code></p>", escape(&report.command.join(" ")));
    troubles(&mut out, report);
    assertions(&mut out, report);
    numbers(&mut out, report);
    latencies(&mut out, report);
    over_time(&mut out, report);
    stages(&mut out, report);
    broker(&mut out, report);
    environment(&mut out, report);
    out.push_str("</body></html>\n");
    out
}

fn badge(report: &Report) -> &'static str {
    if report.is_void() {
        "<span class=\"badge void\">void</span>"
    } else if report.is_clean() && report.verdicts.iter().all(|v| v.held) {
        "<span class=\"badge good\">held</span>"
    } else {
        "<span class=\"badge bad\">not held</span>"
    }
}

/// A table; cells of columns from `numeric` on are numbers.
fn table(out: &mut String, head: &[&str], numeric: usize, rows: &[Vec<String>]) {
    if rows.is_empty() {
        return;
    }
    let class = |n: usize| if n >= numeric { " class=\"n\"" } else { "" };
    out.push_str("<table>");
    if !head.is_empty() {
        out.push_str("<tr>");
        for (n, cell) in head.iter().enumerate() {
            let _ = write!(out, "<th{}>{}</th>", class(n), escape(cell));
        }
        out.push_str("</tr>");
    }
    for row in rows {
        out.push_str("<tr>");
        for (n, cell) in row.iter().enumerate() {
            let _ = write!(out, "<td{}>{}</td>", class(n), escape(cell));
        }
        out.push_str("</tr>");
    }
    out.push_str("</table>");
}

fn troubles(out: &mut String, report: &Report) {
    let kinds =
        [("Void", &report.void), ("Not clean", &report.problems), ("Remark", &report.remarks)];
    let mut rows: Vec<Vec<String>> = kinds
        .iter()
        .flat_map(|(kind, list)| list.iter().map(|why| vec![(*kind).to_owned(), why.clone()]))
        .collect();
    let faults = report.faults.iter();
    rows.extend(faults.map(|(what, n)| vec!["Fault".to_owned(), format!("{n} × {what}")]));
    table(out, &[], usize::MAX, &rows);
}

fn assertions(out: &mut String, report: &Report) {
    if report.verdicts.is_empty() {
        return;
    }
    out.push_str("<h2>Assertions</h2>");
    let row = |v: &crate::assertion::Verdict| {
        let held = if v.held { "held" } else { "NOT HELD" };
        vec![v.assertion.clone(), v.measured.clone(), held.to_owned()]
    };
    let rows: Vec<_> = report.verdicts.iter().map(row).collect();
    table(out, &["claim", "measured", ""], usize::MAX, &rows);
}

fn numbers(out: &mut String, report: &Report) {
    out.push_str("<h2>Numbers</h2>");
    let n = |n: u64| grouped(n as f64);
    let c = &report.counters;
    let mut rows = vec![
        vec!["clients".to_owned(), n(report.clients)],
        vec!["connections ready".to_owned(), n(c.ready)],
        vec!["connected in".to_owned(), format!("{:.2} s", report.connect_s)],
        vec!["failed, broken".to_owned(), format!("{}, {}", n(c.failed), n(c.broken))],
    ];
    if c.sent + c.delivered > 0 {
        rows.push(vec![
            "messages sent, delivered".to_owned(),
            format!("{}, {}", n(c.sent), n(c.delivered)),
        ]);
    }
    if let Some(a) = &report.account {
        let text = format!(
            "{} received, {} lost, {} duplicates, {} out of order",
            n(a.received),
            n(a.lost),
            n(a.duplicates),
            n(a.out_of_order)
        );
        rows.push(vec!["checked exactly".to_owned(), text]);
    }
    if let Some(t) = &report.traffic {
        let rate = |n: u64| grouped(n as f64 / t.seconds.max(1e-9));
        let text = format!("{}/s, {}/s over {:.2} s", rate(t.sent), rate(t.delivered), t.seconds);
        rows.push(vec!["sent, delivered".to_owned(), text]);
        if let Some(ns) = t.broker_ns_per_message() {
            rows.push(vec!["broker CPU per message".to_owned(), show_ns(ns)]);
        }
        let served = t.delivered.max(t.sent).max(1) as f64;
        let each = t.generator_cpu_ns as f64 / served;
        rows.push(vec!["generator CPU per message".to_owned(), show_ns(each)]);
    }
    rows.push(vec!["seed".to_owned(), report.seed.to_string()]);
    table(out, &[], 1, &rows);
}

fn latencies(out: &mut String, report: &Report) {
    let measured: Vec<(&String, &Latency)> =
        report.latencies.iter().filter(|(_, l)| l.corrected.count > 0).collect();
    if measured.is_empty() {
        return;
    }
    out.push_str("<h2>Latency</h2>");
    let mut rows = Vec::new();
    for (name, latency) in &measured {
        let raw = latency.raw.filter(|raw| *raw != latency.corrected);
        let kinds = [(String::new(), Some(latency.corrected)), (" (raw)".to_owned(), raw)];
        for (kind, summary) in kinds {
            let Some(s) = summary else { continue };
            let mut row = vec![format!("{name}{kind}"), grouped(s.count as f64)];
            row.extend([s.p50, s.p90, s.p99, s.p999, s.p9999, s.max].map(|v| show_ns(v as f64)));
            rows.push(row);
        }
    }
    let head = ["", "count", "p50", "p90", "p99", "p99.9", "p99.99", "max"];
    table(out, &head, 1, &rows);
    let mut series = Vec::new();
    for (name, latency) in &measured {
        series.push(quantiles((*name).clone(), &latency.histogram, false));
        if !latency.raw_histogram.is_empty() {
            series.push(quantiles(format!("{name} (raw)"), &latency.raw_histogram, true));
        }
    }
    chart(
        out,
        Chart {
            title: "Latency by percentile",
            x_label: "percentile",
            x: Scale::Nines,
            y: Scale::Log,
            y_text: show_ns,
            series,
            marks: Vec::new(),
        },
    );
    out.push_str(
        "<p class=\"dim\">Latency counts from when an operation was due (corrected for coordinated \
         omission). Raw counts from when it was sent.</p>",
    );
}

/// The line of a histogram: at each value, the share of values up to it.
fn quantiles(name: String, histogram: &[(u64, u64)], dashed: bool) -> Series {
    let total: u64 = histogram.iter().map(|(_, count)| count).sum();
    let mut below = 0;
    let mut points = Vec::with_capacity(histogram.len() + 1);
    for &(value, count) in histogram {
        // From the share below the value to the share up to it: a step.
        points.push((below as f64 / total as f64, value as f64));
        below += count;
    }
    if let Some(&(value, _)) = histogram.last() {
        // The last value is the largest: its percentile is as far as the count lets one tell.
        points.push((1.0 - 1.0 / total.max(2) as f64, value as f64));
    }
    points.sort_by(|a, b| a.0.total_cmp(&b.0));
    Series { name, points, dashed }
}

fn chart(out: &mut String, chart: Chart<'_>) {
    if let Some(svg) = chart.svg() {
        out.push_str(&svg);
    }
}

fn over_time(out: &mut String, report: &Report) {
    if report.series.len() < 2 {
        return;
    }
    out.push_str("<h2>Over time</h2>");
    let marks: Vec<(f64, String)> =
        report.stages.iter().map(|s| (s.start_s, s.name.clone())).collect();
    let line = |name: &str, of: &dyn Fn(&Row) -> Option<f64>| Series {
        name: name.to_owned(),
        points: report.series.iter().filter_map(|r| Some((r.at_s, of(r)?))).collect(),
        dashed: false,
    };
    let some = |value: u64| (value > 0).then_some(value as f64);
    let draw = |out: &mut String, title, y, y_text, series: Vec<Series>| {
        let drawn =
            series.into_iter().filter(|s: &Series| s.points.iter().any(|p| p.1 > 0.0)).collect();
        let (x_label, x, marks) = ("seconds", Scale::Linear, marks.clone());
        chart(out, Chart { title, x_label, x, y, y_text, series: drawn, marks });
    };
    draw(
        out,
        "Latency in each interval",
        Scale::Log,
        show_ns,
        vec![
            line("p50", &|r| some(r.p50)),
            line("p99", &|r| some(r.p99)),
            line("p99.9", &|r| some(r.p999)),
            line("max", &|r| some(r.max)),
        ],
    );
    draw(
        out,
        "Events a second",
        Scale::Linear,
        grouped,
        vec![
            line("sent", &|r| Some(r.sent_per_s)),
            line("delivered", &|r| Some(r.delivered_per_s)),
            line("connections ready", &|r| Some(r.ready_per_s)),
        ],
    );
    draw(
        out,
        "Connections",
        Scale::Linear,
        grouped,
        vec![line("live", &|r| Some(r.live as f64)), line("errors", &|r| Some(r.errors as f64))],
    );
    draw(
        out,
        "Memory of the broker",
        Scale::Linear,
        show_bytes,
        vec![line("resident", &|r| r.broker_rss.map(|b| b as f64))],
    );
    draw(
        out,
        "CPU, share of one core",
        Scale::Linear,
        |share| format!("{:.0} %", share * 100.0),
        vec![line("broker", &|r| r.broker_cpu), line("generator", &|r| Some(r.generator_cpu))],
    );
}

fn stages(out: &mut String, report: &Report) {
    let row = |s: &super::StageReport| {
        let c = &s.counters;
        let p99 = ["delivery", "ack", "connect"]
            .iter()
            .filter_map(|name| s.latencies.get(*name).filter(|l| l.corrected.count > 0))
            .map(|l| show_ns(l.corrected.p99 as f64))
            .next();
        let cpu = s.broker_before.as_ref().zip(s.broker_after.as_ref()).map(|(before, after)| {
            format!("{:.3} s", after.cpu_ns.saturating_sub(before.cpu_ns) as f64 / 1e9)
        });
        vec![
            s.name.clone(),
            format!("{:.2} s", s.start_s),
            format!("{:.2} s", s.seconds),
            grouped(c.ready as f64),
            grouped(c.sent as f64),
            grouped(c.delivered as f64),
            grouped((c.failed + c.broken) as f64),
            p99.unwrap_or_default(),
            cpu.unwrap_or_default(),
        ]
    };
    let rows: Vec<_> = report.stages.iter().map(row).collect();
    if !rows.is_empty() {
        out.push_str("<h2>Stages</h2>");
    }
    let head =
        ["stage", "start", "took", "ready", "sent", "delivered", "errors", "p99", "broker CPU"];
    table(out, &head, 1, &rows);
}

fn broker(out: &mut String, report: &Report) {
    let row = |m: &super::Mark| {
        let s = &m.sample;
        vec![
            m.moment.clone(),
            format!("{:.3} s", s.cpu_ns as f64 / 1e9),
            format!("{:.3} s", s.system_ns as f64 / 1e9),
            show_bytes(s.rss as f64),
            show_bytes(s.pss as f64),
            show_bytes(s.anonymous as f64),
            format!("{}, {}", s.voluntary_switches, s.involuntary_switches),
            s.threads.to_string(),
            s.descriptors.map_or_else(|| "?".to_owned(), |n| n.to_string()),
        ]
    };
    let rows: Vec<_> = report.broker.iter().map(row).collect();
    if !rows.is_empty() {
        out.push_str("<h2>Broker</h2>");
    }
    let head = [
        "moment",
        "CPU",
        "of it system",
        "resident",
        "PSS",
        "anonymous",
        "switches (own, forced)",
        "threads",
        "descriptors",
    ];
    table(out, &head, 1, &rows);
}

fn environment(out: &mut String, report: &Report) {
    let rows: Vec<_> =
        report.environment.rows().into_iter().map(|(name, value)| vec![name, value]).collect();
    out.push_str("<h2>Environment</h2><details open><summary>What must be equal before two reports compare</summary>");
    table(out, &[], usize::MAX, &rows);
    out.push_str("</details>");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::assertion::Verdict;
    use crate::report::{StageReport, Summary};

    fn report() -> Report {
        let corrected = Summary { count: 4, p50: 2000, p99: 9000, max: 9000, ..Summary::default() };
        let histogram = vec![(1000, 1), (2000, 2), (9000, 1)];
        let delivery = Latency {
            corrected,
            histogram: histogram.clone(),
            raw_histogram: histogram,
            raw: None,
        };
        let row = |n: u32| Row {
            at_s: f64::from(n) * 0.25,
            delivered_per_s: 100.0,
            p50: 2000,
            p99: 9000,
            broker_rss: Some(5 << 20),
            ..Row::default()
        };
        let mut report = Report { name: "p<2>p".to_owned(), ..Report::default() };
        report.latencies.insert("delivery".to_owned(), delivery);
        report.series = (0..20).map(row).collect();
        report.stages = vec![StageReport { name: "traffic".to_owned(), ..StageReport::default() }];
        report.verdicts = vec![Verdict {
            assertion: "delivery.p99 < 5ms".to_owned(),
            held: true,
            measured: "9 µs".to_owned(),
        }];
        report
    }

    #[test]
    fn the_page_has_tables_and_plots_and_asks_nobody_for_anything() {
        let page = page(&report());
        for text in [
            "p&lt;2&gt;p",
            "delivery.p99 &lt; 5ms",
            "Latency by percentile",
            "Events a second",
            "Memory of the broker",
            "Environment",
            "class=\"badge good\"",
        ] {
            assert!(page.contains(text), "{text} is missing");
        }
        for foreign in ["http:", "https:", "<script", "src=", "href=", "url(", "@import"] {
            assert!(!page.contains(foreign), "{foreign} is there");
        }
        assert!(!page.contains("NaN"));
    }

    #[test]
    fn a_void_run_and_a_broken_claim_are_on_the_badge() {
        let mut report = report();
        report.verdicts[0].held = false;
        assert!(page(&report).contains("badge bad"));
        report.void.push("starved".to_owned());
        assert!(page(&report).contains("badge void"));
    }

    #[test]
    fn an_empty_report_is_a_page_too() {
        let page = page(&Report::default());
        assert!(page.ends_with("</html>\n") && !page.contains("NaN"));
    }

    #[test]
    fn the_line_of_a_histogram_climbs_by_its_counts() {
        let series = quantiles("d".to_owned(), &[(10, 5), (20, 4), (90, 1)], false);
        assert_eq!(series.points, [(0.0, 10.0), (0.5, 20.0), (0.9, 90.0), (0.9, 90.0)]);
    }
}
