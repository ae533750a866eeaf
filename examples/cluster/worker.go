package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/store"
	"github.com/conveyor-go/conveyor/store/etcd"
	"github.com/conveyor-go/conveyor/store/postgres"
)

// asWorker is the first argument of a worker process. The others are its name and the store.
const asWorker = "worker"

// work is what a worker process does until its input ends: nothing in it knows of the other processes.
func work(ctx context.Context, name, place string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	st, err := open(ctx, place, false)
	if err != nil {
		return err
	}
	defer st.Close()
	engine, err := conveyor.New(st, options(name))
	if err != nil {
		return err
	}
	for _, step := range pipeline.Steps {
		if err := engine.Register(step.Driver, slow{}); err != nil {
			return err
		}
	}
	return engine.Run(ctx)
}

// slow is a driver that takes its time.
type slow struct{}

func (slow) Reconcile(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
	what := fmt.Sprintf("%s of %s", req.Step.ID, req.Resource.Name)
	if req.Resumed {
		fmt.Println("takes over", what)
	} else {
		fmt.Println("begins", what)
	}
	select {
	case <-time.After(workTime):
	case <-ctx.Done():
		return conveyor.Done(), context.Cause(ctx)
	}
	fmt.Println("finishes", what)
	return conveyor.Done(), nil
}

// open opens the store at a place. It makes the tables of a PostgreSQL if migrate is set.
func open(ctx context.Context, place string, migrate bool) (store.Store, error) {
	endpoints, isEtcd := strings.CutPrefix(place, "etcd://")
	if isEtcd {
		return etcd.Open(ctx, clientv3.Config{Endpoints: strings.Split(endpoints, ",")}, etcd.Options{})
	}
	if !strings.Contains(place, "://") {
		return nil, fmt.Errorf("-store: %q is neither postgres://... nor etcd://...", place)
	}
	if migrate {
		if err := postgres.Migrate(ctx, place, postgres.Options{}); err != nil {
			return nil, err
		}
	}
	return postgres.Open(ctx, place, postgres.Options{})
}
