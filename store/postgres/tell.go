package postgres

import (
	"context"
	"encoding/hex"
	"iter"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/conveyor-go/conveyor/store/internal/again"
)

const (
	// tellEvery is the shortest time between two notifications of a handle. A notification costs the server as much as a small
	// commit, and wakes a session for each handle that listens.
	tellEvery = 5 * time.Millisecond
	// lastTell is how long Close tries to tell what was not told.
	lastTell = time.Second

	kindBytes = 4   // of a key that are told
	mostKinds = 100 // that are told; the payload of a notification is bounded
)

// teller notifies the handles that listen of what this handle has committed, soon after it was committed. What is committed while it
// waits is told together. A handle without notifications has a nil teller.
type teller struct {
	nudge chan struct{} // size 1

	mu    sync.Mutex // guards what follows
	rev   int64      // the newest revision that was not told; 0 if there is none
	kinds map[string]bool
}

func newTeller() *teller { return &teller{nudge: make(chan struct{}, 1), kinds: map[string]bool{}} }

// note adds what a group has written to what is to be told. The nil teller tells nothing.
func (t *teller) note(rev int64, keys [][]byte) {
	if t == nil {
		return
	}
	t.mu.Lock()
	for _, key := range keys {
		t.kinds[string(key[:min(len(key), kindBytes)])] = true
	}
	t.rev = max(t.rev, rev)
	t.mu.Unlock()
	select {
	case t.nudge <- struct{}{}:
	default:
	}
}

// take returns the payload of a notification of what is to be told. It is empty if there is nothing.
func (t *teller) take() (rev int64, payload string) {
	if t == nil {
		return 0, ""
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.rev == 0 {
		return 0, ""
	}
	kinds := make([]string, 0, len(t.kinds))
	for kind := range t.kinds {
		kinds = append(kinds, hex.EncodeToString([]byte(kind)))
	}
	if len(kinds) > mostKinds {
		kinds = nil
	}
	slices.Sort(kinds)
	rev = t.rev
	t.rev = 0
	clear(t.kinds)
	return rev, strconv.FormatInt(rev, 10) + " " + strings.Join(kinds, " ")
}

// parseNotification returns what take has told: a revision, and the beginnings of the keys that were written. Other notifications
// only say that something has happened.
func parseNotification(payload string) (rev int64, keys iter.Seq[string], ok bool) {
	number, kinds, ok := strings.Cut(payload, " ")
	rev, err := strconv.ParseInt(number, 10, 64)
	return rev, func(yield func(string) bool) {
		for word := range strings.SplitSeq(kinds, " ") { // none is one empty word: it may be any key
			if b, err := hex.DecodeString(word); err != nil || !yield(string(b)) {
				return
			}
		}
	}, ok && err == nil
}

// tellNowAndThen tells until the store closes. Close tells what is left.
func (s *Store) tellNowAndThen() {
	var wait again.Pause
	for {
		select {
		case <-s.teller.nudge:
		case <-s.gate.Closing.Done():
			return
		}
		ctx, cancel := context.WithTimeout(s.gate.Closing, s.opts.Patience/3)
		err := s.tell(ctx)
		cancel()
		if err != nil {
			s.noteLoss(err)
			wait.AtMost(s.gate.Closing, longestListenPause)
			continue
		}
		wait = 0
		select {
		case <-time.After(tellEvery):
		case <-s.gate.Closing.Done():
			return
		}
	}
}

// tell tells what is to be told. What could not be told is told the next time.
func (s *Store) tell(ctx context.Context) error {
	rev, payload := s.teller.take()
	if rev == 0 {
		return nil
	}
	var level string
	err := s.row(ctx, s.notifySQL, []any{s.channel, payload}, &level, nil)
	if err != nil {
		s.teller.note(rev, [][]byte{nil}) // of any kind
	}
	return err
}
