package ledger

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/conveyor-go/conveyor/internal/record"
	"github.com/conveyor-go/conveyor/store"
)

// Keep is how much of the past of a resource is kept. A zero field means no limit.
type Keep struct {
	Runs      int           // ended runs
	Age       time.Duration // since the end of a run
	Revisions int           // generations, the newest included
}

// RemoveBatch is the largest number of records that one commit removes in any store.
const RemoveBatch = 256

// removeBatch returns how many records one commit removes in a store with these limits: as many as the store accepts ops, and
// bytes of their keys. The largest commit that cannot be divided removes a run with its plan and its entry in the index.
func removeBatch(limits store.Limits) int {
	const least = 3
	batch := RemoveBatch
	if limits.Ops > 0 {
		batch = min(batch, limits.Ops)
	}
	if limits.Bytes > 0 {
		batch = min(batch, limits.Bytes/store.MaxKey)
	}
	return max(batch, least)
}

// Removed counts what was removed.
type Removed struct{ Runs, Revisions, Definitions int }

// Pruner removes the ended runs and the generations of resources that a [Keep] does not cover. It reads the runs of a
// resource from the oldest one on, up to the first one that is kept, and it groups the removals of several resources in
// one commit. It never removes
//
//   - a run that has not ended, or that an unfinished run repeats,
//   - the newest run of a resource, and the newest ended run of it that has had steps, which a deletion is to finalize,
//   - the newest generation, or a generation that an unfinished run has pinned or is to pin.
//
// The runs of a name whose resource was deleted are under the same limits, and none of them is spared as the newest. A
// Pruner also completes the removal of runs that a process began before it ended.
//
// A Pruner must be used by one goroutine at a time. Several can be at work on one resource.
type Pruner struct {
	// Spare, if set, reports whether a run must be left alone for now, because somebody reads it.
	Spare func(k record.Key, run string) bool
	// Linger is how long a run that has ended is kept in any case, so that who waits for it elsewhere finds it.
	Linger time.Duration
	// Removed counts what was removed by commits.
	Removed Removed
	// Next is the earliest time at which Age covers another run of the resources that were looked at; 0 means never.
	Next record.Time

	ledger *Ledger
	keep   Keep
	now    record.Time
	group  []store.Op   // the removals of the next commit
	counts Removed      // in the group
	keys   []record.Key // the resources in the group
	again  []record.Key // the resources that Flush looks at again
}

// Hold returns the ops with which the commit of an unfinished run that repeats an ended one keeps that one from being
// removed. The entry of the ended run in the index of its resource gets a new revision: either the commit or a removal that
// was decided upon before it fails. A later removal finds the unfinished run. If the ended run is no longer on record, the
// error wraps [store.ErrNotFound].
func (l *Ledger) Hold(ctx context.Context, run string) ([]store.Op, error) {
	rec, rev, err := Load[record.Run](ctx, l, record.RunKey(run))
	if err != nil {
		return nil, err
	}
	index, err := l.Store.Get(ctx, record.RunIndexKey(rec.Key(), rec.Number, run))
	if err != nil {
		return nil, err
	}
	return []store.Op{store.Put(index.Key, index.Value).If(index.Revision), store.Check(record.RunKey(run), rev)}, nil
}

// NewPruner returns a pruner for a point in time.
func (l *Ledger) NewPruner(keep Keep, now time.Time) *Pruner {
	return &Pruner{ledger: l, keep: keep, now: record.TimeOf(now)}
}

// PruneAll looks at every resource and at the name of every deleted one, and removes what is to be removed. It calls pause
// after every few resources, if pause is not nil. Damaged records do not keep PruneAll from what comes after them; the
// error then wraps [store.ErrCorrupt].
func (p *Pruner) PruneAll(ctx context.Context, pause func()) error {
	var damage error
	for _, prefix := range []string{record.ResourcePrefix, record.TombstonePrefix} {
		n := 0
		for r, err := range p.ledger.Store.List(ctx, store.Query{Prefix: prefix}) {
			if err != nil {
				return err
			}
			k, err := record.ParseNamedKey(r.Key)
			if err == nil {
				err = p.Prune(ctx, k)
			}
			if err != nil && !errors.Is(err, store.ErrCorrupt) {
				return err
			}
			if err != nil && damage == nil {
				damage = err
			}
			if n++; n%p.ledger.Batch == 0 && pause != nil {
				pause()
			}
		}
	}
	if err := p.Flush(ctx); err != nil {
		return err
	}
	return errors.Join(damage, p.pruneAnswers(ctx))
}

