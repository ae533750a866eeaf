package histories_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/store"
)

// client makes calls until enough were made.
func (w *world) client(id int) {
	for {
		w.nap(time.Duration(w.n(6)) * 500 * time.Microsecond)
		n := w.left.Add(-1)
		if n < 0 {
			return
		}
		l := w.enter()
		if l == nil {
			return
		}
		to := l
		if mates := len(w.company); mates > 0 && w.n(2) == 0 {
			to = w.company[w.n(mates)]
		}
		w.perform(to, w.draw(id, n))
		l.calls.Done()
	}
}

// draw thinks of a call. n is a number that no other call of the history has.
func (w *world) draw(id int, n int64) *call {
	c := &call{Client: id, Key: w.key()}
	w.mu.Lock()
	runs, version := w.runs[c.Key], w.known[c.Key]
	w.mu.Unlock()
	switch d := w.n(100); {
	case d < 34:
		c.What = apply
		w.want(c, n)
		if d >= 16 {
			c.Version = max(1, version-int64(w.n(8)/7))
		}
	case d < 40:
		c.What = create
		w.want(c, n)
	case d < 56:
		c.What = get
	case d < 62:
		c.What = list
		if d < 60 {
			c.Key = "" // all of them
		}
	case d < 68:
		c.What = trigger
	case d < 76:
		c.What = remove
	case len(runs) == 0:
		c.What = get
	case d < 84:
		c.What, c.Run = cancel, runs[len(runs)-1]
	case d < 90:
		c.What, c.Run = wait, runs[max(0, len(runs)-1-w.n(3))]
	default:
		c.What, c.Run = getRun, runs[max(0, len(runs)-1-w.n(3))]
	}
	return c
}

var homes = map[string]string{"x0": "co", "x1": "su", "x2": "qu", "x3": "fi"}

// want fills in what a resource shall be. Half of the specs are like those of others.
func (w *world) want(c *call, n int64) {
	c.Pipeline = homes[c.Key]
	switch w.n(12) {
	case 0:
		c.Pipeline = pipelines[w.n(len(pipelines))].Name
	case 1:
		c.Pipeline = ""
	}
	c.Spec = []string{`{"a":1,"b":2}`, `{"b":2,"a":1}`, `{"a":1}`, `[]`}[w.n(4)]
	if w.n(2) == 0 {
		c.Spec = fmt.Sprintf(`{"n":%d}`, n)
	}
	c.Metadata = []string{"", "", "m", fmt.Sprint("m", n)}[w.n(4)]
}

// perform makes a call and takes down how it was answered.
func (w *world) perform(l *life, c *call) {
	ctx, cancelled := l.ctx, false
	if c.Client < clients && w.odds(w.impatient) {
		var stop context.CancelFunc
		ctx, stop = context.WithTimeout(ctx, time.Duration(w.n(1500))*time.Microsecond)
		defer stop()
		cancelled = true
	}
	c.Life, c.Exact = l.n, w.exact
	c.From = w.tick()
	all, err := w.ask(ctx, l.engine, c)
	c.To = w.tick()
	c.answeredWith(err, l)
	name := string(c.What) + ": " + string(c.Answer)
	if cancelled && c.Answer == nothing {
		w.tally.count("client: context ended")
	}
	w.tally.count(name)

	w.mu.Lock()
	defer w.mu.Unlock()
	if all != nil {
		w.calls = append(w.calls, all...)
		return
	}
	w.calls = append(w.calls, c)
	if c.Got != nil {
		w.known[c.Key] = c.Got.Version
	}
	if c.Ran != nil {
		if c.What != wait && c.What != getRun {
			w.runs[c.Key] = append(w.runs[c.Key], c.Ran.ID)
		}
		w.sawEndLocked(c.Ran.ID, c.Ran.State, c.To)
	}
	if c.Got != nil {
		w.sawEndLocked(c.Got.Run, c.Got.Phase, c.To)
	}
}

