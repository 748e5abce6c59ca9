//! Compares the order of two topics in little memory. Pure.

use super::sums::term;
use crate::base::range::index;
use crate::judge::Signature;
use crate::kafka::sides::Side;

/// A hash of each partition's sequence of records, for both topics. Equal sequences have equal hashes, and others do by
/// chance only: the odds are about 2^-64.
#[derive(Default)]
pub(super) struct Sequences {
    sides: [Vec<u128>; 2],
}

impl Sequences {
    pub(super) fn add(&mut self, side: Side, partition: i32, signature: Signature) {
        let partitions = &mut self.sides[usize::from(side == Side::Target)];
        let partition = index(partition);
        if partitions.len() <= partition {
            partitions.resize(partition + 1, 0);
        }
        // A step that depends on the state, so that two records cannot change places unseen.
        partitions[partition] = (partitions[partition] ^ term(signature))
            .wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)
            .rotate_left(61);
    }

    /// Whether each partition has the same records in the same order in both topics.
    pub(super) fn are_equal(&self) -> bool {
        let [source, target] = &self.sides;
        let of = |side: &[u128], partition| side.get(partition).copied().unwrap_or(0);
        (0..source.len().max(target.len())).all(|partition| of(source, partition) == of(target, partition))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_change_is_seen() {
        let record =
            |n: u64| Signature { identity: [n.wrapping_mul(0x9e37_79b9_7f4a_7c15), n], exact: n, loose: n };
        let are_equal = |source: &[(i32, u64)], target: &[(i32, u64)]| {
            let mut sequences = Sequences::default();
            for (side, topic) in [(Side::Source, source), (Side::Target, target)] {
                topic.iter().for_each(|(partition, n)| sequences.add(side, *partition, record(*n)));
            }
            sequences.are_equal()
        };
        let topic = [(0, 1), (1, 2), (0, 3), (0, 4)];
        assert!(are_equal(&topic, &topic) && are_equal(&[], &[]));
        assert!(are_equal(&topic, &[(1, 2), (0, 1), (0, 3), (0, 4)]), "partitions are by themselves");
        assert!(!are_equal(&topic, &[(0, 3), (1, 2), (0, 1), (0, 4)]));
        assert!(!are_equal(&topic, &[(0, 1), (0, 2), (0, 3), (0, 4)]));
        assert!(
            !are_equal(&topic, &topic[..3]) && !are_equal(&topic[..3], &topic) && !are_equal(&[], &topic)
        );
    }
}
