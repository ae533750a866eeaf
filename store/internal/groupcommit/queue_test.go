package groupcommit_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"weak"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor/store"
	"github.com/conveyor-go/conveyor/store/internal/groupcommit"
)

// slow is a queue in a bubble whose groups are carried out only as far as the test says.
type slow struct {
	*groupcommit.Queue
	groups [][]string    // the commits of each group that has begun, as commit was told them
	finish chan struct{} // the test sends once for each group, and closes it in the end; the leader receives
	fails  error         // what the commits of a group get as their error
	last   func()        // called by each leader when its group is finished
}

func newSlow(t *testing.T, options groupcommit.Options) *slow {
	s := &slow{finish: make(chan struct{}), last: func() {}}
	t.Cleanup(func() { close(s.finish) }) // so that no caller is left, also when the test has failed
	s.Queue = groupcommit.New(options, func(group []*groupcommit.Commit) {
		var words []string
		for _, c := range group {
			words = append(words, printed(c.Ops))
		}
		s.groups = append(s.groups, words)
		rev := store.Revision(len(s.groups))
		<-s.finish
		for _, c := range group {
			c.Revision, c.Err = rev, s.fails
		}
		s.last()
	})
	return s
}

// outcome is what a caller of a queue gets.
type outcome struct {
	returned bool
	rev      store.Revision
	err      error
}

// commit starts a caller and returns when the commit of the caller is in a group or waits.
func (s *slow) commit(ctx context.Context, ops string) *outcome {
	var o outcome
	go func() {
		o.rev, o.err = s.Commit(ctx, parsed(ops))
		o.returned = true
	}()
	synctest.Wait()
	return &o
}

// next finishes the group under way, if there is one, and returns when the next group is under way.
func (s *slow) next() {
	select {
	case s.finish <- struct{}{}:
	default:
	}
	synctest.Wait()
}

// parsed returns the ops that words stand for: "a" puts a, "a*100" puts 100 bytes there, "a=" puts a if it is absent,
// "a-" deletes a, and "a?" checks it.
func parsed(words string) (ops []store.Op) {
	for word := range strings.FieldsSeq(words) {
		key, size, _ := strings.Cut(strings.TrimRight(word, "=-?"), "*")
		switch word[len(word)-1] {
		case '=':
			ops = append(ops, store.Put(key, nil).IfAbsent())
		case '-':
			ops = append(ops, store.Delete(key))
		case '?':
			ops = append(ops, store.Check(key, 1))
		default:
			n, _ := strconv.Atoi(size)
			ops = append(ops, store.Put(key, make([]byte, n)))
		}
	}
	return ops
}

// printed returns the words that ops were made of.
func printed(ops []store.Op) string {
	var words []string
	for _, op := range ops {
		word := op.Key()
		switch {
		case !op.Writes():
			word += "?"
		case op.Removes():
			word += "-"
		case op.Conditional():
			word += "="
		case len(op.Value()) > 0:
			word += fmt.Sprint("*", len(op.Value()))
		}
		words = append(words, word)
	}
	return strings.Join(words, " ")
}

func TestALoneCommitIsAGroup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSlow(t, groupcommit.Options{})
		for i := range 3 {
			o := s.commit(t.Context(), "a")
			require.Len(t, s.groups, i+1)
			require.False(t, o.returned)
			s.next()
			require.Equal(t, outcome{returned: true, rev: store.Revision(i + 1)}, *o)
		}
	})
}

func TestALoneCommitNeedsNoChannelAndNoGoroutine(t *testing.T) {
	var caller, leader string
	q := groupcommit.New(groupcommit.Options{}, func([]*groupcommit.Commit) { leader = goroutine() })
	caller = goroutine()
	ops := parsed("a")
	_, err := q.Commit(t.Context(), ops)
	require.NoError(t, err)
	require.Equal(t, caller, leader)

	q = groupcommit.New(groupcommit.Options{Disjoint: true}, func([]*groupcommit.Commit) {})
	require.LessOrEqual(t, testing.AllocsPerRun(100, func() { _, _ = q.Commit(t.Context(), ops) }), 2.0, "the Commit and the group")
}

// goroutine returns the name of the goroutine of its caller.
func goroutine() string {
	var buf [64]byte
	name, _, _ := strings.Cut(string(buf[:runtime.Stack(buf[:], false)]), " [")
	return name
}

func TestTheQueueKeepsNothingOfACommitThatIsDone(t *testing.T) {
	q := groupcommit.New(groupcommit.Options{Disjoint: true}, func([]*groupcommit.Commit) {})
	value := new([100]byte)
	kept := weak.Make(value)
	_, err := q.Commit(t.Context(), []store.Op{store.Put("key", value[:])})
	require.NoError(t, err)
	runtime.GC()
	require.Nil(t, kept.Value())
	runtime.KeepAlive(q)
}

