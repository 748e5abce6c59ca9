//! Draws a small chart of records over time, for the terminal.

use std::fmt;

use crate::base::time::rfc3339;

/// The timestamps of a topic's committed records, counted in equal buckets.
#[derive(Debug)]
pub(crate) struct Histogram {
    topic: String,
    /// The start of the first bucket and the end of the last one, in milliseconds since the epoch.
    span: (i64, i64),
    buckets: Vec<u64>,
    /// The count that fills a column to the top.
    full: u64,
}

const COLUMNS: usize = 81;
const ROWS: u64 = 3;

impl Histogram {
    /// Counts `timestamps` over `span`.
    pub(crate) fn new(topic: &str, timestamps: &[i64], span: (i64, i64)) -> Histogram {
        let mut buckets = vec![0; COLUMNS];
        let length = i128::from(span.1 - span.0).max(1);
        for timestamp in timestamps.iter().filter(|t| (span.0..span.1).contains(*t)) {
            let bucket = i128::from(timestamp - span.0) * COLUMNS as i128 / length;
            buckets[usize::try_from(bucket).unwrap_or(0).min(COLUMNS - 1)] += 1;
        }
        let full = buckets.iter().max().copied().unwrap_or(0).max(1);
        Histogram { topic: topic.to_owned(), span, buckets, full }
    }

    /// Draws this histogram to the scale of another one.
    pub(crate) fn scaled_as(self, other: &Histogram) -> Histogram {
        Histogram { full: other.full, ..self }
    }
}

impl fmt::Display for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} ({} records)", self.topic, self.buckets.iter().sum::<u64>())?;
        for row in (0..ROWS).rev() {
            let line: String = self
                .buckets
                .iter()
                .map(|count| {
                    // Round up, so that every bucket with a record shows.
                    let eighths = (count * ROWS * 8).div_ceil(self.full);
                    let level = eighths.saturating_sub(row * 8).min(8);
                    [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'][usize::try_from(level).unwrap_or(0)]
                })
                .collect();
            writeln!(f, "  {line}")?;
        }
        let label = |millis: i64| rfc3339(millis).get(11..16).unwrap_or("").to_owned();
        let (start, end) = self.span;
        let middle = COLUMNS / 2 - 3;
        write!(
            f,
            "  {:<w$}{:<v$}{}",
            label(start),
            label(start + (end - start) / 2),
            label(end),
            w = middle,
            v = COLUMNS - middle - 5
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hole_shows() {
        let hour = 3_600_000;
        let times: Vec<i64> =
            (0..8100).map(|n| n * hour / 1000).filter(|t| !(hour..3 * hour).contains(t)).collect();
        let chart = Histogram::new("t", &times, (0, 8100 * hour / 1000)).to_string();
        let bottom = chart.lines().nth(3).expect("three rows");
        assert!(bottom.contains("          ") && bottom.contains('█'), "{chart}");
        assert_eq!(chart.lines().count(), 5);
    }

    #[test]
    fn nothing_is_drawn_of_nothing() {
        assert!(Histogram::new("t", &[], (0, 0)).to_string().contains("(0 records)"));
    }
}
