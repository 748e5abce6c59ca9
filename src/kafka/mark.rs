//! The metadata of a committed offset. It names the job and describes the logs at the commit, so that a later run can
//! tell whether the commit still holds. Pure.
//!
//! A mark says that everything before its position is done. A run trusts it only while nothing can have undone that: no
//! partition has changed its leader (within one leader epoch a log is only appended to, KIP-101), no log is shorter,
//! and no log of the target begins after the window's first record there. After a change of leader, a log may have been
//! cut and have grown again, so the run scans the target anew.

use std::fmt;

use chrono::DateTime;
use sha2::{Digest, Sha256};

use crate::base::range::{Range, index};
use crate::base::time::rfc3339;
use crate::kafka::partition::Placement;
use crate::kafka::position::Position;
use crate::kafka::watermarks::Watermarks;

/// The longest metadata, in bytes. A broker accepts `offset.metadata.max.bytes`, by default 4096.
const LONGEST: usize = 3500;
/// The longest metadata of all marks of one commit, in bytes. The coordinator writes them as one batch, which
/// `max.message.bytes` limits, by default to 1 MiB.
const LONGEST_COMMIT: usize = 400_000;

/// A committed offset as the group holds it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Committed {
    pub position: i64,
    pub metadata: String,
}

impl From<&Position> for Committed {
    fn from(position: &Position) -> Committed {
        Committed { position: position.position, metadata: position.metadata.clone() }
    }
}

/// A hash of everything on which the meaning of "everything before this offset is done" depends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fingerprint(String);

impl Fingerprint {
    pub(crate) fn of(job: &[String]) -> Fingerprint {
        Fingerprint(hash(job))
    }

    /// Whether the metadata belongs to the same job. The rest of it does not matter.
    pub(crate) fn is_of(&self, metadata: &str) -> bool {
        Fingerprint::split(metadata).is_some_and(|(job, _)| job == *self)
    }

    /// Splits metadata of this format into the job's fingerprint and the rest.
    pub(crate) fn split(metadata: &str) -> Option<(Fingerprint, &str)> {
        let (job, rest) = metadata.strip_prefix(PREFIX)?.split_once(' ')?;
        Some((Fingerprint(job.to_owned()), rest))
    }
}

/// The program, and the version of the format.
const PREFIX: &str = "replicator/2 ";

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", self.0)
    }
}

/// Hashes each part after its length, so that different parts never give the same bytes.
fn hash(parts: &[String]) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part);
    }
    hasher.finalize().iter().take(12).map(|byte| format!("{byte:02x}")).collect()
}

/// The state of a topic's partitions at a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Evidence {
    Each(Vec<Log>),
    /// Sums, if a broker would not accept the metadata of so many partitions.
    Sums {
        /// A hash of the leader epochs. None of them may change.
        epochs: String,
        /// The sum of the low watermarks.
        lows: i64,
        /// How far that sum may rise. No single low watermark rises further than the sum, and each partition has at
        /// least this much room before its first record that matters.
        headroom: i64,
    },
}

/// A partition's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Log {
    /// The offset of the first record that matters.
    pub first: i64,
    /// The offset after the last record that was there.
    pub end: i64,
    /// The leader epoch. A negative one is unknown, and proves nothing.
    pub epoch: i32,
}

impl Log {
    /// Whether all of its records that matter must still be there.
    pub(crate) fn is_whole(&self, now: &Watermarks) -> bool {
        self.epoch >= 0 && now.epoch == self.epoch && now.low <= self.first && self.end <= now.high
    }
}

