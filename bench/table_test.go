package main

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestTableIsAlignedMarkdown(t *testing.T) {
	tab := table{header: []string{"", "µs"}}
	tab.add("a | b", "1")
	tab.add("c", "1,000")
	require.Equal(t, strings.Join([]string{
		`|        |    µs |`,
		`| ------ | ----: |`,
		`| a \| b |     1 |`,
		`| c      | 1,000 |`,
		``,
	}, "\n"), tab.String())
}
