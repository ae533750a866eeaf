package engines_test

import (
	"context"
	"errors"
	"iter"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/internal/plan"
	"github.com/conveyor-go/conveyor/internal/record"
	"github.com/conveyor-go/conveyor/internal/rig"
	"github.com/conveyor-go/conveyor/internal/shortlived"
	"github.com/conveyor-go/conveyor/store"
	"github.com/conveyor-go/conveyor/store/memory"
)

// late is the way of a process to a store that takes some time before and after each call.
type late struct {
	line
	s *schedule
}

func (l late) Get(ctx context.Context, key string) (store.Record, error) {
	defer l.enter("get " + kindOf(key))()
	return l.line.Get(ctx, key)
}

func (l late) List(ctx context.Context, q store.Query) iter.Seq2[store.Record, error] {
	return func(yield func(store.Record, error) bool) {
		leave := l.enter("list " + kindOf(q.Prefix))
		var found []store.Record
		var failed error
		for r, err := range l.line.List(ctx, q) {
			if failed = err; err != nil {
				break
			}
			found = append(found, r)
		}
		leave()
		for _, r := range found {
			if !yield(r, nil) {
				return
			}
		}
		if failed != nil {
			yield(store.Record{}, failed)
		}
	}
}

func (l late) Commit(ctx context.Context, ops ...store.Op) (store.Revision, error) {
	kind := "commit"
	if len(ops) > 0 {
		kind += " " + kindOf(ops[0].Key())
	}
	defer l.enter(kind)()
	return l.line.Commit(ctx, ops...)
}

// kindOf returns the first three letters of a key, without the tilde of what comes and goes.
func kindOf(key string) string {
	key = strings.TrimPrefix(key, shortlived.Letter)
	return key[:min(3, len(key))]
}

// enter is the time before a call. It returns the time after it.
func (l late) enter(kind string) (leave func()) {
	s := l.s
	s.mu.Lock()
	kind = l.name + " " + kind
	s.asked[kind]++
	n := s.asked[kind]
	s.mu.Unlock()
	d := s.on("store", kind, n)
	s.spend(d, 3)
	return func() { s.spend(d, 2) }
}

// spend lets some time pass, or lets other goroutines go first.
func (s *schedule) spend(d *rand.Rand, often int) {
	switch {
	case s.slow == 0 || s.isCalm():
		for range d.IntN(4) {
			runtime.Gosched()
		}
	case oneIn(d, often):
		time.Sleep(upTo(d, s.slow))
	default:
		time.Sleep(upTo(d, time.Microsecond))
	}
}

// witness is a handle of the store that looks at each commit of a process. The calls come one at a time, since world.mu is held.
type witness struct {
	*memory.Shared
	s *schedule
	p *process
}

// Commit implements [store.Store].
func (k witness) Commit(ctx context.Context, ops ...store.Op) (store.Revision, error) {
	was := map[string]store.Record{}
	for _, op := range ops {
		if op.Writes() && !op.Removes() && strings.Contains("run/ stp/ ckp/ eng/ res/", kindOf(op.Key())) {
			if r, err := k.Shared.Get(context.Background(), op.Key()); err == nil {
				was[op.Key()] = r
			}
			if id, _, is := runOfStep(op.Key()); is {
				if r, err := k.Shared.Get(context.Background(), record.RunKey(id)); err == nil {
					was[r.Key] = r
				}
			}
		}
	}
	rev, err := k.Shared.Commit(ctx, ops...)
	if err != nil {
		return rev, err
	}
	for _, op := range ops {
		if !op.Writes() || op.Removes() {
			continue
		}
		key := op.Key()
		now := store.Record{Key: key, Value: op.Value()}
		switch kindOf(key) {
		case "hbt":
			id, now := strings.TrimPrefix(key, shortlived.Letter+record.HeartbeatPrefix), time.Now()
			if last, known := k.s.beats[id]; known && now.Sub(last) > 2*lease/3 {
				k.s.anew[id] = now
			}
			k.s.beats[id] = now
		case "eng":
			k.engineChanged(was[key], now)
		case "lst":
			if _, known := k.s.listen[key]; !known {
				k.s.listen[key] = time.Now()
			}
		case "run":
			k.runChanged(was[key], now)
		case "stp", "ckp":
			k.stepChanged(was, now)
		case "res":
			k.resourceChanged(was[key], now)
		}
	}
	return rev, nil
}