impl Evidence {
    /// The evidence of logs whose watermarks were `found`, and which have grown to `ends` since, if nobody cut them
    /// meanwhile. Records before `first` do not matter. One commit holds this evidence `marks` times, once in each
    /// mark.
    pub(crate) fn new(first: &[i64], found: &[Watermarks], ends: &[i64], marks: usize) -> Evidence {
        let logs = first.iter().zip(found).zip(ends);
        let each = Evidence::Each(
            logs.map(|((first, found), end)| Log { first: *first, end: *end, epoch: found.epoch }).collect(),
        );
        let length = each.to_string().len();
        if length <= LONGEST && length.saturating_mul(marks) <= LONGEST_COMMIT {
            return each;
        }
        let room = first.iter().zip(found).map(|(first, found)| first - found.low);
        Evidence::Sums {
            epochs: hash_of_epochs(found),
            lows: sum_of_lows(found),
            headroom: room.min().unwrap_or(0).max(0),
        }
    }

    /// Whether all records that matter must still be there.
    pub(crate) fn holds(&self, now: &[Watermarks]) -> bool {
        match self {
            Evidence::Each(logs) => {
                logs.len() == now.len() && logs.iter().zip(now).all(|(log, now)| log.is_whole(now))
            }
            Evidence::Sums { epochs, lows, headroom } => {
                let is_same_epoch = now.iter().all(|now| now.epoch >= 0) && *epochs == hash_of_epochs(now);
                let risen = sum_of_lows(now).checked_sub(*lows);
                is_same_epoch && risen.is_some_and(|risen| (0..=*headroom).contains(&risen))
            }
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Evidence> {
        if let Some(sums) = text.strip_prefix('#') {
            let mut sums = sums.split(':');
            let (epochs, lows, headroom) =
                (sums.next()?, sums.next()?.parse().ok()?, sums.next()?.parse().ok()?);
            return Some(Evidence::Sums { epochs: epochs.to_owned(), lows, headroom });
        }
        let log = |text: &str| {
            let mut numbers = text.split(':');
            let log = Log {
                first: numbers.next()?.parse().ok()?,
                end: numbers.next()?.parse().ok()?,
                epoch: numbers.next()?.parse().ok()?,
            };
            numbers.next().is_none().then_some(log)
        };
        text.split(',').map(log).collect::<Option<Vec<Log>>>().map(Evidence::Each)
    }
}

fn hash_of_epochs(logs: &[Watermarks]) -> String {
    hash(&logs.iter().map(|log| log.epoch.to_string()).collect::<Vec<_>>())
}

fn sum_of_lows(logs: &[Watermarks]) -> i64 {
    logs.iter().map(|log| log.low).sum()
}

/// `first:end:epoch` of each partition, or `#epochs:lows:headroom`.
impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Evidence::Each(logs) => logs.iter().enumerate().try_for_each(|(partition, log)| {
                let comma = if partition > 0 { "," } else { "" };
                write!(f, "{comma}{}:{}:{}", log.first, log.end, log.epoch)
            }),
            Evidence::Sums { epochs, lows, headroom } => write!(f, "#{epochs}:{lows}:{headroom}"),
        }
    }
}

/// The metadata of an offset that a fill committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    pub job: Fingerprint,
    /// The leader epoch of the source's partition.
    pub source_epoch: i32,
    pub target: Evidence,
    /// Set on the mark of a range's end, once the run has checked all that it wrote up to there.
    pub closed: Option<Done>,
    /// Set by an instance of `--scale-out` that has read the target's partition of the same number.
    pub vouched: Option<Vouched>,
}

/// What an instance has seen in a partition of the target: each key between two offsets belongs to this partition. This
/// stays true for as long as the log is only appended to, so it does not matter who says it, or when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Vouched {
    pub placement: Placement,
    pub start: i64,
    pub end: i64,
    /// The epoch of the leader whose log was read. A negative one is unknown, and proves nothing.
    pub epoch: i32,
}

impl Vouched {
    fn parse(text: &str) -> Option<Vouched> {
        let mut parts = text.split(':');
        let vouched = Vouched {
            placement: Placement::named(parts.next()?)?,
            start: parts.next()?.parse().ok()?,
            end: parts.next()?.parse().ok()?,
            epoch: parts.next()?.parse().ok()?,
        };
        parts.next().is_none().then_some(vouched)
    }

