package postgres

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/conveyor-go/conveyor/store"
)

// Health is what an operator looks at. See docs/postgres.md of the repository for what to do about it.
type Health struct {
	// Newest is the newest revision.
	Newest store.Revision
	// Bytes is the size of the tables with their indexes.
	Bytes int64
	// OldestSnapshot is for how long the oldest snapshot of the server has been held, by a transaction that is open, a dump or
	// a report. No dead row that is younger can be removed. Zero means that there is none, or that the role may not see those of others:
	// it can be made a member of pg_read_all_stats.
	OldestSnapshot time.Duration
	// LogRows is the number of rows of the log, as the statistics of the server have it.
	LogRows int64
	// LogAge is the age of the oldest row of the log. If it is much more than Options.LogAge, pruning does not keep up.
	LogAge time.Duration
	// Tables are the tables of the store: records, transient and log.
	Tables []TableHealth
}

// TableHealth is the state of a table, as the statistics of the server have it.
type TableHealth struct {
	Name       string
	Live, Dead int64     // rows; a dead row takes room until the table is vacuumed
	Bytes      int64     // with the indexes
	Vacuumed   time.Time // the last vacuum, or zero
}

// Health reports how the store fares in its server. It reads statistics, and no records: it is cheap, however large the store
// is. Its errors are those of Get.
func (s *Store) Health(ctx context.Context) (h Health, err error) {
	if ctx.Err() != nil {
		return h, context.Cause(ctx)
	}
	if err := s.gate.Enter(); err != nil {
		return h, err
	}
	defer s.gate.Leave()
	err = s.read(ctx, func(ctx context.Context) error {
		h = Health{}
		if err := s.overview(ctx, &h); err != nil {
			return err
		}
		return s.rows(ctx, tablesSQL, []any{s.opts.Schema}, func(r pgx.Rows) error {
			var t TableHealth
			var vacuumed *time.Time
			err := r.Scan(&t.Name, &t.Live, &t.Dead, &t.Bytes, &vacuumed)
			if vacuumed != nil {
				t.Vacuumed = *vacuumed
			}
			h.Tables = append(h.Tables, t)
			return err
		})
	})
	if err != nil {
		return Health{}, err
	}
	for _, t := range h.Tables {
		h.Bytes += t.Bytes
		if t.Name == "log" {
			h.LogRows = t.Live
		}
	}
	return h, nil
}

func (s *Store) overview(ctx context.Context, h *Health) error {
	var snapshot, log float64 // seconds
	table := pgx.Identifier{s.opts.Schema, "log"}.Sanitize()
	err := s.row(ctx, `select
		coalesce((select rev from `+table+` order by rev desc limit 1), 0),
		coalesce((select extract(epoch from pg_catalog.clock_timestamp() operator(pg_catalog.-) at) from `+table+` order by rev limit 1), 0)::pg_catalog.float8,
		coalesce((select extract(epoch from pg_catalog.clock_timestamp() operator(pg_catalog.-) pg_catalog.min(xact_start))
			from pg_catalog.pg_stat_activity where (backend_xmin is not null or backend_xid is not null) and pid operator(pg_catalog.<>) pg_catalog.pg_backend_pid()), 0)::pg_catalog.float8`,
		nil, &h.Newest, &log, &snapshot)
	h.LogAge, h.OldestSnapshot = seconds(log), seconds(snapshot)
	return err
}

func seconds(n float64) time.Duration { return time.Duration(max(n, 0) * float64(time.Second)) }

const tablesSQL = `select t.relname::pg_catalog.text, t.n_live_tup, t.n_dead_tup, pg_catalog.pg_total_relation_size(t.relid),
		greatest(t.last_vacuum, t.last_autovacuum)
	from pg_catalog.pg_stat_user_tables t
	where t.schemaname operator(pg_catalog.=) $1::pg_catalog.name
		and t.relname operator(pg_catalog.=) any ('{records,transient,log}'::pg_catalog.name[])
	order by t.relname`
