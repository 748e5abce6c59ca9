//! Compares two topics: reads each up to its present end, and judges each record of the source's window.
//!
//! If the records fit the memory, one reading of each topic decides everything. If not, or if the topics are probably equal,
//! the first reading adds up hashes ([`sums`]). Where these are equal, so are the topics. The records of the cells that
//! differ are judged by further readings, class of identities by class, so that each fits the memory ([`pair`]).

pub(crate) mod chart;
pub(crate) mod gaps;
pub(crate) mod lag;
pub(crate) mod summary;
pub(crate) mod verify;

mod differences;
mod joints;
mod latest;
mod order;
mod pair;
mod pairing;
mod positions;
mod side;
mod steps;
mod sums;
mod timeline;
mod written;

use std::borrow::Cow;
use std::path::Path;

use self::differences::List;
use self::joints::Joints;
use self::pair::Pair;
use self::side::OpenSide;
use self::verify::Findings;

use crate::base::error::Result;
use crate::base::interrupt::Interrupt;
use crate::base::progress::Progress;
use crate::job::identity::{Fingers, Identity};
use crate::job::resolve::{self, Resolved};
use crate::job::window::{OtherDays, Window};
use crate::job::{Selection, TargetScan};
use crate::judge::elsewhen::StampedCopies;
use crate::judge::{Look, Sighting, Verdict};
use crate::kafka::sides::{Side, Sides};
use crate::kafka::sys::Message;
use crate::kafka::topic::Topic;
use crate::kafka::watermarks::ends;

/// Takes notes while two topics are compared.
pub(crate) trait Notes {
    /// Takes the window, before anything is read.
    fn window(&mut self, window: Window);

    /// Takes each record of the window once, before any is judged: of the source, and of the target those that are
    /// compared with the source's.
    fn read(&mut self, side: Side, seen: &Sighting);

    /// Takes a record of the source's window. A record that is known to be in both topics may be left out.
    fn judged(&mut self, message: &Message, seen: &Sighting, judged: &Judged);
}

/// What is wanted of a comparison.
#[derive(Clone, Copy, Default)]
pub(crate) struct Wish<'a> {
    /// A file that lists each difference.
    pub list: Option<&'a Path>,
    /// Whether only the last record of each key is compared.
    pub is_latest_only: bool,
    /// Whether the topics are probably equal, and in order. If not, their order does not matter.
    pub expects_equal: bool,
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
    /// The names, the window and the warnings are not in it.
    pub findings: Findings,
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
    wish: Wish<'_>,
    progress: Progress,
    interrupt: &Interrupt,
    notes: &mut impl Notes,
) -> Result<Compared> {
    let mut list = List::new(wish.list)?;
    let clusters = selection.properties.connect(&selection.name())?;
    let Sides { source, target } = resolve::topics(&clusters, selection)?;
    let Resolved { window, warning, other_days } =
        resolve::window(&clusters.source, selection, &source, interrupt)?;
    notes.window(window);
    let keeps_partitions = source.partitions == target.partitions;
    let sides = Sides { source, target };
    let joints = Joints::of(selection, &clusters, &sides, interrupt)?;
    let Sides { source, target } = sides;
    let open = |cluster, topic| OpenSide::open(selection, cluster, topic, window, progress, interrupt);
    let is_any_copy_enough = selection.rules.target_scan == TargetScan::All;
    let are_counted = selection.rules.identity == Identity::Record || joints.are_there();
    let settled = if wish.is_latest_only { ends(&clusters.source.watermarks(&source)?) } else { Vec::new() };
    let (source, target) = if are_counted || is_any_copy_enough || wish.is_latest_only {
        // Ask for the target's end first. A copy comes after its original, so each copy below that end has its original
        // below the source's end. Otherwise the copy of a later record could be taken for a copy that is missing.
        let target = open(&clusters.target, target)?;
        (open(&clusters.source, source)?, target)
    } else {
        // Ask for the source's end first. A record that reaches both topics meanwhile is then not missing.
        (open(&clusters.source, source)?, open(&clusters.target, target)?)
    };
    let look = Look::new(Fingers::new()?, selection, window, keeps_partitions);
    let pair = Pair {
        selection,
        source,
        target,
        window,
        keeps_partitions,
        expects_equal: wish.expects_equal,
        look,
        joints,
        settled,
    };
    let mut census = Census { notes, other_days, in_source: 0, in_target: 0 };
    let (mut findings, lacks_above_joint) = if wish.is_latest_only {
        (pair.judge_latest(&mut census, &mut list)?, false)
    } else {
        pair.judge(&mut census, &mut list)?
    };
    list.close()?;
    findings.in_source = census.in_source;
    let nothing = (census.in_source == 0)
        .then(|| resolve::nothing_in(window, pair.source.cluster, selection, &pair.source.topic, interrupt));
    let warnings = [
        warning,
        census.other_days.warning(),
        nothing,
        about_copies(selection, findings.stamped),
        about_promise(selection, findings.relies_on_promise),
        about_unsettled(&findings),
        about_order(&findings).filter(|_| wish.expects_equal),
    ];
    let warnings: Vec<String> = warnings.into_iter().flatten().collect();
    warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    let Pair { source, target, joints, .. } = pair;
    Ok(Compared {
        topics: Sides { source: source.topic, target: target.topic },
        findings,
        warnings,
        lacks_above_joint,
        unread_joints: joints.unread,
        refusal: joints.refusal,
    })
}

/// Counts the records of the first reading of each topic.
struct Census<'n, N> {
    notes: &'n mut N,
    other_days: OtherDays,
    in_source: u64,
    /// Those that are compared with the source's.
    in_target: u64,
}

impl<N: Notes> Census<'_, N> {
    fn source(&mut self, seen: &Sighting) {
        self.other_days.see(seen.time);
        if seen.is_in_window {
            self.in_source += 1;
            self.notes.read(Side::Source, seen);
        }
    }

    fn target(&mut self, seen: &Sighting) {
        self.in_target += 1;
        if seen.is_in_window {
            self.notes.read(Side::Target, seen);
        }
    }
}

impl Compared {
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

/// Says what `--max-out-of-orderness` makes the comparison rely on.
fn about_promise(selection: &Selection, is_relied_on: bool) -> Option<String> {
    let bound = humantime::format_duration(selection.max_out_of_orderness?);
    if !is_relied_on {
        return Some(
            "--max-out-of-orderness did not shorten the reading: the topics do not fit --index-memory, so the records \
             outside of the window are compared too"
                .to_owned(),
        );
    }
    Some(format!(
        "assumed that no record of {} is more than {bound} older than an earlier one of its partition, so records of the \
         window were not looked for behind that",
        selection.shown_source()
    ))
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

fn about_unsettled(findings: &Findings) -> Option<String> {
    (findings.unsettled > 0).then(|| {
        format!(
            "{} keys were not judged, because the source wrote them anew while the comparison began",
            findings.unsettled
        )
    })
}

fn about_order(findings: &Findings) -> Option<String> {
    findings.reordered.is_none().then(|| {
        "the order was not judged: the topics are not equal throughout, and --index-memory has no room for the places \
         of all their records"
            .to_owned()
    })
}
