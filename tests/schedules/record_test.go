package schedules_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/store"
)

// What is read of the engine's records, as they are committed: the one history that all agree on.

type runRecord struct {
	Resource   string         `json:"resource"`
	Name       string         `json:"name"`
	ResourceID string         `json:"resourceId"`
	Cause      conveyor.Cause `json:"cause"`
	State      conveyor.State `json:"state"`
	Generation int64          `json:"generation"`
	Pipeline   string         `json:"pipeline"`
	Hash       string         `json:"hash"`
	Created    int64          `json:"created"`
	Started    int64          `json:"started"`
	Ended      int64          `json:"ended"`
	Deadline   int64          `json:"deadline"`
	Stop       string         `json:"stop"`
	Of         string         `json:"of"`
	Outcome    conveyor.State `json:"outcome"`
	CutShort   bool           `json:"cutShort"`
}

type stepRecord struct {
	State   conveyor.State `json:"state"`
	Attempt int            `json:"attempt"`
	Started int64          `json:"started"`
	Ended   int64          `json:"ended"`
	Due     int64          `json:"due"`
	Resumed bool           `json:"resumed"`
	Refused bool           `json:"refused"`
	Settled int            `json:"settled"`
	Await   string         `json:"await"`
	Waits   []struct {
		To       int64
		TimedOut bool
	} `json:"waits"`
}

type headRecord struct {
	ID         string `json:"id"`
	Generation int64  `json:"generation"`
	Deleted    int64  `json:"deleted"`
	Active     string `json:"active"`
	Pending    string `json:"pending"`
	Keeps      int64  `json:"keeps"`
	Resync     int64  `json:"resync"`
}

// planRecord is a pipeline's definition, or the plan of one run.
type planRecord struct {
	Steps, Finally []conveyor.Step
	Timeout        conveyor.Duration
	Resync         conveyor.Duration
	Retry          *conveyor.RetryPolicy
	Independent    bool
	Finalize       bool

	all    []conveyor.Step
	before [][]int // positions of the steps that each one comes after
	strict bool    // one step at a time
}

func readPlan(data []byte) *planRecord {
	p := new(planRecord)
	mustDecode(data, p)
	p.all = append(slices.Clone(p.Steps), p.Finally...)
	graph := slices.ContainsFunc(p.Steps, func(s conveyor.Step) bool { return s.After != nil })
	p.strict = !graph && !p.Independent
	p.before = make([][]int, len(p.all))
	for i := range p.all {
		switch {
		case i < len(p.Steps) && p.Steps[i].After != nil:
			for _, id := range p.Steps[i].After {
				p.before[i] = append(p.before[i], p.position(id))
			}
		case i < len(p.Steps) && !p.Independent:
			p.before[i] = upTo(0, i) // all of them, since a retry may have kept a later one
		case i >= len(p.Steps):
			p.before[i] = upTo(len(p.Steps), i)
		}
	}
	return p
}

// upTo lists numbers.
func upTo(from, to int) (numbers []int) {
	for i := from; i < to; i++ {
		numbers = append(numbers, i)
	}
	return numbers
}

// String gives the steps with their drivers.
func (p *planRecord) String() string {
	var b strings.Builder
	for i, s := range p.all {
		if i == len(p.Steps) {
			b.WriteString("finally ")
		}
		fmt.Fprintf(&b, "%s:%s", s.ID, s.Driver)
		if s.After != nil {
			fmt.Fprint(&b, s.After)
		}
		b.WriteByte(' ')
	}
	return b.String()
}

func (p *planRecord) uses(driver string) bool {
	return slices.ContainsFunc(p.all, func(s conveyor.Step) bool { return s.Driver == driver })
}

func (p *planRecord) position(id string) int {
	return slices.IndexFunc(p.all, func(s conveyor.Step) bool { return s.ID == id })
}

// precedes says that one step of a graph comes before another, by whatever way.
func (p *planRecord) precedes(a, b int) bool {
	return slices.ContainsFunc(p.before[b], func(c int) bool { return c == a || p.precedes(a, c) })
}

func mustDecode(data []byte, into any) {
	if err := json.Unmarshal(data, into); err != nil {
		panic(err)
	}
}

// runSeen is all that is known of a run.
type runSeen struct {
	id, alias string
	key       conveyor.Key
	lane      string
	rec       runRecord
	was       runRecord // during a commit, before it
	plan      *planRecord
	steps     []*stepBook
	changes   []change // of its steps, as they were committed
	born      int64    // commit of its creation
	alone     bool     // no other run of the resource was unfinished then
	over      int64    // commit of its end; 0 before
	canceled  int64    // when Cancel had returned nil; 0 before
	signals   int      // that nobody has taken
}

