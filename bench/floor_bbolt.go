package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"

	"go.etcd.io/bbolt"
)

var boltLoop = contender{
	name:    "bare bbolt loop",
	class:   floor,
	module:  "go.etcd.io/bbolt",
	records: "the puts and deletes that Conveyor commits for the run, with keys that sort by time",
	syncs:   "two fdatasyncs a transaction, before the next step; commits that come at the same time share one",
	open:    openBolt,
}

// boltSession makes the same commits as a run of Conveyor, and does nothing else.
type boltSession struct {
	do      step
	db      *bbolt.DB
	path    string
	commits [][]recordedOp
	group   groupCommit[boltCommit]
}

// boltCommit is one commit of a run.
type boltCommit struct {
	run string
	ops []recordedOp
}

var boltRecords = []byte("records")

func openBolt(ctx context.Context, at site) (session, error) {
	commits, err := recordCommits(ctx)
	if err != nil {
		return nil, err
	}
	s := &boltSession{do: at.do, path: filepath.Join(at.dir, "bolt.db"), commits: commits}
	s.group.commit = s.transact
	s.db, err = bbolt.Open(s.path, 0o600, &bbolt.Options{FreelistType: bbolt.FreelistMapType, NoStatistics: true})
	if err != nil {
		return nil, err
	}
	s.db.AllocSize = 64 << 20 // the file grows rarely, as in store/file
	return s, s.db.Update(func(tx *bbolt.Tx) error {
		_, err := tx.CreateBucket(boltRecords)
		return err
	})
}

func (s *boltSession) run(_ context.Context, id string) error {
	number := fmt.Sprintf("%026s", strings.TrimPrefix(id, "run-"))
	for i, ops := range s.commits {
		if err := s.group.do(boltCommit{run: number, ops: ops}); err != nil {
			return err
		}
		if i < steps {
			s.do(id, i+1)
		}
	}
	return nil
}

func (s *boltSession) transact(commits []boltCommit) error {
	return s.db.Update(func(tx *bbolt.Tx) error {
		bucket := tx.Bucket(boltRecords)
		bucket.FillPercent = 0.9
		for _, commit := range commits {
			for _, op := range commit.ops {
				if err := applyTo(bucket, op, commit.run); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

func applyTo(bucket *bbolt.Bucket, op recordedOp, run string) error {
	key := []byte(op.keyFor(run))
	if op.remove {
		return bucket.Delete(key)
	}
	return bucket.Put(key, op.value)
}

func (s *boltSession) synced() (int64, error) { return boltSyncs(s.path) }

func (s *boltSession) close(context.Context) error { return s.db.Close() }
