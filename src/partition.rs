//! Which partition of the target a record goes to. Pure.

/// The partition that Java's default partitioner gives a key: murmur2 with Kafka's seed, made positive
/// (`Utils.murmur2` and `BuiltInPartitioner.partitionForKey` in Apache Kafka).
pub fn of_key(key: &[u8], partitions: usize) -> i32 {
    const SEED: u32 = 0x9747_b28c;
    let partitions = i32::try_from(partitions).unwrap_or(i32::MAX).max(1);
    (murmur2::murmur2(key, SEED) & 0x7fff_ffff).cast_signed() % partitions
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    // The expected hashes stand in Apache Kafka's UtilsTest.testMurmur2.
    #[rstest]
    #[case("21", -973_932_308)]
    #[case("foobar", -790_332_482)]
    #[case("a-little-bit-long-string", -985_981_536)]
    #[case("a-little-bit-longer-string", -1_486_304_829)]
    #[case("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971)]
    #[case("abc", 479_470_107)]
    fn as_java_does(#[case] key: &str, #[case] hash: i32) {
        for partitions in [1, 2, 7, 100] {
            let count = i32::try_from(partitions).expect("small");
            assert_eq!(of_key(key.as_bytes(), partitions), (hash & 0x7fff_ffff) % count);
        }
    }

    #[test]
    fn an_empty_key_has_a_partition() {
        assert_eq!(of_key(b"", 7), (275_646_681 & 0x7fff_ffff) % 7);
    }
}