// runOfStep finds the run in the key of a record of a step.
func runOfStep(key string) (run, step string, is bool) {
	if kind := kindOf(key); kind != "stp" && kind != "ckp" {
		return "", "", false
	}
	run, step, is = strings.Cut(key[4:], "/")
	return run, step, is
}

// mustDecode reads a record. A record that is not there leaves what it is read into as it is.
func (s *schedule) mustDecode(r store.Record, into any) {
	if r.Value == nil {
		return
	}
	if err := record.Decode(r, into); err != nil {
		s.blame("%s: %v", r.Key, err)
	}
}

// run reads the record of a run. It is called with mu held.
func (s *schedule) run(id string) (rec record.Run, err error) {
	r, err := s.disk.Get(context.Background(), record.RunKey(id))
	if err == nil {
		err = record.Decode(r, &rec)
	}
	return rec, err
}

// isOf reports whether an engine is on record and of a process.
func (s *schedule) isOf(engine string, p *process) bool {
	r, err := s.disk.Get(context.Background(), record.EngineKey(engine))
	var rec record.Engine
	return err == nil && record.Decode(r, &rec) == nil && rec.Name == p.name
}

// isLive reports whether an engine is on record, and not marked dead.
func (s *schedule) isLive(engine string) bool {
	r, err := s.disk.Get(context.Background(), record.EngineKey(engine))
	var rec record.Engine
	return err == nil && record.Decode(r, &rec) == nil && rec.Dead == 0
}

// engineChanged looks at a commit that puts the record of an engine.
func (k witness) engineChanged(before, after store.Record) {
	var was, is record.Engine
	k.s.mustDecode(before, &was)
	k.s.mustDecode(after, &is)
	switch {
	case is.Dead == 0:
		if before.Value != nil {
			k.s.blame("%s changes the record of an engine", k.p.name)
		}
	case was.Dead != 0:
		k.s.blame("%s marks an engine of %s that is marked", k.p.name, is.Name)
	case is.Name == k.p.name:
		k.s.seen[sawLeave]++
	default:
		k.s.seen[sawMark]++
		if since := time.Since(k.s.beats[strings.TrimPrefix(after.Key, record.EnginePrefix)]); since < lease {
			k.s.blame("%s marks %s dead, whose last heartbeat was written %s ago", k.p.name, is.Name, since)
		}
		if since := time.Since(k.s.anew[is.By]); since < lease && !k.s.faulty { // a commit that comes later was decided before the gap
			k.s.blame("%s marks %s dead, and has renewed its own lease after a gap %s ago", k.p.name, is.Name, since)
		}
	}
}

// resourceChanged looks at a commit that puts the record of a resource.
func (k witness) resourceChanged(before, after store.Record) {
	s := k.s
	var was, is record.Resource
	s.mustDecode(before, &was)
	s.mustDecode(after, &is)
	if is.Stray != "" && was.Stray == "" {
		s.seen[sawStray]++
	}
	active, err := s.run(is.Active)
	if err == nil && (is.Supersede || is.Deleted != 0 && conveyor.Cause(active.Cause) != conveyor.CauseDeleted) && active.Stop == "" && active.Outcome == 0 {
		s.blame("%s leaves run %s at work, which is to end", k.p.name, is.Active)
	}
}

