package conveyor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"time"

	"github.com/conveyor-go/conveyor/internal/clock"
	"github.com/conveyor-go/conveyor/internal/fault"
	"github.com/conveyor-go/conveyor/internal/handover"
	"github.com/conveyor-go/conveyor/internal/ids"
	"github.com/conveyor-go/conveyor/internal/ledger"
	"github.com/conveyor-go/conveyor/internal/record"
	"github.com/conveyor-go/conveyor/internal/shortlived"
	"github.com/conveyor-go/conveyor/internal/text"
	"github.com/conveyor-go/conveyor/store"
)

// LetterOptions are what [NewLetter] can be told besides the resource. The zero value works.
type LetterOptions struct {
	// ID names the letter. A letter with the ID of an earlier one that is still on record does nothing, so that a program can write the
	// same letter again. Empty means a new ID. An ID is a name like that of a resource.
	ID string
	// Carried is what the run carries (see [Options].Carry).
	Carried map[string]string
	// Limits are those of the engines, so that a resource is refused at once that they would not accept. The zero value means the
	// defaults.
	Limits Limits
}

// NewLetter returns a letter: the write that asks the engines on a shared store to apply a resource. Whoever commits the write needs no
// engine, and can do so together with writes of its own, in a transaction of the program's database if the store is kept there. An
// engine with [Options].Letters applies the letter afterwards, once, as [Engine.Apply] would do: a letter for a resource whose spec has not
// changed makes no run. [Engine.Letter] tells what has become of it.
//
// Of several letters for one resource that are there at the same time, the oldest is applied first. Otherwise letters have no order; set
// [Meta].Version to have a letter refused that is out of date. The actor of ctx (see [As]) is that of the run.
//
// NewLetter returns an [ErrInvalid] or [ErrTooLarge] that names the field and the limit.
func NewLetter(ctx context.Context, r Resource, opts LetterOptions) (id string, put store.Op, err error) {
	var f fault.Fields
	opts.Limits.validate(&f)
	if opts.ID != "" {
		f.Name("ID", opts.ID)
	}
	limits := opts.Limits.withDefaults(store.Limits{})
	checkCarried(&f, "Carried", opts.Carried, limits)
	if err := fieldErrors(f.List()); err != nil {
		return "", store.Op{}, err
	}
	o, err := objectOf(r, limits)
	if err != nil {
		return "", store.Op{}, err
	}
	by, err := actorOf(ctx)
	if err != nil {
		return "", store.Op{}, err
	}
	now := clock.Now()
	if id = opts.ID; id == "" {
		id = new(ids.IDs).Next(now)
	}
	letter := &record.Letter{
		Type: o.Type, Name: o.Name, Pipeline: o.Pipeline, Metadata: toMetadata(&o.Meta), Version: o.Version, Spec: o.Spec, Created: record.TimeOf(now),
		Origin: record.Origin{By: by, Carried: maps.Clone(opts.Carried)},
	}
	return id, store.Put(shortlived.Key(record.LetterKey(id)), record.Encode(letter)).IfAbsent(), nil
}

// Letter is what is known of a letter; see [NewLetter].
type Letter struct {
	ID         string
	Resource   Key
	By         string    // the actor; see [As]
	CreatedAt  time.Time // when NewLetter was called
	AnsweredAt time.Time // zero while the letter waits
	Run        string    // the run that reconciles the resource, which may be an older one; empty while the letter waits and if it was refused
	Err        error     // why the letter was refused, rebuilt from what is on record like the Err of a [StepError]; nil if it was not
}

// Letter returns what has become of a letter. It is kept as long as the run that it has led to; a letter that was refused is kept as
// long as [Retention].Age says. Letter returns an [ErrNotFound] if there is no such letter, the cause of ctx, or an error of the store.
func (e *Engine) Letter(ctx context.Context, id string) (*Letter, error) {
	if text.NameFault(id) == "" {
		rec, _, err := ledger.Load[record.Letter](ctx, e.ledger, record.LetterKey(id))
		if err == nil {
			return waitingLetter(id, rec), nil
		}
		if !errors.Is(err, store.ErrNotFound) {
			return nil, err
		}
		answer, _, err := ledger.Load[record.Answered](ctx, e.ledger, record.AnsweredKey(id))
		if err == nil {
			return answeredLetter(id, answer), nil
		}
		if !errors.Is(err, store.ErrNotFound) {
			return nil, err
		}
	}
	return nil, fmt.Errorf("%w: letter %s", ErrNotFound, text.Quote(id))
}

