//! Decides where a follow goes on, from the marks that earlier runs committed.

use std::collections::{BTreeMap, BTreeSet};

use super::{Followed, Own, Run};
use crate::base::error::{Error, Reason, Result};
use crate::base::interrupt::Interrupt;
use crate::base::range::{id, index};
use crate::fill::close::is_of_logs;
use crate::fill::preflight::Preflight;
use crate::fill::state::Snapshot;
use crate::job::identity::Identity;
use crate::kafka::cluster::Cluster;
use crate::kafka::follow_mark::{Checkpoint, FollowMark};
use crate::kafka::mark::{Committed, Fingerprint};
use crate::kafka::member::Share;
use crate::kafka::partition::Placement;
use crate::kafka::sides::Clusters;
use crate::kafka::topic::Topic;
use crate::kafka::truncation;
use crate::kafka::watermarks::Watermarks;

impl Run<'_> {
    /// Sorts this instance's partitions: those with a mark of a follow, and those that a fill must bring up to a joint.
    /// A partition that appeared later than the marks is followed from its beginning.
    ///
    /// # Errors
    /// [`Error::Failed`] if the source no longer has what is to be copied, or the target no longer has what was copied;
    /// [`Error::Grown`] if the share has partitions that the start-up does not know yet.
    pub(in crate::fill) fn followed(
        &mut self,
        clusters: &Clusters,
        checked: &Preflight,
        committed: &[Option<Committed>],
        share: &Share,
    ) -> Result<Followed> {
        let Preflight { source, target, .. } = checked;
        if share.partitions.last().is_some_and(|last| index(*last) >= source.partitions) {
            return Err(Error::Grown(format!("{} was given more partitions", source.name).into()));
        }
        // Commits and positions of another topic of the same name would be judged wrongly below.
        checked.are_the_same(clusters)?;
        let marks = marks(&checked.follow_job(), committed);
        let to = placement(&marks);
        let keeps = to.map_or(source.partitions == target.partitions, |to| to.is_none());
        let covered = if keeps { target.partitions.min(source.partitions) } else { source.partitions };
        let is_marked = |partition: usize| is_marked(&marks, partition);
        let is_own = |partition: usize| share.partitions.contains(&id(partition));
        let is_new = |partition: usize| is_new(&marks, committed, partition);
        let is_record = self.job.selection.rules.identity == Identity::Record;
        let fills_alone = (0..covered).all(|partition| match is_record && !keeps {
            // Equal records are counted in all partitions together, so copies that a follow wrote would count too.
            true => is_own(partition) && !is_marked(partition),
            false => is_own(partition) || is_marked(partition) || is_new(partition),
        });
        let mut followed = Followed {
            own: BTreeMap::new(),
            unfilled: BTreeSet::new(),
            fills_alone,
            to,
            left_out: Vec::new(),
            // Another instance may get the new partitions later, so they stay new for the others until it has begun.
            known: known(&marks).map_or(covered, |known| {
                begun(known, covered, |partition| is_marked(partition) || is_own(partition))
            }),
        };
        for partition in &share.partitions {
            if keeps && index(*partition) >= target.partitions {
                followed.left_out.push(*partition);
                continue;
            }
            let own = match (marks.get(index(*partition)).cloned().flatten(), to) {
                (Some(marked), _) => Own::of(marked),
                (None, Some(to)) if is_new(index(*partition)) => {
                    Own::new(checked, to, Checkpoint { offset: 0, epoch: -1 })
                }
                (None, _) => {
                    followed.unfilled.insert(*partition);
                    continue;
                }
            };
            followed.own.insert(*partition, own);
        }
        if keeps && source.partitions != target.partitions && !followed.unfilled.is_empty() {
            return Err(clusters.target.properties().says(
                Error::failed(format!(
                    "the partitions {:?} of {} have no position, and {} has {} partitions, but the source has {}: give \
                     them equal numbers of partitions, and run again",
                    followed.unfilled, source.name, target.name, target.partitions, source.partitions
                ))
                .because(Reason::TopicConfiguration),
            ));
        }
        if is_record && !keeps && source.partitions == target.partitions && !followed.unfilled.is_empty() {
            return Err(clusters.target.properties().says(
                Error::failed(format!(
                    "the partitions {:?} of {} have no position. Their copies are where their keys belong, since the \
                     topics once had different numbers of partitions, but --identity record looks for them in the \
                     partitions of these numbers: run with another --identity",
                    followed.unfilled, source.name
                ))
                .because(Reason::TopicConfiguration),
            ));
        }
        self.check_followed(clusters, checked, &mut followed)?;
        Ok(followed)
    }

    /// Checks that both topics still hold what the marks say.
    fn check_followed(
        &self,
        clusters: &Clusters,
        checked: &Preflight,
        followed: &mut Followed,
    ) -> Result<()> {
        let Preflight { source, target, .. } = checked;
        if followed.own.is_empty() {
            return Ok(());
        }
        let now = clusters.target.watermarks(target)?;
        for own in followed.own.values() {
            check_target(&own.mark, &now, clusters, target, self.interrupt)?;
        }
        let now = clusters.source.watermarks(source)?;
        let mut suspects = Vec::new();
        for (partition, own) in &mut followed.own {
            let (log, place) = (now[index(*partition)], own.mark.source);
            not_replaced(&clusters.source, (&source.name, *partition), log, place)?;
            let why = if own.position > log.high {
                (Reason::LogLost, format!("is past its end {}: the topic lost records", log.high))
            } else if own.position < log.low {
                let why = format!(
                    "is below its first offset {}: the records in between were deleted before they were copied; raise \
                     the topic's retention",
                    log.low
                );
                (Reason::RecordsDeleted, why)
            } else {
                if place.offset < log.low {
                    // What lies between the last record and the position was no record.
                    own.mark.source = Checkpoint { offset: own.position, epoch: -1 };
                } else if place.epoch != log.epoch {
                    suspects.push((*partition, place));
                }
                continue;
            };
            let what = match own.committed {
                Some(position) => format!("the committed offset {position}"),
                None => format!("the place {} from which on nothing is copied yet", own.position),
            };
            let lost = Error::failed(format!("{what} of {}-{partition} {}", source.name, why.1));
            return Err(clusters.source.properties().says(lost.because(why.0)));
        }
        truncation::check(clusters.source.properties(), &source.name, &suspects, self.interrupt)
    }

    /// The state of a follow for the partitions that a fill has brought up to these ends.
    ///
    /// # Errors
    /// As [`Run::target_placement`].
    pub(in crate::fill) fn joined(
        &mut self,
        clusters: &Clusters,
        checked: &Preflight,
        snapshot: &Snapshot,
        ends: &[(i32, i64)],
        mut followed: Followed,
    ) -> Result<Followed> {
        // The first joint decided for all.
        let to = match followed.to {
            Some(to) => to,
            None => self.target_placement(&clusters.source, checked, snapshot)?,
        };
        for (partition, end) in ends {
            let place = Checkpoint { offset: *end, epoch: snapshot.source[index(*partition)].epoch };
            followed.own.insert(*partition, Own::new(checked, to, place));
            followed.unfilled.remove(partition);
        }
        Ok(followed)
    }
}

