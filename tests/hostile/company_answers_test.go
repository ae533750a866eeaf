package hostile_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"strings"
	"time"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/internal/rig"
)

// odd is an error, and a value to panic with, each of whose methods does what it is told.
type odd struct {
	text   func() string
	is     func(error) bool
	as     func(any) bool
	unwrap func() error
}

func (o *odd) Error() string     { return o.text() }
func (o *odd) Is(err error) bool { return o.is != nil && o.is(err) }
func (o *odd) As(into any) bool  { return o.as != nil && o.as(into) }
func (o *odd) Unwrap() error {
	if o.unwrap == nil {
		return nil
	}
	return o.unwrap()
}

func plainly() string { return "odd" }

// oddText is a value with a text.
type oddText func() string

func (s oddText) String() string { return s() }

// forks is an error that wraps itself twice.
type forks struct{}

func (forks) Error() string   { return "forks" }
func (forks) Unwrap() []error { return []error{forks{}, forks{}} }

// listError cannot be compared with anything of its type.
type listError []error

func (l listError) Error() string { return fmt.Sprint(len(l), " errors") }

// again panics with itself when it is shown.
type again struct{}

func (again) Error() string { panic(again{}) }

func nested(depth int) (v any) {
	for range depth {
		v = []any{v}
	}
	return v
}

func wrapped(err error, depth int) error {
	for range depth {
		err = fmt.Errorf("%w", err)
	}
	return err
}

// panickers panic, or end their goroutine.
func panickers() []hostile {
	goexit := "driver panicked: runtime.Goexit was called"
	return []hostile{
		panicking("panics", func(*company) any { return "ouch" }, fails("driver panicked: ouch")),
		panicking("panics with nil", func(*company) any { return nil }, fails("panic called with nil")),
		panicking("panics with a struct", func(*company) any { return struct{ Code int }{7} }, fails("driver panicked: {7}")),
		panicking("panics with a value whose String panics", func(*company) any { return oddText(func() string { panic("no") }) }, fails("driver panicked")),
		panicking("panics with an error whose Error panics", func(*company) any { return &odd{text: func() string { panic("no") }} }, fails("driver panicked")),
		panicking("panics with an error that panics with itself", func(*company) any { return again{} }, fails("again that cannot be shown")),
		panicking("panics with a text of 8 MiB", func(*company) any { return strings.Repeat("x", 8<<20) }, fails("xxx … [cut]")),
		panicking("panics with a value whose text has 8 MiB", func(*company) any {
			return oddText(func() string { return strings.Repeat("x", 8<<20) })
		}, fails("xxx … [cut]")),
		panicking("panics with a list that holds itself", func(*company) any {
			list := make([]any, 1)
			list[0] = list
			return list
		}, fails("a []interface {}")),
		panicking("panics with a map that holds itself", func(*company) any {
			m := map[string]any{}
			m["m"] = m
			return m
		}, fails("a map[string]interface {}")),
		panicking("panics with a pointer to a list that holds itself", func(*company) any {
			list := make([]any, 1)
			list[0] = list
			return &list
		}, fails("a *[]interface {}")),
		panicking("panics with 100,000 lists in one another", func(*company) any { return nested(100_000) }, fails("a []interface {}")),
		panicking("panics with a value whose String ends the goroutine", func(*company) any {
			return oddText(func() string { runtime.Goexit(); return "" })
		}, fails(goexit)),
		panicking("panics with a value whose String never returns", func(c *company) any {
			return oddText(func() string { c.stuck(); return "" })
		}, comesAgainAndFails),
		{"panics while it panics", func(*company, context.Context, *conveyor.Request) (conveyor.Result, error) {
			defer func() { panic("second") }()
			panic("first")
		}, fails("second")},
		{"ends its goroutine", func(*company, context.Context, *conveyor.Request) (conveyor.Result, error) {
			runtime.Goexit()
			return conveyor.Done(), nil
		}, fails(goexit)},
		{"ends its goroutine while it panics", func(*company, context.Context, *conveyor.Request) (conveyor.Result, error) {
			defer runtime.Goexit()
			panic("first")
		}, fails(goexit)},
		{"ends its goroutine in what it deferred", func(*company, context.Context, *conveyor.Request) (conveyor.Result, error) {
			defer runtime.Goexit()
			return conveyor.DoneWith("never mind"), nil
		}, fails(goexit)},
		{"panics a thousand calls deep", func(*company, context.Context, *conveyor.Request) (conveyor.Result, error) {
			return rig.DeepPanic(1000)
		}, fails("driver panicked: deep")},
	}
}

