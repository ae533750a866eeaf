package schedules_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/conveyor-go/conveyor"
)

// dice decide. Each question has dice of its own, made from the seed and from what the question is about, so that the
// answer does not depend on the order of the questions.
type dice uint64

func (d dice) on(what string) dice {
	for i := range len(what) {
		d = (d ^ dice(what[i])) * 0x100000001b3
	}
	return d.at(len(what))
}

func (d dice) at(n int) dice {
	d += dice(n)*0x9e3779b97f4a7c15 + 0x9e3779b97f4a7c15
	d = (d ^ d>>30) * 0xbf58476d1ce4e5b9
	d = (d ^ d>>27) * 0x94d049bb133111eb
	return d ^ d>>31
}

// n throws the dice: a number below n.
func (d *dice) n(n int) int {
	*d = d.at(1)
	return int(uint64(*d>>1) % uint64(n))
}

// oneIn is true once in n times.
func (d *dice) oneIn(n int) bool { return d.n(n) == 0 }

// upTo is a time, to the nanosecond, so that two of them are hardly ever the same.
func (d *dice) upTo(most time.Duration) time.Duration { return time.Duration(1 + d.n(int(most))) }

func (d *dice) between(least, most time.Duration) time.Duration { return least + d.upTo(most-least) }

func pick[T any](d *dice, from ...T) T { return from[d.n(len(from))] }

// setup is the world of a seed as it is at the beginning.
type setup struct {
	dice      dice
	size      string
	storm     bool // many resources of busy pipelines, and one of a quiet one
	workers   int
	retry     conveyor.RetryPolicy
	timeout   time.Duration // of steps
	slow      time.Duration // most that the store takes before or after a call; 0 for none
	noise     bool          // the store yields the processor in place of that
	drivers   []*driverSetup
	pipelines []conveyor.PipelineSpec
	resources []conveyor.Key
	along     map[conveyor.Key]string // their pipelines
	clients   int
	acts      int           // of each client
	pace      time.Duration // most time between them
	restarts  int
	stops     bool // the line is stopped at times
}

type driverSetup struct {
	name        string
	concurrency int
	timeout     time.Duration
	retry       conveyor.RetryPolicy
	listen      []string
	late        bool // registered by the program, some time
	finalizes   bool
}

func newSetup(seed int) (s setup) {
	d := dice(seed).on("setup")
	s.dice, s.along = dice(seed), map[conveyor.Key]string{}
	s.workers = 1 + d.n(4)
	switch d.n(4) {
	case 0:
	case 1:
		s.noise = true
	default:
		s.slow = pick(&d, 100*time.Microsecond, time.Millisecond, 20*time.Millisecond)
	}
	if d.oneIn(4) {
		s.timeout = d.between(2*time.Second, 10*time.Second)
	}
	s.retry = s.policy(&d)
	s.sizes(&d)
	if s.storm {
		s.makeStorm(&d)
	} else {
		s.make(&d)
	}
	stops := dice(seed).on("stops")
	s.stops = !s.storm && stops.oneIn(4)
	return s
}

func (s *setup) sizes(d *dice) {
	s.clients, s.acts, s.pace = 1+d.n(2), 2+d.n(6), time.Duration(1+d.n(4))*time.Second
	switch n := d.n(40); {
	case n < 30:
		s.size = "small"
	case n < 35:
		s.size, s.clients, s.acts = "middling", 2+d.n(2), 6+d.n(10)
	case n < 36:
		s.size, s.clients, s.acts = "large", 3+d.n(2), 25+d.n(15)
	default:
		s.size, s.storm, s.clients, s.acts = "storm", true, 1, 10+d.n(20)
	}
	if s.storm || d.oneIn(4) {
		s.pace = 50 * time.Millisecond
	}
	if d.oneIn(4) {
		s.restarts = 1 + d.n(2)
	}
}

func (s *setup) policy(d *dice) (p conveyor.RetryPolicy) {
	p.MaxAttempts = pick(d, 0, 1, 2, 3, 5, -1)
	p.Initial = conveyor.Duration(pick(d, 0, d.upTo(100*time.Millisecond), d.upTo(5*time.Second)))
	p.Max = conveyor.Duration(pick(d, 0, d.upTo(4*time.Second), d.upTo(time.Minute)))
	p.Multiplier = pick(d, 0, 1, 1.5, 3)
	p.Jitter = pick(d, -1, -1, -1, -1, -1, 0, 0.1, 1)
	return p
}