// sawEndLocked takes down what a client has seen of a run, if it has ended.
func (w *world) sawEndLocked(run string, state conveyor.State, at int64) {
	if !state.Final() {
		return
	}
	w.endings[run] = state
	if w.ends[run] == 0 {
		w.ends[run] = at
	}
}

// answeredWith takes down what an error means. Of a process that is dead nobody has heard an answer, unless it is one
// that says what it has read: nothing but reads come before it. Otherwise nothing is stored after an error, but for one
// that says that it does not know.
func (c *call) answeredWith(err error, l *life) {
	died := l.died.Load()
	switch {
	case err == nil:
		c.Answer = done
		return
	case errors.Is(err, store.ErrUnknown):
		c.Answer = unknown
	case errors.Is(err, conveyor.ErrConflict):
		c.Answer = conflict
	case errors.Is(err, conveyor.ErrExists):
		c.Answer = exists
	case errors.Is(err, conveyor.ErrNotFound):
		c.Answer = notFound
	case errors.Is(err, conveyor.ErrTooLarge):
		c.Answer = tooLarge
	case died != 0, c.What == cancel:
		c.Answer = unknown
	default:
		c.Answer = nothing
	}
	c.Error = err.Error()
	if c.Answer != unknown {
		return
	}
	switch {
	case died != 0:
		c.To = min(c.To, died) // then nothing reached the records any more
	case c.What == cancel && !errors.Is(err, store.ErrUnknown):
		c.To = forever // it is on its way
	}
}

func (w *world) ask(ctx context.Context, e *conveyor.Engine, c *call) (all []*call, err error) {
	k := conveyor.Key{Type: kind, Name: c.Key}
	switch c.What {
	case apply, create:
		return nil, c.apply(ctx, e)
	case get:
		o, err := e.Get(ctx, k)
		if err == nil {
			c.Got = seenIn(&o.Meta, o.Spec)
			w.told("a reader is told", o)
		}
		return nil, err
	case list:
		return w.list(ctx, e, c)
	case cancel:
		return nil, e.Cancel(ctx, c.Run, "a client wants it")
	}
	var run *conveyor.Run
	switch c.What {
	case trigger:
		run, err = e.Trigger(ctx, k)
	case remove:
		run, err = e.Delete(ctx, k)
	case wait:
		run, err = e.Wait(ctx, c.Run)
	case getRun:
		run, err = e.GetRun(ctx, c.Run)
	}
	if err == nil {
		c.Ran = ranIn(run)
	}
	return nil, err
}

func (c *call) apply(ctx context.Context, e *conveyor.Engine) error {
	o := &conveyor.Object{
		Meta: conveyor.Meta{Type: kind, Name: c.Key, Pipeline: c.Pipeline, Version: c.Version}, Spec: json.RawMessage(c.Spec),
	}
	if c.Metadata != "" {
		o.Metadata = map[string]string{"m": c.Metadata}
	}
	do := e.Apply
	if c.What == create {
		do = e.Create
	}
	run, err := do(ctx, o)
	if err != nil {
		return err
	}
	c.Got, c.Ran = seenIn(&o.Meta, nil), ranIn(run)
	return nil
}

// list asks for one resource, or for all of them, which is a call for each.
func (w *world) list(ctx context.Context, e *conveyor.Engine, c *call) (all []*call, err error) {
	got := map[string]*seen{}
	for o, err := range e.List(ctx, conveyor.ResourceFilter{Type: kind, NamePrefix: c.Key}) {
		if err != nil {
			return nil, err
		}
		got[o.Name] = seenIn(&o.Meta, o.Spec)
		w.told("a list says", o)
	}
	if c.Key != "" {
		if c.Got = got[c.Key]; c.Got == nil {
			err = conveyor.ErrNotFound
		}
		return nil, err
	}
	to := w.tick()
	for _, key := range w.keys {
		one := &call{Client: c.Client, Life: c.Life, Exact: c.Exact, What: list, Key: key, From: c.From, To: to, Answer: done, Got: got[key]}
		if one.Got == nil {
			one.Answer = notFound
		}
		all = append(all, one)
	}
	return all, nil
}
