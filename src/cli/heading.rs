//! The headings of `--help`. clap prints them in the order in which a command's options first use them.

pub(super) const TOPICS: &str = "Topics";
pub(super) const WINDOW: &str = "Window";
pub(super) const IDENTITY: &str = "Identity";
pub(super) const FOLLOW: &str = "Follow";
pub(super) const SAFETY: &str = "Safety";
pub(super) const SPEED: &str = "Speed";
#[cfg(feature = "lab")]
pub(super) const ROUNDS: &str = "Rounds";
pub(super) const OUTPUT: &str = "Output";
pub(super) const CONNECTION: &str = "Connection";

/// The display order of options that come after the others under their heading.
pub(super) const LATE: usize = 100;
