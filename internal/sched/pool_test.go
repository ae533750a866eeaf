package sched

import (
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/conveyor-go/conveyor/internal/fair"
)

// The states that the owners of the model report.
const (
	queued uint8 = iota + 1
	atWork
	waiting
	done
)

// unit is a task of the model, with what the model knows of it.
type unit struct {
	Task[string, *unit]

	pipeline string
	driver   string
	bounded  bool // it counts among the active runs of its pipeline when it has begun
	started  bool // it has begun
	gone     bool
	calls    int  // calls for it that have not returned or been abandoned
	returned bool // its call has returned, and the worker has not decided what comes next
	nudged   bool // it got a turn because the definition of its pipeline changed, or a place while a worker was about to decide
	// waits returns whether the task still has a reason to wait. It is nil if the task waits for nothing but its turn.
	waits func() bool
}

// call is a call of a driver that is under way.
type call struct {
	of     *unit
	exempt bool
}

// model is a pool, and the same in a form that is obvious.
type model struct {
	t    *rapid.T
	pool *Pool[string, *unit]

	workers   int
	begun     bool
	now       int64
	spawned   int // workers that are about to call Next
	reserved  int // places that the caller has reserved
	calls     []*call
	returned  []*unit // each has a worker
	abandoned []*call
	units     []*unit
	turns     int

	sems       map[string]*Semaphore[string, *unit]
	limits     map[string]int // of drivers and of pipelines
	registered map[string]bool
	asOf       map[string]int64 // of the limits of pipelines

	drains               *Drains
	exempt               int
	drained, quiet, idle bool
	before               map[string]standing // of each unit, before the action
}

// standing is for what a unit waits, and what it has got.
type standing struct{ started, inRoom, forRoom, forSlot, granted, ready bool }

func newModel(t *rapid.T) *model {
	m := &model{
		t: t, workers: rapid.IntRange(1, 4).Draw(t, "workers"), now: 1, asOf: map[string]int64{"P": 1, "Q": 1},
		sems: map[string]*Semaphore[string, *unit]{}, limits: map[string]int{}, registered: map[string]bool{},
	}
	m.pool = NewPool[string, *unit](m.workers, func() int64 { return 1 }, func() { m.spawned++ }, func(string) {})
	for _, d := range []string{"a", "b"} {
		m.limits[d] = rapid.IntRange(0, 2).Draw(t, "limit of driver")
		m.sems[d] = NewSemaphore[string, *unit](m.limits[d])
		m.registered[d] = rapid.Bool().Draw(t, "registered")
		m.pool.Show(d, m.sems[d])
	}
	for _, p := range []string{"P", "Q"} {
		m.limits[p] = rapid.IntRange(0, 2).Draw(t, "limit of pipeline")
	}
	return m
}

// arrive adds a task. Before the pool has begun, the task is one of an earlier process.
func (m *model) arrive(t *rapid.T) {
	u := &unit{
		pipeline: rapid.SampledFrom([]string{"P", "Q"}).Draw(t, "pipeline"),
		driver:   rapid.SampledFrom([]string{"a", "b"}).Draw(t, "driver"),
		bounded:  rapid.Bool().Draw(t, "bounded"),
	}
	u.Owner, u.ID = u, fmt.Sprintf("%06d", len(m.units))
	u.Key = rapid.SampledFrom([]string{"x", "y", "z"}).Draw(t, "key")
	m.units = append(m.units, u)
	require.Same(t, &u.Task, m.pool.Take(u.ID, u.pipeline, queued, func() *Task[string, *unit] { return &u.Task }))
	if m.begun {
		if rapid.IntRange(0, 2).Draw(t, "sleeps first") == 0 {
			m.pool.At(&u.Task, m.sleep(t, u), 0, queued, 0, nil)
			return
		}
		m.pool.Ready(&u.Task)
		return
	}
	pipeline, due := "", int64(0)
	if u.bounded {
		pipeline = u.pipeline
	}
	u.started = rapid.Bool().Draw(t, "begun")
	if rapid.Bool().Draw(t, "sleeps") {
		due = m.sleep(t, u)
	}
	m.pool.Restore(&u.Task, u.pipeline, pipeline, u.started, queued, due, 0)
}

