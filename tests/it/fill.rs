//! Fills of targets that hold different records before.

use rstest::rstest;

use crate::kit::*;

#[rstest]
#[case(1, 1)]
#[case(7, 7)]
fn an_empty_target(#[case] a: i32, #[case] b: i32) {
    let pair = Pair::new(a, b);
    produce(&pair.a, &day(3000, a));
    let receipt = pair.filled();
    assert_eq!(receipt.counts.written, 889);
    assert_eq!(receipt.counts.in_window, 889);
    pair.assert_filled(&[]);
}

#[test]
fn a_target_with_a_hole() {
    let pair = Pair::new(3, 3);
    let records = day(3000, 3);
    produce(&pair.a, &records);
    let before = outside_of(&records);
    produce(&pair.b, &before);
    assert_eq!(pair.filled().counts.written, 889);
    pair.assert_filled(&before);
}

#[test]
fn a_target_with_part_of_the_window() {
    let pair = Pair::new(3, 3);
    let records = day(3000, 3);
    produce(&pair.a, &records);
    let mut number = 0;
    let before: Vec<Record> = records
        .iter()
        .filter(|r| {
            number += 1;
            !in_window(r) || number % 3 == 0
        })
        .cloned()
        .collect();
    produce(&pair.b, &before);
    let receipt = pair.filled();
    assert_eq!(receipt.counts.already_in_target + receipt.counts.written, 889);
    assert!(receipt.counts.already_in_target > 250);
    pair.assert_filled(&before);
}

#[test]
fn records_added_to_the_source_between_runs() {
    let pair = Pair::new(2, 2);
    let records = day(600, 2);
    produce(&pair.a, &records[..250]);
    pair.filled();
    produce(&pair.a, &records[250..]);
    pair.filled();
    pair.assert_filled(&[]);
}

#[test]
fn a_plan_says_what_the_fill_does_and_writes_nothing() {
    let pair = Pair::new(2, 2);
    let records = day(600, 2);
    produce(&pair.a, &records);
    produce(&pair.b, &records[..200]);
    let (plan, result) = pair.plan();
    result.expect("plans");
    assert_same(&consume(&pair.b), &{
        let mut before = records[..200].to_vec();
        before.sort_by_key(|r| r.partition);
        before
    });
    let receipt = pair.filled();
    assert_eq!(plan.to_write, Some(receipt.counts.written));
    assert_eq!(plan.counts.in_window, receipt.counts.in_window);
    assert_eq!(plan.counts.already_in_target, receipt.counts.already_in_target);
    assert_eq!(pair.plan().0.to_write, Some(0));
}

#[test]
fn committed_offsets_that_expired_or_were_deleted() {
    let pair = Pair::new(2, 2);
    produce(&pair.a, &day(600, 2));
    pair.filled();
    delete_group(&pair.job.selection.name());
    let receipt = pair.filled();
    assert_eq!(receipt.counts.written, 0, "dedup alone holds");
    assert_eq!(receipt.counts.already_in_target, 178);
    pair.assert_filled(&[]);
}

#[test]
fn the_group_reset_by_hand_to_the_end() {
    let pair = Pair::new(2, 2);
    produce(&pair.a, &day(600, 2));
    reset_group(&pair.job.selection.name(), &pair.a, rdkafka::Offset::End);
    assert_eq!(pair.filled().counts.written, 178, "offsets that are not ours are no proof");
    pair.assert_filled(&[]);
}

#[test]
fn another_window_after_the_first_and_back() {
    let pair = Pair::new(2, 2);
    let records = day(600, 2);
    produce(&pair.a, &records);
    pair.filled();
    let later = Pair { a: pair.a.clone(), b: pair.b.clone(), job: pair.job.clone() }
        .with(|job| job.selection.window = "12:00-14:00".parse().expect("a window"));
    let receipt = later.filled();
    assert_eq!(receipt.counts.in_window, 178);
    assert_eq!(receipt.counts.already_in_target, 89);
    let back = pair.filled();
    assert_eq!(back.counts.written, 0);
    let wanted: Vec<Record> =
        records.into_iter().filter(|r| (WINDOW.0..WINDOW.1 + HOUR).contains(&r.time)).collect();
    pair.assert_holds(&[], &{
        let mut wanted = wanted;
        wanted.sort_by_key(|r| r.partition);
        wanted
    });
}

#[test]
fn another_identity_in_between() {
    let pair = Pair::new(2, 2);
    produce(&pair.a, &day(600, 2));
    pair.filled();
    for identity in ["key+value", "field:/n", "value", "key"] {
        let other = Pair { a: pair.a.clone(), b: pair.b.clone(), job: pair.job.clone() }
            .with(|job| job.selection.rules.identity = identity.parse().expect("an identity"));
        let receipt = other.filled();
        assert_eq!(receipt.counts.written, 0);
        assert_eq!(receipt.counts.already_in_target, 178, "by {identity}");
    }
    pair.assert_filled(&[]);
}

#[test]
fn the_target_made_anew() {
    let pair = Pair::new(2, 2);
    produce(&pair.a, &day(600, 2));
    pair.filled();
    delete(&pair.b);
    create(&pair.b, 2, &[]);
    assert_eq!(pair.filled().counts.written, 178);
    pair.assert_filled(&[]);
}

#[test]
fn the_source_made_anew() {
    let pair = Pair::new(2, 2);
    let records = day(600, 2);
    produce(&pair.a, &records[..400]);
    pair.filled();
    delete(&pair.a);
    create(&pair.a, 2, &[]);
    produce(&pair.a, &records);
    pair.filled();
    pair.assert_filled(&[]);
}

#[test]
fn the_target_trimmed() {
    let pair = Pair::new(1, 1);
    let records = day(600, 1);
    produce(&pair.a, &records);
    pair.filled();
    trim(&pair.b, 0, 100);
    let receipt = pair.filled();
    assert_eq!(receipt.counts.written, 100, "what the target lost is written again, and nothing else");
    let mut found = consume(&pair.b);
    found.sort();
    assert_same(&found, &window_of(&records));
}

#[test]
fn the_source_trimmed_before_the_window() {
    let pair = Pair::new(1, 1);
    produce(&pair.a, &day(600, 1));
    trim(&pair.a, 0, 50);
    let receipt = pair.filled();
    assert_eq!(receipt.counts.written, 178);
    assert!(receipt.warnings.is_empty(), "{:?}", receipt.warnings);
    pair.assert_filled(&[]);
}

#[test]
fn the_source_trimmed_inside_the_window() {
    let pair = Pair::new(1, 1);
    produce(&pair.a, &day(600, 1));
    trim(&pair.a, 0, 150);
    let receipt = pair.filled();
    assert_eq!(receipt.counts.written, 117);
    assert!(receipt.warnings.iter().any(|w| w.contains("begins at offset 150")), "{:?}", receipt.warnings);
    pair.assert_filled(&[]);
}
