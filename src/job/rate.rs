//! Limits how fast a run writes records, because a fill competes with live traffic. Pure.

use std::str::FromStr;
use std::time::{Duration, Instant};

/// How much a run may write in a second, on average.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum MaxRate {
    Records(f64),
    /// Bytes of keys and values.
    Bytes(f64),
}

impl FromStr for MaxRate {
    type Err = String;

    fn from_str(text: &str) -> Result<MaxRate, String> {
        let rate = || {
            let amount = text.trim().strip_suffix("/s")?.trim_end();
            let unit_at = amount.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(amount.len());
            let (number, unit) = amount.split_at(unit_at);
            let number: f64 = number.parse().ok().filter(|number| *number > 0.0)?;
            let bytes = match unit.trim_start().to_ascii_lowercase().as_str() {
                "" => return Some(MaxRate::Records(number)),
                "b" => 1.0,
                "kb" => 1e3,
                "mb" => 1e6,
                "gb" => 1e9,
                "kib" => 1024.0,
                "mib" => 1024.0 * 1024.0,
                "gib" => 1024.0 * 1024.0 * 1024.0,
                _ => return None,
            };
            Some(MaxRate::Bytes(number * bytes))
        };
        rate().ok_or_else(|| "not a rate; write records as 5000/s, or bytes as 10MB/s".to_owned())
    }
}

/// Tells the writer when to wait.
#[derive(Debug)]
pub(crate) struct Throttle {
    rate: MaxRate,
    /// When the rate allows everything that was written so far.
    due: Instant,
}

/// How far the writer may be ahead of the rate. Shorter sleeps cost more than they are worth.
const SLACK: Duration = Duration::from_millis(5);
/// The longest single wait, so that the writer can check for an interrupt, or commit, in between.
const STEP: Duration = Duration::from_millis(50);
/// The most seconds that one record may take: a tiny rate must not overflow the clock.
const LONGEST: f64 = 86_400.0;

impl Throttle {
    pub(crate) fn new(rate: MaxRate, now: Instant) -> Throttle {
        Throttle { rate, due: now }
    }

    /// Counts a written record of `bytes`.
    pub(crate) fn take(&mut self, bytes: usize, now: Instant) {
        #[expect(clippy::cast_precision_loss, reason = "of a record's size")]
        let seconds = match self.rate {
            MaxRate::Records(rate) => 1.0 / rate,
            MaxRate::Bytes(rate) => bytes as f64 / rate,
        };
        // Unused time is lost, except for the few milliseconds by which a sleep was too long.
        let unused = now.checked_sub(SLACK).unwrap_or(now);
        self.due = self.due.max(unused) + Duration::from_secs_f64(seconds.min(LONGEST));
    }

    /// How long to wait before asking again; `None` if the next record may be written now.
    pub(crate) fn wait(&self, now: Instant) -> Option<Duration> {
        let ahead = self.due.saturating_duration_since(now);
        (ahead > SLACK).then(|| ahead.min(STEP))
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("5000/s", MaxRate::Records(5000.0))]
    #[case("0.5/s", MaxRate::Records(0.5))]
    #[case("10MB/s", MaxRate::Bytes(1e7))]
    #[case("1.5 KiB/s", MaxRate::Bytes(1536.0))]
    fn reads(#[case] text: &str, #[case] rate: MaxRate) {
        assert_eq!(text.parse(), Ok(rate));
    }

    #[rstest]
    #[case("5000")]
    #[case("0/s")]
    #[case("-1/s")]
    #[case("/s")]
    #[case("MB/s")]
    #[case("1.2.3/s")]
    #[case("10 parsec/s")]
    #[case("5/m")]
    fn refuses(#[case] text: &str) {
        assert!(text.parse::<MaxRate>().is_err());
    }

    /// Writes records of 100 bytes for ten seconds of a simulated clock. Each wait moves the clock on.
    fn written_in_ten_seconds(rate: &str, oversleep: Duration) -> usize {
        let begun = Instant::now();
        let mut now = begun;
        let mut throttle = Throttle::new(rate.parse().expect("a rate"), now);
        let mut written = 0;
        while now < begun + Duration::from_secs(10) {
            throttle.take(100, now);
            written += 1;
            while let Some(wait) = throttle.wait(now) {
                assert!(wait <= STEP);
                now += wait + oversleep;
            }
        }
        written
    }

    #[rstest]
    #[case("1000/s", 0, 10_000)]
    #[case("1000/s", 3, 10_000)]
    #[case("10/s", 3, 100)]
    #[case("100kB/s", 1, 10_000)]
    fn keeps_to_the_rate(#[case] rate: &str, #[case] oversleep: u64, #[case] wanted: usize) {
        let written = written_in_ten_seconds(rate, Duration::from_millis(oversleep));
        assert!(written.abs_diff(wanted) <= wanted / 50 + 1, "{written}");
    }

    #[test]
    fn an_idle_time_is_no_credit() {
        let begun = Instant::now();
        let mut throttle = Throttle::new(MaxRate::Records(1.0), begun);
        let later = begun + Duration::from_secs(3600);
        throttle.take(1, later);
        assert!(throttle.wait(later).is_some());
    }

    #[test]
    fn a_record_that_takes_ages_is_waited_for_in_steps() {
        let now = Instant::now();
        let mut throttle = Throttle::new(MaxRate::Bytes(1e-300), now);
        throttle.take(usize::MAX, now);
        assert_eq!(throttle.wait(now), Some(STEP));
    }
}
