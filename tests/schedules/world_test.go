package schedules_test

import (
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/store/memory"
)

// explorer plays one seed.
type explorer struct {
	setup
	seed  int
	epoch time.Time
	disk  *memory.Store
	looks chan struct{} // whoever has changed something sends, the watcher receives; size 1: a nudge, not a queue

	stopping chan struct{} // holds a value while a client pauses or resumes something

	mu            sync.Mutex // guards what follows; held for no time of the bubble
	lives         []*lifetime
	inStore       int            // calls of the store under way
	asked         map[string]int // of the store, by key
	runs          map[string]*runSeen
	open          []*runSeen // that have not ended
	plans         map[string]*planRecord
	hashes        map[string]string // of the definitions, by pipeline
	limits        map[string][]limitSeen
	policies      map[string]conveyor.ChangePolicy
	pauses        map[conveyor.Target]*pauseSeen
	seenResources map[conveyor.Key]*resourceSeen
	strayed       map[conveyor.Key]bool // has had a call that was given up
	keys          map[string]stepOf
	keyOf         map[stepOf]string
	starts        []startSeen
	calm          bool // everything shall come to its end
	seen          map[string]int
	faults        []string
	trace         []note
}

// lifetime is one process: an engine, from its making to its shutdown or death. Guarded by explorer.mu.
type lifetime struct {
	number     int
	engine     *conveyor.Engine
	began      int64 // when Start had returned; 0 before
	closing    bool  // it shuts down
	over       bool  // nothing that it does reaches the records
	crashed    bool
	hasty      bool          // its shutdown had no time left, not even to tell
	gone       chan struct{} // closed when it is over, so that its drivers return
	active     []*visit      // calls under way
	registered map[string]int64
	events     []conveyor.Event
}

func newExplorer(seed int) *explorer {
	x := &explorer{
		setup: newSetup(seed), seed: seed, disk: memory.New(),
		asked: map[string]int{}, runs: map[string]*runSeen{}, plans: map[string]*planRecord{}, hashes: map[string]string{}, limits: map[string][]limitSeen{},
		policies: map[string]conveyor.ChangePolicy{}, seenResources: map[conveyor.Key]*resourceSeen{}, strayed: map[conveyor.Key]bool{},
		keys: map[string]stepOf{}, keyOf: map[stepOf]string{}, seen: map[string]int{}, pauses: map[conveyor.Target]*pauseSeen{},
	}
	for _, p := range x.pipelines {
		x.policies[p.Name] = p.OnChange
	}
	if x.storm {
		x.see(sawStorm)
	}
	return x
}

func (x *explorer) now() int64 { return time.Now().UnixNano() }

func (x *explorer) since(at int64) time.Duration { return time.Unix(0, at).Sub(x.epoch) }

func (x *explorer) lifeNumber() int { return len(x.lives) }

// look has the watcher look at what is settled.
func (x *explorer) look() {
	select {
	case x.looks <- struct{}{}:
	default:
	}
}

func (x *explorer) isCalm() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.calm
}

func (x *explorer) driverSetup(name string) *driverSetup {
	for _, d := range x.drivers {
		if d.name == name {
			return d
		}
	}
	return new(driverSetup)
}

// play is the whole seed.
func (x *explorer) play(t *testing.T) {
	x.epoch = time.Now()
	x.looks, x.stopping = make(chan struct{}, 1), make(chan struct{}, 1) // of the bubble, so that to wait for them lets time pass
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		x.program(t.Context())
	}()
	x.watch(ended)
	synctest.Wait()
	x.mu.Lock()
	defer x.mu.Unlock()
	x.checkEnd()
}

func (x *explorer) life() *lifetime {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.lives[len(x.lives)-1]
}

// must is for what cannot fail; the life that it was asked of may be over.
func (x *explorer) must(what string, err error) {
	if err == nil || errors.Is(err, conveyor.ErrClosed) {
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.fault("%s: %v", what, err)
}
