//! Draws a small chart of records over time, for the terminal.

use std::fmt;

use crate::base::zone::{Tz, local};

/// The timestamps of a topic's committed records, counted in equal buckets.
#[derive(Debug)]
pub(crate) struct Histogram {
    topic: String,
    /// The start of the first bucket and the end of the last one, in milliseconds since the epoch.
    span: (i64, i64),
    /// The zone of the labels.
    zone: Tz,
    buckets: Vec<u64>,
    /// The count that fills a column to the top.
    full: u64,
}

/// The columns if stdout is no terminal.
const COLUMNS: usize = 81;
/// The fewest columns, in which the labels have room, and the most.
const WIDTHS: (usize, usize) = (54, 200);
const ROWS: u64 = 3;

/// How many columns a chart may have on this terminal, beside its indentation.
fn columns() -> usize {
    let width = terminal_size::terminal_size_of(std::io::stdout()).map(|(width, _)| usize::from(width.0));
    width.map_or(COLUMNS, |width| width.saturating_sub(INDENTATION).clamp(WIDTHS.0, WIDTHS.1))
}

const INDENTATION: usize = 2;

impl Histogram {
    /// Counts records over `span` by their timestamps, each with a number of records. The labels are in `zone`.
    pub(crate) fn new(
        topic: &str,
        times: impl IntoIterator<Item = (i64, u64)>,
        span: (i64, i64),
        zone: Tz,
    ) -> Histogram {
        Histogram::wide(columns(), topic, times, span, zone)
    }

    fn wide(
        columns: usize,
        topic: &str,
        times: impl IntoIterator<Item = (i64, u64)>,
        span: (i64, i64),
        zone: Tz,
    ) -> Histogram {
        let mut buckets = vec![0; columns];
        let length = i128::from(span.1 - span.0).max(1);
        for (time, records) in times.into_iter().filter(|(time, _)| (span.0..span.1).contains(time)) {
            let bucket = i128::from(time - span.0) * columns as i128 / length;
            buckets[usize::try_from(bucket).unwrap_or(0).min(columns - 1)] += records;
        }
        let full = buckets.iter().max().copied().unwrap_or(0).max(1);
        Histogram { topic: topic.to_owned(), span, zone, buckets, full }
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
        let (start, end) = self.span;
        let middle = start + (end - start) / 2;
        let label = |millis: i64| {
            local(self.zone, millis).map_or(String::new(), |at| at.format("%Y-%m-%d %H:%M").to_string())
        };
        let end = format!("{} {}", label(end), self.zone);
        let room = self.buckets.len().saturating_sub(end.chars().count());
        let half = (self.buckets.len() / 2).saturating_sub(8);
        let middle = if half + 17 <= room { label(middle) } else { String::new() };
        write!(f, "  {:<half$}{middle:<rest$}{end}", label(start), rest = room.saturating_sub(half))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hole_shows() {
        let hour = 3_600_000;
        let times = (0..8100).map(|n| n * hour / 1000).filter(|t| !(hour..3 * hour).contains(t));
        let times = times.map(|time| (time, 1));
        let chart = Histogram::wide(81, "t", times, (0, 8100 * hour / 1000), Tz::UTC).to_string();
        let bottom = chart.lines().nth(3).expect("three rows");
        assert!(bottom.contains("          ") && bottom.contains('█'), "{chart}");
        assert_eq!(chart.lines().count(), 5);
    }

    #[test]
    fn nothing_is_drawn_of_nothing() {
        assert!(Histogram::new("t", [], (0, 0), Tz::UTC).to_string().contains("(0 records)"));
    }

    #[rstest::rstest]
    #[case(54, Tz::UTC, "  1970-01-01 00:00                  1970-01-02 00:00 UTC")]
    #[case(
        81,
        Tz::Europe__Berlin,
        "  1970-01-01 01:00                1970-01-01 13:00   1970-01-02 01:00 Europe/Berlin"
    )]
    fn labels_have_a_date_and_a_zone(#[case] columns: usize, #[case] zone: Tz, #[case] wanted: &str) {
        let chart = Histogram::wide(columns, "t", [], (0, 86_400_000), zone).to_string();
        let labels = chart.lines().last().expect("labels");
        assert_eq!(labels, wanted);
        assert_eq!(labels.chars().count(), columns + 2);
    }
}
