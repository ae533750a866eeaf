package text

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// evil panics when it is shown, and what it panics with panics too.
type evil struct{}

func (evil) String() string { panic(evil{}) }

type evilError struct{}

func (*evilError) Error() string { panic(&evilError{}) }

type evilFormat struct{}

func (evilFormat) Format(fmt.State, rune) { panic(evilFormat{}) }

type list struct{ next *list }

func TestOf(t *testing.T) {
	inMap := map[string]any{"name": 1}
	inMap["self"] = inMap
	inSlice := []any{nil}
	inSlice[0] = inSlice
	circle := &list{}
	circle.next = circle
	inPointer := new(any)
	*inPointer = inPointer
	deep := any(1)
	for range 2000 {
		deep = []any{deep}
	}
	for _, c := range []struct {
		name  string
		value any
		want  string
	}{
		{"nothing", nil, "<nil>"},
		{"a text", "boom", "boom"},
		{"a long text", strings.Repeat("x", 1<<20), strings.Repeat("x", 1<<20)},
		{"an error", errors.New("boom"), "boom"},
		{"a small struct", struct{ A, B any }{1, "x"}, "{1 x}"},
		{"a pointer to a struct", &struct{ A int }{1}, "&{1}"},
		{"a nil pointer", (*list)(nil), "<nil>"},
		{"an error that panics on nil", (*evilError)(nil), "<nil>"},
		{"a stringer that panics", evil{}, "a text.evil that cannot be shown"},
		{"an error that panics", &evilError{}, "a *text.evilError that cannot be shown"},
		{"a formatter that panics", evilFormat{}, "a text.evilFormat that cannot be shown"},
		{"a stringer inside that panics", []any{evil{}}, "a []interface {} that cannot be shown"},
		{"a map that contains itself", inMap, "a map[string]interface {}"},
		{"a slice that contains itself", inSlice, "a []interface {}"},
		{"a slice with a thousand elements", make([]int, 1000), "a []int"},
		{"an array with a million elements", [1 << 20]byte{}, "a [1048576]uint8"},
		{"a pointer to many elements", &[]int{1000: 1}, "a *[]int"},
		{"deep nesting", deep, "a []interface {}"},
	} {
		t.Run(c.name, func(t *testing.T) { require.Equal(t, c.want, Of(c.value)) })
	}
	require.Contains(t, Of(circle), "&{0x", "package fmt shows the address of an inner pointer")
	require.NotEmpty(t, Of(inPointer))
}

func TestTypeOf(t *testing.T) {
	require.Equal(t, "string", TypeOf("a secret"))
	require.Equal(t, "text.evil", TypeOf(evil{}))
	require.Equal(t, "<nil>", TypeOf(nil))
}
