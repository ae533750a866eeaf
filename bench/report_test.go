package main

import (
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestNumbersReadWell(t *testing.T) {
	for _, test := range []struct{ name, got, want string }{
		{"nothing", number(0), "0"},
		{"a fraction", number(0.01234), "0.012"},
		{"a few", number(1.234), "1.23"},
		{"tens", number(12.34), "12.3"},
		{"hundreds", number(123.4), "123"},
		{"thousands", number(1234.5), "1,235"},
		{"millions", number(1234567), "1,234,567"},
		{"a negative one", grouped(-123456), "-123,456"},
		{"an unknown one", known(unknown), "n/a"},
		{"bytes", size(512), "512 B"},
		{"kibibytes", size(1536), "1.50 KiB"},
		{"unknown bytes", size(unknown), "n/a"},
		{"nanoseconds", duration(25e-9), "25.0 ns"},
		{"microseconds", duration(1.5e-6), "1.50 µs"},
		{"milliseconds", duration(0.0152), "15.2 ms"},
		{"seconds", duration(4), "4.00 s"},
		{"a range", spread{median: 2, min: 1, max: 3}.ranged(number), "2.00 (1.00 – 3.00)"},
		{"a single value", spread{median: 2, min: 2, max: 2}.ranged(number), "2.00"},
	} {
		t.Run(test.name, func(t *testing.T) { require.Equal(t, test.want, test.got) })
	}
}

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

// measured makes a result as a measurement would.
func measured(c contender, flight int, rates ...float64) *result {
	r := &result{contender: c, flight: flight}
	for _, rate := range rates {
		r.samples = append(r.samples, sample{rate: rate, p50: 0.001, p99: 0.002, allocs: 100, syncs: unknown, written: unknown})
	}
	return r
}

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

func TestPictureIsSoundXMLWithABarForEachContender(t *testing.T) {
	picture := drawSpeed([]*result{
		measured(conveyorFile, 1, 100, 300, 200), measured(dbosSQLite, 1, 20), measured(appendLoop, 1, 7000),
		measured(conveyorFile, 100, 4000), {contender: riverSQLite, flight: 100, leftOut: "too slow"},
	})
	bars := 0
	for dec := xml.NewDecoder(strings.NewReader(string(picture))); ; {
		token, err := dec.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		if start, ok := token.(xml.StartElement); ok && start.Name.Local == "rect" {
			bars++
		}
	}
	require.Contains(t, string(picture), "left out")
	require.Equal(t, 3, bars, "no bar for what does no runs, nor for what was left out")
	require.NotContains(t, string(picture), "NaN")
	require.Contains(t, string(picture), "prefers-color-scheme: dark")
}

func TestBudgetsAreMetOrMissedByTheirRatio(t *testing.T) {
	found := findings{
		speed: []*result{
			measured(conveyorMemory, 100, 4000), measured(workqueueSteps, 100, 10000),
			measured(appendLoop, 1, 1000), measured(conveyorFile, 1, 50), measured(dbosSQLite, 1, 60),
			measured(conveyorFile, 100, 3000), measured(dbosSQLite, 100, 100), measured(riverSQLite, 100, 90),
		},
		growth: &growth{
			turns: []turnsRow{{
				store: "store/file", few: 10_000, many: 1_000_000, fewStep: spread{median: 10}, manyStep: spread{median: 16},
			}},
			waiting: []waitingRow{{store: "store/file", waiting: 100_000, heap: 512, goroutines: [2]int{4, 4}}},
			starts:  []startRow{{store: "store/file", finished: 1_000_000, unfinished: 100_000, start: 2.5}},
		},
	}
	verdicts := map[string]string{}
	for _, b := range budgets(found) {
		verdicts[b.what] = b.verdict() + " " + number(b.ratio())
	}
	require.Equal(t, "met 1.20", verdicts["memory store, runs/s by those of a workqueue loop with a pass per step, 100 in flight"])
	require.Equal(t, "missed 0.83", verdicts["file store, runs/s by those of the best durable peer, 1 in flight"])
	require.Equal(t, "met 1.20", verdicts["file store, runs/s by those of the best durable peer, 100 in flight"])
	require.Equal(t, "not measured 0", verdicts["file store, runs/s by those of the best durable peer, 1000 in flight"])
	require.Equal(t, "met 0.67", verdicts["memory store, allocations per step"])
	require.Equal(t, "missed 1.07", verdicts["store/file, a step among many resources by one among few"])
	require.Equal(t, "met 0.5", verdicts["store/file, heap for a waiting run"])
	require.Equal(t, "met 0.5", verdicts["store/file, Start among many finished runs"])
	require.Equal(t, "not measured 0", verdicts["store/memory, Start among many finished runs"])
}