// pruneAnswers removes what has become of letters: with the run that a letter has led to, and of a letter that was refused when Age
// covers it.
func (p *Pruner) pruneAnswers(ctx context.Context) error {
	var old []store.Op
	for r, err := range p.ledger.Store.List(ctx, store.Query{Prefix: record.AnsweredPrefix}) {
		if err != nil {
			return err
		}
		a := new(record.Answered)
		if record.Decode(r, a) != nil {
			continue
		}
		if a.Run != "" {
			_, err := p.ledger.Store.Get(ctx, record.RunKey(a.Run))
			if err == nil {
				continue
			}
			if !errors.Is(err, store.ErrNotFound) {
				return err
			}
		} else if due := a.At.Add(p.keep.Age); p.keep.Age == 0 || due > p.now {
			if p.keep.Age != 0 && (p.Next == 0 || due < p.Next) {
				p.Next = due
			}
			continue
		}
		old = append(old, store.Delete(r.Key).If(r.Revision))
	}
	for part := range slices.Chunk(old, p.ledger.Batch) {
		if _, err := p.ledger.Commit(ctx, part); err != nil && !errors.Is(err, store.ErrConflict) {
			return err
		}
	}
	return nil
}

// maxRepeats bounds how often resources are looked at again because a record has changed since it was read.
const maxRepeats = 8

// Flush removes what is left to remove.
func (p *Pruner) Flush(ctx context.Context) error {
	err := p.commit(ctx)
	for tries := 0; err == nil && len(p.again) > 0 && tries < maxRepeats; tries++ {
		again := p.again
		p.again = nil
		for _, k := range again {
			if err := p.Prune(ctx, k); err != nil && !errors.Is(err, store.ErrCorrupt) { // the first look has reported damage
				return err
			}
		}
		err = p.commit(ctx)
	}
	p.again = nil
	return err
}

// commit makes the next commit, and begins a new group even if the commit fails. If a run was held or removed since it was
// read, nothing of the group is removed, and Flush looks at the resources of the group again.
func (p *Pruner) commit(ctx context.Context) error {
	group, counts, keys := p.group, p.counts, p.keys
	p.group, p.counts, p.keys = nil, Removed{}, nil
	if len(group) == 0 {
		return nil
	}
	_, err := p.ledger.Commit(ctx, group)
	switch {
	case errors.Is(err, store.ErrConflict):
		p.again = append(p.again, keys...)
		return nil
	case err != nil:
		return err
	}
	p.Removed.Runs += counts.Runs
	p.Removed.Revisions += counts.Revisions
	return nil
}

// add adds removals to the group, all of them to the same commit.
func (p *Pruner) add(ctx context.Context, k record.Key, counts Removed, ops ...store.Op) error {
	if len(p.group)+len(ops) > p.ledger.Batch {
		if err := p.commit(ctx); err != nil {
			return err
		}
	}
	if len(p.keys) == 0 || p.keys[len(p.keys)-1] != k {
		p.keys = append(p.keys, k)
	}
	p.group = append(p.group, ops...)
	p.counts.Runs += counts.Runs
	p.counts.Revisions += counts.Revisions
	return nil
}

// Prune looks at a resource, or at the name of a deleted one. What is to be removed has been removed when [Pruner.Flush]
// returns nil. A damaged record of a run is left alone, and the error then wraps [store.ErrCorrupt].
func (p *Pruner) Prune(ctx context.Context, k record.Key) error {
	if slices.Contains(p.keys, k) { // the same record must not be removed twice in one commit
		if err := p.commit(ctx); err != nil {
			return err
		}
	}
	past := &past{Pruner: p, key: k}
	if err := past.measure(ctx); err != nil {
		return err
	}
	if err := past.pruneRuns(ctx); err != nil {
		return err
	}
	if err := past.pruneRevisions(ctx); err != nil {
		return err
	}
	return past.damage
}

