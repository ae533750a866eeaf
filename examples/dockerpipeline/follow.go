package main

import (
	"context"
	"errors"
	"iter"
	"sync"
	"time"

	"github.com/conveyor-go/conveyor"
)

// frameTime is the time between two frames on a terminal.
const frameTime = 100 * time.Millisecond

// follower shows a run. It must be made before the engine is started, so that it misses no event. Its readers do not use
// the progress. They send updates to applyUpdates, which owns the progress.
type follower struct {
	engine *conveyor.Engine
	key    conveyor.Key
	ctx    context.Context // the context of the streams that the readers read; it ends when follow returns
	stop   context.CancelFunc
	events iter.Seq2[conveyor.Event, error]

	run      string
	progress *progress
	updates  chan func(ctx context.Context) error // the readers send, applyUpdates receives, nobody closes; unbuffered
}

func newFollower(ctx context.Context, e *conveyor.Engine, key conveyor.Key) *follower {
	f := &follower{engine: e, key: key, updates: make(chan func(context.Context) error)}
	f.ctx, f.stop = context.WithCancel(ctx)
	f.watch()
	return f
}

// watch opens the stream of events. The events from now on can be read from it later.
func (f *follower) watch() {
	f.events = f.engine.Watch(f.ctx, conveyor.WatchOptions{Resource: f.key})
}

// follow shows a run until it has ended, and returns it.
func (f *follower) follow(ctx context.Context, run *conveyor.Run, p *progress) (*conveyor.Run, error) {
	f.run, f.progress = run.ID, p
	after := p.seen
	var readers sync.WaitGroup
	readers.Go(f.readEvents)
	readers.Go(func() { f.readLog(after) })
	ended, err := f.applyUpdates(ctx)
	f.stop()
	readers.Wait()
	return ended, err
}

// applyUpdates calls the updates and draws frames until the run has ended.
func (f *follower) applyUpdates(ctx context.Context) (*conveyor.Run, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var run *conveyor.Run
	var err error
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		run, err = f.engine.Wait(ctx, f.run)
	}()
	frames := time.NewTicker(frameTime)
	defer frames.Stop()
	for {
		select {
		case update := <-f.updates:
			if err := update(ctx); err != nil {
				cancel()
				<-ended
				return nil, err
			}
		case now := <-frames.C:
			f.progress.draw(now)
		case <-ended:
			if err == nil {
				err = f.finish(ctx, run)
			}
			if err != nil {
				return nil, err
			}
			return run, nil
		}
	}
}

// finish shows the final state of a run that has ended.
func (f *follower) finish(ctx context.Context, run *conveyor.Run) error {
	if err := f.catchUp(ctx); err != nil {
		return err
	}
	f.progress.update(run)
	f.progress.draw(time.Now())
	return nil
}

// readEvents sends an update for each event of the run, until f.ctx ends or the engine stops.
func (f *follower) readEvents() {
	for f.readEventsUntilGap() {
		// The terminal was slow, and events are lost. First open a new stream, and only then read the recorded run, so that
		// no event is lost between the two.
		f.watch()
		f.send(f.refresh)
	}
}

// readEventsUntilGap reports whether the stream ended because events were lost.
func (f *follower) readEventsUntilGap() bool {
	for event, err := range f.events {
		if err != nil {
			return errors.Is(err, conveyor.ErrGap)
		}
		if event.Run != f.run {
			continue
		}
		f.send(func(ctx context.Context) error {
			// All log lines of a step can be read when its end is recorded. They are shown before its end is shown.
			err := f.catchUp(ctx)
			f.progress.addEvent(event)
			return err
		})
	}
	return false
}

// readLog sends an update for each log line with a Seq greater than after.
func (f *follower) readLog(after int64) {
	for line, err := range f.engine.Logs(f.ctx, f.run, conveyor.LogOptions{After: after, Follow: true}) {
		if err != nil {
			return
		}
		f.send(func(context.Context) error { f.progress.addLine(line); return nil })
	}
}

func (f *follower) send(update func(context.Context) error) {
	select {
	case f.updates <- update:
	case <-f.ctx.Done():
	}
}

// catchUp shows the log lines that are recorded and not yet shown.
func (f *follower) catchUp(ctx context.Context) error {
	for line, err := range f.engine.Logs(ctx, f.run, conveyor.LogOptions{After: f.progress.seen}) {
		if err != nil {
			return err
		}
		f.progress.addLine(line)
	}
	return nil
}

// refresh shows the recorded state of the run.
func (f *follower) refresh(ctx context.Context) error {
	run, err := f.engine.GetRun(ctx, f.run)
	if err == nil {
		f.progress.update(run)
	}
	return err
}
