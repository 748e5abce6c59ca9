//! Judges the source's records at and above the joint of a follow. A follow copies each of them, equal ones too. So each
//! needs a copy of its own, and that copy counts for no record below the joint. Pure.

use super::index::{Index, Slot};
use super::{Signature, Verdict};
use crate::base::error::Result;

/// Counts records in bounded memory: each takes 16 bytes, so 21 to 32 bytes of the table. First the caller shows it all
/// of the source's records above the joint, then all of the target's records. After that it judges the former again.
pub(crate) struct AboveJoint {
    /// For each record of the source, how many copies are still wanted.
    wanted: Index,
}

impl AboveJoint {
    /// The table takes at most `memory` bytes.
    pub(crate) fn new(memory: usize) -> AboveJoint {
        AboveJoint { wanted: Index::new(memory) }
    }

    /// Notes a record of the source.
    ///
    /// # Errors
    /// [`crate::base::error::Error::Failed`] when the table would outgrow its memory.
    pub(crate) fn want(&mut self, signature: Signature) -> Result<()> {
        self.wanted.add(Slot::First, signature.exact_key(), 1).map(drop)
    }

    /// Takes a record of the target for a copy, and says whether it was wanted. If not, the job's own judge must see it.
    pub(crate) fn take(&mut self, signature: Signature) -> bool {
        match self.wanted.get_mut(Slot::First, signature.exact_key()).filter(|wanted| **wanted > 0) {
            Some(wanted) => {
                *wanted -= 1;
                true
            }
            None => false,
        }
    }

    /// Judges a record of the source, after all records of the target.
    pub(crate) fn judge(&mut self, signature: Signature) -> Verdict {
        // A copy that is still wanted did not come.
        if self.take(signature) { Verdict::New } else { Verdict::AlreadyInTarget }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;
    use crate::job::Rules;
    use crate::job::identity::Identity;
    use crate::judge::Judge;

    /// An identity and a content, as letters: `a1`.
    type Plain = &'static str;

    fn signature(identity: u64, content: u64) -> Signature {
        // Spread as hashes are.
        let spread = |n: u64| {
            (n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(31).wrapping_mul(0xd6e8_feb8_6659_fd93)
        };
        let exact = spread(identity * 1009 + content);
        Signature { identity: [spread(identity), spread(identity + 77)], exact, loose: exact }
    }

    fn of(plain: Plain) -> Signature {
        let bytes = plain.as_bytes();
        signature(u64::from(bytes[0]), u64::from(bytes[1]))
    }

    /// The verdicts about the source's records above and below the joint, in the order that `compare` keeps.
    fn judged(
        target: &[Signature],
        above: &[Signature],
        below: &[Signature],
    ) -> (Vec<Verdict>, Vec<Verdict>) {
        let mut judge = Judge::new(&Rules::by(Identity::Key), 1 << 20);
        let mut joint = AboveJoint::new(1 << 20);
        above.iter().for_each(|signature| joint.want(*signature).expect("room"));
        for signature in target {
            if !joint.take(*signature) {
                judge.target(*signature).expect("room");
            }
        }
        let above = above.iter().map(|signature| joint.judge(*signature)).collect();
        (above, below.iter().map(|signature| judge.source(*signature).expect("room")).collect())
    }

    use Verdict::{AlreadyInTarget as Held, Conflict, DuplicateInSource as Again, New};

    #[rstest]
    #[case::user_ids_with_other_contents(&["a1", "a2", "a3"], &["a2", "a3"], &["a1"], &[Held, Held], &[Held])]
    #[case::a_repeat_that_is_lost(&["a1"], &["a1", "a1"], &[], &[New, Held], &[])]
    #[case::an_equal_one_below_takes_none(&["a1"], &["a1"], &["a1"], &[Held], &[New])]
    #[case::one_for_each(&["a1", "a1"], &["a1"], &["a1"], &[Held], &[Held])]
    #[case::repeats_below_share_one(&["a1", "a1"], &["a1"], &["a1", "a1"], &[Held], &[Held, Again])]
    #[case::a_loss_below_is_no_conflict(&["a2"], &["a2"], &["a1"], &[Held], &[New])]
    #[case::a_change_below_is_one(&["a2", "a3"], &["a2"], &["a1"], &[Held], &[Conflict])]
    #[case::none_above(&["a1"], &[], &["a1", "a1", "b1"], &[], &[Held, Again, New])]
    fn each_has_its_verdict(
        #[case] target: &[Plain],
        #[case] above: &[Plain],
        #[case] below: &[Plain],
        #[case] of_above: &[Verdict],
        #[case] of_below: &[Verdict],
    ) {
        let all = |plain: &[Plain]| plain.iter().map(|plain| of(plain)).collect::<Vec<_>>();
        let (above, below) = judged(&all(target), &all(above), &all(below));
        assert_eq!((above.as_slice(), below.as_slice()), (of_above, of_below));
    }

    #[test]
    fn it_refuses_what_does_not_fit() {
        let mut joint = AboveJoint::new(1 << 20);
        let refused = (0..1 << 20).find_map(|n| joint.want(signature(n, n)).err()).expect("it is bounded");
        assert!(refused.to_string().contains("--index-memory"), "{refused}");
    }

    fn few() -> impl Strategy<Value = Vec<(u64, u64)>> {
        prop::collection::vec((0_u64..3, 0_u64..3), 0..12)
    }

    proptest! {
        /// Of each record, the target needs a copy for each one above the joint, and one more if there are some below.
        #[test]
        fn the_need_is_the_sum(target in few(), above in few(), below in few()) {
            let all = |plain: &[(u64, u64)]| plain.iter().map(|(i, c)| signature(*i, *c)).collect::<Vec<_>>();
            let (of_above, of_below) = judged(&all(&target), &all(&above), &all(&below));
            let lacking = |records: &[(u64, u64)], verdicts: &[Verdict], of: (u64, u64)| {
                let each = records.iter().zip(verdicts).filter(|(record, _)| **record == of);
                each.filter(|(_, verdict)| matches!(verdict, New | Conflict)).count()
            };
            for plain in above.iter().chain(&below) {
                let count = |records: &[(u64, u64)]| records.iter().filter(|record| *record == plain).count();
                let left = count(&target).saturating_sub(count(&above));
                let above_lacks = count(&above).saturating_sub(count(&target));
                prop_assert_eq!(lacking(&above, &of_above, *plain), above_lacks);
                // A repeat of a conflict is a conflict again.
                prop_assert_eq!(lacking(&below, &of_below, *plain) > 0, count(&below) > 0 && left == 0);
            }
        }
    }
}