// past is the past of one resource as a [Pruner] looks at it.
type past struct {
	*Pruner
	key    record.Key
	head   *record.Resource // as it was before anything else was read; nil if the resource was deleted
	damage error            // the first damaged record of a run

	// The ended runs with a number up to last are more than keep.Runs, and so are those without a number whose index key is
	// at most lastOld.
	last    int64
	lastOld string

	newest   string // the newest run of the resource
	begun    string // the newest ended run of it that has had steps
	repeated string // the run that an unfinished run repeats
}

// pastRun is an ended run that the limits do not cover.
type pastRun struct {
	id    string
	index store.Record // in the index of the resource; it was read first
	rec   *record.Run
	rev   store.Revision
}

// measure reads the record of the resource and finds out which runs are too many.
func (p *past) measure(ctx context.Context) (err error) {
	if p.head, _, err = p.ledger.Resource(ctx, p.key); err != nil {
		return err
	}
	if p.keep.Runs == 0 {
		return nil
	}
	if p.head != nil {
		// The unfinished runs have the highest numbers, apart from runs that were canceled before they began.
		p.last = p.head.LastRun - int64(p.head.Unfinished()) - int64(p.keep.Runs)
	} else {
		tombstone, _, err := Load[record.Tombstone](ctx, p.ledger, record.TombstoneKey(p.key))
		if errors.Is(err, store.ErrNotFound) {
			tombstone, err = new(record.Tombstone), nil
		}
		if err != nil {
			return err
		}
		p.last = tombstone.LastRun - int64(p.keep.Runs)
	}
	p.lastOld = record.NumberedRunsOf(p.key) // comes after all of them
	if p.last >= 0 {
		return nil
	}
	// As many of the runs without a number are kept as are missing.
	p.lastOld = ""
	first, err := p.firstIndexKey(ctx)
	if err != nil || first == "" || strings.HasPrefix(first, record.NumberedRunsOf(p.key)) {
		return err
	}
	kept := -p.last
	for r, err := range p.ledger.Store.List(ctx, store.Query{Prefix: record.RunsOf(p.key), After: record.NumberedRunsOf(p.key), Reverse: true}) {
		if err != nil {
			return err
		}
		if kept--; kept < 0 {
			p.lastOld = r.Key
			return nil
		}
	}
	return nil
}

// firstIndexKey returns the first key in the index of the runs of the resource, or an empty text if there is none.
func (p *past) firstIndexKey(ctx context.Context) (string, error) {
	for r, err := range p.ledger.Store.List(ctx, store.Query{Prefix: record.RunsOf(p.key), Limit: 1}) {
		return r.Key, err
	}
	return "", nil
}

// pruneRuns removes the runs that the limits do not cover.
func (p *past) pruneRuns(ctx context.Context) error {
	for after, more := "", true; more; {
		runs, next, err := p.pastRuns(ctx, after)
		if err != nil {
			return err
		}
		if len(runs) > 0 {
			if err := p.readWhatIsNeeded(ctx); err != nil {
				return err
			}
		}
		for _, r := range runs {
			if r.id == p.newest || r.id == p.begun || r.id == p.repeated || p.Spare != nil && p.Spare(p.key, r.id) {
				continue
			}
			if err := p.removeRun(ctx, r); err != nil {
				return fmt.Errorf("run %s: %w", r.id, err)
			}
		}
		after, more = next, next != ""
	}
	return nil
}

// maxPastRuns returns the number of runs that pastRuns returns at once.
func (p *past) maxPastRuns() int { return max(p.ledger.Batch/4, 1) }

