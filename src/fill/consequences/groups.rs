//! Finds a topic's consumer groups, and how far they have read.

use std::time::{Duration, Instant};

use super::Group;
use crate::base::error::{Error, Result};
use crate::base::interrupt::Interrupt;
use crate::kafka::client::{REQUEST_TIMEOUT, close};
use crate::kafka::cluster::Cluster;
use crate::kafka::mark::Committed;
use crate::kafka::offsets;
use crate::kafka::sys::{describe, groups as sys};
use crate::kafka::topic::Topic;
use crate::kafka::watermarks::Watermarks;

const OURS: &str = "replicator/";
/// How long the plan asks groups for their offsets, one after the other.
const ASKING: Duration = Duration::from_secs(30);

/// The groups with committed offsets on `target`, sorted by name. `past` gives the offset where the window ends in a
/// partition, if it ends there. Each question without an answer goes to `not_known`, as a clause.
///
/// # Errors
/// [`crate::base::error::Error::Interrupted`].
pub(super) fn of(
    cluster: &Cluster,
    target: &Topic,
    ends: &[Watermarks],
    past: impl Fn(usize) -> Option<i64>,
    not_known: &mut Vec<String>,
    interrupt: &Interrupt,
) -> Result<Vec<Group>> {
    let (client, name) = (&cluster.committed, &target.name);
    let names = match sys::groups(client, REQUEST_TIMEOUT) {
        Ok((names, failed)) => {
            if let Some(code) = failed.first() {
                not_known.push(format!("the consumer groups of some brokers ({code})"));
            }
            names.into_iter().map(|group| group.name)
        }
        Err(code) => {
            not_known.push(format!("which consumer groups read {name} ({code})"));
            return Ok(Vec::new());
        }
    };
    // The broker silently leaves out the groups that this principal may not describe.
    if !matches!(describe::access_to_cluster(client, REQUEST_TIMEOUT), Ok(Some(may)) if may.describe) {
        not_known.push(format!(
            "whether other consumer groups read {name}: the brokers show this principal only the groups that it may \
             describe; grant it Describe on the cluster"
        ));
    }
    let started = Instant::now();
    let (mut found, mut silent, mut denied) = (Vec::new(), Vec::new(), Vec::new());
    // Skip this program's own groups: its loads and fills keep their positions there, and read nothing again.
    for group in names.filter(|name| !name.starts_with(OURS)) {
        interrupt.check()?;
        if started.elapsed() > ASKING {
            silent.push(group);
            continue;
        }
        let client = cluster.of_group(&group)?;
        match offsets::of(&client, &group, target.extent(), interrupt) {
            Ok(committed) if committed.iter().all(Option::is_none) => {}
            Ok(committed) => found.push(describe(group, &committed, ends, &past)),
            Err(Error::Interrupted) => return Err(Error::Interrupted),
            Err(Error::Refused(_)) => denied.push(group),
            Err(_) => silent.push(group),
        }
        close(&client);
    }
    let mut list = |mut groups: Vec<String>, why: &str| {
        groups.sort();
        if let Some(first) = groups.first() {
            let more =
                if groups.len() > 1 { format!(" and {} more", groups.len() - 1) } else { String::new() };
            not_known.push(format!("whether group {first}{more} read {name}: {why}"));
        }
    };
    list(denied, "no permission; grant this principal Describe on these groups");
    list(silent, "no answer in time; plan again");
    found.sort_by(|a, b| a.group.cmp(&b.group));
    Ok(found)
}

fn describe(
    group: String,
    committed: &[Option<Committed>],
    ends: &[Watermarks],
    past: impl Fn(usize) -> Option<i64>,
) -> Group {
    let committed: Vec<Option<i64>> = committed.iter().map(|c| c.as_ref().map(|c| c.position)).collect();
    let lag = |(committed, end): (&Option<i64>, &Watermarks)| {
        committed.map_or(0, |at| u64::try_from(end.high - at.max(end.low)).unwrap_or(0))
    };
    let lag = committed.iter().zip(ends).map(lag).sum();
    let mut ended = (0..ends.len()).filter_map(|partition| Some((partition, past(partition)?))).peekable();
    let past_window = ended.peek().is_some()
        && ended.all(|(partition, end)| committed[partition].is_some_and(|at| at >= end));
    Group { group, lag, past_window }
}
