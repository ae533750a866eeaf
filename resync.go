package conveyor

import (
	"slices"
	"time"

	"github.com/conveyor-go/conveyor/internal/plan"
	"github.com/conveyor-go/conveyor/internal/record"
	"github.com/conveyor-go/conveyor/store"
)

// A resource whose pipeline says Resync is run again some time after a success. When that is stands in the resource's
// record and in an index that sorts by time, so that all the engine holds in memory is the time of the first of them.

// planResync notes when the resource of a run that has ended well is to be run again.
func (d *draft) planResync(end plan.State) {
	if end != plan.Succeeded || d.plan == nil || d.plan.Resync == 0 || d.head.Pending != "" || d.head.Deleted != 0 {
		return
	}
	d.head.Resync = d.now.Add(time.Duration(d.plan.Resync))
	key := record.ResyncKey(d.head.Resync, d.j.Key)
	// A run that is over in the commit in which it begins takes back a due time, which is the same one if the run before
	// it has ended in this very instant.
	d.extra = slices.DeleteFunc(d.extra, func(op store.Op) bool { return op.Key() == key })
	d.extra = append(d.extra, store.Put(key, []byte("{}")))
}
