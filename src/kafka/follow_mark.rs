//! The metadata of an offset that `--follow` committed: everything that the source committed from the joint up to this
//! offset is in the target. Pure.
//!
//! Unlike the mark of a fill (see [`mark`](super::mark)), it names no window, and it stays
//! true while leaders move and low watermarks rise. Only a log that was cut makes it untrue. A log is cut without its end
//! showing it if it has grown again since. So the mark holds checkpoints, which a leader can confirm by its epochs
//! (KIP-101, KIP-320).

use std::fmt;

use chrono::DateTime;

use crate::base::time::rfc3339;
use crate::kafka::mark::Fingerprint;
use crate::kafka::partition::Placement;

/// The longest metadata, in bytes. A broker accepts metadata of `offset.metadata.max.bytes`, by default 4096.
const LONGEST: usize = 3500;

/// A place in a log: all records below `offset` were appended in leader epochs up to `epoch`. A negative epoch is unknown,
/// and proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Checkpoint {
    pub offset: i64,
    pub epoch: i32,
}

/// The metadata of an offset of one partition of the source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FollowMark {
    /// A hash of both topics' ids.
    pub job: Fingerprint,
    /// How copies are placed; `None` if records keep their partition.
    pub to: Option<Placement>,
    /// The first partition of the source that no follow had begun to copy, as far as this instance knew at this commit. A
    /// follow copies a later partition that has no offset from its beginning.
    pub partitions: usize,
    /// From this offset on, all committed records are copied, equal ones too. Below it, a fill has decided.
    pub joint: i64,
    /// All that was readable at this time is copied. In milliseconds since the epoch.
    pub level: i64,
    /// The place after the last record that was read. The position itself may be higher, since markers and aborted
    /// records lie between.
    pub source: Checkpoint,
    /// The ends of the target's partitions that take the copies; empty if they are too many.
    pub target: Vec<(i32, Checkpoint)>,
}

impl FollowMark {
    /// The hash that marks of these two topics have, given by their ids.
    pub(crate) fn job(source: &str, target: &str) -> Fingerprint {
        Fingerprint::of(&["follow".to_owned(), source.to_owned(), target.to_owned()])
    }

    /// Leaves out the target's ends if a broker would not accept so many.
    pub(crate) fn shorten(&mut self) {
        if self.to_string().len() > LONGEST {
            self.target.clear();
        }
    }

    /// `None` if the metadata is not a mark of this format.
    pub(crate) fn parse(metadata: &str) -> Option<FollowMark> {
        let (job, rest) = Fingerprint::split(metadata)?;
        let mut words = rest.strip_prefix("follow ")?.split(' ');
        let mut value = |name: &str| words.next()?.strip_prefix(name)?.strip_prefix('=');
        let to = match value("to")? {
            "kept" => None,
            placement => Some(Placement::named(placement)?),
        };
        let partitions = value("of")?.parse().ok()?;
        let joint = value("joint")?.parse().ok()?;
        let level = DateTime::parse_from_rfc3339(value("level")?).ok()?.timestamp_millis();
        let mut source = value("a")?.split(':');
        let source = checkpoint(&mut source).filter(|_| source.next().is_none())?;
        let end = |text: &str| {
            let (partition, end) = text.split_once(':')?;
            let mut end = end.split(':');
            let checkpoint = checkpoint(&mut end).filter(|_| end.next().is_none())?;
            Some((partition.parse().ok()?, checkpoint))
        };
        let target = match value("b")? {
            "" => Vec::new(),
            ends => ends.split(',').map(end).collect::<Option<_>>()?,
        };
        words.next().is_none().then_some(FollowMark { job, to, partitions, joint, level, source, target })
    }
}

fn checkpoint<'t>(numbers: &mut impl Iterator<Item = &'t str>) -> Option<Checkpoint> {
    Some(Checkpoint { offset: numbers.next()?.parse().ok()?, epoch: numbers.next()?.parse().ok()? })
}

/// `replicator/2 <job> follow to=<placement> of=<partitions> joint=<offset> level=<time> a=<offset>:<epoch>
/// b=<partition>:<end>:<epoch>,…`
impl fmt::Display for FollowMark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let FollowMark { job, to, partitions, joint, level, source, target } = self;
        let to = to.map_or("kept", Placement::name);
        write!(f, "{job} follow to={to} of={partitions} joint={joint} level={}", rfc3339(*level))?;
        write!(f, " a={}:{} b=", source.offset, source.epoch)?;
        let end = |(partition, end): &(i32, Checkpoint)| format!("{partition}:{}:{}", end.offset, end.epoch);
        f.write_str(&target.iter().map(end).collect::<Vec<_>>().join(","))
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::kafka::mark::Mark;

    fn mark(to: Option<Placement>, ends: i32) -> FollowMark {
        FollowMark {
            job: FollowMark::job("a", "b"),
            to,
            partitions: 3,
            joint: 5,
            level: 1_618_400_000_001,
            source: Checkpoint { offset: 12, epoch: 3 },
            target: (0..ends).map(|p| (p, Checkpoint { offset: 17, epoch: -1 })).collect(),
        }
    }

    #[rstest]
    fn reads_back_what_it_says(
        #[values(None, Some(Placement::Java), Some(Placement::Sarama))] to: Option<Placement>,
        #[values(0, 1, 3)] ends: i32,
    ) {
        let mark = mark(to, ends);
        assert_eq!(FollowMark::parse(&mark.to_string()), Some(mark.clone()));
        assert_eq!(Mark::parse(&mark.to_string()), None);
    }

    #[test]
    fn too_many_ends_are_left_out() {
        let mut long = mark(None, 1000);
        long.shorten();
        assert_eq!(long, mark(None, 0));
        let mut short = mark(None, 3);
        short.shorten();
        assert_eq!(short, mark(None, 3));
    }

    #[rstest]
    #[case("replicator/2 00 open a=1 b=1:2:3")]
    #[case("replicator/2 00 follow to=kept of=2 joint=5 level=2021-04-14T11:00:00Z a=1 b=")]
    #[case("replicator/2 00 follow to=kept joint=5 level=2021-04-14T11:00:00Z a=1:2 b=")]
    #[case("replicator/2 00 follow to=other of=2 joint=5 level=2021-04-14T11:00:00Z a=1:2 b=")]
    #[case("replicator/2 00 follow to=kept of=2 joint=5 level=2021-04-14T11:00:00Z a=1:2 b=1:2")]
    #[case("replicator/2 00 follow to=kept of=2 joint=5 level=2021-04-14T11:00:00Z a=1:2 b= more")]
    fn other_metadata_is_no_mark(#[case] metadata: &str) {
        assert_eq!(FollowMark::parse(metadata), None);
    }
}
