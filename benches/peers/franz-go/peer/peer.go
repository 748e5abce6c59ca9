// Package peer has what the copiers by franz-go share.
package peer

import (
	"log"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Copy is the record for the same partition of the target.
func Copy(record *kgo.Record, target string) *kgo.Record {
	return &kgo.Record{
		Topic:     target,
		Partition: record.Partition,
		Key:       record.Key,
		Value:     record.Value,
		Headers:   record.Headers,
		Timestamp: record.Timestamp,
	}
}

// Check ends the program at an error.
func Check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
