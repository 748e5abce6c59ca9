//! Compares two topics over time: what is missing, what only the target holds, and what it holds doubled. Pure.
//!
//! In each bucket and in all, `in_target = in_source - missing + extra + doubled`.

use serde::Serialize;

use crate::base::range::{id, index};
use crate::sink::store::{Compared, Lack, Span};

/// A chart has at most about this many buckets.
const BUCKETS: i64 = 500;
/// The widths that a bucket can have, from a second to a week.
const WIDTHS: [i64; 16] = [
    1_000,
    5_000,
    10_000,
    15_000,
    30_000,
    60_000,
    120_000,
    300_000,
    600_000,
    900_000,
    1_800_000,
    3_600_000,
    10_800_000,
    21_600_000,
    86_400_000,
    604_800_000,
];

/// Counts of each bucket, in the order of time, and their sums. They are `None` if the store does not hold a topic that
/// they need. Nothing is missing in a topic compared with itself, which proves nothing: then the comparison is `None` too.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Charts {
    /// All three times are 0 if there is no record.
    pub start_ms: i64,
    pub end_ms: i64,
    pub bucket_ms: i64,
    pub source_counts: Option<Vec<u64>>,
    pub target_counts: Option<Vec<u64>>,
    pub missing_counts: Option<Vec<u64>>,
    /// Both `extra` and `doubled`.
    pub surplus_counts: Option<Vec<u64>>,
    /// Records of the source in this time.
    pub in_source: Option<u64>,
    pub in_target: Option<u64>,
    /// Records of these that the target lacks, as far as the store knows. `compared` says how they were found.
    pub missing: Option<u64>,
    /// Those of `missing` of which the target has copies, but fewer than the source.
    pub missing_copies: Option<u64>,
    /// Records of the target that are not in the source. If the store compares counts, also those that are doubled.
    pub extra: Option<u64>,
    /// Copies in the target beyond the number that the source holds. `None` if the store compares counts.
    pub doubled: Option<u64>,
    pub compared: Option<Compared>,
    pub gaps: Option<Vec<Gap>>,
    /// In the order of the partitions; those of which neither topic has a record are left out.
    pub partitions: Vec<Partition>,
}

/// Buckets in a row that lack records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Gap {
    pub start_ms: i64,
    pub end_ms: i64,
    /// The times of the first and the last missing record. If the store compares counts, where the first bucket begins
    /// and the last millisecond of the last one.
    pub first_ms: i64,
    pub last_ms: i64,
    pub missing: u64,
    pub missing_copies: u64,
    /// Records of the source from `start_ms` to `end_ms`.
    pub in_source: u64,
    /// The missing records of each partition of the source. `None` if the store compares counts.
    pub per_partition: Option<Vec<u64>>,
    /// The command that fills the gap. `None` until the topics' names are known.
    pub command: Option<String>,
}

/// One partition of both topics. The counts are as in [`Charts`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Partition {
    pub partition: i32,
    pub in_source: Option<u64>,
    pub in_target: Option<u64>,
    pub missing: Option<u64>,
    pub extra: Option<u64>,
    pub doubled: Option<u64>,
}

/// What a store knows of both topics in a span. Each is `None` if it does not hold a topic that it needs.
pub(super) struct Known {
    pub span: Span,
    pub source: Option<Vec<(i64, u64)>>,
    pub target: Option<Vec<(i64, u64)>>,
    pub source_partitions: Option<Vec<(i32, u64)>>,
    pub target_partitions: Option<Vec<(i32, u64)>>,
    pub compared: Option<Differences>,
}

/// What each of two topics holds and the other one lacks.
pub(super) struct Differences {
    pub by: Compared,
    pub missing: Vec<Lack>,
    pub surplus: Vec<Lack>,
}

impl Known {
    pub(super) fn charts(self) -> Charts {
        let Known { span, source, target, source_partitions, target_partitions, compared } = self;
        let counts = |of: Option<Vec<(i64, u64)>>| of.map(|counts| dense(span, counts.into_iter()));
        let (source_counts, target_counts) = (counts(source), counts(target));
        let sum = |counts: &Option<Vec<u64>>| counts.as_ref().map(|counts| counts.iter().sum());
        let (in_source, in_target) = (sum(&source_counts), sum(&target_counts));
        let partitions = partitions(source_partitions, target_partitions, compared.as_ref());
        let charts = Charts {
            start_ms: span.start_ms,
            end_ms: span.end_ms,
            bucket_ms: span.bucket_ms,
            in_source,
            in_target,
            source_counts,
            target_counts,
            partitions,
            ..Charts::default()
        };
        let Some(Differences { by, missing, surplus }) = compared else { return charts };
        let by_bucket = |lacks: &[Lack]| dense(span, lacks.iter().map(|lack| (lack.start_ms, lack.records)));
        let (missing_counts, surplus_counts) = (by_bucket(&missing), by_bucket(&surplus));
        let of_source = charts.source_counts.as_deref().unwrap_or_default();
        let doubled = further(&surplus);
        let by_records = by == Compared::Records;
        Charts {
            missing: Some(missing_counts.iter().sum()),
            missing_copies: by_records.then(|| further(&missing)),
            extra: Some(surplus_counts.iter().sum::<u64>() - doubled),
            doubled: by_records.then_some(doubled),
            compared: Some(by),
            gaps: Some(gaps(span, &missing_counts, of_source, &missing)),
            missing_counts: Some(missing_counts),
            surplus_counts: Some(surplus_counts),
            ..charts
        }
    }
}

