// Resync repairs drift: somebody changes a DNS record without the engine, and the next resync restores it.
package main

import (
	"context"
	"fmt"
	"log"
	"sync"
	"time"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/store/memory"
)

// Record is a resource. Its name is a name in the DNS, and its spec is the address that the name should have.
type Record struct {
	conveyor.Meta
	Spec struct {
		Address string `json:"address"`
	} `json:"spec"`
}

// Zone is the external system, which others can change too. Zone is also the driver that reconciles it.
type Zone struct {
	mu        sync.Mutex // guards addresses
	addresses map[string]string
}

func (z *Zone) Reconcile(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
	var record Record
	if err := req.Resource.Decode(&record); err != nil {
		return conveyor.Result{}, conveyor.Permanent(err)
	}
	z.mu.Lock()
	defer z.mu.Unlock()
	is, want := z.addresses[record.Name], record.Spec.Address
	if is == want {
		return conveyor.Skip("nothing has drifted"), nil
	}
	fmt.Printf("%s: %s is %q, set it to %q\n", req.Cause, record.Name, is, want)
	z.addresses[record.Name] = want
	return conveyor.Done(), nil
}

// changeAddress changes the address of a name without the engine.
func (z *Zone) changeAddress(name, address string) {
	z.mu.Lock()
	defer z.mu.Unlock()
	fmt.Printf("somebody sets %s to %q\n", name, address)
	z.addresses[name] = address
}

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	engine, err := conveyor.New(memory.New(), conveyor.Options{})
	check(err)
	zone := &Zone{addresses: map[string]string{}}
	check(engine.Register("zone", zone))
	check(engine.SavePipeline(ctx, conveyor.PipelineSpec{
		Name: "dns", Resource: "record", Steps: []conveyor.Step{{Driver: "zone"}},
		Resync: conveyor.Duration(50 * time.Millisecond), // some minutes in production
	}))
	check(engine.Start(ctx))

	record := &Record{Meta: conveyor.Meta{Name: "www", Type: "record", Pipeline: "dns"}}
	record.Spec.Address = "192.0.2.1"
	run, err := engine.Apply(ctx, record)
	check(err)
	_, err = engine.Wait(ctx, run.ID)
	check(err)

	events := engine.Watch(ctx, conveyor.WatchOptions{Resource: record.Key()})
	zone.changeAddress("www", "203.0.113.66")
	for event, err := range events { // until a run has changed something
		check(err)
		if event.Kind == conveyor.EventStep && event.State == conveyor.StateSucceeded {
			break
		}
	}
	object, err := engine.Get(ctx, record.Key())
	check(err)
	fmt.Println("generation", object.Generation, "still: the spec has not changed")
	check(engine.Shutdown(ctx))
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
