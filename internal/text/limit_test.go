package text

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestMoreThanNamesTheLimit(t *testing.T) {
	require.Equal(t, "more than the limit of 10 (Limits.Spec)", MoreThan(10, "Limits.Spec"))
	require.Equal(t, "more than the limit of 253 (a fixed limit)", MoreThan(253, FixedLimit))
}
