package conveyortest

import (
	"context"
	"sync"

	"github.com/conveyor-go/conveyor"
)

// InTurn returns a driver that passes its first call on to the first of answers, its second call to the second, and so
// on. When it has come to the last answer, the last answer gets all further calls. Without answers, the driver always
// returns [conveyor.Done], and so does an answer that is nil, as in [Drivers]. The driver is safe for concurrent use. It
// is never a [conveyor.Finalizer], even if the answers are.
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
		if answer == nil {
			return conveyor.Done(), nil
		}
		return answer.Reconcile(ctx, req)
	})
}

// Return returns a driver that always returns result and err.
func Return(result conveyor.Result, err error) conveyor.Driver {
	return conveyor.DriverFunc(func(context.Context, *conveyor.Request) (conveyor.Result, error) { return result, err })
}