// sleep has a task wait for a time, and returns the time.
func (m *model) sleep(t *rapid.T, u *unit) int64 {
	due := m.now + rapid.Int64Range(1, 5).Draw(t, "delay")
	u.waits = func() bool { return due > m.now }
	return due
}

// work has a worker ask for a task, and do what can be done for it.
func (m *model) work(t *rapid.T) {
	if m.spawned == 0 {
		t.Skip()
	}
	standings := m.standings()
	task := m.pool.Next()
	if task == nil {
		m.spawned--
		return
	}
	u := task.Owner
	require.False(t, u.gone, "a removed task gets a turn")
	require.True(t, u.calls == 0 || u.nudged, "a task at work gets a turn")
	require.Nil(t, m.drains, "a turn after Drain")
	if m.turns++; m.turns < fair.Patience {
		for _, other := range m.units {
			if s := standings[other.ID]; s.ready && s.started && other.lane == u.lane {
				require.True(t, u.started, "task %s gets a turn before %s, which has begun", u.ID, other.ID)
			}
		}
	}
	m.spawned--
	if u.returned || u.calls > 0 { // somebody else decides about the task, or there is nothing to decide
		m.spawned++
		return
	}
	m.start(t, u)
}

// start has a worker start a call for a task, or has the task wait.
func (m *model) start(t *rapid.T, u *unit) {
	u.waits = nil
	keep, started := false, false
	if m.enter(t, u) {
		keep, started = m.claim(t, u)
	}
	if len(m.calls) > 0 && rapid.IntRange(0, 4).Draw(t, "another returns now") == 0 {
		m.returns(t)
	}
	m.pool.Decided(&u.Task)
	switch {
	case u.started:
		m.pool.Began(&u.Task)
	default:
		m.pool.Stay(&u.Task, keep)
	}
	state, calls := waiting, 0
	if started {
		state, calls = atWork, 1
		m.calls = append(m.calls, &call{of: u})
	} else {
		m.spawned++
	}
	m.pool.At(&u.Task, 0, 0, state, calls, func(driver string) bool { return !started && !m.registered[driver] })
}

// enter asks for a place within the run limit if a task needs one.
func (m *model) enter(t *rapid.T, u *unit) bool {
	if !u.bounded || u.started {
		return true
	}
	limit, asOf := m.limits[u.pipeline], m.asOf[u.pipeline]
	if m.pool.rooms[u.pipeline] != nil && rapid.IntRange(0, 4).Draw(t, "stale") == 0 {
		limit, asOf = 7, asOf-1
	}
	acquired, _ := m.pool.AcquireRun(u.pipeline, true, limit, asOf, &u.Task)
	if stale := asOf < m.asOf[u.pipeline]; stale && acquired {
		u.nudged = true
		require.True(t, u.turn.Waits(), "task %s has read an old definition, and gets no turn to read the new one", u.ID)
	}
	if !acquired {
		u.waits = func() bool { return !m.pool.rooms[u.pipeline].free() }
		return false
	}
	if limit := m.limits[u.pipeline]; limit > 0 {
		require.LessOrEqual(t, m.active(u.pipeline)+m.entered(u.pipeline), limit, "the run limit of %s is exceeded", u.pipeline)
	}
	if rapid.IntRange(0, 9).Draw(t, "limit changes now") == 0 {
		m.limit(t)
	}
	return true
}

// claim asks for what a call needs. A task whose driver is missing has begun, and is blocked.
func (m *model) claim(t *rapid.T, u *unit) (keep, started bool) {
	if !m.registered[u.driver] {
		m.pool.Block(&u.Task, u.driver)
		u.started = true
		u.waits = func() bool { return !m.registered[u.driver] }
		return false, false
	}
	switch m.pool.Claim(m.sems[u.driver], &u.Task, true) {
	case Held:
		u.waits = func() bool { return m.away(u.Key) > 0 }
		return false, false
	case InLine:
		u.waits = func() bool {
			if u.bounded && !u.started && u.room.of == nil { // the limit was lowered
				return !m.pool.rooms[u.pipeline].free()
			}
			return m.sems[u.driver].full()
		}
		return true, false
	}
	require.Zero(t, m.away(u.Key), "two calls for one key")
	u.started = true
	u.calls++
	return false, true
}

func (m *model) away(key string) (n int) {
	for _, c := range m.abandoned {
		if c.of.Key == key {
			n++
		}
	}
	return n
}

