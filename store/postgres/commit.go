package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/conveyor-go/conveyor/store"
	"github.com/conveyor-go/conveyor/store/internal/again"
	"github.com/conveyor-go/conveyor/store/internal/groupcommit"
)

// The limits of a commit and of a group. A group of more than one commit is within them too.
const (
	maxBytes = 16 << 20
	maxOps   = 8192
)

// outcome is what came of a group.
type outcome struct {
	base   int64    // the newest revision before the group
	failed []int32  // the commits of which a condition did not hold, counted from 1, in order
	keys   [][]byte // for each of them, a key whose condition did not hold; empty if that is not known any more
	revs   []int64  // the revisions of keys
}

// errLost reports that the answer to a group was lost.
var errLost = errors.New("the answer of the server was lost")

// commitGroup carries out a group and puts the outcome in each commit. Only the leader calls it.
func (s *Store) commitGroup(group []*groupcommit.Commit) {
	done, err := s.carryOut(newArguments(group))
	for i, c := range group {
		if err != nil {
			c.Revision, c.Err = 0, err
			continue
		}
		n := int32(i + 1)
		if at, failed := slices.BinarySearch(done.failed, n); failed {
			c.Revision, c.Err = 0, done.conflict(at)
			continue
		}
		c.Revision, c.Err = store.Revision(done.base+int64(n)), nil
	}
	if err == nil {
		row := done.row(group)
		s.tail.offer(row)
		if row.rev > 0 {
			s.teller.note(row.rev, row.keys)
		}
	}
}

// row returns the row that a group has in the log. It has no keys if nothing was carried out.
func (o outcome) row(group []*groupcommit.Commit) logRow {
	row := logRow{base: o.base, kind: "c", failed: o.failed}
	for i, c := range group {
		n := int32(i + 1)
		if _, failed := slices.BinarySearch(o.failed, n); !failed {
			row.rev = o.base + int64(n)
		}
		for _, op := range c.Ops {
			if op.Writes() {
				row.nums, row.keys = append(row.nums, n), append(row.keys, []byte(op.Key()))
			}
		}
	}
	return row
}

func (o outcome) conflict(at int) error {
	if at >= len(o.keys) {
		return store.ErrConflict
	}
	return conflict(o.keys[at], o.revs[at])
}

func conflict(key []byte, rev int64) error {
	return fmt.Errorf("%w: %q has revision %d", store.ErrConflict, key, rev)
}

// carryOut has a group committed. It tries until Patience is over. Each attempt has a number of its own. An attempt whose
// answer was lost is settled before the next one, so that at most one of them happens.
func (s *Store) carryOut(args arguments) (outcome, error) {
	deadline := time.Now().Add(s.opts.Patience)
	ctx, cancel := context.WithDeadline(context.Background(), deadline)
	defer cancel()
	if err := s.settleDoubts(ctx); err != nil { // the server is away
		return outcome{}, again.Unavailable(err)
	}
	var wait again.Pause
	var why error
	for {
		s.group++
		done, err := s.attempt(ctx, args, deadline)
		if errors.Is(err, errLost) {
			s.breaks.note()
			var happened bool
			var unsettled error
			if happened, done, unsettled = s.settle(ctx, s.group, deadline); unsettled != nil {
				s.doubt(s.group)
				return outcome{}, fmt.Errorf("%w: %w", store.ErrUnknown, errors.Join(err, unsettled))
			}
			if happened {
				return done, nil
			}
		}
		switch {
		case err == nil:
			return done, nil
		case code(err) == codeLate: // or the clock of the server was set
			s.setClock(ctx)
		case !errors.Is(err, errLost) && !passing(err):
			return outcome{}, s.final(err)
		}
		why = telling(why, err)
		if wait.Next(ctx); ctx.Err() != nil {
			return outcome{}, again.Unavailable(why)
		}
	}
}

