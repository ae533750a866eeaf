package processes

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/internal/record"
	"github.com/conveyor-go/conveyor/store"
)

// Open opens the store of a process, whose place the test has given.
type Open func(ctx context.Context, place string) (store.Store, error)

// environment is the variable that has the [child] as JSON, for a process that is one.
const environment = "CONVEYOR_CHILD"

// Main makes this process a child of a [World] if it was started as one. Otherwise it returns at once. It is called by TestMain.
func Main(open Open) {
	asked := os.Getenv(environment)
	if asked == "" {
		return
	}
	var c child
	err := json.Unmarshal([]byte(asked), &c)
	if err == nil {
		err = c.run(open)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "process %s (life %d): %v\n", c.Process, c.Life, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// child is how a process begins.
type child struct {
	Process string   // its name
	Life    int      // counts all processes of the world from 1
	Place   string   // of the store
	Dir     string   // of the journals
	Drivers []string // the drivers that it has
	Kinds   []string // the kinds of resources that its clients apply
	Clients int
	Seed    uint64
	Lease   time.Duration
}

// run is the main function of a child. It works until its input says that nobody shall ask for anything more, and then until its input
// ends.
func (c child) run(open Open) error {
	ctx, ask := context.Background(), context.Background()
	ask, rest := context.WithCancel(ask)
	defer rest()
	book, err := openJournal(c.Dir, c.Life)
	if err != nil {
		return err
	}
	defer book.file.Close()
	life := &life{journal: book, process: c.Process, number: c.Life}
	go life.noteStalls()

	st, err := tried(func() (store.Store, error) { return open(ctx, c.Place) })
	if err != nil {
		return err
	}
	slow := &timed{Store: st, life: life, lease: c.Lease}
	slow.last.Store(time.Now().UnixNano())
	e, err := conveyor.New(slow, c.options())
	if err != nil {
		return err
	}
	for _, name := range c.Drivers {
		var listens []conveyor.DriverOption
		if name == ear1 || name == ear2 {
			listens = append(listens, conveyor.Listen(loose))
		}
		if err := e.Register(name, &worker{life: life}, listens...); err != nil {
			return err
		}
	}
	if _, err := tried(func() (struct{}, error) { return struct{}{}, e.Start(ctx) }); err != nil {
		return err
	}
	say(said{What: "ready"})
	var clients sync.WaitGroup
	for n := range c.Clients {
		clients.Go(func() { newClient(e, c, n).work(ask) })
	}
	input := bufio.NewScanner(os.Stdin)
	input.Scan()
	rest()
	clients.Wait()
	say(said{What: "rests"})
	for input.Scan() {
	}
	ending, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	return errors.Join(e.Shutdown(ending), st.Close())
}

// options are those of all engines of a world.
func (c child) options() conveyor.Options {
	return conveyor.Options{
		Name: c.Process, Lease: c.Lease, Poll: c.Lease / 4, Workers: 8,
		Limits: conveyor.Limits{Interruptions: manyInterruptions},
		Retry:  conveyor.RetryPolicy{MaxAttempts: 3, Initial: conveyor.Duration(time.Millisecond), Max: conveyor.Duration(4 * time.Millisecond)},
	}
}

// manyInterruptions lets no run fail because of what happens to the processes.
const manyInterruptions = 1 << 20

// tried tries while the store is away.
func tried[T any](do func() (T, error)) (T, error) {
	for {
		v, err := do()
		if err == nil || !errors.Is(err, store.ErrUnavailable) && !errors.Is(err, store.ErrUnknown) {
			return v, err
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// journal is the file of a life, to which it appends what its drivers do.
type journal struct {
	mu   sync.Mutex
	file *os.File
}

func openJournal(dir string, life int) (*journal, error) {
	f, err := os.Create(filepath.Join(dir, fmt.Sprint("journal-", life)))
	return &journal{file: f}, err
}

// entry is a line of the journal.
type entry struct {
	At      time.Time
	Process string
	Life    int
	What    string // begin, restored, saved; how a call has ended: done, fail, requeue, await, cut; stalled or late
	Call    int64  // counts the calls of a life

	Resource, Run, Step, Idem string
	Attempt                   int
	Token                     int64
	Resumed, Undo             bool
	N                         int64     // of restored and saved
	Since                     time.Time // of stalled and late
}

// life is a process as its journal sees it.
type life struct {
	*journal
	process string
	number  int
	calls   atomic.Int64
}

// note appends an entry, with the time at which that is done.
func (l *life) note(e entry) {
	e.Process, e.Life = l.process, l.number
	l.mu.Lock()
	defer l.mu.Unlock()
	e.At = time.Now()
	line, err := json.Marshal(e)
	if err == nil {
		_, err = l.file.Write(append(line, '\n'))
	}
	if err != nil {
		panic(err)
	}
}

// stall is how long a process must stand still for its journal to say so.
const stall = 100 * time.Millisecond

// timed is the store of a life. The journal says when the engine was late with a heartbeat, as it is on a busy machine.
type timed struct {
	store.Store
	life  *life
	lease time.Duration
	last  atomic.Int64 // when the last heartbeat that was acknowledged began, in nanoseconds
}

// Limits implements [store.Limited].
func (s *timed) Limits() store.Limits { return store.LimitsOf(s.Store) }

// Watch implements [store.Watcher].
func (s *timed) Watch(ctx context.Context, prefix string, after store.Revision) iter.Seq2[store.Change, error] {
	return s.Store.(store.Watcher).Watch(ctx, prefix, after)
}

// Commit implements [store.Store].
func (s *timed) Commit(ctx context.Context, ops ...store.Op) (store.Revision, error) {
	began := time.Now()
	rev, err := s.Store.Commit(ctx, ops...)
	if err == nil && slices.ContainsFunc(ops, func(op store.Op) bool { return op.Writes() && strings.HasPrefix(op.Key(), heartbeats) }) {
		last := time.Unix(0, s.last.Swap(began.UnixNano()))
		if time.Since(last) > s.lease/2 {
			s.life.note(entry{What: "late", Since: last})
		}
	}
	return rev, err
}

// heartbeats is the prefix of the keys of the heartbeats of engines, as a shared store sees them.
const heartbeats = "~" + record.HeartbeatPrefix

// noteStalls notes when the process has stood still, for want of a processor or because it was stopped.
func (l *life) noteStalls() {
	for last := time.Now(); ; {
		time.Sleep(stall / 10)
		now := time.Now()
		if now.Sub(last) > stall {
			l.note(entry{What: "stalled", Since: last})
		}
		last = now
	}
}
