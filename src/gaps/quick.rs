//! A first look, by the time index alone: when do the topics have unequal numbers of offsets?

use std::fmt;
use std::time::Instant;

use serde::Serialize;

use super::arguments;
use crate::cluster::{Cluster, Topic, Watermarks, ends};
use crate::error::Result;
use crate::interrupt::Interrupt;
use crate::job::Selection;
use crate::window::{Window, rfc3339};
use crate::{preflight, resolve};

/// Stretches of time that are compared; each takes a request to the leaders of either topic.
const STRETCHES: i64 = 240;

/// When the topics differ by the time index. It counts offsets: transaction markers and aborted records among
/// them, and a stretch in which as many records were doubled as lost is not seen.
#[derive(Debug, Serialize)]
pub struct Quick {
    pub source: String,
    pub target: String,
    /// In order of time.
    pub unequal: Vec<Stretch>,
    /// How long each of the compared stretches is, in milliseconds.
    pub stretch_ms: i64,
    pub elapsed_ms: u64,
}

/// A stretch of time `[start, end)` in which they differ.
#[derive(Debug, Serialize)]
pub struct Stretch {
    /// RFC 3339.
    pub start: String,
    pub end: String,
    pub offsets_in_source: i64,
    pub offsets_in_target: i64,
    /// What looks at it record by record.
    pub command: String,
}

/// Compares both topics by the time index, where [`super::gaps`] reads them.
///
/// # Errors
/// As the exit codes; a difference is none.
pub fn quick(selection: &Selection, interrupt: &Interrupt) -> Result<Quick> {
    let started = Instant::now();
    let cluster = Cluster::connect(&selection.properties, &selection.name())?;
    let (source, target) = preflight::topics(&cluster, &selection.source, &selection.target)?;
    let window = resolve::window(&cluster, selection, &source, interrupt)?;
    let mut times = resolve::edge_times(&cluster, selection, &source, interrupt)?;
    times.extend(resolve::edge_times(&cluster, selection, &target, interrupt)?);
    let (first, last) = (times.iter().min().copied().unwrap_or(0), times.iter().max().copied().unwrap_or(0));
    let (start, end) = (window.start.unwrap_or(first), window.end.unwrap_or(last.saturating_add(1)));
    let stretch_ms = ((end - start).max(1) + STRETCHES - 1) / STRETCHES;
    let edges: Vec<i64> =
        (0..).map(|number| start + number * stretch_ms).take_while(|edge| *edge < end).chain([end]).collect();
    let in_source = Counted::of(&cluster, &source, window, &edges, interrupt)?;
    let in_target = Counted::of(&cluster, &target, window, &edges, interrupt)?;
    let by_partition = source.partitions == target.partitions;
    let mut unequal: Vec<(i64, i64, i64, i64)> = Vec::new();
    for (number, edge) in edges.windows(2).enumerate() {
        let (here, there) = (&in_source.0[number], &in_target.0[number]);
        let (all_here, all_there) = (here.iter().sum::<i64>(), there.iter().sum::<i64>());
        if all_here == all_there && (!by_partition || here == there) {
            continue;
        }
        match unequal.last_mut().filter(|(_, end, ..)| *end == edge[0]) {
            Some((_, end, here, there)) => {
                (*end, *here, *there) = (edge[1], *here + all_here, *there + all_there)
            }
            None => unequal.push((edge[0], edge[1], all_here, all_there)),
        }
    }
    let stretch = |(start, end, offsets_in_source, offsets_in_target)| Stretch {
        start: rfc3339(start),
        end: rfc3339(end),
        offsets_in_source,
        offsets_in_target,
        command: format!("replicator gaps {}", arguments(selection, start, end)),
    };
    Ok(Quick {
        source: source.name,
        target: target.name,
        unequal: unequal.into_iter().map(stretch).collect(),
        stretch_ms,
        elapsed_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
    })
}

/// Offsets of each stretch, of each partition.
struct Counted(Vec<Vec<i64>>);

impl Counted {
    fn of(
        cluster: &Cluster,
        topic: &Topic,
        window: Window,
        edges: &[i64],
        interrupt: &Interrupt,
    ) -> Result<Counted> {
        let watermarks = cluster.watermarks(topic)?;
        let mut positions = Vec::with_capacity(edges.len());
        for (number, edge) in edges.iter().enumerate() {
            interrupt.check()?;
            positions.push(match (number, window.start, window.end) {
                // What the edges of the topic hold besides is of the first stretch and of the last.
                (0, None, _) => lows(&watermarks),
                (number, _, None) if number + 1 == edges.len() => ends(&watermarks),
                _ => cluster.positions_from(topic, Some(*edge), &watermarks)?,
            });
        }
        let between = |pair: &[Vec<i64>]| pair[0].iter().zip(&pair[1]).map(|(from, to)| to - from).collect();
        Ok(Counted(positions.windows(2).map(between).collect()))
    }
}

fn lows(watermarks: &[Watermarks]) -> Vec<i64> {
    watermarks.iter().map(|w| w.low).collect()
}

impl fmt::Display for Quick {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for stretch in &self.unequal {
            writeln!(
                f,
                "{} to {}: {} offsets in {}, {} in {}\n  {}",
                stretch.start,
                stretch.end,
                stretch.offsets_in_source,
                self.source,
                stretch.offsets_in_target,
                self.target,
                stretch.command
            )?;
        }
        #[expect(clippy::cast_precision_loss, reason = "for reading")]
        let seconds = self.stretch_ms as f64 / 1000.0;
        let found = if self.unequal.is_empty() { "no difference" } else { "a first look" };
        write!(
            f,
            "{found}, by the time index in steps of {seconds:.1} s: transaction markers and aborted records count, and \
             as many doubled as lost are not seen; without --quick every record is read"
        )
    }
}