func TestCommitsThatComeWhileAGroupIsCarriedOutAreTheNextGroup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSlow(t, groupcommit.Options{})
		first := s.commit(t.Context(), "first")
		var later []*outcome
		var words []string
		for i := range 20 {
			words = append(words, fmt.Sprint("later", i))
			later = append(later, s.commit(t.Context(), words[i]))
		}
		require.Equal(t, [][]string{{"first"}}, s.groups)
		s.next()
		require.Equal(t, [][]string{{"first"}, words}, s.groups)
		require.Equal(t, outcome{returned: true, rev: 1}, *first)
		s.next()
		for _, o := range later {
			require.Equal(t, outcome{returned: true, rev: 2}, *o)
		}

		s.commit(t.Context(), "last") // finds the store idle again
		require.Len(t, s.groups, 3)
	})
}

func TestEveryCallerGetsTheErrorOfItsCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSlow(t, groupcommit.Options{})
		s.fails = errors.New("full")
		outcomes := []*outcome{s.commit(t.Context(), "a"), s.commit(t.Context(), "b"), s.commit(t.Context(), "c")}
		s.next()
		s.next()
		for _, o := range outcomes {
			require.True(t, o.returned)
			require.Same(t, s.fails, o.err)
		}
	})
}

func TestNobodyLeadsMoreThanOneGroup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSlow(t, groupcommit.Options{})
		// Each commit comes while the commit before it is carried out, so the store is never idle.
		before := s.commit(t.Context(), "0")
		for i := range 4 {
			o := s.commit(t.Context(), fmt.Sprint(i+1))
			s.next()
			require.True(t, before.returned, "the caller whose commit is done is kept")
			require.Len(t, s.groups, i+2)
			before = o
		}
	})
}

// TestThoseWhoWereAnsweredComeBackInTimeForTheNextGroup has callers that commit again as soon as they are answered, while
// as many others wait. If the next leader did not let them come, the two halves would take turns for ever.
func TestThoseWhoWereAnsweredComeBackInTimeForTheNextGroup(t *testing.T) {
	const half = 50
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // the others run if the leader lets them, and only then
	synctest.Test(t, func(t *testing.T) {
		s := newSlow(t, groupcommit.Options{})
		s.commit(t.Context(), "first")
		for range half {
			go func() {
				_, _ = s.Commit(t.Context(), parsed("once"))
				_, _ = s.Commit(t.Context(), parsed("again"))
			}()
		}
		synctest.Wait()
		s.next()
		require.Len(t, s.groups[1], half)
		for range half {
			s.commit(t.Context(), "other")
		}
		s.next()
		require.Len(t, s.groups[2], 2*half)
	})
}

func TestACallerCanLeaveUntilItsCommitIsTaken(t *testing.T) {
	gone := errors.New("gone")
	for _, c := range []struct {
		name   string
		before int // the groups that are finished before the caller leaves
		groups [][]string
		want   outcome
	}{
		{"while it waits", 0, [][]string{{"first"}, {"second"}, {"third"}}, outcome{returned: true, err: gone}},
		{"while it waits for the group after the next one", 1, [][]string{{"first"}, {"second"}, {"third"}}, outcome{returned: true, err: gone}},
		{"while its commit is carried out", 2, [][]string{{"first"}, {"second"}, {"left", "third"}}, outcome{returned: true, rev: 3}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSlow(t, groupcommit.Options{MaxBytes: len("left") + len("third")})
				ctx, leave := context.WithCancelCause(t.Context())
				s.commit(t.Context(), "first")
				s.commit(t.Context(), "second")
				o := s.commit(ctx, "left")
				s.commit(t.Context(), "third")
				for range c.before {
					s.next()
				}
				leave(gone)
				synctest.Wait()
				require.Equal(t, c.want.err != nil, o.returned)
				for range len(c.groups) - c.before {
					s.next()
				}
				require.Equal(t, c.groups, s.groups)
				require.Equal(t, c.want, *o)
			})
		})
	}
}

// TestACallerThatIsMadeTheLeaderLeads has the context of a caller end just before the caller is made the leader. If such
// a caller left, nobody would lead those who wait.
func TestACallerThatIsMadeTheLeaderLeads(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // the caller that is to leave finds out when it already leads
	synctest.Test(t, func(t *testing.T) {
		ctx, leave := context.WithCancel(t.Context())
		s := newSlow(t, groupcommit.Options{})
		s.last = leave
		first, second, third := s.commit(t.Context(), "first"), s.commit(ctx, "second"), s.commit(t.Context(), "third")
		s.next()
		require.True(t, first.returned)
		require.False(t, second.returned)
		s.next()
		require.Equal(t, [][]string{{"first"}, {"second", "third"}}, s.groups)
		require.Equal(t, outcome{returned: true, rev: 2}, *second)
		require.Equal(t, outcome{returned: true, rev: 2}, *third)
	})
}

