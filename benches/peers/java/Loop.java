import java.time.Duration;
import java.util.*;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.*;

/** The plain consume-transform-produce loop, in transactions of 50,000 records or a second: BOOTSTRAP SOURCE TARGET CODEC. */
public class Loop {
    static final int RECORDS = 50_000;

    public static void main(String[] args) {
        String source = args[1], target = args[2];
        try (var consumer = new KafkaConsumer<byte[], byte[]>(Map.of(
                     "bootstrap.servers", args[0], "group.id", "loop-" + target, "isolation.level", "read_committed",
                     "enable.auto.commit", "false", "max.poll.records", "5000", "fetch.min.bytes", "100000",
                     "fetch.max.wait.ms", "50", "fetch.max.bytes", "52428800", "max.partition.fetch.bytes", "8388608",
                     "receive.buffer.bytes", "-1"), new ByteArrayDeserializer(), new ByteArrayDeserializer());
             var producer = new KafkaProducer<byte[], byte[]>(Map.of(
                     "bootstrap.servers", args[0], "transactional.id", "loop-" + target, "acks", "all",
                     "linger.ms", "10", "batch.size", "1000000", "max.request.size", "10485760",
                     "buffer.memory", "134217728", "send.buffer.bytes", "-1",
                     "compression.type", args[3]), new ByteArraySerializer(), new ByteArraySerializer())) {
            producer.initTransactions();
            List<TopicPartition> partitions = consumer.partitionsFor(source).stream()
                    .map(p -> new TopicPartition(source, p.partition())).toList();
            Map<TopicPartition, Long> ends = consumer.endOffsets(partitions);
            consumer.assign(partitions);
            consumer.seekToBeginning(partitions);
            int records = 0;
            long begun = 0;
            boolean done = false;
            while (!done) {
                var batch = consumer.poll(Duration.ofMillis(100));
                for (var record : batch) {
                    if (records == 0) {
                        producer.beginTransaction();
                        begun = System.nanoTime();
                    }
                    producer.send(new ProducerRecord<>(target, record.partition(), record.timestamp(), record.key(), record.value(), record.headers()));
                    records++;
                }
                done = partitions.stream().allMatch(p -> consumer.position(p) >= ends.get(p));
                if (records > 0 && (done || records >= RECORDS || System.nanoTime() - begun > 1_000_000_000L)) {
                    var offsets = new HashMap<TopicPartition, OffsetAndMetadata>();
                    partitions.forEach(p -> offsets.put(p, new OffsetAndMetadata(consumer.position(p))));
                    producer.sendOffsetsToTransaction(offsets, consumer.groupMetadata());
                    producer.commitTransaction();
                    records = 0;
                }
            }
        }
    }
}