// runChanged looks at a commit that puts the record of a run.
func (k witness) runChanged(before, after store.Record) {
	s, p, id := k.s, k.p, strings.TrimPrefix(after.Key, record.RunPrefix)
	var was, is record.Run
	s.mustDecode(before, &was)
	s.mustDecode(after, &is)
	if was.State.Final() && was.State != is.State {
		s.blame("%s makes run %s %s, which was %s", p.name, id, is.State, was.State)
	}
	mine := was.Owner != "" && s.isOf(was.Owner, p)
	switch {
	case is.Owner != was.Owner && is.Owner != "":
		if !s.isOf(is.Owner, p) || !s.isLive(is.Owner) {
			s.blame("%s makes another, or an engine that is marked, the owner of run %s", p.name, id)
		}
		if is.Claims <= was.Claims {
			s.blame("%s claims run %s, and its token does not grow", p.name, id)
		}
		switch {
		case was.Owner != "":
			s.seen[sawTakeover]++
			if s.isLive(was.Owner) {
				s.blame("%s takes run %s over from an engine that is live", p.name, id)
			}
		case before.Value != nil:
			s.seen[sawClaim]++
		}
	case is.Owner == "" && was.Owner != "" && !is.State.Final():
		s.seen[sawRelease]++
		if !mine {
			s.blame("%s releases run %s of another", p.name, id)
		}
	case was.Owner != "" && !mine && (is.Owner != was.Owner || is.State != was.State || is.Turn != was.Turn || is.Claims != was.Claims || is.Outcome != was.Outcome || is.Slot != was.Slot):
		s.blame("%s writes run %s, which another owns: %s", p.name, id, after.Value)
	}
	if is.Started != 0 && !is.State.Final() {
		s.atWork[id] = is.Pipeline
		s.checkRoom(is.Pipeline)
	}
	if is.State.Final() {
		delete(s.atWork, id)
		if is.State == plan.Superseded {
			s.seen[sawSupersede]++
		}
	}
}

// checkRoom counts the runs of a pipeline that are at work.
func (s *schedule) checkRoom(pipeline string) {
	n := 0
	for _, of := range s.atWork {
		if of == pipeline {
			n++
		}
	}
	for _, p := range s.pipelines {
		if p.Name == pipeline && p.MaxRuns > 0 && n > p.MaxRuns {
			s.blame("%d runs of pipeline %s are at work, and %d may be", n, pipeline, p.MaxRuns)
		}
	}
}

// stepChanged looks at a commit that puts the record of a step, or a checkpoint.
func (k witness) stepChanged(was map[string]store.Record, after store.Record) {
	s, p := k.s, k.p
	id, step, _ := runOfStep(after.Key)
	now, err := s.run(id)
	if err != nil {
		s.blame("%s writes step %s of run %s, which is not there", p.name, step, id)
		return
	}
	var before record.Run
	s.mustDecode(was[record.RunKey(id)], &before)
	if owned := before.Owner != ""; owned && !s.isOf(before.Owner, p) && !s.isOf(now.Owner, p) {
		s.blame("%s writes %s, and another owns the run", p.name, after.Key)
	}
	if kindOf(after.Key) == "ckp" {
		s.seen[sawCheckpoint]++
		return
	}
	var from, to record.Step
	s.mustDecode(was[after.Key], &from)
	s.mustDecode(after, &to)
	if from.State.Final() {
		s.blame("%s makes step %s of run %s %s, which was %s", p.name, step, id, to.State, from.State)
	}
	if to.State != plan.Running {
		return
	}
	if !s.isOf(now.Owner, p) {
		s.blame("%s starts step %s of run %s without being its owner", p.name, step, id)
	}
	of, i, finally := s.stepOf(&now, step)
	if finally {
		return
	}
	if before.Stop == plan.StopCancel || before.Stop == plan.StopSupersede || before.Outcome != 0 {
		s.blame("%s starts step %s of run %s, which is to end: %q", p.name, step, id, before.Stop)
	}
	if conveyor.Cause(now.Cause) == conveyor.CauseDeleted {
		return
	}
	if from.Attempt == 0 {
		s.checkPauses(p, &now, step, of, i)
	}
	for _, b := range comesAfter(of, i) {
		r, _ := s.disk.Get(context.Background(), record.StepKey(id, of.Steps[b].ID))
		var earlier record.Step
		s.mustDecode(r, &earlier)
		if earlier.State != plan.Succeeded && earlier.State != plan.Skipped && !(earlier.State == plan.Failed && of.Steps[b].ContinueOnError) {
			s.blame("%s starts step %s of run %s, and step %s before it is %s", p.name, step, id, of.Steps[b].ID, earlier.State)
		}
	}
}

// stepOf finds a step in the definition of the pipeline of a run, whose steps never change. The definition of a run without a pipeline is
// empty.
func (s *schedule) stepOf(rec *record.Run, step string) (of conveyor.PipelineSpec, i int, finally bool) {
	for _, p := range s.pipelines {
		if p.Name != rec.Pipeline {
			continue
		}
		p = numbered(p)
		i := slices.IndexFunc(p.Steps, func(s conveyor.Step) bool { return s.ID == step })
		return p, i, i < 0
	}
	return of, -1, false
}