// Letters yields all letters on record: those that wait, and then those that were applied or refused, each in the order of the ids. It
// ends at the first error.
func (e *Engine) Letters(ctx context.Context) iter.Seq2[*Letter, error] {
	return func(yield func(*Letter, error) bool) {
		_ = eachLetter(ctx, e.ledger, record.LetterPrefix, waitingLetter, yield) && eachLetter(ctx, e.ledger, record.AnsweredPrefix, answeredLetter, yield)
	}
}

// eachLetter yields the letters whose records, of type T, have keys with a prefix. It reports whether the caller wants more.
func eachLetter[T any](ctx context.Context, l *ledger.Ledger, prefix string, of func(id string, rec *T) *Letter, yield func(*Letter, error) bool) bool {
	for r, err := range l.Store.List(ctx, store.Query{Prefix: prefix}) {
		rec := new(T)
		if err == nil {
			err = record.Decode(r, rec)
		}
		if err != nil {
			yield(nil, err)
			return false
		}
		if !yield(of(r.Key[len(prefix):], rec), nil) {
			return false
		}
	}
	return true
}

func waitingLetter(id string, rec *record.Letter) *Letter {
	return &Letter{ID: id, Resource: Key(rec.Key()), By: rec.By, CreatedAt: rec.Created.Time()}
}

func answeredLetter(id string, rec *record.Answered) *Letter {
	l := &Letter{
		ID: id, Resource: Key{Type: rec.Type, Name: rec.Name}, By: rec.By, CreatedAt: rec.Created.Time(), AnsweredAt: rec.At.Time(), Run: rec.Run,
	}
	if rec.Error != "" {
		l.Err = &recordedError{text: rec.Error, is: fault.Sentinels(rec.Kind, rec.AlsoKinds)}
	}
	return l
}

// postbox applies the letters on a shared store.
type postbox struct {
	engine *Engine
	mail   chan struct{} // anybody sends, work receives; size 1
}

// look has the letters looked at.
func (b *postbox) look() { nudge(b.mail) }

// work applies the letters that fall to this engine, until the scheduler has stopped.
func (b *postbox) work() {
	s := b.engine.sched
	f := s.fleet
	box := handover.Postbox{Ledger: s.ledger, Mine: b.mine, Patience: s.opts.Lease / 3, Apply: b.apply}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-f.ctx.Done():
			return
		case <-b.mail:
		case <-timer.C:
		}
		pause := s.opts.Lease / 3
		if f.deaf.Load() > 0 {
			pause = s.opts.Poll
		}
		if f.works() && !s.draining() {
			next, err := box.Look(f.ctx)
			switch {
			case err != nil:
				if f.ctx.Err() == nil && !s.draining() {
					s.log.Warn("store failed; trying again", "work", "apply letters", "error", err, "after", s.opts.Poll)
				}
				pause = s.opts.Poll
			case !next.IsZero():
				pause = min(pause, max(time.Until(next), 0))
			}
		}
		timer.Reset(pause)
	}
}

// mine reports whether a letter for a resource falls to this engine, among the live ones that apply letters.
func (b *postbox) mine(k record.Key) bool {
	f := b.engine.sched.fleet
	p := f.seat.Load()
	if p == nil {
		return false
	}
	engines := []string{p.ID}
	for _, other := range f.peers() {
		if other.Heartbeat.Letters {
			engines = append(engines, other.ID)
		}
	}
	return handover.FallsTo(k.String(), engines) == p.ID
}

// errAnswered means that a letter is not there any more, or that there is an answer to a letter with its id.
var errAnswered = errors.New("conveyor: the letter was answered")

