//! Stacks with how often each was found, and the flame graph of them.

use std::collections::BTreeMap;

use inferno::flamegraph::color::{BasicPalette, MultiPalette, Palette};
use inferno::flamegraph::{self, Options};

/// Different stacks, outermost frame first: the thread's name, then its functions.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Folded(BTreeMap<Vec<String>, u64>);

/// How a flame graph is labelled.
#[derive(Debug)]
pub(super) struct Drawing {
    /// Above it.
    pub title: String,
    /// Below that.
    pub subtitle: String,
    /// What the numbers count.
    pub unit: &'static str,
    /// Whether it shows waiting.
    pub off_cpu: bool,
}

impl Folded {
    /// Adds a stack, outermost frame first.
    pub(super) fn add(&mut self, frames: Vec<String>, n: u64) {
        *self.0.entry(frames).or_default() += n;
    }

    /// Whether nothing was found.
    pub(super) fn is_empty(&self) -> bool {
        self.total() == 0
    }

    /// Sum of all.
    pub(super) fn total(&self) -> u64 {
        self.0.values().sum()
    }

    /// Sums by outermost frame, largest first.
    pub(super) fn threads(&self) -> Vec<(String, u64)> {
        let mut sums: BTreeMap<&str, u64> = BTreeMap::new();
        for (frames, n) in &self.0 {
            *sums.entry(frames.first().map_or("", String::as_str)).or_default() += n;
        }
        let mut sums: Vec<_> = sums.into_iter().map(|(t, n)| (t.to_owned(), n)).collect();
        sums.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
        sums
    }

    /// One stack a line: frames, outermost first, separated by semicolons; a blank; the number.
    pub(super) fn to_text(&self) -> String {
        // A semicolon within a name (as in `[u8; 4]`) would be taken for a separator.
        let plain = |frame: &String| frame.replace(';', ":").replace(['\n', '\r'], " ");
        let line = |(frames, n): (&Vec<String>, &u64)| {
            format!("{} {n}\n", frames.iter().map(plain).collect::<Vec<_>>().join(";"))
        };
        self.0.iter().filter(|(_, n)| **n > 0).map(line).collect()
    }

    /// The flame graph.
    ///
    /// # Errors
    /// When there is nothing to draw.
    pub(super) fn svg(&self, drawing: &Drawing) -> Result<Vec<u8>, String> {
        let mut options = Options::default();
        options.title.clone_from(&drawing.title);
        options.subtitle = Some(drawing.subtitle.clone());
        drawing.unit.clone_into(&mut options.count_name);
        options.colors = if drawing.off_cpu {
            Palette::Basic(BasicPalette::Io)
        } else {
            Palette::Multi(MultiPalette::Rust)
        };
        let (text, mut svg) = (self.to_text(), Vec::new());
        flamegraph::from_lines(&mut options, text.lines(), &mut svg)
            .map_err(|e| format!("cannot draw the flame graph: {e}"))?;
        Ok(svg)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folded() -> Folded {
        let mut folded = Folded::default();
        let stack = |frames: &[&str]| frames.iter().map(|f| (*f).to_owned()).collect::<Vec<_>>();
        folded.add(stack(&["shard-0", "run", "turn"]), 3);
        folded.add(stack(&["shard-1", "run", "copy::<[u8; 4]>"]), 5);
        folded.add(stack(&["shard-0", "run", "turn"]), 4);
        folded
    }

    #[test]
    fn equal_stacks_are_added_and_semicolons_in_names_do_not_split_frames() {
        let folded = folded();
        assert_eq!(folded.to_text(), "shard-0;run;turn 7\nshard-1;run;copy::<[u8: 4]> 5\n");
        assert_eq!(folded.threads(), [("shard-0".to_owned(), 7), ("shard-1".to_owned(), 5)]);
        assert_eq!((folded.total(), folded.is_empty()), (12, false));
    }

    #[test]
    fn the_flame_graph_is_an_svg_with_all_frames() {
        let drawing = Drawing {
            title: "on & off".into(),
            subtitle: "s".into(),
            unit: "samples",
            off_cpu: false,
        };
        let svg = String::from_utf8(folded().svg(&drawing).unwrap()).unwrap();
        assert!(svg.starts_with("<?xml") && svg.trim_end().ends_with("</svg>"), "{svg}");
        for text in
            ["on &amp; off", "shard-0", "turn (7 samples", "copy::&lt;[u8: 4]&gt; (5 samples"]
        {
            assert!(svg.contains(text), "{text} is missing");
        }
        assert!(Folded::default().svg(&drawing).is_err());
    }
}