// make makes pipelines of all shapes.
func (s *setup) make(d *dice) {
	pipelines, resources, drivers := 1+d.n(2), 1+d.n(3), 2+d.n(3)
	if s.size == "large" {
		pipelines, resources, drivers = 2+d.n(3), 6+d.n(7), 3+d.n(4)
	}
	for i := range drivers {
		one := &driverSetup{name: fmt.Sprint("d", i), late: d.oneIn(6), finalizes: d.oneIn(2)}
		one.concurrency = pick(d, 0, 0, 1, 2)
		if d.oneIn(3) {
			one.retry = s.policy(d)
		}
		if d.oneIn(5) {
			one.timeout = d.between(2*time.Second, 6*time.Second)
		}
		if d.oneIn(4) {
			one.listen = []string{"loose"}
		}
		s.drivers = append(s.drivers, one)
	}
	for i := range pipelines {
		s.pipelines = append(s.pipelines, s.pipeline(d, fmt.Sprint("p", i)))
	}
	for i := range resources {
		along := s.pipelines[d.n(len(s.pipelines))].Name
		k := conveyor.Key{Type: "r", Name: fmt.Sprint(along, "x", i)}
		if d.oneIn(8) {
			along, k = "", conveyor.Key{Type: "loose", Name: fmt.Sprint("x", i)}
		}
		s.resources = append(s.resources, k)
		s.along[k] = along
	}
}

func (s *setup) pipeline(d *dice, name string) conveyor.PipelineSpec {
	p := conveyor.PipelineSpec{Name: name, Resource: "r", OnChange: conveyor.ChangePolicy(d.n(4)), MaxRuns: pick(d, 0, 0, 1, 2)}
	if d.oneIn(3) {
		retry := s.policy(d)
		p.Retry = &retry
	}
	if d.oneIn(4) {
		p.Timeout = conveyor.Duration(d.between(2*time.Second, 20*time.Second))
	}
	if d.oneIn(4) {
		p.Resync = conveyor.Duration(d.between(2*time.Second, 20*time.Second))
	}
	p.Steps = s.steps(d, 1+d.n(4))
	if d.oneIn(3) { // a graph
		for i := 1; i < len(p.Steps); i++ {
			if d.oneIn(3) {
				continue // after all of them
			}
			p.Steps[i].After = conveyor.AtOnce()
			for before := range i {
				if d.oneIn(2) {
					p.Steps[i].After = append(p.Steps[i].After, fmt.Sprint(before+1))
				}
			}
		}
	}
	if d.oneIn(3) {
		p.Finally = s.steps(d, 1+d.n(2))
	}
	return p
}

func (s *setup) steps(d *dice, n int) (steps []conveyor.Step) {
	for range n {
		step := conveyor.Step{Driver: s.drivers[d.n(len(s.drivers))].name, ContinueOnError: d.oneIn(6)}
		if d.oneIn(4) {
			retry := s.policy(d)
			step.Retry = &retry
		}
		if d.oneIn(6) {
			step.Timeout = conveyor.Duration(d.between(time.Second, 5*time.Second))
		}
		steps = append(steps, step)
	}
	return steps
}

// makeStorm makes busy pipelines and a quiet one, p0, which share the workers, or the slots of a driver.
func (s *setup) makeStorm(d *dice) {
	s.workers = 1 + d.n(2)
	s.drivers = []*driverSetup{{name: "d0"}, {name: "d1", concurrency: pick(d, 0, 1, 2)}}
	busy := 1 + d.n(3)
	for i := range 1 + busy {
		p := conveyor.PipelineSpec{Name: fmt.Sprint("p", i), Resource: "r"}
		for range 1 + d.n(5) {
			p.Steps = append(p.Steps, conveyor.Step{Driver: s.drivers[d.n(2)].name})
		}
		s.pipelines = append(s.pipelines, p)
		n := 1
		if i > 0 {
			n = 2 + d.n(5)
		}
		for k := range n {
			key := conveyor.Key{Type: "r", Name: fmt.Sprint(p.Name, "x", k)}
			s.resources = append(s.resources, key)
			s.along[key] = p.Name
		}
	}
}

// String gives the world as its seed made it.
func (s *setup) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s, %d workers, store slow by %s, noise %v, %d clients, %d restarts, step timeout %s, retry %+v\n",
		s.size, s.workers, s.slow, s.noise, s.clients, s.restarts, s.timeout, s.retry)
	for _, d := range s.drivers {
		fmt.Fprintf(&b, "driver %+v\n", *d)
	}
	for _, p := range s.pipelines {
		doc, _ := json.Marshal(p)
		fmt.Fprintf(&b, "pipeline %s\n", doc)
	}
	fmt.Fprintf(&b, "resources %v", s.resources)
	return b.String()
}
