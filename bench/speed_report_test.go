package main

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestSpeedTableTellsWhatIsMissing(t *testing.T) {
	late := &result{contender: riverSQLite, flight: 1, leftOut: "it is late"}
	var b strings.Builder
	reportSpeed(&b, []*result{
		measured(conveyorFile, 1, 100, 300, 200), measured(dbosSQLite, 1, 20, 10, 30), late,
	}, func(module string) string { return "v9 of " + module })
	text := b.String()
	require.Contains(t, text, "200 (100 – 300)")
	require.Contains(t, text, "10.0×", "twenty by two hundred")
	require.Contains(t, text, "- River, SQLite: it is late")
	require.Contains(t, text, "n/a", "what is unknown is not invented")
	require.Contains(t, text, dbosSQLite.syncs)
	require.Contains(t, text, "v9 of "+dbosSQLite.module)
}
