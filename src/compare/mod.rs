//! Compares two topics: reads each up to its present end, and judges each record of the source's window.

pub(crate) mod chart;
pub(crate) mod gaps;
pub(crate) mod lag;
pub(crate) mod verify;

mod joints;
mod pairing;
mod positions;

use std::borrow::Cow;
use std::time::Duration;

use self::joints::Joints;
pub(crate) use self::pairing::Pairing;

use crate::base::error::Result;
use crate::base::interrupt::Interrupt;
use crate::base::progress::Progress;
use crate::base::range::{Range, index};
use crate::job::identity::{Fingers, Identity};
use crate::job::resolve::{self, Resolved};
use crate::job::window::Window;
use crate::job::{Selection, TargetScan};
use crate::judge::elsewhen::{Outside, SecondLook, StampedCopies};
use crate::judge::joint::AboveJoint;
use crate::judge::{Judge, Look, Sighting, Verdict};
use crate::kafka::client::Isolation;
use crate::kafka::cluster::Cluster;
use crate::kafka::reader::{Reader, Reading};
use crate::kafka::sides::Sides;
use crate::kafka::sys::Message;
use crate::kafka::topic::Topic;
use crate::kafka::watermarks::{Watermarks, ends};

/// Takes notes while two topics are compared.
pub(crate) trait Notes {
    /// Takes the window, before anything is read.
    fn window(&mut self, window: Window);

    /// Takes a record of the target that is compared with the window's records.
    fn target(&mut self, message: &Message, seen: &Sighting);

    /// Takes a record of the source, in the window or not. Called before any record is judged, and only if timestamps
    /// are not compared.
    fn explained(&mut self, seen: &Sighting);

    /// Takes a record of the source's window.
    fn source(&mut self, message: &Message, seen: &Sighting, judged: &Judged);
}

/// The decision about a record of the source's window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Judged {
    By(Verdict),
    /// A fill cannot copy the record, for this reason, and `--skip-invalid` leaves it out.
    LeftOut(Cow<'static, str>),
}

/// The topics of a comparison, and what it found beside the notes.
pub(crate) struct Compared {
    pub topics: Sides<Topic>,
    /// Copies outside of the window, with another timestamp.
    pub elsewhen: StampedCopies,
    pub warnings: Vec<String>,
    /// Whether the target lacks records that the source holds above the joint of a follow.
    pub lacks_above_joint: bool,
    /// Why nobody could ask for the joints of a follow, if so.
    unread_joints: Option<String>,
    /// Why a fill of these topics would be refused, if it would.
    refusal: Option<String>,
}

/// Reads both topics' windows, committed records only.
///
/// # Errors
/// The errors that the exit codes stand for.
pub(crate) fn compare(
    selection: &Selection,
    progress: Progress,
    interrupt: &Interrupt,
    notes: &mut impl Notes,
) -> Result<Compared> {
    let clusters = selection.properties.connect(&selection.name())?;
    let Sides { source, target } = resolve::topics(&clusters, selection)?;
    let Resolved { window, warning, mut other_days } =
        resolve::window(&clusters.source, selection, &source, interrupt)?;
    notes.window(window);
    let keeps_partitions = source.partitions == target.partitions;
    let sides = Sides { source, target };
    let joints = Joints::of(selection, &clusters, &sides, interrupt)?;
    let Sides { source, target } = sides;
    let open = |cluster, topic| OpenSide::open(selection, cluster, topic, progress, interrupt);
    let is_any_copy_enough = selection.rules.target_scan == TargetScan::All;
    let are_counted = selection.rules.identity == Identity::Record || joints.are_there();
    let (source, target) = if are_counted || is_any_copy_enough {
        // Ask for the target's end first. A copy comes after its original, so each copy below that end has its original
        // below the source's end. Otherwise the copy of a later record could be taken for a copy that is missing.
        let target = open(&clusters.target, target)?;
        (open(&clusters.source, source)?, target)
    } else {
        // Ask for the source's end first. A record that reaches both topics meanwhile is then not missing.
        (open(&clusters.source, source)?, open(&clusters.target, target)?)
    };
    let look = Look::new(Fingers::new()?, selection, window, keeps_partitions);
    let pair = Pair { selection, source, target, window, keeps_partitions, look, joints };
    let mut in_source = 0;
    let (elsewhen, lacks_above_joint) = pair.judge(notes, |seen| {
        other_days.see(seen.time);
        in_source += u64::from(seen.is_in_window);
    })?;
    let Pair { source, target, joints, .. } = pair;
    let nothing = (in_source == 0)
        .then(|| resolve::nothing_in(window, source.cluster, selection, &source.topic, interrupt));
    let warnings = [warning, other_days.warning(), nothing, about_copies(selection, elsewhen)];
    let warnings: Vec<String> = warnings.into_iter().flatten().collect();
    warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    Ok(Compared {
        topics: Sides { source: source.topic, target: target.topic },
        elsewhen,
        warnings,
        lacks_above_joint,
        unread_joints: joints.unread,
        refusal: joints.refusal,
    })
}

