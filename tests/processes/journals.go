package processes

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/internal/record"
	"github.com/conveyor-go/conveyor/store"
)

// call is a call of a driver, as the journals tell of it.
type call struct {
	entry            // with which it began
	how    string    // it ended; empty if the process has not come to say so
	ended  time.Time // at the latest: when it said so, or its life was over
	before int64     // the progress that it has found; -1 if it was not told of any
}

func (c *call) String() string {
	return fmt.Sprintf("call %d of %s (life %d, token %d, attempt %d, resumed %v, undo %v) of step %s of run %s of %s from %s to %s: %q",
		c.Call, c.Process, c.Life, c.Token, c.Attempt, c.Resumed, c.Undo, c.Step, c.Run, c.Resource, clockOf(c.At), clockOf(c.ended), c.how)
}

// station is a step of a run.
type station struct{ run, step string }

// journals is what all lives have noted.
type journals struct {
	w      *World
	calls  []*call // in the order in which they began
	at     map[station][]*call
	stalls map[int][]entry // by life
	lates  map[int][]entry // heartbeats, by life
	saved  []entry         // progress that was acknowledged
}

// read reads the journals of all lives.
func (w *World) read() *journals {
	t := w.t
	j := &journals{w: w, at: map[station][]*call{}, stalls: map[int][]entry{}, lates: map[int][]entry{}}
	type id struct {
		life int
		call int64
	}
	of := map[id]*call{}
	names, err := filepath.Glob(filepath.Join(w.dir, "journal-*"))
	require.NoError(t, err)
	for _, name := range names {
		data, err := os.ReadFile(name)
		require.NoError(t, err)
		data = data[:bytes.LastIndexByte(data, '\n')+1] // a kill can cut the last line short
		for line := range bytes.Lines(data) {
			var e entry
			require.NoError(t, json.Unmarshal(line, &e), "%s", line)
			c := of[id{e.Life, e.Call}]
			switch e.What {
			case "begin":
				c = &call{entry: e, ended: w.account.ends[e.Life], before: -1}
				require.False(t, c.ended.IsZero(), "life %d has no end", e.Life)
				of[id{e.Life, e.Call}] = c
				j.calls = append(j.calls, c)
			case "stalled":
				j.stalls[e.Life] = append(j.stalls[e.Life], e)
			case "late":
				j.lates[e.Life] = append(j.lates[e.Life], e)
			case "restored":
				c.before = e.N
			case "saved":
				j.saved = append(j.saved, e)
			default:
				c.how, c.ended = e.What, e.At
			}
		}
	}
	slices.SortFunc(j.calls, func(a, b *call) int { return a.At.Compare(b.At) })
	for _, c := range j.calls {
		s := station{c.Run, c.Step}
		j.at[s] = append(j.at[s], c)
	}
	return j
}

// compareJournals checks what the drivers have done.
func (w *World) compareJournals(ctx context.Context, e *conveyor.Engine, runs map[string]*conveyor.Run) {
	j := w.read()
	for s, calls := range j.at {
		run := runs[s.run]
		require.NotNil(w.t, run, "run %s was at work, and is not on record", s.run)
		j.checkStep(s, calls, run)
		j.checkOrder(s, calls, run)
	}
	j.checkOverlaps()
	for id, run := range runs {
		if run.Step("save") != nil {
			j.checkLog(ctx, e, id)
			j.checkLogRecords(ctx, id)
		}
		if run.State == conveyor.StateSucceeded && run.Cause != conveyor.CauseDeleted && run.Resource.Type != loose {
			for _, step := range run.Steps {
				require.Equal(w.t, conveyor.StateSucceeded, step.State, "step %s of run %s", step.ID, id)
				require.NotEmpty(w.t, j.at[station{id, step.ID}], "step %s of run %s has succeeded, and was never called", step.ID, id)
			}
		}
	}
	w.account.counts["calls"] = len(j.calls)
}

// stoodStill reports whether the process of a call has stood still for a good part of a lease between two times.
func (j *journals) stoodStill(life int, from, to time.Time) bool {
	return slices.ContainsFunc(j.stalls[life], func(s entry) bool {
		return s.At.Sub(s.Since) > j.w.Lease/4 && s.Since.Before(to) && s.At.After(from)
	})
}

