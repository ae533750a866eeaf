package fault

import (
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// circle wraps itself.
type circle struct{}

func (c *circle) Error() string { return "circle" }
func (c *circle) Unwrap() error { return c }

// bush wraps itself twice.
type bush struct{ also error }

func (b *bush) Error() string   { return "bush" }
func (b *bush) Unwrap() []error { return []error{b, b, b.also} }

// chameleon is another error, by its methods.
type chameleon struct{ as *leaf }

func (c chameleon) Error() string        { return "chameleon" }
func (c chameleon) Is(target error) bool { return target == NotFound }
func (c chameleon) As(into any) bool {
	to, ok := into.(**leaf)
	if ok {
		*to = c.as
	}
	return ok
}

type leaf struct{ n int }

func (l *leaf) Error() string { return fmt.Sprint("leaf ", l.n) }

func TestSearchEndsForErrorsThatWrapThemselves(t *testing.T) {
	for _, c := range []struct {
		name string
		err  error
	}{
		{"a circle", &circle{}},
		{"many circles", &bush{}},
		{"a circle in a list", errors.Join(errors.New("first"), &circle{})},
	} {
		t.Run(c.name, func(t *testing.T) {
			require.False(t, Is(c.err, NotFound))
			_, ok := As[*leaf](c.err)
			require.False(t, ok)
			kind, others := KindsOf(c.err, false)
			require.Equal(t, KindPlain, kind)
			require.Empty(t, others)
		})
	}
	require.True(t, Is(errors.Join(NotFound, &circle{}), NotFound), "what comes before a circle is found")
}

func TestSearchGivesUpAfterManyErrors(t *testing.T) {
	err := error(NotFound)
	for range maxWrapped - 1 {
		err = fmt.Errorf("%w", err)
	}
	require.True(t, Is(err, NotFound))
	require.False(t, Is(fmt.Errorf("%w", err), NotFound))
}

func TestSearchAsksTheMethodsOfAnError(t *testing.T) {
	want := &leaf{7}
	err := fmt.Errorf("outer: %w", chameleon{want})
	require.True(t, Is(err, NotFound))
	require.False(t, Is(err, Invalid))
	got, ok := As[*leaf](err)
	require.True(t, ok)
	require.Same(t, want, got)
	require.False(t, Is(nil, NotFound))
}

func TestSearchFindsWhatPackageErrorsFinds(t *testing.T) {
	var tree func(depth int) *rapid.Generator[error]
	tree = func(depth int) *rapid.Generator[error] {
		return rapid.Custom(func(t *rapid.T) error {
			kind := rapid.IntRange(0, 5).Draw(t, "kind")
			if depth == 0 {
				kind %= 4
			}
			switch kind {
			case 0:
				return errors.New("plain")
			case 1:
				return rapid.SampledFrom([]error{NotFound, Invalid, TooLarge}).Draw(t, "sentinel")
			case 2:
				return &leaf{rapid.IntRange(0, 9).Draw(t, "n")}
			case 3:
				return chameleon{&leaf{10}}
			case 4:
				return fmt.Errorf("wrapped: %w", tree(depth-1).Draw(t, "inner"))
			default:
				return errors.Join(tree(depth-1).Draw(t, "left"), nil, tree(depth-1).Draw(t, "right"))
			}
		})
	}
	rapid.Check(t, func(t *rapid.T) {
		err := tree(4).Draw(t, "error")
		for _, target := range []error{NotFound, Invalid, TooLarge, Closed} {
			require.Equal(t, errors.Is(err, target), Is(err, target))
		}
		var want *leaf
		wanted := errors.As(err, &want)
		got, ok := As[*leaf](err)
		require.Equal(t, wanted, ok)
		require.Equal(t, want, got)
	})
}
