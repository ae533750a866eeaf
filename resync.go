package conveyor

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/conveyor-go/conveyor/store"
)

// A resource whose pipeline says Resync is run again some time after a success. When that is stands in the resource's
// record and in an index that sorts by time, so that all the engine holds in memory is the time of the first of them.

// planResync notes when the resource of a run that has ended well is to be run again.
func (d *draft) planResync(end State) {
	if end != StateSucceeded || d.plan == nil || d.plan.Resync == 0 || d.head.Pending != "" || d.head.Deleted != 0 {
		return
	}
	d.head.Resync = d.now.after(time.Duration(d.plan.Resync))
	key := resyncKey(d.head.Resync, d.j.Key)
	// A run that is over in the commit in which it begins takes back a due time, which is the same one if the run before
	// it has ended in this very instant.
	d.extra = slices.DeleteFunc(d.extra, func(op store.Op) bool { return op.Key() == key })
	d.extra = append(d.extra, store.Put(key, []byte("{}")))
}

// unplanResync takes that back, since another run comes first.
func (r *resourceRecord) unplanResync(k Key) []store.Op {
	if r.Resync == 0 {
		return nil
	}
	due := r.Resync
	r.Resync = 0
	return []store.Op{store.Delete(resyncKey(due, k))}
}

func parseResyncKey(key string) (due instant, k Key, err error) {
	parts := strings.Split(strings.TrimPrefix(key, resyncPrefix), "/")
	if len(parts) == 3 {
		_, err = fmt.Sscanf(parts[0], "%x", &due)
		k = Key{Type: parts[1], Name: parts[2]}
	}
	if len(parts) != 3 || err != nil {
		return 0, Key{}, fmt.Errorf("%w: key %s", store.ErrCorrupt, key)
	}
	return due, k, nil
}