// numbered gives the steps of a pipeline the ids that they have by default.
func numbered(p conveyor.PipelineSpec) conveyor.PipelineSpec {
	p.Steps = slices.Clone(p.Steps)
	for i := range p.Steps {
		p.Steps[i].ID = string(rune('1' + i))
	}
	return p
}

// comesAfter lists the steps after which a step comes.
func comesAfter(p conveyor.PipelineSpec, i int) (before []int) {
	for b := range max(i, 0) {
		if p.Steps[i].After == nil || slices.Contains(p.Steps[i].After, p.Steps[b].ID) {
			before = append(before, b)
		}
	}
	return before
}

// checkPauses looks for a pause that holds a step which starts for the first time.
func (s *schedule) checkPauses(p *process, rec *record.Run, step string, of conveyor.PipelineSpec, i int) {
	driver := step
	if i >= 0 {
		driver = of.Steps[i].Driver
	}
	held := []record.Held{{All: true}, {Type: rec.Type}, {Driver: driver}, {Resource: rec.Key()}}
	if rec.Pipeline != "" {
		held = append(held, record.Held{Pipeline: rec.Pipeline})
	}
	for _, h := range held {
		if _, err := s.disk.Get(context.Background(), record.PauseKey(h)); err == nil {
			s.blame("%s starts step %s of %s %s, and %+v is paused", p.name, step, rec.Type, rec.Name, h)
		}
	}
}

// visit is a call of a driver.
type visit struct {
	seen
	key     conveyor.Key
	engine  string    // the id under which the process has called
	ctxOver time.Time // when its context ended; zero if it has not
}

// acting is the driver of a process. What it does follows from the seed and from how often its step was called for its resource.
type acting struct {
	s *schedule
	p *process
}

// Reconcile implements [conveyor.Driver].
func (a acting) Reconcile(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
	return a.s.work(ctx, a.p, req)
}

// Finalize implements [conveyor.Finalizer].
func (a acting) Finalize(ctx context.Context, req *conveyor.Request) (conveyor.Result, error) {
	a.s.saw(sawFinalize)
	return a.s.work(ctx, a.p, req)
}

func (s *schedule) work(ctx context.Context, p *process, req *conveyor.Request) (conveyor.Result, error) {
	v, d := s.called(p, req)
	if v == nil {
		return conveyor.Result{}, rig.ErrDied
	}
	stop := context.AfterFunc(ctx, func() { s.contextOver(ctx, v) })
	defer func() {
		stop()
		s.mu.Lock()
		defer s.mu.Unlock()
		if v.ended.IsZero() {
			v.ended = time.Now()
		}
	}()
	length := pick(d, 0, upTo(d, time.Millisecond), upTo(d, 50*time.Millisecond), upTo(d, lease), upTo(d, 3*lease))
	deaf := s.deaf && oneIn(d, 6)
	if deaf {
		length = lease + upTo(d, 8*lease)
	}
	if s.isCalm() {
		length, deaf = upTo(d, 20*time.Millisecond), false
	}
	if oneIn(d, 6) {
		if err := s.sleep(ctx, p, length/2, deaf); err != nil {
			return conveyor.Result{}, err
		}
		length /= 2
		if err := req.Checkpoint(context.WithoutCancel(ctx), "half"); errors.Is(err, conveyor.ErrLeaseLost) {
			s.saw(sawLeaseLost)
		}
	}
	if err := s.sleep(ctx, p, length, deaf); err != nil {
		return conveyor.Result{}, err
	}
	return s.answer(d, req)
}

// sleep takes some time. It returns an error early if the context ends, unless the driver is deaf. It takes longer if its process is
// frozen.
func (s *schedule) sleep(ctx context.Context, p *process, length time.Duration, deaf bool) error {
	over := ctx.Done()
	if deaf {
		over = nil
	}
	select {
	case <-time.After(length):
	case <-over:
	}
	for !p.isDead() {
		s.mu.Lock()
		now, until := time.Now(), time.Time{}
		for _, a := range s.away[p] {
			if a.frozen && a.until.After(now) && !a.from.After(now) {
				until = a.until
			}
		}
		s.mu.Unlock()
		if until.IsZero() {
			break
		}
		time.Sleep(time.Until(until))
	}
	if deaf {
		return nil
	}
	return context.Cause(ctx)
}