// active returns how many runs of a pipeline have begun.
func (m *model) active(pipeline string) (n int) {
	for _, u := range m.units {
		if u.bounded && u.started && !u.gone && u.pipeline == pipeline {
			n++
		}
	}
	return n
}

// entered returns how many runs of a pipeline have a place and have not begun.
func (m *model) entered(pipeline string) (n int) {
	for _, u := range m.units {
		if u.room.of != nil && !u.started && u.pipeline == pipeline {
			n++
		}
	}
	return n
}

// settle does with a task what the outcome of its call asks for.
func (m *model) settle(t *rapid.T, u *unit) {
	m.pool.Decided(&u.Task)
	switch rapid.SampledFrom([]string{"end", "sleep", "next"}).Draw(t, "outcome") {
	case "end":
		m.remove(u, done)
	case "sleep":
		m.pool.At(&u.Task, m.sleep(t, u), 0, waiting, 0, nil)
	case "next":
		m.pool.At(&u.Task, 0, 0, queued, 0, nil)
		m.pool.Ready(&u.Task)
	}
}

func (m *model) remove(u *unit, ended uint8) {
	u.gone, u.waits = true, nil
	m.pool.Remove(&u.Task, ended)
}

// returns has the call of a worker return. The worker is about to decide what comes next.
func (m *model) returns(t *rapid.T) {
	c := pick(t, &m.calls)
	c.of.calls--
	m.unexempt(c)
	m.pool.Done(m.sems[c.of.driver], 1, &c.of.Task)
	c.of.returned = true
	m.returned = append(m.returned, c.of)
}

// decide has a worker decide after a call. The worker goes on with the same task or with another one.
func (m *model) decide(t *rapid.T) {
	u := pick(t, &m.returned)
	u.returned = false
	u.nudged = u.nudged || u.turn.Waits() // the worker goes on at once with what the turn is for
	if m.drains == nil && rapid.Bool().Draw(t, "goes on") {
		m.start(t, u)
		return
	}
	m.settle(t, u)
	m.spawned++
}

// abandon gives a call up and goes on without it.
func (m *model) abandon(t *rapid.T) {
	c := pick(t, &m.calls)
	c.of.calls--
	m.abandoned = append(m.abandoned, c)
	m.pool.Abandoned(c.of.Key)
	m.settle(t, c.of)
}

func (m *model) returnsLate(t *rapid.T) {
	c := pick(t, &m.abandoned)
	m.unexempt(c)
	m.pool.Returned(c.of.Key)
	m.pool.Done(m.sems[c.of.driver], 1, nil)
}

func (m *model) unexempt(c *call) {
	if c.exempt {
		m.exempt--
		m.pool.Exempt(-1)
	}
}

// pick removes one of some calls or units, and returns it.
func pick[E any](t *rapid.T, from *[]E) E {
	if len(*from) == 0 {
		t.Skip()
	}
	i := rapid.IntRange(0, len(*from)-1).Draw(t, "which")
	picked := (*from)[i]
	*from = slices.Delete(*from, i, i+1)
	return picked
}

func (m *model) removeOne(t *rapid.T) {
	idle := slices.DeleteFunc(slices.Clone(m.units), func(u *unit) bool { return u.gone || u.calls > 0 || u.returned })
	if len(idle) == 0 {
		t.Skip()
	}
	m.remove(rapid.SampledFrom(idle).Draw(t, "task"), rapid.SampledFrom([]uint8{0, done}).Draw(t, "ended"))
}

func (m *model) limit(t *rapid.T) {
	pipeline := rapid.SampledFrom([]string{"P", "Q"}).Draw(t, "pipeline")
	m.asOf[pipeline]++
	m.limits[pipeline] = rapid.IntRange(0, 3).Draw(t, "limit")
	for _, u := range m.units {
		u.nudged = u.nudged || u.pipeline == pipeline && u.room.of != nil && !u.started
	}
	m.pool.LimitRuns(pipeline, m.limits[pipeline], m.asOf[pipeline], false)
	m.pool.LimitRuns(pipeline, 9, m.asOf[pipeline]-1, false) // a reader that comes late
}