// justStoodStill reports whether a process has stood still until just before a time. What it does then, it had decided before.
func (j *journals) justStoodStill(life int, at time.Time) bool {
	return j.stoodStill(life, at.Add(-j.w.Lease/2), at)
}

// late reports whether a process was late with a heartbeat between two times, so that others may have taken it for dead, or it itself.
func (j *journals) late(life int, from, to time.Time) bool {
	is := slices.ContainsFunc(j.lates[life], func(e entry) bool { return e.Since.Before(to) && e.At.After(from) })
	if is {
		j.w.account.counts["calls while a heartbeat was late"]++
	}
	return is
}

// wrong reports whether something was wrong with the process of a call, or was about to become known to it, between two times.
func (j *journals) wrong(life int, from, to time.Time) bool {
	if j.stoodStill(life, from, to) || j.w.account.ends[life].Before(to) {
		return true
	}
	return slices.ContainsFunc(j.w.account.windows, func(o window) bool {
		return o.life == life && o.from.Before(to) && (o.to.IsZero() || o.to.Add(2*j.w.Lease).After(from))
	}) || j.late(life, from, to)
}

// checkStep checks the calls of a step of a run: their attempts, why there was another one, and which of them has had its outcome
// recorded.
func (j *journals) checkStep(s station, calls []*call, run *conveyor.Run) {
	t := j.w.t
	var newest *call
	for _, c := range calls {
		require.Equal(t, calls[0].Idem, c.Idem, "another key: %s", c)
		if newest == nil {
			require.Equal(t, 1, c.Attempt, "%s", c)
			newest = c
			continue
		}
		if c.Token < newest.Token {
			// It had begun before, on record, and was stopped before it got here.
			require.True(t, j.justStoodStill(c.Life, c.At), "%s came after %s", c, newest)
			continue
		}
		j.checkAgain(newest, c)
		newest = c
	}
	for _, e := range j.saved {
		if e.Run == s.run && e.Step == s.step {
			j.checkSaved(e, calls)
		}
	}
	for _, c := range calls {
		require.True(t, c.At.Before(run.EndedAt) || j.justStoodStill(c.Life, c.At), "run %s ended at %s, and then came %s", run.ID, clockOf(run.EndedAt), c)
	}
	step := run.Step(s.step)
	require.NotNil(t, step, "%s", newest)
	if step.State == conveyor.StateFailed {
		require.Equal(t, "fail", newest.how, "%s", newest)
	}
	if step.State != conveyor.StateSucceeded || newest.Undo {
		return
	}
	var by progress
	require.NoError(t, json.Unmarshal(step.Output, &by), "%s: %s", newest, step.Output)
	require.Equal(t, newest.Token, by.Token, "the outcome on record is of an older call than %s", newest)
	require.Equal(t, "done", newest.how, "%s", newest)
	require.Equal(t, newest.Attempt, step.Attempt, "%s", newest)
	done := 0
	for _, c := range calls {
		if c.Token == by.Token && c.how == "done" {
			done++
		}
	}
	require.Equal(t, 1, done, "the finished step was called again: %s", newest)
}

// checkAgain checks that there was a reason for another call of a step.
func (j *journals) checkAgain(was, c *call) {
	t, counts := j.w.t, j.w.account.counts
	require.True(t, c.Life == was.Life || c.Token > was.Token, "two processes have the same token: %s, and %s", was, c)
	begunInVain := was.how == "fail" && c.Attempt == was.Attempt+1 // the next attempt was on record, and did not get as far as the driver
	switch {
	case c.Resumed:
		counts["calls resumed"]++
		require.True(t, j.wrong(was.Life, was.At, c.At), "nothing has cut %s short, and then came %s", was, c)
		require.True(t, begunInVain || c.Attempt == was.Attempt, "an attempt was used by what happened to a process: %s, and then %s", was, c)
	case was.how == "fail":
		require.Equal(t, was.Attempt+1, c.Attempt, "%s, and then %s", was, c)
	case was.how == "requeue", was.how == "await":
		require.Equal(t, was.Attempt, c.Attempt, "%s, and then %s", was, c)
	default:
		require.Fail(t, "called again for no reason", "%s, and then %s", was, c)
	}
	if c.Life != was.Life {
		counts["calls that came to another process"]++
	}
}

