//! Tells which partition a key belongs to. Pure.

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
    /// FNV-1a, Sarama's default for keys (`NewHashPartitioner`).
    Sarama,
}

impl Placement {
    const ALL: [Placement; 3] = [Placement::Java, Placement::Librdkafka, Placement::Sarama];

    /// The placements that put each key of `found` into the partition where it is; all of them if nothing was found. An
    /// empty key shows nothing: librdkafka puts it anywhere.
    pub fn fitting(found: &[(Vec<u8>, i32)], partitions: usize) -> Vec<Placement> {
        let fits = |placement: &Placement| {
            let mut shown = found.iter().filter(|(key, _)| !key.is_empty());
            shown.all(|(key, partition)| placement.partition(key, partitions) == *partition)
        };
        Placement::ALL.into_iter().filter(fits).collect()
    }

    /// The placement with this name in librdkafka's property `partitioner`.
    pub fn named(partitioner: &str) -> Option<Placement> {
        match partitioner {
            "murmur2" | "murmur2_random" => Some(Placement::Java),
            "consistent" | "consistent_random" => Some(Placement::Librdkafka),
            "fnv1a" | "fnv1a_random" => Some(Placement::Sarama),
            _ => None,
        }
    }

    /// A name that [`Placement::named`] understands.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Placement::Java => "murmur2",
            Placement::Librdkafka => "consistent",
            Placement::Sarama => "fnv1a",
        }
    }

    pub fn partition(self, key: &[u8], partitions: usize) -> i32 {
        let count = u32::try_from(partitions).unwrap_or(u32::MAX).max(1);
        match self {
            Placement::Java => of_key(key, partitions),
            Placement::Librdkafka => (crc32fast::hash(key) % count).cast_signed(),
            Placement::Sarama => (fnv1a(key).cast_signed().unsigned_abs() % count).cast_signed(),
        }
    }
}

impl std::fmt::Display for Placement {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Placement::Java => "by murmur2, as Java's producer chooses it",
            Placement::Librdkafka => "by CRC-32, as librdkafka chooses it (Python, Go, .NET)",
            Placement::Sarama => "by FNV-1a, as Sarama chooses it (Go)",
        })
    }
}

/// Fowler, Noll and Vo's hash of 32 bits, written from their own description.
fn fnv1a(key: &[u8]) -> u32 {
    key.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    // The expected hashes are those of Apache Kafka's UtilsTest.testMurmur2.
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

    // CRC-32's check value is for "123456789". FNV-1a's value for "foobar" is from its authors' test vectors.
    #[test]
    fn placements_are_told_from_keys_and_their_partitions() {
        use Placement::*;
        let key = b"123456789".to_vec();
        let (java, librdkafka) = (of_key(&key, 100), (0xcbf4_3926_u32 % 100).cast_signed());
        assert_ne!(java, librdkafka);
        assert_eq!(Placement::fitting(&[(key.clone(), java)], 100), [Java]);
        assert_eq!(Placement::fitting(&[(key.clone(), librdkafka)], 100), [Librdkafka]);
        assert_eq!(Placement::fitting(&[(key.clone(), java), (key.clone(), librdkafka)], 100), []);
        assert_eq!(Placement::fitting(&[(key, 0), (Vec::new(), 0)], 1), Placement::ALL);
        assert_eq!(Placement::fitting(&[(Vec::new(), 7)], 100), Placement::ALL);

        // As a signed number it is negative, and Sarama takes its absolute value.
        assert_eq!(fnv1a(b"foobar"), 0xbf9c_f968);
        let sarama = ((u32::MAX - 0xbf9c_f968 + 1) % 100).cast_signed();
        assert_eq!(Placement::fitting(&[(b"foobar".to_vec(), sarama)], 100), [Sarama]);
    }

    #[test]
    fn an_empty_key_has_a_partition() {
        assert_eq!(of_key(b"", 7), (275_646_681 & 0x7fff_ffff) % 7);
    }
}
