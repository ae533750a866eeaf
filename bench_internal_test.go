package conveyor

import (
	"fmt"
	"testing"
	"time"
)

// The parts of BenchmarkRun that a change is most likely to touch, each by itself.

func BenchmarkEncode(b *testing.B) {
	now := toInstant(time.Now())
	for name, rec := range map[string]appender{
		"step": &stepRecord{State: StateSucceeded, Attempt: 1, Started: now, Ended: now, Output: []byte(`"sha256:c0ffee"`)},
		"run": &runRecord{
			Type: "build", Name: "app", ResourceID: "00vhnczb002st21ncgztsw9h4e", Cause: CauseCreated, State: StateRunning, Generation: 1,
			Pipeline: "ci", Hash: "0123456789abcdef0123456789abcdef", Version: 1, MadeAt: now, UpdatedAt: now, Created: now, Started: now,
		},
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			var buf []byte
			for b.Loop() {
				buf = rec.appendJSON(buf[:0])
			}
		})
	}
}

func BenchmarkPlanNext(b *testing.B) {
	for _, steps := range []int{5, 50, 250} {
		for _, graph := range []bool{false, true} {
			p := &plan{}
			for i := range steps {
				s := Step{ID: fmt.Sprint(i), Driver: "d"}
				if graph && i > 0 {
					s.After = []string{fmt.Sprint(i - 1)}
				}
				p.Steps = append(p.Steps, s)
			}
			p.ready()
			states := make([]State, steps) // half of them done
			for i := range steps / 2 {
				states[i] = StateSucceeded
			}
			b.Run(fmt.Sprintf("steps=%d/graph=%t", steps, graph), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if start, _ := p.next(states, false, false); len(start) != 1 {
						b.Fatal(start)
					}
				}
			})
		}
	}
}

func BenchmarkRetryDelay(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		defaultRetry.delay(7)
	}
}
