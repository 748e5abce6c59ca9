//! `verify` finds each kind of difference.

use crate::kit::*;

#[test]
fn every_kind_of_difference() {
    let pair = Pair::new(1, 1);
    let records = day(600, 1);
    produce(&pair.a, &records);
    let mut target = window_of(&records);
    target[1].value = Some(b"changed".to_vec());
    target[2].time += 1;
    let doubled = target[3].clone();
    target.push(doubled);
    target.push(record(0, WINDOW.0, "extra", "x"));
    target.swap(10, 11);
    target.remove(0);
    produce(&pair.b, &target);
    let (findings, result) = pair.verify();
    assert_eq!(result.expect_err("differs").exit_code(), 4);
    let found = (findings.missing, findings.changed, findings.duplicated, findings.extra, findings.reordered);
    assert_eq!(found, (1, 2, 1, 1, Some(1)), "{findings:?}");
    assert_eq!((findings.in_source, findings.in_target), (178, 179));
}

#[test]
fn order_alone_is_a_difference_only_on_request() {
    let pair = Pair::new(1, 1);
    let records = day(600, 1);
    produce(&pair.a, &records);
    produce(&pair.b, &records[150..160]);
    pair.filled();
    let (findings, result) = pair.verify();
    result.expect("the same");
    assert_eq!(findings.reordered, Some(61));
    let output = replicator(&["verify", "--window", "11:00-13:00", "--source", &pair.a, "--target", &pair.b])
        .arg("--strict-order")
        .output()
        .expect("runs");
    assert_eq!(code(&output), 4);
}

/// A record that a fill left out on request is no difference, but is counted.
#[test]
fn what_a_fill_left_out_on_request_is_no_difference() {
    use replicator::OnConflict;
    let pair = Pair::new(1, 1).with(|job| {
        job.selection.rules.on_conflict = OnConflict::Skip;
        job.selection.rules.skip_invalid = true;
    });
    let mut records = day(600, 1);
    records[120].key = records[110].key.clone();
    records[130].key = None;
    produce(&pair.a, &records);
    let receipt = pair.filled();
    assert_eq!((receipt.counts.conflicts, receipt.counts.invalid), (1, 1));
    let (findings, result) = pair.verify();
    result.unwrap_or_else(|e| panic!("{e} {findings:?}"));
    assert_eq!((findings.conflicts, findings.invalid, findings.missing), (1, 1, 0));
    let pair = pair.with(|job| {
        job.selection.rules.on_conflict = OnConflict::Fail;
        job.selection.rules.skip_invalid = false;
    });
    let (findings, result) = pair.verify();
    assert_eq!(result.expect_err("differs").exit_code(), 4);
    assert_eq!(findings.missing, 2);
}

/// If the target holds a record that a fill may leave out, verify pairs it with the source's record.
#[test]
fn records_without_identity_that_are_there_are_paired() {
    let pair = Pair::new(1, 1).with(|job| job.selection.rules.skip_invalid = true);
    let mut records = day(600, 1);
    records[120].key = None;
    records[130].key = None;
    produce(&pair.a, &records);
    produce(&pair.b, &records[..125]);
    pair.filled();
    let (findings, result) = pair.verify();
    result.unwrap_or_else(|e| panic!("{e} {findings:?}"));
    assert_eq!((findings.invalid, findings.extra), (1, 0));
}
