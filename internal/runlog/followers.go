package runlog

import "sync"

// Followers wakes those who follow the log of a run.
type Followers struct {
	mu   sync.Mutex // guards what follows
	runs map[string]*Follower
}

type Follower struct {
	followers int
	changed   chan struct{} // closed when there is something new, by the waker, who makes the next one
}

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

func (t *Followers) Unfollow(run string, f *Follower) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if f.followers--; f.followers == 0 {
		delete(t.runs, run)
	}
}

func (t *Followers) News(f *Follower) <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	return f.changed
}

func (t *Followers) Wake(run string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if f := t.runs[run]; f != nil {
		close(f.changed)
		f.changed = make(chan struct{})
	}
}
