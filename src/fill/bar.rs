//! The progress bar of a copy.

use indicatif::ProgressBar;

use crate::base::progress::Progress;
use crate::base::range::{Range, index};
use crate::judge::Sighting;
use crate::kafka::reader::Reader;

/// First counts the offsets up to the window's end, then all of them. Behind the window, a run only looks for records
/// that came late, which is far faster than copying. So each part has a time left of its own.
pub(super) struct CopyBar {
    bar: ProgressBar,
    source: String,
    /// About where the window ends in each partition.
    window_ends: Vec<i64>,
    /// How many offsets lie in the window, and in all.
    in_window: u64,
    all: u64,
    is_behind: bool,
}

impl CopyBar {
    pub(super) fn new(progress: Progress, source: &str, ranges: &[Range], window_ends: Vec<i64>) -> CopyBar {
        let clipped = |range: &Range| Range {
            end: window_ends.get(index(range.partition)).map_or(range.end, |end| range.end.min(*end)),
            ..*range
        };
        let clipped: Vec<Range> = ranges.iter().map(clipped).collect();
        CopyBar {
            bar: progress.over(&format!("copying {source}"), &clipped),
            source: source.to_owned(),
            in_window: clipped.iter().map(Range::len).sum(),
            all: ranges.iter().map(Range::len).sum(),
            window_ends,
            is_behind: false,
        }
    }

    /// Moves the bar to the reader's positions.
    pub(super) fn move_to(&mut self, reader: &Reader<Sighting>) {
        let in_window = if self.is_behind { self.in_window } else { reader.passed_below(&self.window_ends) };
        if in_window < self.in_window {
            return self.bar.set_position(in_window);
        }
        if !self.is_behind && self.in_window < self.all {
            self.bar.set_message(format!("late records of {}", self.source));
            self.bar.set_length(self.all);
            self.bar.set_position(reader.passed());
            self.bar.reset_eta();
        }
        self.is_behind = true;
        self.bar.set_position(reader.passed());
    }

    pub(super) fn end(self) {
        self.bar.finish_and_clear();
    }
}