fn further(lacks: &[Lack]) -> u64 {
    lacks.iter().map(|lack| lack.further).sum()
}

/// Buckets begin at whole multiples of their width, so that two looks at the same time have the same buckets.
pub(super) fn span(start: i64, end: i64) -> Span {
    let end = end.max(start.saturating_add(1));
    let length = end.saturating_sub(start);
    let widest = WIDTHS[WIDTHS.len() - 1];
    let bucket = WIDTHS.into_iter().find(|width| length / width < BUCKETS);
    // For thousands of years, a bucket is several weeks wide.
    let bucket = bucket.unwrap_or_else(|| (length / BUCKETS / widest + 1) * widest);
    let start = start.div_euclid(bucket).saturating_mul(bucket);
    let buckets = (end.saturating_sub(start) - 1).div_euclid(bucket) + 1;
    Span { start_ms: start, end_ms: start.saturating_add(buckets.saturating_mul(bucket)), bucket_ms: bucket }
}

fn dense(span: Span, counts: impl Iterator<Item = (i64, u64)>) -> Vec<u64> {
    let buckets = (span.end_ms.saturating_sub(span.start_ms)) / span.bucket_ms.max(1);
    let mut dense = vec![0; usize::try_from(buckets).unwrap_or(0)];
    for (start, count) in counts {
        let place = usize::try_from(start.saturating_sub(span.start_ms) / span.bucket_ms.max(1));
        if let Some(bucket) = place.ok().and_then(|place| dense.get_mut(place)) {
            *bucket += count;
        }
    }
    dense
}

/// Buckets in a row that lack records are one gap. A bucket without records in the source does not end a gap.
fn gaps(span: Span, missing: &[u64], in_source: &[u64], lacks: &[Lack]) -> Vec<Gap> {
    let mut gaps: Vec<Gap> = Vec::new();
    let mut is_open = false;
    let mut end = span.start_ms;
    for (missing, in_source) in missing.iter().zip(in_source) {
        let start = end;
        end += span.bucket_ms;
        match gaps.last_mut() {
            _ if *missing == 0 => is_open &= *in_source == 0,
            Some(gap) if is_open => {
                gap.end_ms = end;
                gap.in_source += in_source;
            }
            _ => {
                gaps.push(Gap {
                    start_ms: start,
                    end_ms: end,
                    first_ms: i64::MAX,
                    last_ms: i64::MIN,
                    missing: 0,
                    missing_copies: 0,
                    in_source: *in_source,
                    per_partition: lacks.iter().all(|lack| lack.partition.is_some()).then(Vec::new),
                    command: None,
                });
                is_open = true;
            }
        }
    }
    // Both are in the order of time.
    let mut at = gaps.iter_mut().peekable();
    for lack in lacks {
        while at.next_if(|gap| gap.end_ms <= lack.start_ms).is_some() {}
        let Some(gap) = at.peek_mut() else { break };
        gap.missing += lack.records;
        gap.missing_copies += lack.further;
        gap.first_ms = gap.first_ms.min(lack.first_ms);
        gap.last_ms = gap.last_ms.max(lack.last_ms);
        if let (Some(counts), Some(partition)) = (&mut gap.per_partition, lack.partition) {
            counts.resize(counts.len().max(index(partition) + 1), 0);
            counts[index(partition)] += lack.records;
        }
    }
    gaps
}

