// A copy of a whole topic by franz-go, without group, transactions or checks.
//
// Arguments: bootstrap servers of the source, source, bootstrap servers of the target, target, records in the source.
package main

import (
	"context"
	"os"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"replicator/peers/franz-go/peer"
)

func main() {
	from, source, to, target := os.Args[1], os.Args[2], os.Args[3], os.Args[4]
	records, err := strconv.Atoi(os.Args[5])
	peer.Check(err)
	consumer, err := kgo.NewClient(
		kgo.SeedBrokers(from),
		kgo.ConsumeTopics(source),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.FetchMaxBytes(50<<20),
		kgo.FetchMaxPartitionBytes(8<<20),
	)
	peer.Check(err)
	defer consumer.Close()
	producer, err := kgo.NewClient(
		kgo.SeedBrokers(to),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerLinger(10*time.Millisecond),
		kgo.ProducerBatchMaxBytes(1_000_000),
		kgo.MaxBufferedRecords(200_000),
		kgo.ProducerBatchCompression(kgo.NoCompression()),
	)
	peer.Check(err)
	defer producer.Close()

	ctx := context.Background()
	errs := kgo.AbortingFirstErrPromise(producer)
	for done := 0; done < records; {
		fetches := consumer.PollRecords(ctx, 0)
		peer.Check(fetches.Err())
		fetches.EachRecord(func(record *kgo.Record) {
			producer.Produce(ctx, peer.Copy(record, target), errs.Promise())
			done++
		})
	}
	peer.Check(producer.Flush(ctx))
	peer.Check(errs.Err())
}
