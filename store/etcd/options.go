package etcd

import (
	"cmp"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/conveyor-go/conveyor/store"
)

// Options say how a store is opened. The zero value works with the defaults of an etcd.
type Options struct {
	// Prefix begins all keys of the store. Two stores in one etcd have two prefixes, neither of which begins with the other. It ends
	// with a slash. Empty means "conveyor/".
	Prefix string

	// Patience is how long a call tries while no server can be reached. Zero means 30 seconds.
	Patience time.Duration

	// MaxTxnOps is what the servers were started with as --max-txn-ops. Zero means 128, which is their default.
	MaxTxnOps int

	// MaxRequestBytes is what the servers were started with as --max-request-bytes. Zero means 1.5 MiB, which is their default.
	MaxRequestBytes int

	// History is how long etcd keeps what was written over: the handle compacts what is older. This concerns all programs that use
	// the etcd. Zero leaves it to the servers, which need --auto-compaction-retention then: without either, the database grows
	// until its quota is full. History is at least ten minutes. With authentication, the user needs the role root for it; see
	// Health.HistoryErr.
	History time.Duration
}

// The defaults of Options, and their bounds.
const (
	defaultPrefix          = "conveyor/"
	defaultPatience        = 30 * time.Second
	defaultMaxTxnOps       = 128
	defaultMaxRequestBytes = 1536 << 10

	mostPatience     = 2 * time.Minute
	leastTxnOps      = 16
	leastRequest     = 64 << 10
	leastHistory     = 10 * time.Minute
	leastValue       = 16 << 10
	longestPrefix    = 256
	largestRequest   = 1 << 30
	requestOverhead  = 4 << 10 // bytes of a request besides its ops
	overheadOfAnOp   = 64      // bytes of an op and of its condition besides their keys and the value
	namedOnConflict  = 16      // conditions whose keys a Txn reads when it fails
	overheadOfAnswer = namedOnConflict * (store.MaxKey + overheadOfAnOp)
)

// withDefaults returns the options with the defaults filled in, or an error that names every option that is not valid.
func (o Options) withDefaults() (Options, error) {
	var errs []error
	o.Prefix = cmp.Or(o.Prefix, defaultPrefix)
	if len(o.Prefix) > longestPrefix || !strings.HasSuffix(o.Prefix, "/") {
		errs = append(errs, fmt.Errorf("etcd: Options.Prefix: %q does not end with a slash, or has more than %d bytes", o.Prefix, longestPrefix))
	}
	if o.Patience = cmp.Or(o.Patience, defaultPatience); o.Patience < 0 || o.Patience > mostPatience {
		errs = append(errs, fmt.Errorf("etcd: Options.Patience: %v is not between 0 and %v", o.Patience, mostPatience))
	}
	if o.MaxTxnOps = cmp.Or(o.MaxTxnOps, defaultMaxTxnOps); o.MaxTxnOps < leastTxnOps {
		errs = append(errs, fmt.Errorf("etcd: Options.MaxTxnOps: %d is less than %d", o.MaxTxnOps, leastTxnOps))
	}
	if o.MaxRequestBytes = cmp.Or(o.MaxRequestBytes, defaultMaxRequestBytes); o.MaxRequestBytes < leastRequest || o.MaxRequestBytes > largestRequest {
		errs = append(errs, fmt.Errorf("etcd: Options.MaxRequestBytes: %d is not between %d and %d", o.MaxRequestBytes, leastRequest, largestRequest))
	}
	if len(errs) == 0 && o.limits().Value < leastValue {
		errs = append(errs, fmt.Errorf("etcd: Options.MaxRequestBytes: %d leaves no room for %d ops with their keys (Options.MaxTxnOps) under a prefix of %d bytes; set a smaller MaxTxnOps",
			o.MaxRequestBytes, o.MaxTxnOps, len(o.Prefix)))
	}
	if o.History != 0 && o.History < leastHistory {
		errs = append(errs, fmt.Errorf("etcd: Options.History: %v is less than %v", o.History, leastHistory))
	}
	return o, errors.Join(errs...)
}

// limits returns the limits of a store. One op and one condition of a Txn are those of the marker. The key of an op is in its request
// a second time if the op has a condition.
func (o Options) limits() store.Limits {
	ops := o.MaxTxnOps - 1
	around := requestOverhead + overheadOfAnswer + o.MaxTxnOps*(2*(len(o.Prefix)+len(recordsPart))+overheadOfAnOp)
	bytes := max(o.MaxRequestBytes-around-ops*store.MaxKey, (o.MaxRequestBytes-around)/2)
	return store.Limits{
		Value: min(bytes-store.MaxKey, store.MaxValue), Ops: ops, Bytes: bytes,
		Commit: o.Patience + grace + time.Second, Unknown: doubtful,
	}
}
