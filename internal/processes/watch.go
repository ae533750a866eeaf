package processes

import (
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
		newest := map[string]int64{} // tokens by key
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
			if err != nil || by.Token < newest[c.Key] {
				w.account.blame("checkpoint %s is of token %d after %d: %v", c.Key, by.Token, newest[c.Key], err)
			}
			newest[c.Key] = max(newest[c.Key], by.Token)
			w.account.count("checkpoints seen", 1)
		}
	})
	return func() {
		cancel()
		watching.Wait()
	}
}
