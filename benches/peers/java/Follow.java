import java.time.Duration;
import java.util.*;
import java.util.concurrent.CountDownLatch;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.*;

/** Kafka Streams, exactly once, passing records through until SIGTERM: BOOTSTRAP SOURCE TARGET. It ends if it cannot go on. */
public class Follow {
    public static void main(String[] args) throws Exception {
        String source = args[1], target = args[2], id = "streams-" + target;
        var builder = new StreamsBuilder();
        builder.<byte[], byte[]>stream(source).to(target);
        var properties = new Properties();
        properties.putAll(Map.ofEntries(
                Map.entry("application.id", id), Map.entry("bootstrap.servers", args[0]),
                Map.entry("processing.guarantee", "exactly_once_v2"),
                Map.entry("state.dir", System.getProperty("java.io.tmpdir") + "/" + id),
                Map.entry("default.key.serde", Serdes.ByteArraySerde.class), Map.entry("default.value.serde", Serdes.ByteArraySerde.class),
                Map.entry("consumer.auto.offset.reset", "earliest"), Map.entry("consumer.session.timeout.ms", "6000")));
        var over = new CountDownLatch(1);
        var streams = new KafkaStreams(builder.build(), properties);
        streams.setStateListener((now, before) -> { if (now == KafkaStreams.State.ERROR) over.countDown(); });
        Runtime.getRuntime().addShutdownHook(new Thread(() -> streams.close(Duration.ofSeconds(10))));
        streams.start();
        over.await();
        System.exit(1);
    }
}