    /// The offset from which on nobody has vouched for the log, if somebody has done so from `start` on.
    pub(crate) fn end(self, placement: Placement, start: i64, now: &Watermarks) -> Option<i64> {
        let is_same_log = self.epoch >= 0 && self.epoch == now.epoch && self.end <= now.high;
        (is_same_log && self.placement == placement && self.start <= start).then_some(self.end)
    }
}

/// `placement:start:end:epoch`.
impl fmt::Display for Vouched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}:{}", self.placement.name(), self.start, self.end, self.epoch)
    }
}

/// The work of the run that closed the mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Done {
    /// Milliseconds since the epoch.
    pub at: i64,
    pub in_window: u64,
    pub written: u64,
}

impl Mark {
    /// `None` if the metadata is not a mark of this format.
    pub(crate) fn parse(metadata: &str) -> Option<Mark> {
        let (job, rest) = Fingerprint::split(metadata)?;
        let mut words = rest.split(' ');
        let state = words.next()?;
        let mut value = |name: &str| words.next()?.strip_prefix(name)?.strip_prefix('=');
        let closed = match state {
            "open" => None,
            "closed" => Some(Done {
                at: DateTime::parse_from_rfc3339(value("at")?).ok()?.timestamp_millis(),
                in_window: value("in_window")?.parse().ok()?,
                written: value("written")?.parse().ok()?,
            }),
            _ => return None,
        };
        let source_epoch = value("a")?.parse().ok()?;
        let target = Evidence::parse(value("b")?)?;
        let vouched = match words.next() {
            None => None,
            Some(word) => Some(Vouched::parse(word.strip_prefix("own=")?)?),
        };
        words.next().is_none().then_some(Mark { job, source_epoch, target, closed, vouched })
    }

    /// Whether all before `position`, the offset of this mark, must still be done.
    fn holds(&self, position: i64, source: &Watermarks, target: &[Watermarks]) -> bool {
        let is_same = self.source_epoch >= 0 && self.source_epoch == source.epoch;
        is_same && (source.low..=source.high).contains(&position) && self.target.holds(target)
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.job.fmt(f)?;
        match self.closed {
            None => f.write_str(" open")?,
            Some(Done { at, in_window, written }) => {
                write!(f, " closed at={} in_window={in_window} written={written}", rfc3339(at))?;
            }
        }
        write!(f, " a={} b={}", self.source_epoch, self.target)?;
        self.vouched.map_or(Ok(()), |vouched| write!(f, " own={vouched}"))
    }
}

/// The marks of one job that a run may trust, by the source's partitions.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trusted(pub Vec<Option<(i64, Mark)>>);

impl Trusted {
    /// Chooses the group's offsets that still hold for both topics. The caller must ask for the topics' watermarks
    /// after the offsets.
    pub(crate) fn of(
        job: &Fingerprint,
        committed: &[Option<Committed>],
        source: &[Watermarks],
        target: &[Watermarks],
    ) -> Trusted {
        let trusted = committed.iter().zip(source).map(|(committed, source)| {
            let committed = committed.as_ref()?;
            let mark = Mark::parse(&committed.metadata).filter(|mark| mark.job == *job)?;
            mark.holds(committed.position, source, target).then_some((committed.position, mark))
        });
        Trusted(trusted.collect())
    }

    pub(crate) fn position(&self, partition: usize) -> Option<i64> {
        self.0[partition].as_ref().map(|(position, _)| *position)
    }

    /// The position, if a run has checked all that it wrote up to there.
    pub(crate) fn closed(&self, partition: usize) -> Option<i64> {
        let (position, mark) = self.0[partition].as_ref()?;
        mark.closed.map(|_| *position)
    }

    /// Whether nothing is left to do in `range`: it is empty, or a closed mark has reached its end. An open mark still
    /// needs the run's check.
    pub(crate) fn is_done(&self, range: &Range) -> bool {
        match &self.0[index(range.partition)] {
            Some((_, mark)) if mark.closed.is_none() => false,
            Some((position, _)) => (*position).max(range.start) >= range.end,
            None => range.is_empty(),
        }
    }