// comesAgainAndFails is a call that hangs in its answer, which is a failure the second time.
var comesAgainAndFails = expectation{
	meanwhile: conveyor.StateRetrying, finally: conveyor.StateFailed, attempt: hostileTries, text: "the driver did not return",
}

// changing gives one text after the other, and then panics.
func changing(answers ...string) func() string {
	n := -1
	return func() string {
		if n++; n < len(answers) {
			return answers[n]
		}
		panic("asked too often")
	}
}

// encodes does something when it is encoded.
type encodes func() ([]byte, error)

func (f encodes) MarshalJSON() ([]byte, error) { return f() }

type encodesText func() ([]byte, error)

func (f encodesText) MarshalText() ([]byte, error) { return f() }

// ring is a value that leads to itself.
type ring struct {
	Next *ring `json:"next"`
}

// liars return what cannot be used.
func liars() []hostile {
	output := func(name string, v func(c *company) any, x expectation) hostile {
		return answering("returns an output "+name, func(c *company) (conveyor.Result, error) { return conveyor.DoneWith(v(c)), nil }, x)
	}
	oops := func(o *odd) func(*company) error { return func(*company) error { return o } }
	result := func(name string, r func() conveyor.Result, x expectation) hostile {
		return answering(name, func(*company) (conveyor.Result, error) { return r(), nil }, x)
	}
	failing := func(name string, err func() error, x expectation) hostile {
		return returning(name, func(*company) error { return err() }, x)
	}
	return []hostile{
		output("of 8 MiB", func(*company) any { return strings.Repeat("x", 8<<20) }, failsForGood("more than the limit")),
		output("that leads to itself", func(*company) any {
			r := new(ring)
			r.Next = r
			return r
		}, failsForGood("conveyor: invalid: output of type *hostile_test.ring")),
		output("that is too deep", func(*company) any { return nested(500) }, failsForGood("conveyor: too large")),
		output("that is no number", func(*company) any { return math.Inf(1) }, failsForGood("conveyor: invalid")),
		output("that is a function", func(*company) any { return func() {} }, failsForGood("conveyor: invalid")),
		output("that is not the JSON it says", func(*company) any {
			return encodes(func() ([]byte, error) { return []byte(`{"a":`), nil })
		}, failsForGood("conveyor: invalid")),
		output("that panics", func(*company) any { return encodes(func() ([]byte, error) { panic("no JSON today") }) }, fails("no JSON today")),
		output("whose key panics", func(*company) any {
			return map[any]int{}
		}, failsForGood("conveyor: invalid")),
		output("whose text panics", func(*company) any { return encodesText(func() ([]byte, error) { panic("no text today") }) }, fails("no text today")),
		output("that ends the goroutine", func(*company) any {
			return encodes(func() ([]byte, error) { runtime.Goexit(); return nil, nil })
		}, fails("Goexit")),
		output("that is never encoded", func(c *company) any {
			return encodes(func() ([]byte, error) { c.stuck(); return []byte("1"), nil })
		}, comesAgain),
		output("whose error panics", func(*company) any {
			return encodes(func() ([]byte, error) { return nil, &odd{text: func() string { panic("no error today") }} })
		}, failsForGood("")),

		returning("returns an error whose Error panics", oops(&odd{text: func() string { panic("no error today") }}), fails("driver panicked: no error today")),
		returning("returns an error whose Error works once", func(*company) error { return &odd{text: changing("the first")} }, fails("the first")),
		returning("returns an error whose Error changes", func(*company) error { return &odd{text: changing("the first", "the second")} }, fails("the first")),
		returning("returns an error whose Error never returns", func(c *company) error {
			return &odd{text: func() string { c.stuck(); return "at last" }}
		}, comesAgainAndFails),
		returning("returns an error whose Error ends the goroutine", func(*company) error {
			return &odd{text: func() string { runtime.Goexit(); return "" }}
		}, fails("Goexit")),
		failing("returns an error of 8 MiB", func() error { return errors.New(strings.Repeat("é", 4<<20)) }, fails("é … [cut]")),
		failing("returns an error with zero bytes and no UTF-8", func() error { return errors.New("a\x00b\xff\xfe\xc3(") }, fails("a\x00b")),
		returning("returns an error that wraps itself", func(*company) error {
			o := &odd{text: plainly}
			o.unwrap = func() error { return o }
			return o
		}, fails("odd")),
		failing("returns an error that wraps itself twice", func() error { return forks{} }, fails("forks")),
		returning("returns an error whose Unwrap panics", oops(&odd{text: plainly, unwrap: func() error { panic("shut tight") }}), fails("shut tight")),
		returning("returns an error whose Is panics", oops(&odd{text: plainly, is: func(error) bool { panic("not my type") }}), fails("not my type")),
		returning("returns an error whose Is says yes to all", oops(&odd{text: plainly, is: func(error) bool { return true }}), fails("odd")),
		returning("returns an error whose As panics", oops(&odd{text: plainly, as: func(any) bool { panic("not that") }}), fails("not that")),
		returning("returns an error whose As says yes and gives nothing", oops(&odd{text: plainly, as: func(any) bool { return true }}), fails("nil pointer")),
		failing("returns an error that cannot be compared", func() error { return listError{rig.ErrBoom} }, fails("1 errors")),
		failing("returns an error that is wrapped 10,000 times", func() error { return wrapped(rig.ErrBoom, 10_000) }, fails("boom")),
		failing("returns a nil pointer for an error", func() error { return (*odd)(nil) }, fails("nil pointer")),
		failing("says that nothing is permanent", func() error { return conveyor.Permanent(nil) }, endsWell),
		failing("wants to be called again after less than nothing", func() error { return conveyor.RetryAfter(math.MinInt64, rig.ErrBoom) }, fails("boom")),
		failing("wants to be called again in three centuries", func() error { return conveyor.RetryAfter(math.MaxInt64, rig.ErrBoom) }, waits(conveyor.StateRetrying)),
		failing("wants both at once", func() error {
			return conveyor.RetryAfter(math.MaxInt64, conveyor.Permanent(conveyor.RetryAfter(-1, rig.ErrBoom)))
		}, waits(conveyor.StateRetrying)),

		result("requeues for three centuries", func() conveyor.Result { return conveyor.RequeueAfter(math.MaxInt64) }, waits(conveyor.StateWaiting)),
		result("awaits a signal for three centuries", func() conveyor.Result { return conveyor.Await("go", math.MaxInt64) }, waits(conveyor.StateWaiting)),
		result("awaits a signal that nobody sends", func() conveyor.Result { return conveyor.Await("go", math.MinInt64) }, waits(conveyor.StateWaiting)),
		result("awaits a signal without a name", func() conveyor.Result { return conveyor.Await("", time.Second) }, failsForGood("signal")),
		result("awaits a signal with a name of 8 MiB", func() conveyor.Result { return conveyor.Await(strings.Repeat("n", 8<<20), time.Second) }, failsForGood("signal")),
		result("awaits a signal with the name of a path", func() conveyor.Result { return conveyor.Await("../../etc", time.Second) }, failsForGood("signal")),
		result("skips for a reason of 8 MiB", func() conveyor.Result { return conveyor.Skip(strings.Repeat("r", 8<<20)) }, endsWell),
		result("halts for a reason that is no text", func() conveyor.Result { return conveyor.Halt("\xff\x00") }, endsWell),
	}
}
