package processes

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"time"

	"github.com/conveyor-go/conveyor"
)

// said is a line that a child writes: what one of its clients is about to do, and what it was answered.
type said struct {
	What   string // ready, rests; try, acked, refused, doubtful
	Client int
	Op     string
	Key    conveyor.Key
	N      int64 // the spec of an apply; the number of a signal

	Generation int64
	Run        string
	State      conveyor.State
	Err        string
}

// say writes a line in one piece.
func say(s said) {
	line, err := json.Marshal(s)
	if err == nil {
		_, err = os.Stdout.Write(append(line, '\n'))
	}
	if err != nil {
		panic(err)
	}
}

// client does one thing after the other with resources of its own, and says each before and after.
type client struct {
	*conveyor.Engine
	name  string
	n     int
	kinds []string
	rand  *rand.Rand
	next  int64 // the newest number that was used
}

func newClient(e *conveyor.Engine, c child, n int) *client {
	return &client{
		Engine: e, name: fmt.Sprintf("%s-%d", c.Process, n), n: n, kinds: c.Kinds,
		rand: rand.New(rand.NewPCG(c.Seed, uint64(c.Life)<<8|uint64(n))), next: int64(c.Life)*1_000_000 + int64(n)*100_000,
	}
}

func (c *client) work(ctx context.Context) {
	for ctx.Err() == nil {
		c.act(ctx)
		pass(ctx, time.Duration(c.rand.IntN(60))*time.Millisecond)
	}
}

// operations are what a client chooses from.
var operations = []string{"apply", "apply", "apply", "wait", "wait", "wait", "trigger", "cancel", "signal", "signal", "delete"}

func (c *client) act(ctx context.Context) {
	i := c.rand.IntN(len(c.kinds))
	kind := c.kinds[i]
	o := &conveyor.Object{Meta: conveyor.Meta{Type: kind, Name: fmt.Sprintf("%s-%d", c.name, i), Pipeline: kind}}
	if kind == loose {
		o.Pipeline = ""
	}
	op := operations[c.rand.IntN(len(operations))]
	if kind == "ask" && c.rand.IntN(2) == 0 {
		op = "signal"
	}
	c.next++
	s := said{What: "try", Client: c.n, Op: op, Key: o.Key(), N: c.next}
	switch op {
	case "cancel", "signal", "wait":
		found, err := c.Get(ctx, o.Key())
		if err != nil || found.Status.Run == "" || op != "wait" && (found.Status.Phase.Final() || found.DeletedAt != nil) {
			return // nothing to do it with
		}
		s.Run = found.Status.Run
	}
	say(s)
	s.answer(c.ask(ctx, op, o, &s))
	say(s)
}

// ask does what a client has said.
func (c *client) ask(ctx context.Context, op string, o *conveyor.Object, s *said) (run *conveyor.Run, err error) {
	switch op {
	case "apply":
		if o.Spec, err = json.Marshal(s.N); err != nil {
			return nil, err
		}
		run, err = c.Apply(ctx, o)
		s.Generation = o.Generation
		return run, err
	case "trigger":
		return c.Trigger(ctx, o.Key())
	case "delete":
		return c.Delete(ctx, o.Key())
	case "cancel":
		return nil, c.Cancel(ctx, s.Run, "changed my mind")
	case "signal":
		return nil, c.Signal(ctx, s.Run, "go", s.N)
	}
	limited, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	return c.Wait(limited, s.Run)
}

// answer adds what a client was answered.
func (s *said) answer(run *conveyor.Run, err error) {
	s.What = "acked"
	if run != nil {
		s.Run, s.State = run.ID, run.State
	}
	switch {
	case err == nil:
	case errors.Is(err, conveyor.ErrConflict), errors.Is(err, conveyor.ErrNotFound):
		s.What, s.Err = "refused", err.Error()
	default:
		s.What, s.Err = "doubtful", err.Error()
	}
}