// pastRuns returns the oldest runs that the limits do not cover, behind a key of the index. If there can be more of them,
// next is the key behind which they are. The reading ends at the first run that the limits cover.
func (p *past) pastRuns(ctx context.Context, after string) (runs []pastRun, next string, err error) {
	for r, err := range p.ledger.Store.List(ctx, store.Query{Prefix: record.RunsOf(p.key), After: after}) {
		if err != nil {
			return nil, "", err
		}
		number, id, err := record.ParseRunIndexKey(r.Key)
		if err != nil {
			return nil, "", err
		}
		tooMany := p.keep.Runs > 0 && (number > 0 && number <= p.last || number == 0 && r.Key <= p.lastOld)
		rec, rev, err := Load[record.Run](ctx, p.ledger, record.RunKey(id))
		switch {
		case errors.Is(err, store.ErrNotFound):
			// A process ended while it removed this run.
			if err := p.removeRest(ctx, id, r.Key); err != nil {
				return nil, "", fmt.Errorf("run %s: %w", id, err)
			}
			continue
		case errors.Is(err, store.ErrCorrupt):
			if p.damage == nil {
				p.damage = err
			}
			continue
		case err != nil:
			return nil, "", err
		case !rec.State.Final() && tooMany:
			continue
		case !rec.State.Final():
			return runs, "", nil // those behind it have not ended either, unless they were canceled before they began
		}
		if due := rec.Ended.Add(p.Linger).Add(1); p.Linger > 0 && p.now < due && (tooMany || p.keep.Age > 0) {
			if p.Next == 0 || due < p.Next {
				p.Next = due
			}
			continue
		}
		if !tooMany {
			if p.keep.Age == 0 {
				return runs, "", nil
			}
			if due := rec.Ended.Add(p.keep.Age).Add(1); p.now < due {
				if p.Next == 0 || due < p.Next {
					p.Next = due
				}
				return runs, "", nil
			}
		}
		if runs = append(runs, pastRun{id, r, rec, rev}); len(runs) == p.maxPastRuns() {
			return runs, r.Key, nil
		}
	}
	return runs, "", nil
}

// readWhatIsNeeded reads which runs are kept although the limits do not cover them. It is called after these runs were
// read: a run that is held later is not removed; see [Ledger.Hold].
func (p *past) readWhatIsNeeded(ctx context.Context) error {
	head, _, err := p.ledger.Resource(ctx, p.key)
	if err != nil {
		return err
	}
	p.newest, p.begun, p.repeated = "", "", ""
	if head == nil {
		return nil
	}
	p.newest = head.Status.Run
	unbegun := "" // the index key of the first run that cannot have ended
	for _, id := range []string{head.Pending, head.Active} {
		if id == "" {
			continue
		}
		rec, _, err := Load[record.Run](ctx, p.ledger, record.RunKey(id))
		if errors.Is(err, store.ErrNotFound) {
			continue
		}
		if err != nil {
			return err
		}
		if !rec.State.Final() && rec.Of != "" {
			p.repeated = rec.Of
		}
		unbegun = record.RunIndexKey(p.key, rec.Number, id)
	}
	before := store.Query{Prefix: record.RunsOf(p.key), After: unbegun, Reverse: true}
	for r, err := range p.ledger.Store.List(ctx, before) {
		if err != nil {
			return err
		}
		_, id, err := record.ParseRunIndexKey(r.Key)
		if err != nil {
			return err
		}
		rec, _, err := Load[record.Run](ctx, p.ledger, record.RunKey(id))
		switch {
		case errors.Is(err, store.ErrNotFound), errors.Is(err, store.ErrCorrupt):
		case err != nil:
			return err
		case rec.ResourceID != head.ID:
			return nil // of a resource that had the name before
		case rec.State.Final() && rec.Started != 0 && rec.Cause != record.Deleted:
			if worked, err := p.worked(ctx, id, rec); err != nil {
				return err
			} else if worked {
				p.begun = id
				return nil
			}
		}
	}
	return nil
}

// worked reports whether a run that has begun has had steps, besides the one that plans the others. It returns true too if
// the steps cannot be read because the record of them is damaged.
func (p *past) worked(ctx context.Context, id string, rec *record.Run) (bool, error) {
	if rec.Hash != "" {
		return true, nil // a definition has steps
	}
	pinned, err := p.ledger.Plan(ctx, id, rec)
	if errors.Is(err, store.ErrCorrupt) {
		return true, nil
	}
	return err == nil && pinned.HasWork(), err
}

// removeRun removes an ended run, in one commit if its records are few. Otherwise the record of the run goes first, in a
// commit of its own. After a crash the rest is found through the index of the resource; see removeRest.
func (p *past) removeRun(ctx context.Context, r pastRun) error {
	ops := []store.Op{store.Delete(record.RunKey(r.id)).If(r.rev), store.Delete(r.index.Key).If(r.index.Revision)}
	if r.rec.Hash == "" {
		ops = append(ops, store.Delete(record.PlanKey(r.id)))
	}
	for _, prefix := range belongings(r.id) {
		for found, err := range p.ledger.Store.List(ctx, store.Query{Prefix: prefix}) {
			if err != nil {
				return err
			}
			if len(ops) == p.ledger.Batch {
				return p.removeLargeRun(ctx, r)
			}
			ops = append(ops, store.Delete(found.Key))
		}
	}
	return p.add(ctx, p.key, Removed{Runs: 1}, ops...)
}

