// A transactional copy that goes on until SIGTERM, by franz-go, as its own example of exactly once shows it.
//
// Arguments: bootstrap servers, source, target.
package main

import (
	"context"
	"log"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"replicator/peers/franz-go/peer"
)

func main() {
	bootstrap, source, target := os.Args[1], os.Args[2], os.Args[3]
	session, err := kgo.NewGroupTransactSession(
		kgo.SeedBrokers(strings.Split(bootstrap, ",")...),
		kgo.ConsumerGroup("franz-go/"+target),
		kgo.TransactionalID("franz-go/"+target),
		kgo.ConsumeTopics(source),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.RequireStableFetchOffsets(),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.SessionTimeout(6*time.Second),
		kgo.TransactionTimeout(10*time.Second),
	)
	peer.Check(err)
	defer session.Close()

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	for ctx.Err() == nil {
		fetches := session.PollFetches(ctx)
		if ctx.Err() != nil {
			return
		}
		fetches.EachError(func(topic string, partition int32, err error) { log.Print(topic, partition, err) })
		peer.Check(session.Begin())
		errs := kgo.AbortingFirstErrPromise(session.Client())
		fetches.EachRecord(func(record *kgo.Record) {
			session.Produce(ctx, peer.Copy(record, target), errs.Promise())
		})
		// If it does not commit, the session goes back to the last committed offsets.
		_, err := session.End(ctx, kgo.TransactionEndTry(errs.Err() == nil))
		peer.Check(err)
	}
}