// TestAGroupIsMadeInTheOrderOfArrivalWithinItsLimits has all commits of a case wait before the first group of them is made.
func TestAGroupIsMadeInTheOrderOfArrivalWithinItsLimits(t *testing.T) {
	disjoint := groupcommit.Options{Disjoint: true}
	for _, c := range []struct {
		name    string
		options groupcommit.Options
		commits []string
		groups  [][]string
	}{
		{"no limit", groupcommit.Options{}, []string{"a*1000", "a b c", "a*1000"}, [][]string{{"a*1000", "a b c", "a*1000"}}},
		{
			"bytes of keys and values", groupcommit.Options{MaxBytes: 12},
			[]string{"a*5 b*4", "c", "d", "e*11", "f"},
			[][]string{{"a*5 b*4", "c"}, {"d"}, {"e*11"}, {"f"}},
		},
		{
			"ops", groupcommit.Options{MaxOps: 3},
			[]string{"a b", "c", "d e", "f g", "h*100"},
			[][]string{{"a b", "c"}, {"d e"}, {"f g", "h*100"}},
		},
		{
			"commits", groupcommit.Options{MaxCommits: 2},
			[]string{"a*100 b c d", "e", "f"},
			[][]string{{"a*100 b c d", "e"}, {"f"}},
		},
		{
			"all limits", groupcommit.Options{MaxBytes: 100, MaxOps: 4, MaxCommits: 3},
			[]string{"a", "b", "c*90", "d*90", "e*90", "f g", "h i j", "k"},
			[][]string{{"a", "b", "c*90"}, {"d*90"}, {"e*90", "f g"}, {"h i j", "k"}},
		},
		{
			"commits that are larger than a group", groupcommit.Options{MaxBytes: 12, MaxOps: 2},
			[]string{"a*100", "b", "c*100", "d", "e f g", "h"},
			[][]string{{"a*100"}, {"b"}, {"c*100"}, {"d"}, {"e f g"}, {"h"}},
		},
		{"the same keys", groupcommit.Options{}, []string{"a", "a?", "a-"}, [][]string{{"a", "a?", "a-"}}},
		{"disjoint: other keys", disjoint, []string{"a b", "c?", "d-", "e="}, [][]string{{"a b", "c?", "d-", "e="}}},
		{"disjoint: two writes", disjoint, []string{"a", "a-"}, [][]string{{"a"}, {"a-"}}},
		{"disjoint: two conditions of writes", disjoint, []string{"a=", "a="}, [][]string{{"a="}, {"a="}}},
		{"disjoint: a check after a write", disjoint, []string{"a", "a? b"}, [][]string{{"a"}, {"a? b"}}},
		{"disjoint: a write after a check", disjoint, []string{"a? b", "a"}, [][]string{{"a? b"}, {"a"}}},
		{"disjoint: checks after a write", disjoint, []string{"a", "a? b", "a? c"}, [][]string{{"a"}, {"a? b", "a? c"}}},
		{"disjoint: only checks", disjoint, []string{"a? b", "c a?", "a?"}, [][]string{{"a? b", "c a?", "a?"}}},
		{
			"disjoint: a write after checks, and a check after it", disjoint,
			[]string{"a? b", "a? c", "a d", "a? e", "f"},
			[][]string{{"a? b", "a? c", "f"}, {"a d"}, {"a? e"}},
		},
		{"disjoint: any key of many", disjoint, []string{"a b c", "d e b", "c", "d"}, [][]string{{"a b c"}, {"d e b", "c"}, {"d"}}},
		{
			"disjoint: two ops of one commit for one key, which a store should refuse", disjoint,
			[]string{"a", "b b?", "c", "b"},
			[][]string{{"a", "c"}, {"b b?"}, {"b"}},
		},
		{
			"disjoint: nobody overtakes a commit that waits", disjoint,
			[]string{"a", "a b", "b c", "c d", "e"},
			[][]string{{"a", "e"}, {"a b"}, {"b c"}, {"c d"}},
		},
		{
			"disjoint: checks overtake a commit that waits and only checks", disjoint,
			[]string{"a", "a b?", "b? c", "b d"},
			[][]string{{"a", "b? c"}, {"a b?"}, {"b d"}},
		},
		{
			"disjoint: what waits for a key counts against no limit", groupcommit.Options{Disjoint: true, MaxBytes: 12, MaxOps: 3, MaxCommits: 2},
			[]string{"a", "a*100 b c d", "e f", "g", "h"},
			[][]string{{"a", "e f"}, {"a*100 b c d"}, {"g", "h"}},
		},
		{
			"disjoint: nobody goes past a commit that a limit keeps out", groupcommit.Options{Disjoint: true, MaxBytes: 12},
			[]string{"a*9", "b*9", "c", "b"},
			[][]string{{"a*9"}, {"b*9", "c"}, {"b"}},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSlow(t, c.options)
				s.commit(t.Context(), "first")
				for _, ops := range c.commits {
					s.commit(t.Context(), ops)
				}
				for range len(c.groups) + 1 {
					s.next()
				}
				require.Equal(t, c.groups, s.groups[1:])
			})
		})
	}
}
