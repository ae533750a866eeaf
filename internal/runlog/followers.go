package runlog

import "sync"

// Followers are the readers that follow the logs of runs. The zero value is ready for use. It is safe for concurrent
// use.
type Followers struct {
	mu   sync.Mutex // guards what follows
	runs map[string]*Follower
}

// Follower is shared by all readers that follow the log of one run. It is guarded by Followers.mu.
type Follower struct {
	followers int
	changed   chan struct{} // Wake closes it when there is something new, and makes the next one
	then      func()        // Unfollow calls it when the last reader has left; nil for nothing
}

// Follow adds a reader of the log of a run. The reader must call Unfollow.
func (t *Followers) Follow(run string) *Follower {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.runs == nil {
		t.runs = map[string]*Follower{}
	}
	f := t.runs[run]
	if f == nil {
		f = &Follower{changed: make(chan struct{})}
		t.runs[run] = f
	}
	f.followers++
	return f
}

// Unfollow removes a reader that Follow has added.
func (t *Followers) Unfollow(run string, f *Follower) {
	t.mu.Lock()
	var then func()
	if f.followers--; f.followers == 0 {
		then = f.then
		delete(t.runs, run)
	}
	t.mu.Unlock()
	if then != nil {
		then()
	}
}

// Delay reports whether the log of a run has readers. If so, then is called when the last of them has left.
func (t *Followers) Delay(run string, then func()) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	f := t.runs[run]
	if f != nil {
		f.then = then
	}
	return f != nil
}

// News returns a channel that is closed by the next call of Wake for the run.
func (t *Followers) News(f *Follower) <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	return f.changed
}

// Wake wakes the readers that follow the log of a run.
func (t *Followers) Wake(run string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if f := t.runs[run]; f != nil {
		close(f.changed)
		f.changed = make(chan struct{})
	}
}