func (r *runSeen) begun() bool { return r.plan != nil }

// change is what an event of a step tells.
type change struct {
	life    int
	step    string
	state   conveyor.State
	attempt int
}

// start is one recorded start of a step.
type startSeen struct {
	run   *runSeen
	step  int
	at    int64 // when the run was looked at
	ready int64 // since when it could have been; 0 for unknown
	birth bool  // it was ready since it was created
}

// resourceSeen is what is known of a resource.
type resourceSeen struct {
	head      headRecord
	changedIn int // the life in which its generation changed, or it was marked as deleted
	gone      bool
	runs      []*runSeen // by commit of their creation
	begun     string     // the last run that has begun
	at        *runSeen   // that is at work
	specs     map[int64]string
	acked     []ack
}

// ack is a generation that Apply has acknowledged.
type ack struct {
	id         string
	generation int64
	queue      bool
}

// committed takes note of a commit and checks it against the rules. x.mu is held.
func (x *explorer) committed(l *lifetime, ops []store.Op) {
	var touched *runSeen
	var before runRecord
	for _, op := range ops {
		if key := op.Key(); strings.HasPrefix(key, "pir/") { // before the pipeline that refers to it
			if hash := key[strings.LastIndexByte(key, '/')+1:]; x.plans[hash] == nil {
				x.plans[hash] = readPlan(op.Value())
			}
		}
	}
	for _, op := range ops {
		if !op.Writes() {
			continue
		}
		key, value := op.Key(), op.Value()
		switch key[:4] {
		case "pip/":
			var p struct {
				Hash    string                `json:"hash"`
				MaxRuns int                   `json:"maxRuns"`
				Resync  conveyor.Duration     `json:"resync"`
				Policy  conveyor.ChangePolicy `json:"onChange"`
			}
			mustDecode(value, &p)
			x.hashes[key[4:]] = p.Hash
			x.note(note{life: l.number, what: "pipeline", whose: key[4:], more: x.plans[p.Hash].String(), numbered: "maxRuns", number: p.MaxRuns})
			x.limits[key[4:]] = append(x.limits[key[4:]], limitSeen{x.now(), p.MaxRuns})
		case "pln/":
			x.plans[key[4:]] = readPlan(value)
		case "sig/":
			if id, _, _ := runOf(key); op.Removes() {
				x.runs[id].signals--
			} else {
				x.runs[id].signals++
			}
		case "pse/":
			x.pauseCommitted(key, op.Removes())
		case "res/":
			kind, name, _ := strings.Cut(key[4:], "/")
			r := x.resource(conveyor.Key{Type: kind, Name: name})
			if r.gone = op.Removes(); r.gone {
				r.head = headRecord{}
				x.see(sawDeleted)
			} else {
				old := r.head
				r.head = headRecord{}
				mustDecode(value, &r.head)
				if r.head.Generation != old.Generation || r.head.Deleted != old.Deleted {
					r.changedIn = l.number
				}
			}
		case "run/":
			touched = x.runs[key[4:]]
			if touched == nil {
				touched = x.newRun(key[4:], value)
			} else {
				before = touched.rec
				touched.rec = runRecord{}
				mustDecode(value, &touched.rec)
			}
		}
	}
	if touched != nil {
		x.runChanged(l, touched, &before)
		touched.was = before
	}
	x.stepsChanged(l, ops)
	if touched != nil {
		touched.was = touched.rec
	}
	if touched != nil && touched.rec.State.Final() && touched.over == 0 {
		x.runEnded(l, touched)
	}
}

func (x *explorer) resource(k conveyor.Key) *resourceSeen {
	r := x.seenResources[k]
	if r == nil {
		r = &resourceSeen{specs: map[int64]string{}}
		x.seenResources[k] = r
	}
	return r
}

func (x *explorer) newRun(id string, value []byte) *runSeen {
	r := &runSeen{id: id, born: x.now()}
	mustDecode(value, &r.rec)
	r.key = conveyor.Key{Type: r.rec.Resource, Name: r.rec.Name}
	res := x.resource(r.key)
	r.alias = r.key.Name + "#" + string(rune('a'+len(res.runs)%26)) + strings.Repeat("'", len(res.runs)/26)
	r.alone = !slices.ContainsFunc(res.runs, func(o *runSeen) bool { return o.over == 0 })
	r.lane = r.rec.Pipeline
	if r.lane == "" {
		r.lane = "/" + r.key.Type
	}
	res.runs = append(res.runs, r)
	x.runs[id] = r
	x.open = append(x.open, r)
	switch r.rec.Cause {
	case conveyor.CauseResync:
		x.see(sawResync)
	case conveyor.CauseRetried:
		x.see(sawRetriedRun)
	}
	return r
}
