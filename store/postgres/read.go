package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/conveyor-go/conveyor/store"
	"github.com/conveyor-go/conveyor/store/internal/keyrange"
)

// pageBytes is the number of bytes of values after which a page of a list ends.
const pageBytes = 1 << 20

// The tables of the records, as the statements of reads know them.
const (
	records = iota
	transient
)

var tables = [...]string{records: "records", transient: "transient"}

func tableOf(key string) int {
	if key[0] == transientByte {
		return transient
	}
	return records
}

// statements are the texts of the statements. They name everything in full, the operators too, because the
// search path of the session may be anything.
type statements struct {
	getSQL   [len(tables)]string
	listSQL  [len(tables)]map[listing]string
	checkSQL string
	logSQL   string
	clockSQL string
	// lettersSQL returns the keys of the transient records under a prefix that have a revision.
	lettersSQL string

	notifySQL string
	pruneSQL  string

	commitCall, settleCall function
}

// function is a call of a function of schema.sql.
type function struct {
	name  string // of the prepared statement
	sql   string
	types []uint32 // of the arguments
}

// listing is a kind of list.
type listing struct{ bounded, reverse bool }

func newStatements(schema string) (st statements) {
	s := pgx.Identifier{schema}.Sanitize()
	fill := func(sql string, more ...string) string {
		return strings.NewReplacer(append([]string{"{S}", s, "{=}", "operator(pg_catalog.=)", "{<}", "operator(pg_catalog.<)", "{>=}", "operator(pg_catalog.>=)",
			"{>}", "operator(pg_catalog.>)", "{<>}", "operator(pg_catalog.<>)"}, more...)...).Replace(sql)
	}
	st.lettersSQL = fill("select key from {S}.transient where key {>=} $1 and key {<} $2 and rev {=} $3 order by key")
	for i, table := range tables {
		st.getSQL[i] = fill("select value, rev from {S}.{T} where key {=} $1", "{T}", table)
		st.listSQL[i] = map[listing]string{}
		for _, l := range []listing{{}, {true, false}, {false, true}, {true, true}} {
			order, end := "asc", ""
			if l.reverse {
				order = "desc"
			}
			if l.bounded {
				end = "and key {<} $4"
			}
			// The page ends with the record whose value passes the limit. The values behind it are not read.
			st.listSQL[i][l] = fill(strings.NewReplacer("{T}", table, "{order}", order, "{end}", end).Replace(`
				select p.key, p.value, p.rev from (
					select key, value, rev, pg_catalog.sum(pg_catalog.octet_length(value))
						over (order by key {order} rows between unbounded preceding and 1 preceding) as before
					from {S}.{T} where key {>=} $1 {end} order by key {order} limit $2
				) p where coalesce(p.before {<} $3, true) order by p.key {order}`))
		}
	}
	st.checkSQL = fill(`
		select coalesce((select l.rev from {S}.log l order by l.rev desc limit 1), 0), pg_catalog.array_agg(b.key), pg_catalog.array_agg(b.rev) from (
			select c.key, coalesce(r.rev, t.rev, 0) as rev
			from rows from (pg_catalog.unnest($1::pg_catalog.bytea[]), pg_catalog.unnest($2::pg_catalog.int8[])) as c(key, wanted)
				left join {S}.records r on r.key {=} c.key left join {S}.transient t on t.key {=} c.key
			where coalesce(r.rev, t.rev, 0) {<>} c.wanted
		) b`)
	st.logSQL = fill(`select rev, base, kind::pg_catalog.text, failed, nums, keys from {S}.log where rev {>} $1 order by rev limit $2`)
	st.clockSQL = fill(`select {S}.clock()`)
	st.notifySQL = `select pg_catalog.set_config('synchronous_commit', 'off', true), pg_catalog.pg_notify($1, $2)` // it is not worth a sync
	types := slices.Concat(headTypes, arrayTypes, arrayTypes)
	st.commitCall = function{"conveyor_commit", fill(`select base, failed, keys, revs, clock from {S}.commit_group($1` + placeholders(2, len(types)) + `)`), types}
	st.settleCall = function{"conveyor_settle", fill(`select happened, base, failed from {S}.settle($1, $2, $3)`), []uint32{pgtype.UUIDOID, pgtype.Int8OID, pgtype.Int8OID}}
	st.pruneSQL = fill(`select {S}.prune($1, $2)`)
	return st
}

func placeholders(from, to int) string {
	var b strings.Builder
	for i := from; i <= to; i++ {
		fmt.Fprintf(&b, ", $%d", i)
	}
	return b.String()
}