func (m *model) drain(t *rapid.T) {
	if len(m.calls) > 0 && rapid.Bool().Draw(t, "by a driver") {
		if c := rapid.SampledFrom(m.calls).Draw(t, "call"); !c.exempt {
			c.exempt = true
			m.exempt++
			m.pool.Exempt(1)
		}
	}
	drains, phase := m.pool.Drain()
	require.Equal(t, Draining, phase)
	m.drains = &drains
}

func (m *model) check(t *rapid.T) {
	busy := m.spawned + m.reserved + len(m.calls) + len(m.returned)
	st := m.pool.Stats()
	require.LessOrEqual(t, busy, m.workers, "more workers than there are")
	require.Equal(t, busy, st.Busy)
	require.Equal(t, len(m.abandoned), st.Abandoned)
	live, blocked := 0, map[string]int{}
	for _, u := range m.units {
		if u.gone {
			require.Nil(t, m.pool.Find(u.ID))
			require.Empty(t, u.grants)
			require.Empty(t, u.Task.waits)
			require.Equal(t, membership[string, *unit]{at: u.room.at}, u.room)
			continue
		}
		live++
		require.Same(t, &u.Task, m.pool.Find(u.ID))
		for _, d := range u.blocked {
			blocked[d]++
		}
		require.True(t, len(u.grants) == 0 || u.turn.Waits() || u.returned, "a place is reserved for task %s, which gets no turn", u.ID)
		// No wake-up is lost: what does not wait any more, and is not at work, is ready.
		if u.calls == 0 && !u.returned && !u.turn.Waits() && m.begun {
			require.NotNil(t, u.waits, "task %s is forgotten", u.ID)
			require.True(t, u.waits(), "task %s has not been woken", u.ID)
		}
	}
	require.Equal(t, live, st.Tasks)
	require.Equal(t, blocked, st.Blocked)
	if m.begun && m.drains == nil && busy < m.workers {
		require.LessOrEqual(t, m.pool.Waiting(), m.spawned, "a task waits although a worker is free")
	}
	for d, s := range m.sems {
		inUse := 0
		for _, c := range append(slices.Clone(m.calls), m.abandoned...) {
			if c.of.driver == d {
				inUse++
			}
		}
		require.Equal(t, inUse, st.Drivers[d].InUse)
		if s.limit > 0 {
			require.LessOrEqual(t, s.inUse+s.granted, s.limit, "driver %s has too many calls", d)
		}
		require.True(t, s.line.Len() == 0 || s.full(), "a task waits for driver %s, which is free", d)
	}
	m.checkSurvey(t, st)
	m.checkRuns(t, st)
	m.checkDrains(t)
}

// checkSurvey checks that Survey finds who has what is limited.
func (m *model) checkSurvey(t *rapid.T, st Stats) {
	survey := m.pool.Survey()
	require.Equal(t, st.Busy, survey.Busy)
	inRoom, withKey := map[string]int{}, map[string]int{}
	for _, u := range m.units {
		if u.gone {
			continue
		}
		if r := u.room.of; r != nil && r.limit > 0 {
			inRoom[r.pipeline]++
			require.Contains(t, survey.InRoom[r.pipeline], u)
		}
		withKey[u.Key]++
		require.Contains(t, survey.WithKey[u.Key], u)
	}
	for pipeline, n := range inRoom {
		require.Len(t, survey.InRoom[pipeline], n)
	}
	for key, n := range withKey {
		require.Len(t, survey.WithKey[key], n)
	}
	for d, s := range m.sems {
		require.Equal(t, s.inUse, survey.Slots[d].InUse)
		require.Len(t, survey.Slots[d].Reserved, s.granted)
	}
}

// standings returns where the units stand.
func (m *model) standings() map[string]standing {
	standings := map[string]standing{}
	for _, u := range m.units {
		if !u.gone {
			standings[u.ID] = standing{
				u.started, u.room.of != nil, u.room.line != nil, len(u.Task.waits) > 0, len(u.grants) > 0, u.turn.Waits(),
			}
		}
	}
	return standings
}