func (p *past) removeLargeRun(ctx context.Context, r pastRun) error {
	if err := p.commit(ctx); err != nil { // the older runs first
		return err
	}
	if err := p.add(ctx, p.key, Removed{Runs: 1}, store.Delete(record.RunKey(r.id)).If(r.rev), store.Delete(record.PlanKey(r.id)),
		store.Check(r.index.Key, r.index.Revision)); err != nil {
		return err
	}
	before := p.Removed.Runs
	if err := p.commit(ctx); err != nil || p.Removed.Runs == before {
		return err
	}
	return p.removeRest(ctx, r.id, r.index.Key)
}

// removeRest removes what is left of a run that has no record any more. The entry in the index of the resource goes last.
// A crash before that leaves the entry, and the next look at the resource removes the rest.
func (p *past) removeRest(ctx context.Context, id, index string) error {
	if err := p.ledger.RemoveAll(ctx, belongings(id)...); err != nil {
		return err
	}
	_, err := p.ledger.Commit(ctx, []store.Op{store.Delete(record.PlanKey(id)), store.Delete(index)})
	return err
}

// belongings returns the prefixes of the records that go with a run.
func belongings(run string) []string {
	return append(Leftovers(run), record.StepsOf(run), record.AttemptsOf(run), record.LogsOf(run))
}

// pruneRevisions removes the generations that the limit does not cover, the oldest first.
func (p *past) pruneRevisions(ctx context.Context) error {
	if p.head == nil || p.keep.Revisions == 0 {
		return nil
	}
	last := p.head.Generation - int64(p.keep.Revisions)
	var needed []int64
	prefix := record.RevisionsOf(p.key)
	for r, err := range p.ledger.Store.List(ctx, store.Query{Prefix: prefix}) {
		if err != nil {
			return err
		}
		generation, ok := record.ParseNumber(r.Key[len(prefix):])
		if !ok {
			return record.BadKey(r.Key)
		}
		if generation > last {
			return nil
		}
		if needed == nil {
			if needed, last, err = p.neededGenerations(ctx, last); err != nil {
				return err
			}
			if generation > last {
				return nil
			}
		}
		if slices.Contains(needed, generation) {
			continue
		}
		if err := p.add(ctx, p.key, Removed{Revisions: 1}, store.Delete(r.Key)); err != nil {
			return err
		}
	}
	return nil
}

// neededGenerations returns the generations that unfinished runs have pinned or are to pin, and the last generation that
// can be removed if these are not. The generations of the runs that are pending behind another one are not listed: last
// comes before all of them.
//
// A run that begins meanwhile pins a generation that is listed, or that is not older than the newest one was when the
// resource was read first.
func (p *past) neededGenerations(ctx context.Context, last int64) (needed []int64, _ int64, err error) {
	needed = []int64{p.head.FixedGeneration}
	if p.head.Queued > 0 {
		next, _, err := p.ledger.NextPending(ctx, p.key)
		switch {
		case err == nil:
			last = min(last, next.Generation-1)
		case !errors.Is(err, store.ErrCorrupt): // there is none any more
			return nil, 0, err
		}
	}
	head, _, err := p.ledger.Resource(ctx, p.key)
	if err != nil {
		return nil, 0, err
	}
	if head == nil || head.ID != p.head.ID {
		return needed, 0, nil // the removal of the resource has removed its generations
	}
	needed = append(needed, head.FixedGeneration)
	if head.Active != "" {
		rec, _, err := Load[record.Run](ctx, p.ledger, record.RunKey(head.Active))
		switch {
		case err == nil:
			needed = append(needed, rec.Generation)
		case !errors.Is(err, store.ErrNotFound):
			return nil, 0, err
		}
	}
	return needed, last, nil
}