impl Compared {
    fn keeps_partitions(&self) -> bool {
        self.topics.source.partitions == self.topics.target.partitions
    }

    /// Warns that the joints of a follow are unknown, if another result could follow from them.
    fn warn_of_unread_joints(&mut self, selection: &Selection, matters: bool) {
        let Some(why) = self.unread_joints.take().filter(|_| matters) else { return };
        let warning = format!(
            "all records were compared by --identity {}. A run with --follow also copies equal and conflicting records, \
             but whether such a run has copied some of these is unknown: {why}",
            selection.rules.identity
        );
        self.warn(warning);
    }

    fn warn(&mut self, warning: String) {
        tracing::warn!("{warning}");
        self.warnings.push(warning);
    }
}

/// Warns of copies with other timestamps, and says what to do about them.
fn about_copies(selection: &Selection, found: StampedCopies) -> Option<String> {
    let told = found.sentence(&selection.shown_source(), &selection.shown_target())?;
    let ways = match found.lacking {
        1.. => "if they are copies, compare with --target-scan all; if not, with --identity record",
        0 => "so the target holds these records twice",
    };
    Some(format!("{told}: {ways}"))
}

struct Pair<'a> {
    selection: &'a Selection,
    source: OpenSide<'a>,
    target: OpenSide<'a>,
    window: Window,
    keeps_partitions: bool,
    look: Look,
    joints: Joints,
}

impl Pair<'_> {
    /// Shows each record of the source to `see`, and each of its window to the judge. Returns the copies with another
    /// timestamp, and whether the target lacks records above a joint.
    fn judge(&self, notes: &mut impl Notes, mut see: impl FnMut(&Sighting)) -> Result<(StampedCopies, bool)> {
        let mut judge = Judge::new(&self.selection.rules, self.selection.index_memory);
        let (mut above, mut lacks_above) = (self.above_joint()?, false);
        let outside = self.take_in_target(&mut judge, above.as_mut(), notes)?;
        if judge.wants_explanations() {
            self.read_source(|message, seen| {
                notes.explained(seen);
                // The judge has not seen the copies of a record above the joint.
                if seen.is_in_window && self.joints.are_below(message) { Ok(()) } else { judge.explain(seen) }
            })?;
        }
        let mut second = SecondLook::new(self.selection.index_memory);
        let skips_invalid = self.selection.rules.skip_invalid;
        let within = self.look.clone();
        self.source.read(
            self.by_time(),
            move |message| within.within(message),
            |message, seen| {
                see(seen);
                if !seen.is_in_window {
                    return Ok(());
                }
                if let Some(above) = above.as_mut().filter(|_| self.joints.are_below(message)) {
                    let verdict = above.judge(seen.signature);
                    lacks_above |= verdict == Verdict::New;
                    notes.source(message, seen, &Judged::By(verdict));
                    return Ok(());
                }
                let may_be_left_out = skips_invalid && !judge.holds(seen.signature);
                let why = || self.look.why_invalid(message, seen, self.keeps_partitions);
                if let Some(why) = if may_be_left_out { why()? } else { None } {
                    notes.source(message, seen, &Judged::LeftOut(why));
                    return Ok(());
                }
                if outside.as_ref().is_some_and(|outside| outside.may_hold(seen.signature)) {
                    second.suspect(seen.signature, judge.holds(seen.signature))?;
                }
                notes.source(message, seen, &Judged::By(judge.source(seen.signature)?));
                Ok(())
            },
        )?;
        let at = self.look.clone();
        let elsewhen = second.decide(
            |each| self.target.read(self.by_time(), move |message| at.at(message), |_, seen| each(seen)),
            |each| self.read_source(|_, seen| each(seen)),
        )?;
        Ok((elsewhen, lacks_above))
    }

    /// Reads the source's records of the window above the joints, if there are joints. Their copies must be known before
    /// the job's judge sees the target, because they count for no record below.
    fn above_joint(&self) -> Result<Option<AboveJoint>> {
        if !self.joints.are_there() {
            return Ok(None);
        }
        let mut above = AboveJoint::new(self.selection.index_memory);
        let of_joint = |range: &Range| {
            let joint = self.joints.of_partition(index(range.partition)).unwrap_or(range.end);
            Range { start: range.start.max(joint.min(range.end)), ..*range }
        };
        let ranges: Vec<Range> = self.source.ranges(self.by_time())?.iter().map(of_joint).collect();
        let within = self.look.clone();
        self.source.read_ranges(
            &ranges,
            move |message| within.within(message),
            |_, seen| if seen.is_in_window { above.want(seen.signature) } else { Ok(()) },
        )?;
        Ok(Some(above))
    }

    fn take_in_target(
        &self,
        judge: &mut Judge,
        mut above: Option<&mut AboveJoint>,
        notes: &mut impl Notes,
    ) -> Result<Option<Outside>> {
        let from = self.by_time().filter(|_| !judge.wants_explanations());
        let ranges = self.target.ranges(from)?;
        let mut outside = self
            .look
            .has_outside()
            .then(|| Outside::new(ranges.iter().map(Range::len).sum(), self.selection.index_memory));
        let at = self.look.clone();
        self.target.read(
            from,
            move |message| at.at(message),
            |message, seen| {
                if self.look.is_compared(seen) {
                    if !above.as_mut().is_some_and(|above| above.take(seen.signature)) {
                        judge.target(seen.signature)?;
                    }
                    notes.target(message, seen);
                } else if let Some(outside) = &mut outside {
                    outside.insert(seen.signature);
                }
                Ok(())
            },
        )?;
        Ok(outside)
    }

    /// Reads all that the source holds now, whatever the window. Each record of the target was in the source before, so
    /// no original is left out.
    fn read_source(&self, each: impl FnMut(&Message, &Sighting) -> Result<()>) -> Result<()> {
        let at = self.look.clone();
        let OpenSide { cluster, topic, .. } = &self.source;
        let ranges = cluster.readable(topic)?;
        self.source.read_ranges(&ranges, move |message| at.at(message), each)
    }

    /// The time from which a reading finds all of the window; `None` if only a reading from the beginning finds it.
    fn by_time(&self) -> Option<i64> {
        self.window.start.filter(|_| self.selection.event_time.is_indexed())
    }
}