func (s *Store) get(ctx context.Context, key string) (rec store.Record, err error) {
	if key == "" {
		return store.Record{}, fmt.Errorf("%w: %q", store.ErrNotFound, key)
	}
	rec.Key = key
	err = s.read(ctx, func(ctx context.Context) error {
		if err := s.settleDoubts(ctx); err != nil {
			return unknown{err}
		}
		return s.row(ctx, s.getSQL[tableOf(key)], []any{[]byte(key)}, &rec.Value, &rec.Revision)
	})
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return store.Record{}, fmt.Errorf("%w: %.*q", store.ErrNotFound, store.MaxKey, key)
	case err != nil:
		return store.Record{}, asUnknown(err)
	}
	return rec, nil
}

// check judges conditions and returns the newest revision. It writes nothing.
func (s *Store) check(ctx context.Context, ops []store.Op) (store.Revision, error) {
	var keys, broken [][]byte
	var wanted, revs []int64
	for _, op := range ops {
		rev, _ := op.Condition()
		keys, wanted = append(keys, []byte(op.Key())), append(wanted, int64(rev))
	}
	var newest int64
	err := s.read(ctx, func(ctx context.Context) error {
		if err := s.settleDoubts(ctx); err != nil {
			return unknown{err}
		}
		return s.row(ctx, s.checkSQL, []any{keys, wanted}, &newest, &broken, &revs)
	})
	switch {
	case err != nil:
		return 0, asUnknown(err)
	case len(broken) > 0:
		return 0, conflict(broken[0], revs[0])
	}
	return store.Revision(newest), nil
}

// unknown is an error for which a read cannot say what is there, because it is not settled whether a commit has happened.
type unknown struct{ error }

func (u unknown) Unwrap() error { return u.error }

// asUnknown returns the error of a read as the contract has it.
func asUnknown(err error) error {
	if u, ok := errors.AsType[unknown](err); ok {
		return fmt.Errorf("%w: an earlier commit is not settled: %w", store.ErrUnknown, u.error)
	}
	return err
}

// page is a [keyrange.Fetch]. The records of both tables come in one order, because the transient ones lie in one piece
// between others.
func (s *Store) page(ctx context.Context, page []store.Record, r keyrange.Range, limit int) (_ []store.Record, more bool, err error) {
	if err := s.gate.Enter(); err != nil {
		return page, false, err
	}
	defer s.gate.Leave()
	for _, part := range parts(r) {
		from := len(page)
		err := s.read(ctx, func(ctx context.Context) (err error) {
			if err := s.settleDoubts(ctx); err != nil {
				return unknown{err}
			}
			page, more, err = s.pageOf(ctx, page[:from], part, limit-from)
			return err
		})
		if err != nil {
			return page[:from], false, asUnknown(err)
		}
		if more {
			return page, true, nil
		}
	}
	return page, false, nil
}

// part is the part of a range that lies in one table.
type part struct {
	keyrange.Range
	table int
}

// parts divides a range into its parts, in its order.
func parts(r keyrange.Range) (all []part) {
	const begin, end = string(transientByte), string(transientByte + 1)
	add := func(table int, from, to string) {
		p := part{keyrange.Range{From: max(r.From, from), To: r.To, Reverse: r.Reverse}, table}
		if to != "" && (p.To == "" || to < p.To) {
			p.To = to
		}
		if p.To != "" && p.From >= p.To {
			return
		}
		if r.Reverse {
			all = append([]part{p}, all...)
		} else {
			all = append(all, p)
		}
	}
	add(records, "", begin)
	add(transient, begin, end)
	add(records, end, "")
	return all
}

// pageOf appends the first records of a part to a page: up to limit of them, and fewer if they are large. more tells that the
// part may have more.
func (s *Store) pageOf(ctx context.Context, page []store.Record, p part, limit int) (_ []store.Record, more bool, err error) {
	if limit <= 0 {
		return page, true, nil
	}
	args := []any{[]byte(p.From), limit, int64(pageBytes)}
	if p.To != "" {
		args = append(args, []byte(p.To))
	}
	n, size := 0, 0
	err = s.rows(ctx, s.listSQL[p.table][listing{bounded: p.To != "", reverse: p.Reverse}], args, func(row pgx.Rows) error {
		var key []byte
		var rec store.Record
		if err := row.Scan(&key, &rec.Value, &rec.Revision); err != nil {
			return err
		}
		rec.Key = string(key)
		page = append(page, rec)
		n++
		size += len(rec.Value)
		return nil
	})
	return page, n == limit || size >= pageBytes, err
}
