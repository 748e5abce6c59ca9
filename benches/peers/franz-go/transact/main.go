// A transactional copy of a whole topic by franz-go: the bare loop, without window, dedup or checks.
//
// Arguments: bootstrap servers, source, target, records in the source, codec.
package main

import (
	"context"
	"log"
	"os"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"replicator/peers/franz-go/peer"
)

const (
	transactionRecords = 50_000
	transactionTime    = time.Second
)

var codecs = map[string]kgo.CompressionCodec{
	"none":   kgo.NoCompression(),
	"gzip":   kgo.GzipCompression(),
	"snappy": kgo.SnappyCompression(),
	"lz4":    kgo.Lz4Compression(),
	"zstd":   kgo.ZstdCompression(),
}

func main() {
	bootstrap, source, target := os.Args[1], os.Args[2], os.Args[3]
	records, err := strconv.Atoi(os.Args[4])
	peer.Check(err)
	session, err := kgo.NewGroupTransactSession(
		kgo.SeedBrokers(bootstrap),
		kgo.ConsumerGroup("franz-go/"+target),
		kgo.TransactionalID("franz-go/"+target),
		kgo.ConsumeTopics(source),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.RequireStableFetchOffsets(),
		kgo.FetchMaxBytes(50<<20),
		kgo.FetchMaxPartitionBytes(8<<20),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerLinger(10*time.Millisecond),
		kgo.ProducerBatchMaxBytes(1_000_000),
		kgo.MaxBufferedRecords(200_000),
		kgo.ProducerBatchCompression(codecs[os.Args[5]]),
	)
	peer.Check(err)
	defer session.Close()

	ctx := context.Background()
	for done := 0; done < records; {
		peer.Check(session.Begin())
		begun, inTransaction := time.Now(), 0
		errs := kgo.AbortingFirstErrPromise(session.Client())
		for inTransaction < transactionRecords && time.Since(begun) < transactionTime && done+inTransaction < records {
			fetches := session.PollRecords(ctx, transactionRecords-inTransaction)
			peer.Check(fetches.Err())
			fetches.EachRecord(func(record *kgo.Record) {
				session.Produce(ctx, peer.Copy(record, target), errs.Promise())
				inTransaction++
			})
		}
		peer.Check(errs.Err())
		committed, err := session.End(ctx, kgo.TryCommit)
		peer.Check(err)
		if !committed {
			log.Fatal("a transaction was aborted")
		}
		done += inTransaction
	}
}