// answer chooses what a driver says. The longer a step goes on, the sooner it is done.
func (s *schedule) answer(d *rand.Rand, req *conveyor.Request) (conveyor.Result, error) {
	if ok, _ := req.Signal(nil); ok || s.isCalm() || req.Attempt > 2 {
		return conveyor.DoneWith(req.Step.ID), nil
	}
	switch n := d.IntN(100); {
	case n < 12:
		return conveyor.Result{}, rig.ErrBoom
	case n < 14:
		return conveyor.Result{}, conveyor.Permanent(rig.ErrBoom)
	case n < 16:
		return conveyor.Halt("enough"), nil
	case n < 19:
		return conveyor.Skip("not needed"), nil
	case n < 28:
		return conveyor.RequeueAfter(10*time.Millisecond + upTo(d, 3*lease)), nil
	case n < 36:
		return conveyor.Await("go", pick(d, 0, upTo(d, 5*lease))), nil
	}
	return conveyor.DoneWith(req.Step.ID), nil
}

// called takes note of a call, and checks that it may be made.
func (s *schedule) called(p *process, req *conveyor.Request) (*visit, *rand.Rand) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.isDead() {
		return nil, nil
	}
	s.seen[sawCall]++
	if req.Resumed {
		s.seen[sawResumed]++
	}
	now := time.Now()
	v := &visit{key: req.Resource.Key(), seen: seen{of: p, resource: req.Resource.Name, run: req.Run, step: req.Step.ID, began: now}}
	s.lines = append(s.lines, now.Format("05.000")+" "+p.name+" is called for "+v.resource+" step "+v.step+" of run "+v.run)
	s.visits = slices.DeleteFunc(s.visits, func(o *visit) bool { return !o.ended.IsZero() })
	for _, o := range s.visits {
		if o.key == v.key {
			s.checkOverlap(o, v)
		}
	}
	rec, err := s.run(v.run)
	v.engine = rec.Owner
	switch {
	case err != nil:
		s.blame("%s calls step %s of run %s, which is not there", p.name, v.step, v.run)
	case !s.isOf(rec.Owner, p) || !s.isLive(rec.Owner):
		s.blame("%s calls step %s of run %s, which it does not own, or not any more", p.name, v.step, v.run)
	}
	if s.stepOver(v.run, v.step) {
		s.blame("%s calls step %s of run %s, which is finished", p.name, v.step, v.run)
	}
	if req.Token() < s.tokens[v.run] {
		s.blame("%s calls step %s of run %s with token %d, after a call with %d", p.name, v.step, v.run, req.Token(), s.tokens[v.run])
	}
	s.tokens[v.run] = req.Token()
	s.visits, s.calls = append(s.visits, v), append(s.calls, &v.seen)
	what := v.resource + " " + v.step
	s.times[what]++
	return v, s.on("call", what, s.times[what])
}

// checkOverlap looks at a call that begins while another call for the same resource is under way. That may be if they are steps of
// one run that need not wait for each other, or if the engine of the earlier call is live no more: its process stood still, or the
// driver has ignored the end of its context for a third of a lease.
func (s *schedule) checkOverlap(o, v *visit) {
	if o.run == v.run && o.of == v.of && o.step != v.step {
		return // witness.stepChanged has looked at the order
	}
	ignored := !o.ctxOver.IsZero() && v.began.Sub(o.ctxOver) >= lease/3
	stood := slices.ContainsFunc(s.away[o.of], func(a absence) bool { return a.frozen && !a.until.Before(v.began) })
	if !s.isLive(o.engine) && (ignored || stood) {
		s.seen[sawOverlap]++
		return
	}
	s.blame("%s calls step %s of run %s while %s works on step %s of run %s since %s, whose context ended at %s",
		v.of.name, v.step, v.run, o.of.name, o.step, o.run, o.began.Format("05.000"), o.ctxOver.Format("05.000"))
}

// contextOver takes note of the end of the context of a call.
func (s *schedule) contextOver(ctx context.Context, v *visit) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v.ctxOver = time.Now()
	if errors.Is(context.Cause(ctx), conveyor.ErrLeaseLost) {
		s.seen[sawLeaseLost]++
	}
}
