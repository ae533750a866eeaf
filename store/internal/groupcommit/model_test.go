package groupcommit_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/conveyor-go/conveyor/store"
	"github.com/conveyor-go/conveyor/store/internal/groupcommit"
)

// TestGroupsKeepTheRules has callers come and leave at random. It checks after each event who is in a group, who waits,
// and who has returned with what.
func TestGroupsKeepTheRules(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // so that rapid can repeat a failure
	rapid.Check(t, func(t *rapid.T) {
		rapid.SyncTest(t, func(t *rapid.T) {
			m := newModel(t)
			t.Repeat(map[string]func(*rapid.T){
				"come": m.come,
				"come in numbers": func(t *rapid.T) {
					for range rapid.IntRange(2, 10).Draw(t, "callers") {
						m.come(t)
					}
				},
				"leave the queue":         m.leaveQueue,
				"leave the group":         m.leaveGroup,
				"end":                     func(t *rapid.T) { m.end(t, nil) },
				"leave when a group ends": m.leaveAtTheEnd,
				"":                        m.check,
			})
			for len(m.group) > 0 {
				m.end(t, nil)
			}
			require.Empty(t, m.waiting, "nobody leads those who wait")
		})
	})
}

// caller is a call of Queue.Commit.
type caller struct {
	ops       []store.Op
	leave     context.CancelCauseFunc
	got, want outcome
}

// model is a queue and what is known of it. While the test looks at it, all other goroutines are blocked.
type model struct {
	queue   *groupcommit.Queue
	options groupcommit.Options
	waiting []*caller // in the order in which they came
	group   []*caller // whose commits are carried out
	ended   int       // the number of groups that have ended

	callers []*caller                        // all that have come
	begun   [][]*groupcommit.Commit          // the groups that the test has not seen yet
	endings chan func([]*groupcommit.Commit) // how a group ends; the test sends and closes, the leader receives
}

func newModel(t *rapid.T) *model {
	limit := func(name string, least, most int) int {
		return rapid.SampledFrom([]int{0, 0, rapid.IntRange(least, most).Draw(t, name)}).Draw(t, "limit")
	}
	m := &model{
		options: groupcommit.Options{
			MaxBytes: limit("bytes", 1, 40), MaxOps: limit("ops", 1, 8), MaxCommits: limit("commits", 1, 5),
			Disjoint: rapid.Bool().Draw(t, "disjoint"),
		},
		endings: make(chan func([]*groupcommit.Commit)),
	}
	m.queue = groupcommit.New(m.options, func(group []*groupcommit.Commit) {
		m.begun = append(m.begun, slices.Clone(group))
		if end := <-m.endings; end != nil {
			end(group)
		}
	})
	t.Cleanup(func() { // a test that has failed leaves no caller behind
		for _, c := range m.callers {
			c.leave(errGone)
		}
		close(m.endings)
	})
	return m
}

var (
	someKeys = rapid.SliceOfNDistinct(rapid.SampledFrom(strings.Split("abcdefgh", "")), 1, 3, rapid.ID)
	someOp   = rapid.SampledFrom([]string{"", "*9", "=", "-", "?", "?", "?"})
)

// come has a caller come with a commit.
func (m *model) come(t *rapid.T) {
	var words []string
	for _, key := range someKeys.Draw(t, "keys") {
		words = append(words, key+someOp.Draw(t, "op"))
	}
	c := &caller{ops: parsed(strings.Join(words, " "))}
	ctx, leave := context.WithCancelCause(context.Background())
	c.leave = leave
	m.callers = append(m.callers, c)
	go func() {
		c.got.rev, c.got.err = m.queue.Commit(ctx, c.ops)
		c.got.returned = true
	}()
	synctest.Wait()
	m.waiting = append(m.waiting, c)
	if len(m.group) == 0 {
		m.begin(t)
	}
}

var errGone = errors.New("gone")

// leaveQueue has a caller leave that waits.
func (m *model) leaveQueue(t *rapid.T) {
	if len(m.waiting) == 0 {
		t.Skip()
	}
	c := m.waiting[rapid.IntRange(0, len(m.waiting)-1).Draw(t, "caller")]
	c.leave(errGone)
	synctest.Wait()
	m.left(t, c)
}

// left takes note of a caller that has left the queue. If the caller is carried out all the same, begin finds it.
func (m *model) left(t *rapid.T, c *caller) {
	require.Equal(t, outcome{returned: true, err: errGone}, c.got)
	m.waiting = slices.DeleteFunc(m.waiting, func(other *caller) bool { return other == c })
}

// leaveGroup has a caller leave whose commit is carried out already, and which therefore has to stay.
func (m *model) leaveGroup(t *rapid.T) {
	if len(m.group) == 0 {
		t.Skip()
	}
	m.group[rapid.IntRange(0, len(m.group)-1).Draw(t, "caller")].leave(errGone)
	synctest.Wait()
}