// attempt calls the function of a group once. The error wraps errLost if the group may have happened.
func (s *Store) attempt(ctx context.Context, args arguments, deadline time.Time) (done outcome, err error) {
	// The server must answer while there is time left to settle.
	ctx, cancel := context.WithTimeout(ctx, s.opts.Patience*2/3)
	defer cancel()
	args.head(s.writer, s.group, s.clock.at(deadline))
	sent := time.Now()
	var clock int64
	err = s.inTurn(ctx, &s.commitCall, args, func(v [][]byte) error {
		return errors.Join(scan(v[0], &done.base), scanInts(v[1], &done.failed), scanKeys(v[2], &done.keys), scanRevs(v[3], &done.revs), scan(v[4], &clock))
	})
	if err == nil {
		s.clock = serverClock{clock, sent}
	}
	return done, err
}

// inTurn calls a function of schema.sql that takes the turn of the store, in a transaction of its own and mostly in one round trip.
// The error wraps errLost if the transaction may have been committed. Otherwise it was not.
//
// The function is a transaction by itself. It refuses to be one if the database or the role has a default that it cannot work with:
// at another level than read committed it would not see the commit that had the turn before it. The transaction then says what it needs.
func (s *Store) inTurn(ctx context.Context, of *function, values [][]byte, row func(values [][]byte) error) error {
	return s.with(ctx, func(conn *pgxpool.Conn) error {
		if !s.explicit.Load() {
			err := alone(ctx, conn, of, values, row)
			if sqlstate := code(err); sqlstate != codeLevel && sqlstate != codeReadOnly {
				return err
			}
		}
		err := explicitly(ctx, conn.Conn().PgConn(), of, values, row)
		if err == nil {
			s.explicit.Store(true)
		}
		return err
	})
}

// alone calls a function that is a transaction by itself.
func alone(ctx context.Context, conn *pgxpool.Conn, of *function, values [][]byte, row func(values [][]byte) error) (err error) {
	var reader *pgconn.ResultReader
	if isDirect(conn) {
		prepared, err := conn.Conn().Prepare(ctx, of.name, of.sql)
		if err != nil {
			return err
		}
		reader = conn.Conn().PgConn().ExecStatement(ctx, prepared, values, binaryFormat, binaryFormat)
	} else {
		reader = conn.Conn().PgConn().ExecParams(ctx, of.sql, values, of.types, binaryFormat, binaryFormat)
	}
	for reader.NextRow() {
		err = errors.Join(err, row(reader.Values()))
	}
	_, closed := reader.Close() // the server is ready for more: the transaction has ended
	if err = errors.Join(err, closed); err == nil {
		return nil
	}
	if sqlstate := code(err); sqlstate == codeNoStatement || sqlstate == codeStaleStatement {
		_ = conn.Conn().Close(ctx) // another connection prepares it anew
	}
	return lostUnlessRefused(err)
}

func lostUnlessRefused(err error) error {
	if refused(err) {
		return err
	}
	return fmt.Errorf("%w: %w", errLost, err)
}

// explicitly calls a function in a transaction that says what the function needs.
func explicitly(ctx context.Context, conn *pgconn.PgConn, of *function, values [][]byte, row func(values [][]byte) error) (err error) {
	p := conn.StartPipeline(ctx)
	p.SendQueryParams("begin isolation level read committed read write", nil, nil, nil, nil)
	p.SendQueryParams(of.sql, values, of.types, binaryFormat, binaryFormat)
	p.SendQueryParams("commit", nil, nil, nil, nil)
	err = p.Sync()
	done := false // the answer to the commit has come
	for n := 0; err == nil && n < 3; n++ {
		var result any
		if result, err = p.GetResults(); err != nil {
			break
		}
		reader, ok := result.(*pgconn.ResultReader)
		if !ok {
			err = fmt.Errorf("unexpected answer %T", result)
			break
		}
		for reader.NextRow() {
			err = errors.Join(err, row(reader.Values()))
		}
		tag, closed := reader.Close()
		if err = errors.Join(err, closed); err == nil && n == 2 {
			done = tag.String() == "COMMIT"
		}
	}
	if closed := p.Close(); err == nil {
		err = closed
	}
	switch {
	case done:
		return nil
	case err == nil:
		err = errors.New("the server has rolled back")
	}
	return lostUnlessRefused(err)
}
