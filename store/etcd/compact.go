package etcd

import (
	"context"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// compactNowAndThen compacts what is older than twice a time. The handles of one store, and other programs, may do the same: a server refuses
// to compact what is compacted already.
func (s *Store) compactNowAndThen(every time.Duration) {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	var older, old int64 // the revisions two ticks and one tick ago; 0 if not known
	for {
		ctx, cancel := context.WithTimeout(s.gate.Closing, longestAttempt)
		if r, err := s.client.Get(ctx, s.opts.Prefix+formatPart); err == nil {
			if older > 0 {
				_, err = s.client.Compact(ctx, older)
			}
			if err == nil || is(err, rpctypes.ErrGRPCCompacted) {
				s.compacting.Store(nil)
			} else {
				s.compacting.Store(&err)
			}
			older, old = old, r.Header.Revision
		}
		cancel()
		select {
		case <-ticker.C:
		case <-s.gate.Closing.Done():
			return
		}
	}
}
