//! What a follow between two clusters may and must do. Its rights are in the table of [`two_acls`].

use super::crossing::*;
use super::two_acls::{FOLLOW, arguments, needed, refused_without_each};
use super::*;

/// A follow of a person at work.
pub(super) struct Following<'c> {
    crossing: &'c Crossing,
    pub(super) child: std::process::Child,
}

impl Following<'_> {
    pub(super) fn start<'c>(crossing: &'c Crossing, person: &Person, arguments: &[&str]) -> Following<'c> {
        let (from, to) = (crossing.to_source(person), crossing.to_target(person));
        let mut command = crossing.command((&from, &to), Way::OneFile, arguments);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts");
        Following { crossing, child }
    }

    /// Waits until each of so many partitions of the ledger has the mark of a follow.
    pub(super) fn until_joined(self, partitions: usize) -> Self {
        let (job, ledger) = (self.crossing.job(), self.crossing.ledger());
        until(|| to().topics().contains(&ledger) && to().watermarks(&ledger).len() == partitions);
        until(|| to().committed(&job, &ledger).iter().all(|(_, mark)| mark.contains(" follow ")));
        self
    }

    pub(super) fn stopped(self) {
        signal(&self.child, "-TERM");
        let output = self.child.wait_with_output().expect("ends");
        assert_eq!(code(&output), 0, "{}", stderr(&output));
    }

    /// Waits until it ends because it lacks this right.
    fn refused(self, sentence: &str) {
        let output = self.child.wait_with_output().expect("ends");
        assert_eq!(receipt(&output)["error"]["reason"], "no-permission", "{}", stderr(&output));
        assert!(stderr(&output).contains(sentence), "{sentence}: {}", stderr(&output));
    }
}

/// Asserts that the target holds each record once. Those before the window were there already.
pub(super) fn assert_all_there(crossing: &Crossing, more: &[Record]) {
    let (mut found, mut wanted) = (to().consume(&crossing.target), [&records()[..], more].concat());
    found.sort();
    wanted.sort();
    assert_same(&found, &wanted);
}

/// A follow needs the rights of a fill with --scale-out. It must also see whether a reversed job is at work, or be told to
/// go on without.
#[test]
fn a_follow_does_not_take_a_job_that_it_may_not_see_for_none() {
    let crossing = Crossing::new();
    refused_without_each(&crossing, FOLLOW);
    let person = crossing.person();
    crossing.grant(&person, needed(FOLLOW));
    let unchecked = arguments(FOLLOW);
    let checked: Vec<&str> =
        unchecked.iter().filter(|word| **word != "--allow-unchecked-loop").copied().collect();
    let unseen = crossing.run_for(&person, &checked);
    assert_eq!(code(&unseen), 3, "{}", stderr(&unseen));
    assert_eq!(receipt(&unseen)["error"]["reason"], "reversed-job");
    assert!(stderr(&unseen).contains("could not be seen"), "{}", stderr(&unseen));
    Following::start(&crossing, &person, &unchecked).until_joined(2).stopped();
    crossing.grant_describe_of_reversed(&person);
    Following::start(&crossing, &person, &checked).until_joined(2).stopped();
    assert_all_there(&crossing, &[]);
}

/// Partitions are added to the target, and to the ledger, by whom may alter them.
#[test]
fn a_follow_needs_alter_to_add_partitions() {
    let crossing = Crossing::new();
    let person = crossing.person();
    crossing.grant(&person, needed(FOLLOW));
    let options = ["--create-partitions", "-X", "topic.metadata.refresh.interval.ms=1000"];
    let arguments = [&arguments(FOLLOW)[..], &options].concat();
    let following = Following::start(&crossing, &person, &arguments).until_joined(2);
    from().grow(&crossing.source, 3);
    let new = Record { partition: 2, ..records()[0].clone() };
    from().produce(&crossing.source, std::slice::from_ref(&new));
    following.refused(&format!("grant it Alter on topic {}", crossing.target));
    assert_eq!(crossing.target_ends().len(), 2);
    crossing.grant(&person, [(On::Target, ALTER)]);
    let following = Following::start(&crossing, &person, &arguments);
    following.refused(&format!("grant it Alter on topic {}", crossing.ledger()));
    assert_all_there(&crossing, &[]);
    crossing.grant(&person, [(On::Ledger, ALTER)]);
    let following = Following::start(&crossing, &person, &arguments).until_joined(3);
    until(|| to().consume(&crossing.target).len() > records().len());
    following.stopped();
    assert_all_there(&crossing, &[new]);
}
