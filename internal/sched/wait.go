package sched

import (
	"maps"
	"slices"
	"strings"
)

// Block records that a task waits for something that somebody must correct, such as a driver that is not registered. The
// caller gives it a name. Block reports whether the task did not wait for it before.
func (p *Pool[K, T]) Block(t *Task[K, T], name string) (first bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.tasks[t.ID] != t || slices.Contains(t.blocked, name) {
		return false
	}
	if p.blocked[name] == nil {
		p.blocked[name] = map[*Task[K, T]]struct{}{}
	}
	p.blocked[name][t] = struct{}{}
	t.blocked = append(t.blocked, name)
	return true
}

// Unblock gives the tasks that wait for what has this name their turn, in the order of their IDs.
func (p *Pool[K, T]) Unblock(name string) {
	p.mu.Lock()
	waiting := slices.SortedFunc(maps.Keys(p.blocked[name]), func(a, b *Task[K, T]) int { return strings.Compare(a.ID, b.ID) })
	for _, t := range waiting {
		t.blocked = slices.DeleteFunc(t.blocked, func(other string) bool { return other == name })
		p.readyLocked(t)
	}
	delete(p.blocked, name)
	p.mu.Unlock()
	p.spawnWorkers()
}

// Recheck gives the tasks that wait for what has this name their turn, because they may not need it any more. They go on
// waiting for it unless the next decision says otherwise.
func (p *Pool[K, T]) Recheck(name string) {
	p.mu.Lock()
	for t := range p.blocked[name] {
		p.readyLocked(t)
	}
	p.mu.Unlock()
	p.spawnWorkers()
}

// RecheckLane gives the tasks of a lane that have not begun their turn.
func (p *Pool[K, T]) RecheckLane(lane string) {
	p.mu.Lock()
	for _, t := range p.tasks {
		if t.lane == lane && !t.begun {
			p.readyLocked(t)
		}
	}
	p.mu.Unlock()
	p.spawnWorkers()
}

// Stands reports whether the pool has a task with an ID, and whether the task waits for something that somebody must correct.
func (p *Pool[K, T]) Stands(id string) (known, blocked bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := p.tasks[id]
	return t != nil, t != nil && len(t.blocked) > 0
}

// unblockLocked records that a task waits only for those of the names that it was blocked by for which still reports true.
func (p *Pool[K, T]) unblockLocked(t *Task[K, T], still func(name string) bool) {
	t.blocked = slices.DeleteFunc(t.blocked, func(name string) bool {
		if still(name) {
			return false
		}
		delete(p.blocked[name], t)
		if len(p.blocked[name]) == 0 {
			delete(p.blocked, name)
		}
		return true
	})
}

// Abandoned records that a call with a key was abandoned. The call does not occupy a worker any more. Tasks with the key
// wait until the call returns.
func (p *Pool[K, T]) Abandoned(key K) {
	p.mu.Lock()
	p.away[key]++
	p.abandoned++
	p.free++
	p.checkDrainedLocked()
	p.mu.Unlock()
	p.spawnWorkers()
}

// IsAway reports whether an abandoned call with a key has not returned.
func (p *Pool[K, T]) IsAway(key K) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.away[key] > 0
}

// Returned records that an abandoned call with a key has returned. If it was the last one with the key, the tasks that have
// waited for it get their turn. Returned must be called before Done: until it is called, the pool counts the call
// as abandoned.
func (p *Pool[K, T]) Returned(key K) {
	p.mu.Lock()
	p.abandoned--
	p.checkDrainedLocked()
	if p.away[key]--; p.away[key] == 0 {
		delete(p.away, key)
		for _, t := range p.held[key] {
			p.readyLocked(t)
		}
		delete(p.held, key)
	}
	p.mu.Unlock()
	p.spawnWorkers()
}

// holdLocked reports whether a task must wait because an abandoned call with its key has not returned. If so, the task gets
// its turn when that call returns. A key therefore never has two calls at once.
func (p *Pool[K, T]) holdLocked(t *Task[K, T]) bool {
	if p.away[t.Key] == 0 {
		return false
	}
	if !slices.Contains(p.held[t.Key], t) {
		p.held[t.Key] = append(p.held[t.Key], t)
	}
	return true
}

// unholdLocked reverses holdLocked.
func (p *Pool[K, T]) unholdLocked(t *Task[K, T]) {
	held := slices.DeleteFunc(p.held[t.Key], func(other *Task[K, T]) bool { return other == t })
	if len(held) == 0 {
		delete(p.held, t.Key)
		return
	}
	p.held[t.Key] = held
}
