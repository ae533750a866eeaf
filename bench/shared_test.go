package main

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestSharedResultsAreComparedWithTheFirst(t *testing.T) {
	of := func(name string, flight int, rates ...float64) *sharedResult {
		r := &sharedResult{name: name, flight: flight}
		for _, rate := range rates {
			r.samples = append(r.samples, sharedSample{rate: rate, p50: 0.001, p99: 0.002, client: 0.003, server: 0.004})
		}
		return r
	}
	idle := 1.5
	f := &shared{
		version:   "15.18",
		speed:     []*sharedResult{of("Conveyor", 100, 900, 1000, 1100), of("Peer", 100, 250), of("Other", 100, 200)},
		scaling:   []scaling{{processes: 1, work: "busy", rate: spreadOf([]float64{100}), n: 1}, {processes: 2, work: "busy", rate: spreadOf([]float64{180}), n: 1}},
		takeovers: []takeover{{runs: 100_000, lease: 10 * time.Second, took: 13 * time.Second}},
		costs:     []cost{{"a plain run", 7, 32, 12}},
		idle:      &idle,
		growth:    []grown{{1000, spreadOf([]float64{0.001})}, {1_000_000, spreadOf([]float64{0.0012})}},
	}
	var text strings.Builder
	f.report(&text, func(string) string { return "v1" })
	for _, want := range []string{"PostgreSQL 15.18", "100 in flight", "4.00×", "1.80×", "1.30", "1.50 transactions", "1.20×", "3.00 ms", "4.00 ms"} {
		require.Contains(t, text.String(), want)
	}
	require.NotContains(t, text.String(), "1,000 in flight", "it was not measured")
}

func TestWhatWasNotMeasuredIsNotReported(t *testing.T) {
	var text strings.Builder
	(&shared{version: "15.18", costs: []cost{{"a plain run", 7, 32, 12}}}).report(&text, func(string) string { return "" })
	require.Equal(t, 1, strings.Count(text.String(), "## "), text.String())
	require.Contains(t, text.String(), "a plain run")
}

func TestPartsOnPostgresAreMeasuredOnlyIfAsked(t *testing.T) {
	for args, want := range map[string][]string{
		"":                                nil,
		"-only=speed":                     nil,
		"-only=shared":                    sharedParts,
		"-only=shared-idle,shared-growth": {"shared-idle", "shared-growth"},
	} {
		o, err := parseOptions(strings.Fields(args))
		require.NoError(t, err)
		var asked []string
		for _, part := range sharedParts {
			if o.hasShared(part) {
				asked = append(asked, part)
			}
		}
		require.Equal(t, want, asked, args)
	}
	_, err := parseOptions([]string{"-only=shared-all"})
	require.ErrorContains(t, err, `there is no part "shared-all"`)
}

func TestResultsOnEtcdAreReported(t *testing.T) {
	idle := 2.5
	one := &sharedResult{name: "Conveyor, store/etcd", flight: 100, samples: []sharedSample{{rate: 383, p50: 0.001, p99: 0.002, client: 0.003, server: 0.004}}}
	e := onEtcd{servers: 3, speed: []*sharedResult{one}, takeovers: []takeover{{runs: 1000, lease: 10 * time.Second, took: 9 * time.Second}}, idle: &idle}
	var text strings.Builder
	(&shared{version: "15.18", etcd: []onEtcd{e}}).report(&text, func(string) string { return "" })
	for _, want := range []string{"On etcd, servers: 3", "100 in flight", "383", "9.00 s", "2.50 requests"} {
		require.Contains(t, text.String(), want)
	}
}

func TestMetricsAreAddedUp(t *testing.T) {
	sum, err := sumOf(strings.NewReader(`# HELP grpc_server_started_total Total number of RPCs started on the server.
grpc_server_started_total{grpc_method="Range",grpc_type="unary"} 12
grpc_server_started_total{grpc_method="Txn",grpc_type="unary"} 1.5e+03
grpc_server_handled_total{grpc_method="Txn"} 7
`), "grpc_server_started_total{")
	require.NoError(t, err)
	require.EqualValues(t, 1512, sum)
}
