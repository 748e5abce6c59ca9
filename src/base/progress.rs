//! Draws progress bars on a terminal, and nothing elsewhere.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

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
        let style = ProgressStyle::with_template(
            "{msg:<24} [{bar:32}] {human_pos}/{human_len}  {per_sec:.0}  {eta} left",
        );
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> "));
        bar.enable_steady_tick(Duration::from_millis(200));
        bar
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