    /// Lowers each `first` if these marks depend on an earlier record of the target.
    pub(crate) fn lower(&self, first: &mut [i64], target: &[Watermarks]) {
        for (_, mark) in self.0.iter().flatten() {
            for (partition, first) in first.iter_mut().enumerate() {
                let needed = match &mark.target {
                    Evidence::Each(logs) => logs[partition].first,
                    Evidence::Sums { .. } => target[partition].low,
                };
                *first = needed.min(*first);
            }
        }
    }

    /// The work of the runs that closed these marks. Each run, or instance of a run, counts once.
    pub(crate) fn done(&self) -> Option<Done> {
        let mut each: Vec<Done> = self.0.iter().flatten().filter_map(|(_, mark)| mark.closed).collect();
        each.sort_by_key(|done| (done.at, done.in_window, done.written));
        each.dedup();
        each.into_iter().reduce(|sum, done| Done {
            at: done.at.max(sum.at),
            in_window: sum.in_window + done.in_window,
            written: sum.written + done.written,
        })
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const FOUND: [Watermarks; 2] =
        [Watermarks { low: 0, high: 40, epoch: 3 }, Watermarks { low: 7, high: 7, epoch: 0 }];

    fn job() -> Fingerprint {
        Fingerprint::of(&["11:00-13:00".to_owned()])
    }

    fn mark(closed: Option<Done>) -> Mark {
        let target = Evidence::new(&[10, 7], &FOUND, &[50, 9], 2);
        Mark { job: job(), source_epoch: 1, target, closed, vouched: None }
    }

    fn done(at: i64) -> Done {
        Done { at, in_window: 5, written: 3 }
    }

    #[test]
    fn reads_back_what_it_says() {
        for closed in [None, Some(done(1_618_400_000_001))] {
            assert_eq!(Mark::parse(&mark(closed).to_string()), Some(mark(closed)));
        }
        let text = mark(Some(done(0))).to_string();
        assert!(
            text.ends_with(" closed at=1970-01-01T00:00:00Z in_window=5 written=3 a=1 b=10:50:3,7:9:0"),
            "{text}"
        );
        assert!(job().is_of(&text) && !Fingerprint::of(&[]).is_of(&text));
        let vouched = Some(Vouched { placement: Placement::Java, start: 3, end: 9, epoch: 1 });
        let text = Mark { vouched, ..mark(None) }.to_string();
        assert!(text.ends_with(" own=murmur2:3:9:1"), "{text}");
        assert_eq!(Mark::parse(&text).and_then(|mark| mark.vouched), vouched);
    }

    #[rstest]
    #[case::the_same(Placement::Java, 3, (0, 9, 1), true)]
    #[case::later_and_grown(Placement::Java, 5, (4, 90, 1), true)]
    #[case::from_earlier_on(Placement::Java, 2, (0, 9, 1), false)]
    #[case::another_placement(Placement::Sarama, 3, (0, 9, 1), false)]
    #[case::another_leader(Placement::Java, 3, (0, 9, 2), false)]
    #[case::ends_earlier(Placement::Java, 3, (0, 8, 1), false)]
    fn is_vouched_for(
        #[case] placement: Placement,
        #[case] start: i64,
        #[case] (low, high, epoch): (i64, i64, i32),
        #[case] is_vouched: bool,
    ) {
        let vouched = Vouched { placement: Placement::Java, start: 3, end: 9, epoch: 1 };
        let end = vouched.end(placement, start, &Watermarks { low, high, epoch });
        assert_eq!(end, is_vouched.then_some(9));
        let unknown = Vouched { epoch: -1, ..vouched };
        assert_eq!(unknown.end(Placement::Java, 3, &Watermarks { low, high, epoch: -1 }), None);
    }

    #[rstest]
    #[case("")]
    #[case("replicator/1 00-00 open")]
    #[case("replicator/2 00 open")]
    #[case("replicator/2 00 open a=1 b=1:2")]
    #[case("replicator/2 00 open a=1 b=1:2:3 more")]
    #[case("replicator/2 00 open a=1 b=1:2:3 own=murmur2:1:2")]
    #[case("replicator/2 00 closed a=1 b=1:2:3")]
    fn other_metadata_is_no_mark(#[case] metadata: &str) {
        assert_eq!(Mark::parse(metadata), None);
    }

    #[rstest]
    #[case::the_same([(0, 50, 3), (7, 9, 0)], true)]
    #[case::grown([(0, 60, 3), (7, 90, 0)], true)]
    #[case::begins_later_before_the_window([(10, 50, 3), (7, 9, 0)], true)]
    #[case::begins_within_the_window([(11, 50, 3), (7, 9, 0)], false)]
    #[case::ends_earlier([(0, 49, 3), (7, 9, 0)], false)]
    #[case::another_leader([(0, 50, 3), (7, 9, 1)], false)]
    #[case::no_epoch([(0, 50, 3), (7, 9, -1)], false)]
    fn holds_while_nothing_can_be_undone(#[case] now: [(i64, i64, i32); 2], #[case] holds: bool) {
        let now = now.map(|(low, high, epoch)| Watermarks { low, high, epoch });
        assert_eq!(mark(None).target.holds(&now), holds);
    }

    #[rstest]
    #[case::there(12, (0, 12, 1), true)]
    #[case::beyond_the_end(13, (0, 12, 1), false)]
    #[case::deleted(3, (4, 12, 1), false)]
    #[case::another_leader(3, (0, 12, 2), false)]
    fn needs_its_source(
        #[case] position: i64,
        #[case] (low, high, epoch): (i64, i64, i32),
        #[case] holds: bool,
    ) {
        let source = [Watermarks { low, high, epoch }];
        let committed = [Some(Committed { position, metadata: mark(None).to_string() })];
        let grown = FOUND.map(|log| Watermarks { high: 50, ..log });
        let trusted = Trusted::of(&job(), &committed, &source, &grown);
        assert_eq!(trusted.position(0).is_some(), holds);
        assert!(Trusted::of(&Fingerprint::of(&[]), &committed, &source, &grown).position(0).is_none());
    }

    /// With many partitions or many marks, sums replace the single logs. All low watermarks together may then rise by
    /// as much as the partition with the least room allows.
    #[rstest]
    #[case(1000, 1)]
    #[case(150, 400)]
    fn of_many_partitions_sums_are_kept(#[case] partitions: i64, #[case] marks: usize) {
        let found: Vec<Watermarks> =
            (0..partitions).map(|low| Watermarks { low, high: low + 1_000_000, epoch: 4 }).collect();
        let (first, ends): (Vec<i64>, Vec<i64>) = found.iter().map(|w| (w.low + 10, w.high)).unzip();
        let evidence = Evidence::new(&first, &found, &ends, marks);
        assert!(evidence.to_string().len() < 100 && evidence.holds(&found));
        assert_eq!(Evidence::parse(&evidence.to_string()), Some(evidence.clone()));
        let changed = |change: fn(&mut Watermarks)| {
            let mut now = found.clone();
            change(&mut now[50]);
            change(&mut now[60]);
            evidence.holds(&now)
        };
        assert!(changed(|w| w.low += 5));
        assert!(!changed(|w| w.low += 6));
        assert!(!changed(|w| w.epoch += 1));
        assert!(!changed(|w| w.low -= 1));
    }

    #[test]
    fn each_run_is_counted_once() {
        let of = |at| Some((7, mark(Some(done(at)))));
        assert_eq!(
            Trusted(vec![of(1), of(2), of(1), None]).done(),
            Some(Done { at: 2, in_window: 10, written: 6 })
        );
        assert_eq!(Trusted(vec![None, Some((7, mark(None)))]).done(), None);
    }
}
