package postgres

import (
	"cmp"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Options say how a store is opened. The zero value works.
type Options struct {
	// Schema is the schema of the database that has the tables of the store. Two stores in one database have two schemas. Empty
	// means "conveyor".
	Schema string

	// Patience is how long a call tries while the server cannot be reached. Zero means 30 seconds.
	Patience time.Duration

	// NoNotify turns NOTIFY and LISTEN off for this handle. Watch then learns of the commits of other handles by asking every
	// Poll alone.
	NoNotify bool

	// ListenDSN is where the handle listens for notifications, for a pool that does not lead to the server itself: behind
	// pgbouncer in transaction mode there is no LISTEN. Empty means the place to which the pool connects.
	ListenDSN string

	// Poll is how often Watch asks for new commits while no notification comes. A notification only saves time. It comes up to five
	// milliseconds after the commit, and not at all if the process that has committed is killed before. Zero means half a second, and
	// five seconds while the handle listens.
	Poll time.Duration

	// LogAge is how long the store keeps on record which keys were changed. A Watch that begins at an older revision gets
	// [store.ErrGap]. Zero means one hour. It is at least ten minutes.
	LogAge time.Duration

	// PruneEvery is how often the handle removes what is older than LogAge. The handles of one store do not get in each other's
	// way. Zero means one minute, and a negative number means never: then call [Store.Prune].
	PruneEvery time.Duration
}

// The defaults of Options.
const (
	defaultSchema     = "conveyor"
	defaultPatience   = 30 * time.Second
	defaultPoll       = 500 * time.Millisecond
	pollWhileListened = 5 * time.Second
	defaultLogAge     = time.Hour
	defaultPruneEvery = time.Minute

	// leastLogAge is much longer than a commit can take, because an answer that was lost is looked up in the log.
	leastLogAge = 10 * time.Minute
	// mostPatience keeps a commit within leastLogAge.
	mostPatience = 2 * time.Minute
	// longestName is the longest name of PostgreSQL, in bytes.
	longestName = 63
)

// withDefaults returns the options with the defaults filled in, or an error that names every option that is not valid.
func (o Options) withDefaults() (Options, error) {
	var errs []error
	o.Schema = cmp.Or(o.Schema, defaultSchema)
	if len(o.Schema) > longestName || strings.ContainsRune(o.Schema, 0) || strings.HasPrefix(o.Schema, "pg_") {
		errs = append(errs, fmt.Errorf("postgres: Options.Schema: %q is no name of a schema", o.Schema))
	}
	if o.Patience = cmp.Or(o.Patience, defaultPatience); o.Patience < 0 || o.Patience > mostPatience {
		errs = append(errs, fmt.Errorf("postgres: Options.Patience: %v is not between 0 and %v", o.Patience, mostPatience))
	}
	if o.Poll < 0 {
		errs = append(errs, fmt.Errorf("postgres: Options.Poll: %v is negative", o.Poll))
	}
	if o.LogAge = cmp.Or(o.LogAge, defaultLogAge); o.LogAge < leastLogAge {
		errs = append(errs, fmt.Errorf("postgres: Options.LogAge: %v is less than %v", o.LogAge, leastLogAge))
	}
	o.PruneEvery = cmp.Or(o.PruneEvery, defaultPruneEvery)
	return o, errors.Join(errs...)
}