fn partitions(
    source: Option<Vec<(i32, u64)>>,
    target: Option<Vec<(i32, u64)>>,
    compared: Option<&Differences>,
) -> Vec<Partition> {
    let both = || source.iter().chain(&target).flatten();
    let count = both().map(|(partition, _)| index(*partition) + 1).max().unwrap_or(0);
    let (is_source, is_target) = (source.as_ref().map(|_| 0), target.as_ref().map(|_| 0));
    let compared = compared.filter(|compared| compared.by == Compared::Records);
    let none = compared.map(|_| 0);
    let empty = |number| Partition {
        partition: id(number),
        in_source: is_source,
        in_target: is_target,
        missing: none,
        extra: none,
        doubled: none,
    };
    let mut rows: Vec<Partition> = (0..count).map(empty).collect();
    for (partition, records) in source.into_iter().flatten() {
        rows[index(partition)].in_source = Some(records);
    }
    for (partition, records) in target.into_iter().flatten() {
        rows[index(partition)].in_target = Some(records);
    }
    let add = |to: &mut Option<u64>, count: u64| *to = to.map(|sum| sum + count);
    if let Some(Differences { missing, surplus, .. }) = compared {
        for lack in missing {
            if let Some(row) = lack.partition.and_then(|partition| rows.get_mut(index(partition))) {
                add(&mut row.missing, lack.records);
            }
        }
        for lack in surplus {
            if let Some(row) = lack.partition.and_then(|partition| rows.get_mut(index(partition))) {
                add(&mut row.extra, lack.records - lack.further);
                add(&mut row.doubled, lack.further);
            }
        }
    }
    rows.retain(|row| row.in_source.unwrap_or(0) + row.in_target.unwrap_or(0) > 0);
    rows
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TEN: i64 = 1_618_394_400_000; // 2021-04-14T10:00Z

    fn lack(start_ms: i64, partition: i32, records: u64, further: u64) -> Lack {
        Lack {
            start_ms,
            partition: Some(partition),
            records,
            further,
            first_ms: start_ms + 1,
            last_ms: start_ms + 3,
        }
    }

    #[test]
    fn a_day_of_work_is_in_minutes() {
        let span = span(TEN + 12_345, TEN + 405 * 60_000);
        assert_eq!(span, Span { start_ms: TEN, end_ms: TEN + 405 * 60_000, bucket_ms: 60_000 });
        assert_eq!(dense(span, [(TEN, 3), (TEN + 404 * 60_000, 4)].into_iter()).len(), 405);
    }

    #[test]
    fn buckets_in_a_row_are_one_gap() {
        let span = Span { start_ms: 0, end_ms: 60, bucket_ms: 10 };
        let found = |missing: &[u64],
                     in_source: &[u64],
                     lacks: &[Lack]|
         -> Vec<(i64, i64, i64, i64, u64, u64)> {
            gaps(span, missing, in_source, lacks)
                .iter()
                .map(|gap| (gap.start_ms, gap.end_ms, gap.first_ms, gap.last_ms, gap.missing, gap.in_source))
                .collect()
        };
        let lacks = [lack(0, 0, 1, 0), lack(10, 1, 2, 0), lack(40, 0, 3, 0), lack(50, 2, 4, 1)];
        assert_eq!(
            found(&[1, 2, 0, 0, 3, 4], &[5; 6], &lacks),
            [(0, 20, 1, 13, 3, 10), (40, 60, 41, 53, 7, 10)]
        );
        let told = gaps(span, &[1, 2, 0, 0, 3, 4], &[5; 6], &lacks);
        assert_eq!(told[1].per_partition, Some(vec![3, 0, 4]));
        assert_eq!((told[0].missing_copies, told[1].missing_copies), (0, 1));
        let lacks = [lack(10, 0, 2, 0), lack(40, 0, 3, 0)];
        assert_eq!(found(&[0, 2, 0, 0, 3, 0], &[1, 2, 0, 0, 3, 0], &lacks), [(10, 50, 11, 43, 5, 5)]);
        assert_eq!(found(&[0; 6], &[0; 6], &[]), []);
    }

    #[test]
    fn the_counts_add_up_in_all_and_by_partition() {
        let span = Span { start_ms: 0, end_ms: 20, bucket_ms: 10 };
        let known = Known {
            span,
            source: Some(vec![(0, 10), (10, 10)]),
            target: Some(vec![(0, 9), (10, 14)]),
            source_partitions: Some(vec![(0, 8), (2, 12)]),
            target_partitions: Some(vec![(0, 23)]),
            compared: Some(Differences {
                by: Compared::Records,
                missing: vec![lack(0, 0, 2, 0), lack(10, 2, 1, 1)],
                surplus: vec![lack(0, 0, 1, 1), lack(10, 0, 5, 2)],
            }),
        };
        let charts = known.charts();
        assert_eq!((charts.in_source, charts.in_target), (Some(20), Some(23)));
        assert_eq!((charts.missing, charts.missing_copies), (Some(3), Some(1)));
        assert_eq!((charts.extra, charts.doubled), (Some(3), Some(3)));
        assert_eq!(charts.surplus_counts, Some(vec![1, 5]));
        let row = |partition, in_source, in_target, missing, extra, doubled| Partition {
            partition,
            in_source: Some(in_source),
            in_target: Some(in_target),
            missing: Some(missing),
            extra: Some(extra),
            doubled: Some(doubled),
        };
        assert_eq!(charts.partitions, [row(0, 8, 23, 2, 3, 3), row(2, 12, 0, 1, 0, 0)]);
    }

    proptest! {
        #[test]
        fn a_span_covers_what_was_asked_in_few_buckets(start in -1i64 << 50..1i64 << 50, length in 0i64..1i64 << 50) {
            let span = span(start, start + length);
            prop_assert!(span.start_ms <= start && span.end_ms >= start + length);
            prop_assert_eq!((span.end_ms - span.start_ms) % span.bucket_ms, 0);
            prop_assert!((span.end_ms - span.start_ms) / span.bucket_ms <= BUCKETS + 1);
        }

        #[test]
        fn no_edge_overflows(start in any::<i64>(), end in any::<i64>()) {
            let span = span(start, end);
            prop_assert!(dense(span, [(start, 1), (end, 1)].into_iter()).len() <= 1000);
        }
    }
}