// checkRuns checks the run limits, that an older run comes first, and that a run which has begun comes before the others of
// its pipeline.
func (m *model) checkRuns(t *rapid.T, st Stats) {
	for pipeline, r := range m.pool.rooms {
		require.Equal(t, m.active(pipeline), r.begun)
		require.Equal(t, m.entered(pipeline), len(r.entered))
		require.Equal(t, r.begun, st.Runs[pipeline].InUse)
		require.Equal(t, m.limits[pipeline], r.limit, "a stale limit of %s", pipeline)
		require.True(t, len(r.entered) == 0 || !r.over(), "more runs can begin than the limit of %s allows", pipeline)
		require.True(t, len(r.line) == 0 || !r.free(), "a run waits for %s, which has room", pipeline)
	}
	now := m.standings()
	for id, u := range now {
		unit := m.units[number(id)]
		require.False(t, u.forSlot && unit.bounded && !u.started && !u.inRoom, "run %s waits for a driver with which it could not begin", id)
		require.False(t, u.inRoom && u.forRoom)
		for id2, other := range now {
			before, unit2 := m.before[id2], m.units[number(id2)]
			if unit.pipeline != unit2.pipeline {
				continue
			}
			if u.inRoom && !m.before[id].inRoom && !u.started && other.forRoom && before.forRoom {
				require.Less(t, id, id2, "a newer run was given a place before an older one")
			}
			if u.granted && !m.before[id].granted && !u.started && unit.driver == unit2.driver {
				require.False(t, before.started && before.forSlot && other.forSlot, "a place went to %s before %s, which has begun", id, id2)
			}
		}
	}
	m.before = now
}

func number(id string) (n int) {
	_, _ = fmt.Sscanf(id, "%06d", &n)
	return n
}

// checkDrains checks that each channel is closed exactly if its condition has held since Drain.
func (m *model) checkDrains(t *rapid.T) {
	if m.drains == nil {
		return
	}
	busy, calls := m.spawned+m.reserved+len(m.calls)+len(m.returned), len(m.calls)+len(m.abandoned)
	m.drained = m.drained || busy+len(m.abandoned) <= m.exempt
	m.quiet = m.quiet || calls <= m.exempt
	m.idle = m.idle || len(m.calls) == 0
	require.Equal(t, m.drained, isClosed(m.drains.Drained), "drained")
	require.Equal(t, m.quiet, isClosed(m.drains.Quiet), "quiet")
	require.Equal(t, m.idle, isClosed(m.drains.Idle), "idle")
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func TestPoolGivesEveryTaskItsTurnWithinTheLimits(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newModel(t)
		begin := func(t *rapid.T) {
			if m.begun {
				t.Skip()
			}
			m.begun = true
			require.Equal(t, New, m.pool.Begin(func() {}))
			require.Equal(t, Running, m.pool.Begin(func() { require.Fail(t, "started twice") }))
		}
		for range rapid.IntRange(0, 5).Draw(t, "restored") {
			m.arrive(t)
		}
		for _, p := range []string{"P", "Q"} { // as the engine does for each pipeline that it finds
			m.pool.LimitRuns(p, m.limits[p], m.asOf[p], false)
		}
		begin(t)
		m.check(t)
		t.Repeat(map[string]func(*rapid.T){
			"arrive":       m.arrive,
			"work":         m.work,
			"work again":   m.work,
			"return":       m.returns,
			"decide":       m.decide,
			"abandon":      m.abandon,
			"return late":  m.returnsLate,
			"remove":       m.removeOne,
			"change limit": m.limit,
			"time passes": func(t *rapid.T) {
				m.now += rapid.Int64Range(1, 3).Draw(t, "by")
				_, late := m.pool.TakeDue(m.now)
				require.Empty(t, late, "no task has a deadline")
			},
			"register": func(t *rapid.T) {
				d := rapid.SampledFrom([]string{"a", "b"}).Draw(t, "driver")
				m.registered[d] = true
				m.pool.Unblock(d)
			},
			"reserve": func(t *rapid.T) {
				if m.pool.Reserve() {
					require.Zero(t, m.pool.Waiting(), "a place is reserved although a task waits for it")
					require.Nil(t, m.drains)
					m.reserved++
				}
			},
			"release": func(t *rapid.T) {
				if m.reserved == 0 {
					t.Skip()
				}
				m.reserved--
				m.pool.Release()
			},
			"drain": func(t *rapid.T) {
				if rapid.IntRange(0, 9).Draw(t, "now") == 0 {
					m.drain(t)
				}
			},
			"": m.check,
		})
	})
}