// apply applies a letter, or refuses it. It returns handover.ErrNotYet if it is to be tried again.
func (b *postbox) apply(ctx context.Context, l *handover.Letter) error {
	e := b.engine
	if l.Err != nil {
		return b.refuse(ctx, l, &record.Letter{Type: "unreadable", Name: "unreadable", Created: record.TimeOf(clock.Now())}, l.Err)
	}
	o := &Object{Meta: Meta{Name: l.Rec.Name, Type: l.Rec.Type, Pipeline: l.Rec.Pipeline, Version: l.Rec.Version}, Spec: l.Rec.Spec}
	o.Metadata, o.MetadataJSON = fromMetadata(l.Rec.Metadata)
	since := l.Rec.Created.Time() // by the clock of who has written it
	if l.Since.Before(since) {
		since = l.Since
	}
	young := clock.Now().Sub(since) < e.opts.LetterAge
	err := fieldErrors(o.validate(e.opts.Limits))
	if err == nil {
		err = b.accept(ctx, o)
	}
	switch {
	case err == nil:
	case young && passes(err):
		return handover.ErrNotYet
	default:
		return b.refuse(ctx, l, l.Rec, err)
	}
	deleting := false
	_, _, err = e.submit(ctx, keyOf(o), l.Rec.Origin, func(head *record.Resource) (*submission, error) {
		if err := b.unanswered(ctx, l); err != nil {
			return nil, err
		}
		deleting = head != nil && head.Deleted != 0
		want, err := e.change(ctx, o, head, false, l.Rec.By)
		if err == nil {
			want.answer = func(run string) []store.Op { return handover.Answer(l, answerOf(l.Rec, run, nil)) }
		}
		return want, err
	})
	field := new(FieldError)
	switch later := deleting || errors.Is(err, ErrNotFound) || errors.As(err, &field) && field.Field == "queue"; {
	case err == nil, errors.Is(err, errAnswered):
		return nil
	case errors.Is(err, ErrUnsupported):
		return handover.ErrNotYet // a newer program applies it
	case later && young:
		return handover.ErrNotYet
	case later, errors.Is(err, ErrConflict), errors.Is(err, ErrInvalid), errors.Is(err, ErrTooLarge), errors.Is(err, store.ErrCorrupt):
		return b.refuse(ctx, l, l.Rec, err)
	}
	return err
}

// accept asks [Options].Validate. A panic in it becomes its error, because nobody has called who could be told.
func (b *postbox) accept(ctx context.Context, o *Object) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("Validate panicked: %s", text.Plain(text.Truncate(text.Of(v), maxProblem)))
		}
	}()
	return b.engine.accept(ctx, o)
}

// passes reports whether another attempt can help against an error of [Options].Validate.
func passes(err error) bool {
	return slices.ContainsFunc([]error{context.Canceled, context.DeadlineExceeded, store.ErrUnavailable, store.ErrUnknown}, func(is error) bool { return fault.Is(err, is) })
}

// unanswered returns errAnswered if a letter is not there any more. If there is an answer to a letter with the same id, it also removes
// the letter.
func (b *postbox) unanswered(ctx context.Context, l *handover.Letter) error {
	stored := b.engine.ledger.Store
	switch r, err := stored.Get(ctx, record.LetterKey(l.ID)); {
	case errors.Is(err, store.ErrNotFound), err == nil && r.Revision != l.Rev:
		return errAnswered
	case err != nil:
		return err
	}
	if _, err := stored.Get(ctx, record.AnsweredKey(l.ID)); err != nil {
		if errors.Is(err, store.ErrNotFound) {
			return nil
		}
		return err
	}
	if _, err := b.engine.ledger.Commit(ctx, []store.Op{store.Delete(record.LetterKey(l.ID)).If(l.Rev)}); err != nil && !errors.Is(err, store.ErrConflict) {
		return err
	}
	return errAnswered
}

// refuse puts on record why a letter is not applied.
func (b *postbox) refuse(ctx context.Context, l *handover.Letter, rec *record.Letter, why error) error {
	err := b.unanswered(ctx, l)
	if err == nil {
		_, err = b.engine.ledger.Commit(ctx, handover.Answer(l, answerOf(rec, "", contained(why, nil, b.engine.opts.Limits))))
	}
	switch {
	case errors.Is(err, errAnswered), errors.Is(err, store.ErrConflict):
		return nil
	case err == nil:
		kind, _ := fault.KindsOf(why, false)
		b.engine.sched.log.Warn("letter is refused", "letter", l.ID, "resource", rec.Key().String(), "by", rec.By, "kind", string(kind))
	}
	return err
}

// answerOf returns the record of what has become of a letter.
func answerOf(rec *record.Letter, run string, why error) *record.Answered {
	a := &record.Answered{Type: rec.Type, Name: rec.Name, By: rec.By, Created: rec.Created, At: record.TimeOf(clock.Now()), Run: run}
	if why != nil {
		a.Error = cmp.Or(why.Error(), "refused")
		a.Kind, a.AlsoKinds = fault.KindsOf(why, false)
	}
	return a
}
