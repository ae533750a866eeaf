package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"go.etcd.io/bbolt"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/store"
	storememory "github.com/conveyor-go/conveyor/store/memory"
)

var boltLoop = contender{
	name:    "bare bbolt loop",
	class:   floor,
	module:  "go.etcd.io/bbolt",
	records: "the puts and deletes that Conveyor commits for the run, with keys that sort by time",
	syncs:   "two fdatasyncs a transaction, before the next step; commits that come at the same time share one",
	open:    openBolt,
}

// boltSession writes what a run of Conveyor writes, commit by commit, with nothing else around it.
type boltSession struct {
	do      step
	db      *bbolt.DB
	path    string
	commits [][]boltOp
	group   groups[boltCommit]
}

// boltOp is a write with a key that has the number of the run in some places.
type boltOp struct {
	key    []string // what is between those places
	value  []byte
	remove bool
}

// boltCommit is one of the commits of a run.
type boltCommit struct {
	run string
	ops []boltOp
}

var boltRecords = []byte("records")

func openBolt(ctx context.Context, at site) (session, error) {
	commits, err := recordCommits(ctx)
	if err != nil {
		return nil, fmt.Errorf("record a run: %w", err)
	}
	s := &boltSession{do: at.do, path: filepath.Join(at.dir, "bolt.db"), commits: commits}
	s.group.carryOut = s.transact
	s.db, err = bbolt.Open(s.path, 0o600, &bbolt.Options{FreelistType: bbolt.FreelistMapType, NoStatistics: true})
	if err != nil {
		return nil, err
	}
	s.db.AllocSize = 64 << 20 // growing is rare, as in store/file
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
				if err := op.apply(bucket, commit.run); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

func (o boltOp) apply(bucket *bbolt.Bucket, run string) error {
	key := []byte(strings.Join(o.key, run))
	if o.remove {
		return bucket.Delete(key)
	}
	return bucket.Put(key, o.value)
}

func (s *boltSession) synced() (int64, error) { return boltSyncs(s.path) }

func (s *boltSession) close(context.Context) error { return s.db.Close() }

// recorder is a store that notes what is committed.
type recorder struct {
	store.Store
	commits [][]store.Op
}

func (r *recorder) Commit(ctx context.Context, ops ...store.Op) (store.Revision, error) {
	r.commits = append(r.commits, ops)
	return r.Store.Commit(ctx, ops...)
}

// recordCommits returns what Conveyor commits for one run of five steps.
func recordCommits(ctx context.Context) ([][]boltOp, error) {
	rec := &recorder{Store: storememory.New()}
	s, err := openEngine(ctx, rec, 1, func(string, int) {})
	if err != nil {
		return nil, err
	}
	defer func() { _ = s.close(ctx) }()

	before := len(rec.commits)
	run, err := s.apply(ctx, "run-0")
	if err == nil {
		run, err = s.engine.Wait(ctx, run.ID)
	}
	if err != nil {
		return nil, err
	}
	return templates(rec.commits[before:], run), nil
}

// templates leaves out what is no write, and the names of the run and its resource.
func templates(recorded [][]store.Op, run *conveyor.Run) [][]boltOp {
	var commits [][]boltOp
	names := strings.NewReplacer(run.ID, "\x00", run.Resource.Name, "\x00")
	for _, ops := range recorded {
		var commit []boltOp
		for _, op := range ops {
			if op.Writes() {
				key := strings.Split(names.Replace(op.Key()), "\x00")
				commit = append(commit, boltOp{key: key, value: op.Value(), remove: op.Removes()})
			}
		}
		commits = append(commits, commit)
	}
	return commits
}

// closeTimeout bounds how long a contender may take to stop.
const closeTimeout = 30 * time.Second