// checkSaved checks that each call that began after some progress was acknowledged has found it.
func (j *journals) checkSaved(e entry, calls []*call) {
	for _, c := range calls {
		if (c.Token > e.Token || c.Life == e.Life && c.Call > e.Call) && c.At.After(e.At) && c.before >= 0 {
			require.GreaterOrEqual(j.w.t, c.before, e.N, "progress of life %d is lost: %s has found %d", e.Life, c, c.before)
		}
	}
}

// checkOrder checks that the steps before a step were done when it began, and were not called afterwards.
func (j *journals) checkOrder(s station, calls []*call, run *conveyor.Run) {
	t := j.w.t
	if calls[0].Undo {
		return
	}
	for _, before := range precedes(run.Resource.Type, s.step) {
		earlier := j.at[station{s.run, before}]
		require.True(t, slices.ContainsFunc(earlier, func(c *call) bool { return c.how == "done" && c.ended.Before(calls[0].At) }),
			"step %s was not done when %s began", before, calls[0])
		for _, c := range earlier {
			require.True(t, c.At.Before(calls[0].At) || j.justStoodStill(c.Life, c.At), "%s came after %s", c, calls[0])
		}
	}
}

// checkOverlaps checks that no two drivers were at work on a resource at once, unless the process of one of them had stood still.
func (j *journals) checkOverlaps() {
	t := j.w.t
	active := map[string][]*call{} // by resource
	limited := []*call{}
	at := func(all []*call, now time.Time) []*call {
		return slices.DeleteFunc(all, func(c *call) bool { return !c.ended.After(now) })
	}
	for _, c := range j.calls {
		others := at(active[c.Resource], c.At)
		for _, o := range others {
			if o.Run == c.Run && o.Step != c.Step && o.Life == c.Life && (strings.HasPrefix(c.Resource, "graph/") || strings.HasPrefix(c.Resource, loose+"/")) {
				continue
			}
			late := j.justStoodStill(c.Life, c.At) && (c.Run != o.Run || c.Token < o.Token) // it is the older one, and comes when its process goes on
			require.True(t, o.Life != c.Life && (late || j.stoodStill(o.Life, o.At, o.ended)), "two calls at once: %s, and %s", o, c)
			j.w.account.counts["calls at once, of a process that had stood still"]++
		}
		active[c.Resource] = append(others, c)
		if strings.HasPrefix(c.Resource, "limited/") && !j.stoodStill(c.Life, c.At, c.ended) {
			limited = append(at(limited, c.At), c)
			runs := map[string]bool{}
			for _, o := range limited {
				runs[o.Run] = true
			}
			require.LessOrEqual(t, len(runs), maxLimited, "too many runs at once: %v", limited)
		}
	}
}

// checkLog checks that no line of an older call came after one of a newer call, and none twice.
func (j *journals) checkLog(ctx context.Context, e *conveyor.Engine, run string) {
	t := j.w.t
	var last progress // a token has one process, whose calls have numbers that grow
	for line, err := range e.Logs(ctx, run, conveyor.LogOptions{}) {
		require.NoError(t, err)
		var at progress
		require.NoError(t, json.Unmarshal(line.Attrs, &at), "%s", line)
		require.Positive(t, cmp.Or(cmp.Compare(at.Token, last.Token), cmp.Compare(at.Call, last.Call), cmp.Compare(at.N, last.N)),
			"run %s: line %+v came after %+v", run, at, last)
		last = at
		j.w.account.counts["log lines"]++
	}
}

// checkLogRecords checks that no lines of an older call were written after lines of a newer one, whatever their numbers are.
func (j *journals) checkLogRecords(ctx context.Context, run string) {
	t := j.w.t
	var all []store.Record
	for r, err := range j.w.Store.List(ctx, store.Query{Prefix: record.LogsOf(run)}) {
		require.NoError(t, err)
		all = append(all, r)
	}
	slices.SortFunc(all, func(a, b store.Record) int { return cmp.Compare(a.Revision, b.Revision) })
	var newest int64
	for _, r := range all {
		var lines []record.LogLine
		require.NoError(t, record.Decode(r, &lines))
		for _, line := range lines {
			var by progress
			require.NoError(t, json.Unmarshal(line.Attrs, &by))
			require.GreaterOrEqual(t, by.Token, newest, "%s was written at revision %d", r.Key, r.Revision)
			newest = by.Token
		}
	}
}