/// The positions that a follow of these topics committed, with their marks.
pub(in crate::fill) fn marks(
    job: &Fingerprint,
    committed: &[Option<Committed>],
) -> Vec<Option<(i64, FollowMark)>> {
    let mark = |Committed { position, metadata }: &Committed| {
        let mark = FollowMark::parse(metadata).filter(|mark| mark.job == *job)?;
        Some((*position, mark))
    };
    committed.iter().map(|committed| mark(committed.as_ref()?)).collect()
}

pub(super) fn is_marked(marks: &[Option<(i64, FollowMark)>], partition: usize) -> bool {
    marks.get(partition).is_some_and(Option::is_some)
}

/// The source's partitions from this one on are new, as far as the marks know. `None` if there are no marks.
fn known(marks: &[Option<(i64, FollowMark)>]) -> Option<usize> {
    marks.iter().flatten().map(|(_, mark)| mark.partitions).max()
}

/// The first partition from `known` on that nobody has begun to copy. Those from `covered` on cannot be copied yet.
fn begun(known: usize, covered: usize, has_begun: impl Fn(usize) -> bool) -> usize {
    (known..covered).find(|partition| !has_begun(*partition)).unwrap_or(known.max(covered))
}

/// Whether the source got this partition after all marks were committed, so that a follow copies it from its beginning. An
/// offset of any kind is history. If there are no marks, its own may be lost.
pub(super) fn is_new(
    marks: &[Option<(i64, FollowMark)>],
    committed: &[Option<Committed>],
    partition: usize,
) -> bool {
    let has_offset = committed.get(partition).is_some_and(Option::is_some);
    !has_offset && known(marks).is_some_and(|known| partition >= known)
}

impl Followed {
    /// Takes notice of the partitions that other instances have begun to copy since. Then this instance's marks must say so
    /// too: otherwise a partition whose own mark is lost would seem to be new.
    pub(super) fn hear(&mut self, job: &Fingerprint, committed: &[Option<Committed>]) {
        let marks = marks(job, committed);
        let of_others = known(&marks).unwrap_or(0).max(self.known);
        let has_begun = |partition| is_marked(&marks, partition) || self.own.contains_key(&id(partition));
        let now = begun(of_others, committed.len().max(of_others), has_begun);
        if now > self.known {
            self.known = now;
            self.own.values_mut().for_each(|own| own.renewed = None);
        }
    }
}

/// How copies are placed, as the first joint decided. It stays so when a topic grows. `None` if there is no joint.
pub(super) fn placement(marks: &[Option<(i64, FollowMark)>]) -> Option<Option<Placement>> {
    marks.iter().flatten().map(|(_, mark)| mark.to).next()
}

