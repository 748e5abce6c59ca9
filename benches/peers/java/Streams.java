import java.util.*;
import java.util.concurrent.*;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.*;

/** Kafka Streams, exactly once, passing records through until all are committed: BOOTSTRAP SOURCE TARGET. */
public class Streams {
    public static void main(String[] args) throws Exception {
        String source = args[1], target = args[2], id = "streams-" + target;
        var builder = new StreamsBuilder();
        builder.<byte[], byte[]>stream(source).to(target);
        var properties = new Properties();
        properties.putAll(Map.ofEntries(
                Map.entry("application.id", id), Map.entry("bootstrap.servers", args[0]),
                Map.entry("processing.guarantee", "exactly_once_v2"), Map.entry("commit.interval.ms", "1000"),
                Map.entry("num.stream.threads", "2"), Map.entry("replication.factor", "1"),
                Map.entry("state.dir", System.getProperty("java.io.tmpdir") + "/" + id),
                Map.entry("default.key.serde", Serdes.ByteArraySerde.class), Map.entry("default.value.serde", Serdes.ByteArraySerde.class),
                Map.entry("consumer.auto.offset.reset", "earliest"), Map.entry("consumer.max.poll.records", "5000"),
                Map.entry("consumer.max.partition.fetch.bytes", "8388608"), Map.entry("consumer.fetch.max.wait.ms", "50"),
                Map.entry("buffered.records.per.partition", "10000"),
                Map.entry("producer.batch.size", "1000000"), Map.entry("producer.linger.ms", "10"),
                Map.entry("producer.max.request.size", "10485760"), Map.entry("producer.buffer.memory", "134217728")));
        try (var admin = Admin.create(Map.of("bootstrap.servers", args[0])); var streams = new KafkaStreams(builder.build(), properties)) {
            var description = admin.describeTopics(List.of(source)).allTopicNames().get().get(source);
            var asked = new HashMap<TopicPartition, OffsetSpec>();
            description.partitions().forEach(p -> asked.put(new TopicPartition(source, p.partition()), OffsetSpec.latest()));
            var ends = admin.listOffsets(asked).all().get();
            streams.start();
            for (boolean done = false; !done; Thread.sleep(20)) {
                var committed = admin.listConsumerGroupOffsets(id).partitionsToOffsetAndMetadata().get();
                done = ends.entrySet().stream().allMatch(end ->
                        Optional.ofNullable(committed.get(end.getKey())).map(o -> o.offset()).orElse(0L) >= end.getValue().offset());
            }
            streams.close(java.time.Duration.ofSeconds(10));
        }
    }
}
