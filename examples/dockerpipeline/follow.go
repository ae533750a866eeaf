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

// follower shows a run. It is made before the engine is started, so that it misses nothing. Its readers do not touch
// the progress: they send what is to be done with it to applyUpdates, which owns it.
type follower struct {
	engine *conveyor.Engine
	key    conveyor.Key
	ctx    context.Context // of the streams that the readers read; ends when follow returns
	stop   context.CancelFunc
	events iter.Seq2[conveyor.Event, error]

	run      string
	progress *progress
	updates  chan func(ctx context.Context) error // the readers send, applyUpdates receives, nobody closes
}

func newFollower(ctx context.Context, e *conveyor.Engine, key conveyor.Key) *follower {
	f := &follower{engine: e, key: key, updates: make(chan func(context.Context) error)}
	f.ctx, f.stop = context.WithCancel(ctx)
	f.watch()
	return f
}

// watch takes the place in the stream from which on events will be read.
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

// applyUpdates carries out the updates until the run has ended.
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

// finish shows the run as it ended.
func (f *follower) finish(ctx context.Context, run *conveyor.Run) error {
	if err := f.catchUp(ctx); err != nil {
		return err
	}
	f.progress.update(run)
	f.progress.draw(time.Now())
	return nil
}

// readEvents passes on the events of the run, until ctx or the engine ends.
func (f *follower) readEvents() {
	for f.readEventsUntilGap() {
		// The terminal was slow, and events are lost. Take a new place in the stream, and only then read what is on
		// record, so that nothing slips through between the two.
		f.watch()
		f.send(f.refresh)
	}
}

func (f *follower) readEventsUntilGap() bool {
	for event, err := range f.events {
		if err != nil {
			return errors.Is(err, conveyor.ErrGap)
		}
		if event.Run != f.run {
			continue
		}
		f.send(func(ctx context.Context) error {
			// What a step logged is readable when its end is on record; so it is shown before that end.
			err := f.catchUp(ctx)
			f.progress.addEvent(event)
			return err
		})
	}
	return false
}

// readLog passes on log lines as they come.
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

// catchUp shows the log lines that have not come yet.
func (f *follower) catchUp(ctx context.Context) error {
	for line, err := range f.engine.Logs(ctx, f.run, conveyor.LogOptions{After: f.progress.seen}) {
		if err != nil {
			return err
		}
		f.progress.addLine(line)
	}
	return nil
}

func (f *follower) refresh(ctx context.Context) error {
	run, err := f.engine.GetRun(ctx, f.run)
	if err == nil {
		f.progress.update(run)
	}
	return err
}