/// One topic, and where it ended when the comparison began.
struct OpenSide<'a> {
    selection: &'a Selection,
    cluster: &'a Cluster,
    topic: Topic,
    watermarks: Vec<Watermarks>,
    progress: Progress,
    interrupt: &'a Interrupt,
}

impl<'a> OpenSide<'a> {
    /// Asks for the ends, and waits until all transactions below them are committed or aborted.
    fn open(
        selection: &'a Selection,
        cluster: &'a Cluster,
        topic: Topic,
        progress: Progress,
        interrupt: &'a Interrupt,
    ) -> Result<OpenSide<'a>> {
        let watermarks = cluster.watermarks(&topic)?;
        let patience: Duration = selection.patience;
        cluster.wait_until_stable(&topic, &ends(&watermarks), patience, interrupt)?;
        Ok(OpenSide { selection, cluster, topic, watermarks, progress, interrupt })
    }

    /// The ranges from the first record of `millis` or later to the end; from the beginning if there is no `millis`.
    fn ranges(&self, millis: Option<i64>) -> Result<Vec<Range>> {
        let starts = self.cluster.positions_from(&self.topic, millis, &self.watermarks)?;
        Ok(Range::all(&starts, &ends(&self.watermarks)))
    }

    /// Reads the committed records of [`OpenSide::ranges`].
    fn read(
        &self,
        millis: Option<i64>,
        look: impl Fn(&Message) -> Result<Sighting> + Send + 'static,
        each: impl FnMut(&Message, &Sighting) -> Result<()>,
    ) -> Result<()> {
        self.read_ranges(&self.ranges(millis)?, look, each)
    }

    fn read_ranges(
        &self,
        ranges: &[Range],
        look: impl Fn(&Message) -> Result<Sighting> + Send + 'static,
        each: impl FnMut(&Message, &Sighting) -> Result<()>,
    ) -> Result<()> {
        let group = self.selection.name();
        let reading = Reading {
            properties: self.cluster.properties(),
            group: &group,
            topic: &self.topic.name,
            isolation: Isolation::ReadCommitted,
            patience: self.selection.patience,
        };
        let what = format!("reading {}", self.topic.name);
        let bar = self.progress.over(&what, ranges);
        Reader::looking(&reading, ranges, look)?.for_each(self.interrupt, &bar, each)
    }
}
