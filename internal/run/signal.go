package run

import (
	"slices"

	"github.com/conveyor-go/conveyor/internal/plan"
	"github.com/conveyor-go/conveyor/internal/record"
	"github.com/conveyor-go/conveyor/store"
)

// deliver gives signals to the steps that wait for them. It also wakes the steps whose wait has timed out. The commit
// that gives a signal to a step removes the signal from the store. When no further one of Steps can start, their waits are
// over, and the signals are left to Finally.
func (t *Transition) deliver() error {
	for i := t.firstOpen(); i < len(t.states); i++ {
		if t.states[i] != plan.Waiting || t.recorded(i).Await == "" {
			continue
		}
		if t.full() {
			return nil
		}
		signal, err := t.takeSignal(t.recorded(i).Await)
		if err != nil {
			return err
		}
		if due := t.recorded(i).Due; signal != nil || due != 0 && due <= t.now {
			t.step(i).WakeUp(t.now, signal)
			t.states[i] = plan.Queued
		}
	}
	return nil
}

// takeSignal returns the oldest signal with a name that this transition has not taken yet, or nil if there is none.
func (t *Transition) takeSignal(name string) (*record.Signal, error) {
	r, err := t.reader.Signal(t.run.ID, name, t.removes)
	if err != nil || r.Key == "" {
		return nil, err
	}
	signal, err := record.DecodeSignal(r) // damage must not spread to the record of the step
	if err != nil {
		return nil, err
	}
	t.extra = append(t.extra, store.Delete(r.Key).If(r.Revision))
	return signal, nil
}

// removes reports whether one of the extra writes of the transition writes or removes the record of key.
func (t *Transition) removes(key string) bool {
	return slices.ContainsFunc(t.extra, func(op store.Op) bool { return op.Key() == key })
}
