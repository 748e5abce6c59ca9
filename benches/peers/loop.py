"""The loop of confluent-kafka, in transactions of 10,000 records or a little more: BOOTSTRAP SOURCE TARGET."""

import sys

from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition

bootstrap, source, target = sys.argv[1:]
consumer = Consumer({
    "bootstrap.servers": bootstrap, "group.id": f"python-{target}", "isolation.level": "read_committed",
    "enable.auto.commit": False, "enable.partition.eof": True, "fetch.queue.backoff.ms": 5, "fetch.wait.max.ms": 10,
    "queued.min.messages": 1000000,
})
producer = Producer({
    "bootstrap.servers": bootstrap, "transactional.id": f"python-{target}", "linger.ms": 500, "batch.size": 1000000,
    "batch.num.messages": 100000, "queue.buffering.max.messages": 200000, "delivery.report.only.error": True,
})
producer.init_transactions()
partitions = consumer.list_topics(source).topics[source].partitions
positions = {partition: 0 for partition in partitions}
consumer.assign([TopicPartition(source, partition, 0) for partition in partitions])
is_open, written, ended = False, 0, set()
while len(ended) < len(partitions) or is_open:
    for message in consumer.consume(5000, 0.1):
        if message.error():
            if message.error().code() == KafkaError._PARTITION_EOF:
                ended.add(message.partition())
            continue
        if not is_open:
            producer.begin_transaction()
            is_open = True
        _, timestamp = message.timestamp()
        while True:
            try:
                producer.produce(target, message.value(), message.key(), message.partition(), timestamp=timestamp,
                                 headers=message.headers())
                break
            except BufferError:
                producer.poll(0.01)
        positions[message.partition()] = message.offset() + 1
        written += 1
    if is_open and (written >= 10_000 or len(ended) == len(partitions)):
        offsets = [TopicPartition(source, partition, offset) for partition, offset in positions.items()]
        producer.send_offsets_to_transaction(offsets, consumer.consumer_group_metadata())
        producer.commit_transaction()
        is_open, written = False, 0