/// Checks that the target still holds what it held at the last mark.
///
/// # Errors
/// [`Error::Failed`] if a log was cut, even if it has grown again; [`Error::Restart`] if a leader does not answer.
pub(super) fn check_target(
    mark: &FollowMark,
    now: &[Watermarks],
    clusters: &Clusters,
    target: &Topic,
    interrupt: &Interrupt,
) -> Result<()> {
    let mut suspects = Vec::new();
    for (partition, then) in &mark.target {
        let Some(now) = now.get(index(*partition)) else {
            let behind = Error::restart(format!("a broker does not know {}-{partition} yet", target.name));
            return Err(clusters.target.properties().says(behind));
        };
        not_replaced(&clusters.target, (&target.name, *partition), *now, *then)?;
        if now.high < then.offset {
            let lost = Error::failed(format!(
                "{}-{} ends at {}, but it ended at {} when this job last committed: its leader lost records; compare \
                 both topics with `replicator verify`",
                target.name, partition, now.high, then.offset
            ));
            return Err(clusters.target.properties().says(lost.because(Reason::LogLost)));
        }
        if now.epoch != then.epoch {
            suspects.push((*partition, *then));
        }
    }
    truncation::check(clusters.target.properties(), &target.name, &suspects, interrupt)
}

/// Checks that the leader that answered had not been replaced before: then somebody has seen a later epoch, and its answer
/// proves nothing.
///
/// # Errors
/// [`Error::Restart`] if it had.
fn not_replaced(
    cluster: &Cluster,
    (topic, partition): (&str, i32),
    now: Watermarks,
    then: Checkpoint,
) -> Result<()> {
    if now.epoch < 0 || now.epoch >= then.epoch {
        return Ok(());
    }
    let replaced = format!("{topic}-{partition}: a leader that was replaced answers");
    Err(cluster.properties().says(Error::restart(replaced)))
}

/// The error, with the way out if a log lacks what is to be copied or what was copied.
pub(in crate::fill) fn way_out(err: Error, checked: &Preflight, clusters: &Clusters) -> Error {
    let Error::Failed(mut why) = err else { return err };
    if is_of_logs(&why) {
        why.text += &format!(
            "; to fill the window and follow anew, end all instances, {}",
            checked.ledger.forgetting(clusters.target.properties())
        );
    }
    Error::Failed(why)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(partitions: usize) -> FollowMark {
        let source = Checkpoint { offset: 7, epoch: 0 };
        let job = FollowMark::job("a", "b");
        FollowMark { job, to: None, partitions, joint: 0, level: 0, source, target: Vec::new() }
    }

    /// The offset of each partition: that of a follow which knew so many partitions, one of something else, or none.
    fn committed(each: &[Option<usize>]) -> Vec<Option<Committed>> {
        let one = |known: &Option<usize>| match known {
            Some(0) => Some(Committed { position: 7, metadata: String::new() }),
            Some(known) => Some(Committed { position: 7, metadata: mark(*known).to_string() }),
            None => None,
        };
        each.iter().map(one).collect()
    }

    #[test]
    fn a_partition_is_new_only_if_no_mark_knows_it_and_it_has_no_offset() {
        let is_new = |each: &[Option<usize>], partition| {
            let committed = committed(each);
            is_new(&marks(&FollowMark::job("a", "b"), &committed), &committed, partition)
        };
        assert!(is_new(&[Some(1), None], 1));
        assert!(is_new(&[Some(1)], 1), "the ledger may still be narrower");
        assert!(!is_new(&[Some(1), Some(0)], 1), "somebody reset its offset");
        assert!(!is_new(&[Some(2), None], 1), "its mark was lost");
        assert!(!is_new(&[Some(1), None, Some(3)], 1), "another instance knows it");
        assert!(!is_new(&[None, None], 1), "all marks may be lost");
    }

    #[test]
    fn partitions_behind_one_that_nobody_has_begun_stay_new() {
        let begun_are = |known, ones: &[usize]| begun(known, 5, |partition| ones.contains(&partition));
        assert_eq!(begun_are(2, &[]), 2);
        assert_eq!(begun_are(2, &[0, 1, 2, 3]), 4);
        assert_eq!(begun_are(2, &[3]), 2);
        assert_eq!(begun_are(2, &[2, 4]), 3);
        assert_eq!(begun_are(2, &[2, 3, 4, 5]), 5, "the target has only 5 partitions");
    }

    #[test]
    fn an_instance_hears_of_partitions_that_others_have_begun() {
        let own = Own::of((7, mark(1)));
        let own = Own { renewed: Some(std::time::Instant::now()), ..own };
        let mut followed = Followed {
            own: BTreeMap::from([(0, own)]),
            unfilled: BTreeSet::new(),
            fills_alone: true,
            to: Some(None),
            left_out: Vec::new(),
            known: 1,
        };
        let job = FollowMark::job("a", "b");
        followed.hear(&job, &committed(&[Some(1), None]));
        assert!(followed.known == 1 && followed.own[&0].renewed.is_some());
        followed.hear(&job, &committed(&[Some(1), Some(2)]));
        assert!(followed.known == 2 && followed.own[&0].renewed.is_none(), "its mark must say so too");
    }
}
