//! Draws progress bars on a terminal, and nothing elsewhere.

use std::fmt::Write;
use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{HumanCount, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use crate::base::range::Range;

/// Makes the bars of one run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Progress {
    pub quiet: bool,
}

impl Progress {
    /// A bar over `total` records (offsets, bytes, …) on stderr. It is hidden if stderr is not a terminal.
    pub fn bar(&self, what: &str, total: u64) -> ProgressBar {
        let target = if self.quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let bar = ProgressBar::with_draw_target(Some(total), target).with_message(what.to_owned());
        // Indicatif would print the speed with four decimals, and take `:.0` for a colour.
        let style = ProgressStyle::with_template(
            "{msg:<24} [{bar:32}] {human_pos}/{human_len}  {speed}/s  {eta} left",
        );
        let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
        bar.set_style(style.with_key("speed", speed).progress_chars("=> "));
        bar.enable_steady_tick(Duration::from_millis(200));
        bar
    }

    /// Whether somebody can see the bars.
    pub(crate) fn is_shown(&self) -> bool {
        !self.quiet && std::io::stderr().is_terminal()
    }

    /// A bar over the positions of `ranges`.
    pub(crate) fn over(&self, what: &str, ranges: &[Range]) -> ProgressBar {
        self.bar(what, ranges.iter().map(Range::len).sum())
    }

    /// A line that says what goes on. It is hidden if stderr is not a terminal.
    pub fn line(&self) -> ProgressBar {
        let target = if self.quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let line = ProgressBar::with_draw_target(None, target);
        line.set_style(
            ProgressStyle::with_template("{wide_msg}").unwrap_or_else(|_| ProgressStyle::default_bar()),
        );
        line
    }
}

fn speed(state: &ProgressState, to: &mut dyn Write) {
    // A count is at most a few times 10^9 here, so nothing is lost.
    let _ = write!(to, "{}", HumanCount(state.per_sec().round() as u64));
}