// leaveAtTheEnd has callers leave while the next leader is made and takes its group. Each of them either has left or is
// in the group.
func (m *model) leaveAtTheEnd(t *rapid.T) {
	if len(m.waiting) == 0 {
		t.Skip()
	}
	var leaving []*caller
	for _, i := range rapid.SliceOfNDistinct(rapid.IntRange(0, len(m.waiting)-1), 1, -1, rapid.ID).Draw(t, "callers") {
		leaving = append(leaving, m.waiting[i])
	}
	m.end(t, leaving)
}

// end ends the group, with an outcome of its own for each commit.
func (m *model) end(t *rapid.T, leaving []*caller) {
	if len(m.group) == 0 {
		t.Skip()
	}
	m.ended++
	for i, c := range m.group {
		number := m.ended*100 + i
		c.want = outcome{returned: true, rev: store.Revision(number)}
		if rapid.IntRange(0, 3).Draw(t, "fails") == 0 {
			c.want = outcome{returned: true, err: fmt.Errorf("commit %d failed", number)}
		}
	}
	ending := m.group
	m.endings <- func(group []*groupcommit.Commit) {
		for i, c := range ending {
			group[i].Revision, group[i].Err = c.want.rev, c.want.err
		}
		for _, c := range leaving {
			c.leave(errGone)
		}
	}
	synctest.Wait()
	for _, c := range ending {
		require.Equal(t, c.want, c.got, printed(c.ops))
	}
	for _, c := range leaving {
		if c.got.returned {
			m.left(t, c)
		}
	}
	m.begin(t)
	for _, c := range leaving {
		require.NotContains(t, m.waiting, c, "a caller that leaves waits")
	}
}

// begin takes note of the group that has to be under way now, and checks it.
func (m *model) begin(t *rapid.T) {
	m.group = nil
	if len(m.waiting) == 0 {
		return
	}
	require.Len(t, m.begun, 1, "some wait, and no group has begun")
	for _, commit := range m.begun[0] {
		i := slices.IndexFunc(m.waiting, func(c *caller) bool { return &c.ops[0] == &commit.Ops[0] })
		require.GreaterOrEqual(t, i, 0, "%s is carried out and does not wait", printed(commit.Ops))
		m.group = append(m.group, m.waiting[i])
	}
	m.begun = nil
	m.checkGroup(t)
	m.waiting = slices.DeleteFunc(m.waiting, m.isInGroup)
}

func (m *model) isInGroup(c *caller) bool { return slices.Contains(m.group, c) }

// checkGroup checks the rules for a group, of which waiting has all commits that could have been in it.
func (m *model) checkGroup(t *rapid.T) {
	require.Same(t, m.waiting[0], m.group[0], "who has waited longest is not the first")
	var (
		sofar = m.group[:0:0] // of the group
		full  bool            // a limit has kept a commit out
	)
	for i, c := range m.waiting {
		meets := slices.ContainsFunc(m.waiting[:i], func(earlier *caller) bool { return m.options.Disjoint && meet(earlier, c) })
		large := i > 0 && m.exceeds(append(sofar, c))
		if !m.isInGroup(c) {
			require.True(t, meets || large || full, "%s is left for no reason", printed(c.ops))
			full = full || !meets
			continue
		}
		require.False(t, meets, "%s shares a group with a commit that has the same key, or overtakes it", printed(c.ops))
		require.False(t, large, "the group is too large")
		require.False(t, full, "%s overtakes a commit that had no room", printed(c.ops))
		sofar = append(sofar, c)
	}
	require.Equal(t, sofar, m.group, "the group is not in the order of arrival, or has a commit twice")
}

// meet reports whether two commits have an op for one key, and not only checks.
func meet(a, b *caller) bool {
	return slices.ContainsFunc(a.ops, func(x store.Op) bool {
		return slices.ContainsFunc(b.ops, func(y store.Op) bool {
			return x.Key() == y.Key() && (x.Writes() || y.Writes())
		})
	})
}

// exceeds reports whether some commits are more than a group can have.
func (m *model) exceeds(group []*caller) bool {
	bytes, ops := 0, 0
	for _, c := range group {
		for _, op := range c.ops {
			bytes += op.Size()
			ops++
		}
	}
	o := m.options
	return o.MaxBytes > 0 && bytes > o.MaxBytes || o.MaxOps > 0 && ops > o.MaxOps || o.MaxCommits > 0 && len(group) > o.MaxCommits
}

// check checks what holds after each event.
func (m *model) check(t *rapid.T) {
	require.Empty(t, m.begun, "a group has begun before the group before it has ended")
	for _, c := range slices.Concat(m.waiting, m.group) {
		require.False(t, c.got.returned, "%s has not been carried out, and its caller has returned", printed(c.ops))
	}
}