// PruneDefinitions removes the definitions that are no longer the present one of a pipeline, and that no run on record has
// pinned. A definition that [Ledger.Pipeline] has returned stays, because a run that is about to begin may pin it: the next
// process removes it.
func (p *Pruner) PruneDefinitions(ctx context.Context) error {
	unused, err := p.formerDefinitions(ctx)
	if err != nil || len(unused) == 0 {
		return err
	}
	for r, err := range p.ledger.Store.List(ctx, store.Query{Prefix: record.RunPrefix}) {
		if err != nil {
			return err
		}
		rec := new(record.Run)
		if err := record.Decode(r, rec); err != nil {
			return err // the run may have pinned any of them
		}
		delete(unused, record.DefinitionKey(rec.Pipeline, rec.Hash))
		if rec.Of != "" && !rec.State.Final() { // it is to pin what its original has pinned
			of, _, err := Load[record.Run](ctx, p.ledger, record.RunKey(rec.Of))
			switch {
			case err == nil:
				delete(unused, record.DefinitionKey(of.Pipeline, of.Hash))
			case !errors.Is(err, store.ErrNotFound):
				return err
			}
		}
		if len(unused) == 0 {
			return nil
		}
	}
	for key, rev := range unused {
		switch _, err := p.ledger.Commit(ctx, []store.Op{store.Delete(key).If(rev)}); {
		case err == nil:
			p.Removed.Definitions++
		case !errors.Is(err, store.ErrConflict): // it was saved again
			return err
		}
	}
	return nil
}

// formerDefinitions returns the keys and the revisions of the definitions that no pipeline has now, and that a run which is
// about to begin cannot pin.
func (p *Pruner) formerDefinitions(ctx context.Context) (map[string]store.Revision, error) {
	former := map[string]store.Revision{}
	name, present := "", ""
	for r, err := range p.ledger.Store.List(ctx, store.Query{Prefix: record.DefinitionPrefix}) {
		if err != nil {
			return nil, err
		}
		of, hash, _ := strings.Cut(r.Key[len(record.DefinitionPrefix):], "/")
		if of != name {
			name, present = of, ""
			rec, _, err := Load[record.Pipeline](ctx, p.ledger, record.PipelineKey(name))
			switch {
			case err == nil:
				present = rec.Hash
			case !errors.Is(err, store.ErrNotFound):
				return nil, err
			}
		}
		if hash != present && !p.ledger.hasReturned(r.Key) {
			former[r.Key] = r.Revision
		}
	}
	return former, nil
}

// Leftovers returns the prefixes of the records that end with a run: its checkpoints, and the signals that no step took.
func Leftovers(run string) []string {
	return []string{record.CheckpointPrefix + run + "/", record.SignalPrefix + run + "/"}
}

// RemoveLeftovers removes the leftovers of all runs that have ended. It reads one record of each run that has any.
func (l *Ledger) RemoveLeftovers(ctx context.Context) error {
	for _, prefix := range []string{record.CheckpointPrefix, record.SignalPrefix} {
		for after := ""; ; {
			run := ""
			for r, err := range l.Store.List(ctx, store.Query{Prefix: prefix, After: after, Limit: 1}) {
				if err != nil {
					return err
				}
				run, _, _ = strings.Cut(r.Key[len(prefix):], "/")
			}
			if run == "" {
				break
			}
			rec, _, err := Load[record.Run](ctx, l, record.RunKey(run))
			switch {
			case err == nil && rec.State.Final(), errors.Is(err, store.ErrNotFound):
				if err := l.RemoveAll(ctx, Leftovers(run)...); err != nil {
					return err
				}
			case err != nil && !errors.Is(err, store.ErrCorrupt):
				return err
			}
			after = prefix + run + "0" // the first key after those of the run
		}
	}
	return nil
}

// RemoveAll removes every record whose key has one of the prefixes, in commits of at most [Ledger].Batch records. A crash
// in between leaves the remaining records.
func (l *Ledger) RemoveAll(ctx context.Context, prefixes ...string) error {
	for len(prefixes) > 0 {
		var ops []store.Op
		for r, err := range l.Store.List(ctx, store.Query{Prefix: prefixes[0], Limit: l.Batch}) {
			if err != nil {
				return err
			}
			ops = append(ops, store.Delete(r.Key))
		}
		if len(ops) > 0 {
			if _, err := l.Commit(ctx, ops); err != nil {
				return err
			}
		}
		if len(ops) < l.Batch {
			prefixes = prefixes[1:]
		}
	}
	return nil
}
