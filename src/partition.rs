//! Which partition a key belongs to. Pure.

/// The partition that Java's default partitioner gives a key: murmur2 with Kafka's seed, made positive
/// (`Utils.murmur2` and `BuiltInPartitioner.partitionForKey` in Apache Kafka).
pub fn of_key(key: &[u8], partitions: usize) -> i32 {
    const SEED: u32 = 0x9747_b28c;
    let partitions = i32::try_from(partitions).unwrap_or(i32::MAX).max(1);
    (murmur2::murmur2(key, SEED) & 0x7fff_ffff).cast_signed() % partitions
}

/// How a topic's keys are spread over its partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// [`of_key`].
    Java,
    /// CRC-32, librdkafka's default for keys (`rd_kafka_msg_partitioner_consistent_random`).
    Librdkafka,
}

impl Placement {
    /// The one that put each of `found`, a key and its partition, where it is.
    pub fn of(found: &[(Vec<u8>, i32)], partitions: usize) -> Option<Placement> {
        [Placement::Java, Placement::Librdkafka].into_iter().find(|placement| {
            found.iter().all(|(key, partition)| placement.partition(key, partitions) == *partition)
        })
    }

    pub fn partition(self, key: &[u8], partitions: usize) -> i32 {
        match self {
            Placement::Java => of_key(key, partitions),
            Placement::Librdkafka => {
                let partitions = u32::try_from(partitions).unwrap_or(u32::MAX).max(1);
                (crc32fast::hash(key) % partitions).cast_signed()
            }
        }
    }
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

    // The check value of CRC-32 is of "123456789".
    #[test]
    fn a_placement_is_told_from_keys_and_their_partitions() {
        let key = b"123456789".to_vec();
        let (java, librdkafka) = (of_key(&key, 100), (0xcbf4_3926_u32 % 100).cast_signed());
        assert_ne!(java, librdkafka);
        assert_eq!(Placement::of(&[(key.clone(), java)], 100), Some(Placement::Java));
        assert_eq!(Placement::of(&[(key.clone(), librdkafka)], 100), Some(Placement::Librdkafka));
        assert_eq!(Placement::of(&[(key.clone(), java), (key, librdkafka)], 100), None);
        assert_eq!(Placement::of(&[], 100), Some(Placement::Java));
    }

    #[test]
    fn an_empty_key_has_a_partition() {
        assert_eq!(of_key(b"", 7), (275_646_681 & 0x7fff_ffff) % 7);
    }
}
