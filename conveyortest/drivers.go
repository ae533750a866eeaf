package conveyortest

import (
	"context"
	"sync"

	"github.com/conveyor-go/conveyor"
)

// InTurn returns a driver that gives its first call to the first of answers, the second call to the second, and all
// calls after the last to the last. Without answers it is done at once, always. It is safe for concurrent use, and
// no [conveyor.Finalizer], whatever the answers are.
func InTurn(answers ...conveyor.Driver) conveyor.Driver {
	if len(answers) == 0 {
		return Return(conveyor.Done(), nil)
	}
	var mu sync.Mutex
	next := 0
	return conveyor.DriverFunc(func(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
		mu.Lock()
		answer := answers[next]
		next = min(next+1, len(answers)-1)
		mu.Unlock()
		return answer.Reconcile(ctx, req)
	})
}

// Return returns a driver that always answers alike.
func Return(result conveyor.Result, err error) conveyor.Driver {
	return conveyor.DriverFunc(func(context.Context, *conveyor.Request) (conveyor.Result, error) { return result, err })
}