func TestAtReportsTheEarliestTime(t *testing.T) {
	p, add := running(1, nil)
	a, b := add("1", "P"), add("2", "P")
	require.True(t, p.At(a, 10, 0, waiting, 0, nil))
	require.False(t, p.At(b, 20, 0, waiting, 0, nil))
	require.True(t, p.At(b, 5, 0, waiting, 0, nil))
	require.False(t, p.At(b, 0, 0, waiting, 0, nil))
	next, late := p.TakeDue(9)
	require.Equal(t, int64(10), next)
	require.Empty(t, late)
	next, _ = p.TakeDue(10)
	require.Zero(t, next)
	require.Equal(t, 1, p.Waiting())
	p.Remove(b, 0)
	require.False(t, p.At(b, 1, 0, waiting, 0, nil), "a removed task gets a time")
	next, _ = p.TakeDue(10)
	require.Zero(t, next)
}

// TestADeadlineNeedsNoWorker has the deadlines of tasks come while no worker is free.
func TestADeadlineNeedsNoWorker(t *testing.T) {
	p, add := running(1, nil)
	sleeps, waits, awaits := add("1", "P"), add("2", "P"), add("3", "P")
	sleeps.Owner, waits.Owner, awaits.Owner = 1, 2, 3
	p.At(sleeps, 30, 20, waiting, 0, nil)
	p.At(waits, 10, 20, waiting, 0, nil)
	p.At(awaits, 0, 20, waiting, 0, nil)
	require.True(t, p.Reserve(), "the only worker is busy")
	next, late := p.TakeDue(10)
	require.Equal(t, int64(20), next, "the deadline of a task that waits for a worker stays")
	require.Empty(t, late)
	require.Equal(t, 1, p.Waiting())
	next, late = p.TakeDue(25)
	require.Equal(t, int64(30), next)
	require.ElementsMatch(t, []int{1, 2, 3}, late)
	require.Equal(t, 1, p.Waiting())
	next, late = p.TakeDue(30)
	require.Zero(t, next)
	require.Empty(t, late)
	require.Equal(t, 2, p.Waiting())
}

func TestWakeGivesATurnToAllThatWaitForATime(t *testing.T) {
	p, add := running(1, nil)
	a, b, c := add("1", "P"), add("2", "P"), add("3", "P")
	p.At(a, 10, 0, waiting, 0, nil)
	p.At(b, 20, 30, waiting, 0, nil)
	p.At(c, 0, 40, waiting, 0, nil)
	require.True(t, p.Reserve())
	p.Wake(5)
	require.Equal(t, 3, p.Waiting())
	next, _ := p.TakeDue(1)
	require.Equal(t, int64(35), next, "the deadlines are moved")
	require.Zero(t, a.next())
}

func TestPhasesOnlyGoForward(t *testing.T) {
	p := NewPool[string, int](1, func() int64 { return 1 }, func() {}, nil)
	require.Equal(t, New, p.Phase())
	require.True(t, p.IfBefore(Running, func() {}))
	p.Begin(func() {})
	require.True(t, p.Reach(Stopping))
	require.False(t, p.Reach(Stopping))
	require.False(t, p.Reach(Draining))
	require.False(t, p.IfBefore(Stopping, func() { require.Fail(t, "called") }))
	_, phase := p.Drain()
	require.Equal(t, Stopping, phase)
	require.Equal(t, Stopping, p.Begin(func() { require.Fail(t, "started") }))
	require.False(t, p.Reserve())
}

func TestThePoolFindsItsTasks(t *testing.T) {
	p, add := running(1, nil)
	a := add("1", "P")
	a.Owner = 7
	require.Same(t, a, add("1", "Q"), "one task for each id")
	require.Equal(t, []int{7}, p.Owners())
	require.True(t, p.Goes("1"))
	p.Strand(a)
	require.False(t, p.Goes("1"))
	require.False(t, p.Goes("2"))
	p.Remove(a, done)
	require.Nil(t, p.Find("1"))
	require.Equal(t, int64(1), p.Stats().Ended[done])
}

func TestAloneIsFalseAsLongAsACallIsExemptOrAbandoned(t *testing.T) {
	p, _ := running(2, nil)
	require.True(t, p.Alone())
	p.Exempt(1)
	require.False(t, p.Alone())
	p.Exempt(-1)
	require.True(t, p.Reserve())
	p.Abandoned("x")
	require.False(t, p.Alone())
	p.Returned("x")
	require.True(t, p.Alone())
}
