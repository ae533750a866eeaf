package processes

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"sync"

	"github.com/conveyor-go/conveyor/store"
)

// watchCheckpoints looks at each change of a checkpoint until end is called: none of an older call may come after one of a newer call.
func (w *World) watchCheckpoints() (end func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var watching sync.WaitGroup
	watching.Go(func() {
		newest := map[string]progress{} // by key
		for c, err := range w.Store.(store.Watcher).Watch(ctx, "ckp/", 0) {
			if ctx.Err() != nil {
				return
			}
			if err != nil {
				w.account.blame("watch: %v", err)
				return
			}
			r, err := w.Store.Get(ctx, c.Key)
			if errors.Is(err, store.ErrNotFound) || c.Key == "" {
				continue
			}
			var by progress
			if err == nil && json.Unmarshal(r.Value, &by) != nil {
				continue // of a driver that says nothing of itself
			}
			was := newest[c.Key]
			if err != nil || cmp.Or(cmp.Compare(by.Token, was.Token), cmp.Compare(by.Call, was.Call), cmp.Compare(by.N, was.N)) < 0 {
				w.account.blame("checkpoint %s is %+v after %+v: %v", c.Key, by, was, err)
			}
			newest[c.Key] = by
			w.account.count("checkpoints seen", 1)
		}
	})
	return func() {
		cancel()
		watching.Wait()
	}
}
