//! A set that takes a few bytes for each hash, and sometimes says yes to a hash that it does not hold. It is a blocked
//! Bloom filter (Putze, Sanders and Singler, 2007): the bits of one hash lie together, so that a look-up waits for one
//! place in memory.

use crate::job::identity::IdentityHash;

pub(super) struct Filter {
    blocks: Vec<[u64; 8]>,
}

/// Bytes for each expected hash. With these, the filter wrongly finds about one hash in a hundred million.
const BYTES_EACH: usize = 8;

impl Filter {
    /// The bytes that `expected` hashes need.
    pub(super) fn bytes(expected: usize) -> usize {
        expected.saturating_mul(BYTES_EACH)
    }

    /// For `expected` hashes, in at most `memory` bytes. With less memory it says yes more often.
    pub(super) fn new(expected: usize, memory: usize) -> Filter {
        let bytes = Filter::bytes(expected).min(memory);
        Filter { blocks: vec![[0; 8]; bytes.div_ceil(size_of::<[u64; 8]>()).max(1)] }
    }

    pub(super) fn insert(&mut self, hash: IdentityHash) {
        let block = self.block(hash);
        for bit in bits(hash) {
            self.blocks[block][bit / 64] |= 1 << (bit % 64);
        }
    }

    pub(super) fn may_hold(&self, hash: IdentityHash) -> bool {
        let block = &self.blocks[self.block(hash)];
        bits(hash).all(|bit| block[bit / 64] & 1 << (bit % 64) != 0)
    }

    /// Makes the processor fetch the places of many hashes at once.
    pub(super) fn warm(&self, hashes: impl Iterator<Item = IdentityHash>) {
        for hash in hashes {
            std::hint::black_box(self.blocks[self.block(hash)][0]);
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "less than the number of blocks")]
    fn block(&self, [first, _]: IdentityHash) -> usize {
        ((u128::from(first) * self.blocks.len() as u128) >> 64) as usize
    }
}

/// Seven numbers of nine bits from each of two words. Steps of one width would be cheaper, but too much alike.
#[expect(clippy::cast_possible_truncation, reason = "nine bits are kept")]
fn bits([first, second]: IdentityHash) -> impl Iterator<Item = usize> {
    let third = (first ^ second.rotate_left(23)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    [second, third].into_iter().flat_map(|word| (0..7).map(move |n| (word >> (9 * n + 1)) as usize % 512))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(n: u64) -> IdentityHash {
        let spread = |n: u64| {
            let n = (n ^ n >> 31).wrapping_mul(0x7fb5_d329_728e_a185);
            (n ^ n >> 27).wrapping_mul(0x81da_def4_bc2d_d44d) ^ n >> 33
        };
        [spread(2 * n + 1), spread(2 * n + 1_000_000_007)]
    }

    #[test]
    fn finds_all_that_is_in_it_and_little_else() {
        let mut filter = Filter::new(100_000, 1 << 30);
        (0..100_000).for_each(|n| filter.insert(hash(n)));
        assert!((0..100_000).all(|n| filter.may_hold(hash(n))));
        let wrong = (100_000..1_100_000).filter(|n| filter.may_hold(hash(*n))).count();
        assert!(wrong <= 2, "{wrong} of a million");
    }

    #[test]
    fn says_yes_more_often_with_less_memory_but_never_no() {
        let mut filter = Filter::new(100_000, 100_000);
        assert_eq!(filter.blocks.len(), 100_000_usize.div_ceil(64));
        (0..100_000).for_each(|n| filter.insert(hash(n)));
        assert!((0..100_000).all(|n| filter.may_hold(hash(n))));
    }
}
