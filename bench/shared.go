package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/internal/pgserver"
	"github.com/conveyor-go/conveyor/store"
	"github.com/conveyor-go/conveyor/store/etcd"
	"github.com/conveyor-go/conveyor/store/postgres"
)

// shared are the results of what is measured on a PostgreSQL of its own, with fsync and synchronous_commit on. Those of a part that was left
// out are nil.
type shared struct {
	version   string
	speed     []*sharedResult
	scaling   []scaling
	takeovers []takeover
	costs     []cost
	idle      *float64 // transactions a second of an idle engine
	growth    []grown
	etcd      []onEtcd
}

// place is a server, or several, on which stores are.
type place interface {
	// newStore makes an empty store, and returns where it is, for openStore.
	newStore(ctx context.Context) (where string, err error)
	// requests returns how many requests the servers have had so far, but for those of this function.
	requests(ctx context.Context) (int64, error)
	// servers are the processes of the servers, whose children are theirs too.
	servers() []int
}

// openStore opens a store that a place has made.
func openStore(ctx context.Context, where string) (store.Store, error) {
	kind, rest, _ := strings.Cut(where, "\n")
	first, second, _ := strings.Cut(rest, "\n")
	if kind == "etcd" {
		return etcd.Open(ctx, clientv3.Config{Endpoints: strings.Split(second, ",")}, etcd.Options{Prefix: first})
	}
	return postgres.Open(ctx, second, postgres.Options{Schema: first})
}

// database is a PostgreSQL. Each store has a schema of it.
type database struct {
	server *pgserver.Cluster
	conn   *pgx.Conn
	count  int
}

// openDatabase starts a server in the temporary folder of the system: whoever runs it must be allowed to get there.
func openDatabase(ctx context.Context) (*database, error) {
	if inMemory(fileSystem(os.TempDir())) {
		return nil, fmt.Errorf("%s is in memory, where a sync costs nothing: set TMPDIR to a folder on a disk", os.TempDir())
	}
	c, err := pgserver.New("")
	if err != nil {
		return nil, err
	}
	if err := c.Start("max_connections=300", "shared_buffers=256MB", "max_wal_size=4GB"); err != nil {
		return nil, err
	}
	conn, err := pgx.Connect(ctx, c.DSN())
	return &database{server: c, conn: conn}, err
}

func (d *database) close(ctx context.Context) error {
	return errors.Join(d.conn.Close(ctx), d.server.Stop(false))
}

// newStore implements [place].
func (d *database) newStore(ctx context.Context) (where string, err error) {
	schema := d.newName()
	return strings.Join([]string{"postgres", schema, d.server.DSN()}, "\n"), postgres.Migrate(ctx, d.server.DSN(), postgres.Options{Schema: schema})
}

func (d *database) newName() string {
	d.count++
	return fmt.Sprint("bench", d.count)
}

// servers implements [place].
func (d *database) servers() []int { return []int{d.server.Process()} }

// requests implements [place]. A request is a transaction.
func (d *database) requests(ctx context.Context) (n int64, err error) {
	time.Sleep(1500 * time.Millisecond) // a session reports its transactions at most once a second
	err = d.conn.QueryRow(ctx, "select xact_commit + xact_rollback from pg_stat_database where datname = current_database()").Scan(&n)
	return n, err
}

// startEngine starts an engine on a new store.
func startEngine(ctx context.Context, at place, workers int) (*engineSession, error) {
	where, err := at.newStore(ctx)
	if err != nil {
		return nil, err
	}
	st, err := openStore(ctx, where)
	if err != nil {
		return nil, err
	}
	return openEngine(ctx, st, workers, func(string, int) {})
}

// measureShared measures everything that has to do with a shared store.
func (b *bench) measureShared(ctx context.Context, o options) (_ *shared, err error) {
	d, err := openDatabase(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, d.close(context.WithoutCancel(ctx))) }()
	f := &shared{}
	if err := d.conn.QueryRow(ctx, "show server_version").Scan(&f.version); err != nil {
		return nil, err
	}
	p := o.sharedPlan()
	for i, part := range []func() error{
		func() (err error) { f.speed, err = b.sharedSpeed(ctx, d, d.contenders(), p); return err },
		func() (err error) { f.scaling, err = b.scaling(ctx, d, p); return err },
		func() (err error) { f.takeovers, err = b.takeovers(ctx, d, p.waiting); return err },
		func() (err error) { f.costs, err = b.costs(ctx, d); return err },
		func() (err error) { f.idle, err = b.idle(ctx, d, p); return err },
		func() (err error) { f.growth, err = b.sharedGrowth(ctx, d, p); return err },
		func() (err error) { f.etcd, err = b.measureEtcd(ctx, p); return err },
	} {
		if !o.hasShared(sharedParts[i]) {
			continue
		}
		if err := part(); err != nil {
			return nil, err
		}
	}
	return f, nil
}

// sharedPlan says how much is measured.
type sharedPlan struct {
	flights     []int
	repetitions int
	duration    time.Duration
	processes   []int
	waiting     []int         // runs that wait when their engine is killed
	quiet       time.Duration // for which idle engines are watched
	sizes       []int         // runs on record when the cost of a step is measured
}

func (o options) sharedPlan() sharedPlan {
	p := sharedPlan{
		flights: []int{1, 100, 1000}, repetitions: 5, duration: 3 * time.Second, processes: []int{1, 2, 4},
		waiting: []int{1000, 100_000}, quiet: time.Minute, sizes: []int{1000, 100_000, 1_000_000},
	}
	if o.quick {
		p.repetitions, p.duration, p.processes = 1, 100*time.Millisecond, []int{1, 2}
		p.waiting, p.quiet, p.sizes = []int{100}, 4*time.Second, []int{100, 1000}
	}
	return p
}

// sharedResult is what a contender does on the server.
type sharedResult struct {
	name    string
	module  string
	does    string
	flight  int
	samples []sharedSample
}

// sharedSample is one measurement: runs a second, and the seconds for a run, of the processor on both sides too.
type sharedSample struct{ rate, p50, p99, client, server float64 }

func (r *sharedResult) spread(value func(sharedSample) float64) spread {
	var values []float64
	for _, s := range r.samples {
		values = append(values, value(s))
	}
	return spreadOf(values)
}

// sharedSpeed has the contenders take turns.
func (b *bench) sharedSpeed(ctx context.Context, at place, contenders []sharedContender, p sharedPlan) (all []*sharedResult, err error) {
	for _, flight := range p.flights {
		var results []*sharedResult
		for _, c := range contenders {
			results = append(results, &sharedResult{name: c.name, module: c.module, does: c.does, flight: flight})
		}
		for rep := range p.repetitions {
			for i, c := range contenders {
				b.logf("shared: %d in flight, repetition %d of %d: %s", flight, rep+1, p.repetitions, c.name)
				s, err := measureAt(ctx, at, c, flight, p.duration)
				if err != nil {
					return nil, fmt.Errorf("%s: %w", c.name, err)
				}
				results[i].samples = append(results[i].samples, s)
			}
		}
		all = append(all, results...)
	}
	return all, nil
}

// measureAt opens a contender, warms it up, and measures it under load.
func measureAt(ctx context.Context, at place, c sharedContender, flight int, duration time.Duration) (_ sharedSample, err error) {
	s, err := c.open(ctx, flight)
	if err != nil {
		return sharedSample{}, fmt.Errorf("open: %w", err)
	}
	defer func() {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
		defer cancel()
		err = errors.Join(err, s.close(end))
	}()
	l := &loadGenerator{session: s}
	if _, err := l.run(ctx, min(flight, 16), duration/10); err != nil {
		return sharedSample{}, fmt.Errorf("warm up: %w", err)
	}
	runtime.GC()
	client, server, err := processorTimes(at.servers())
	if err != nil {
		return sharedSample{}, err
	}
	out, err := l.run(ctx, flight, duration)
	if err != nil {
		return sharedSample{}, err
	}
	clientAfter, serverAfter, err := processorTimes(at.servers())
	runs := float64(out.runs)
	return sharedSample{
		rate: runs / out.elapsed.Seconds(), p50: percentile(out.latencies, 50).Seconds(), p99: percentile(out.latencies, 99).Seconds(),
		client: (clientAfter - client).Seconds() / runs, server: (serverAfter - server).Seconds() / runs,
	}, err
}

// processorTimes returns the time that processors have spent on this process and on all processes of servers so far.
func processorTimes(servers []int) (client, server time.Duration, err error) {
	var own syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &own); err != nil {
		return 0, 0, err
	}
	client = time.Duration(own.Utime.Nano() + own.Stime.Nano())
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return 0, 0, err
	}
	const tick = 10 * time.Millisecond // USER_HZ is 100 on every Linux
	for _, entry := range entries {
		id, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		stat, err := os.ReadFile("/proc/" + entry.Name() + "/stat")
		if err != nil {
			continue // it has ended
		}
		fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:])) // from the state, the third one, on
		parent, _ := strconv.Atoi(fields[1])
		used := fields[11:13] // of itself
		switch {
		case slices.Contains(servers, id):
			used = fields[11:15] // and of its children that have ended
		case !slices.Contains(servers, parent):
			continue
		}
		for _, ticks := range used {
			n, _ := strconv.ParseInt(ticks, 10, 64)
			server += time.Duration(n) * tick
		}
	}
	return client, server, nil
}

// cost is what something needs of the store.
type cost struct {
	what                string
	commits, ops, reads float64 // for a run
}

// costs counts what a run of five steps costs: in one engine alone among two, with a claim, and with hand-overs.
func (b *bench) costs(ctx context.Context, at place) (all []cost, err error) {
	for _, c := range []struct {
		what    string
		drivers []string // of the engines
		alone   bool     // the engine that applies the resource has the drivers
	}{
		{"a plain run, by the engine that applied its resource", []string{"a b", "a b"}, true},
		{"a run that another engine claims", []string{"", "a b"}, false},
		{"a run that is handed over at each step", []string{"a", "b"}, true},
	} {
		b.logf("shared: what %s costs", c.what)
		const runs = 100
		n, err := countRuns(ctx, at, c.drivers, runs)
		if err != nil {
			return nil, err
		}
		all = append(all, cost{c.what, float64(n.commits.Load()) / runs, float64(n.ops.Load()) / runs, float64(n.reads.Load()) / runs})
	}
	return all, nil
}

// countRuns counts what two engines with some of the drivers a and b need for runs of the steps a, b, a, b, a.
func countRuns(ctx context.Context, at place, drivers []string, runs int) (n *counting, err error) {
	where, err := at.newStore(ctx)
	if err != nil {
		return nil, err
	}
	n = &counting{}
	var engines []*conveyor.Engine
	defer func() {
		for _, e := range engines {
			err = errors.Join(err, e.Shutdown(context.WithoutCancel(ctx)))
		}
	}()
	for _, names := range drivers {
		st, err := openStore(ctx, where)
		if err != nil {
			return nil, err
		}
		defer st.Close()
		e, err := conveyor.New(n.on(st), conveyor.Options{Lease: time.Minute})
		if err != nil {
			return nil, err
		}
		engines = append(engines, e)
		for _, name := range strings.Fields(names) {
			if err := e.Register(name, stepDriver(func(string, int) {})); err != nil {
				return nil, err
			}
		}
		if err := e.Start(ctx); err != nil {
			return nil, err
		}
	}
	p := pipeline("five", steps)
	for i := range p.Steps {
		p.Steps[i].Driver = string(rune('a' + i%2))
	}
	if err := engines[0].SavePipeline(ctx, p); err != nil {
		return nil, err
	}
	time.Sleep(time.Second) // they get to know each other
	n.reset()
	for i := range runs {
		run, err := engines[0].Apply(ctx, object(runName(int64(i)), "five"))
		if err != nil {
			return nil, err
		}
		if _, err := engines[0].Wait(ctx, run.ID); err != nil {
			return nil, err
		}
	}
	return n.copy(), nil
}

// idle returns how many requests a second ten idle engines need, each of them.
func (b *bench) idle(ctx context.Context, at place, p sharedPlan) (perSecond *float64, err error) {
	const engines = 10
	b.logf("shared: %d idle engines for %s", engines, p.quiet)
	where, err := at.newStore(ctx)
	if err != nil {
		return nil, err
	}
	for range engines {
		st, err := openStore(ctx, where)
		if err != nil {
			return nil, err
		}
		s, err := openEngine(ctx, st, 8, func(string, int) {})
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, s.close(context.WithoutCancel(ctx))) }()
	}
	time.Sleep(p.quiet / 4)
	before, err := at.requests(ctx)
	if err != nil {
		return nil, err
	}
	time.Sleep(p.quiet)
	after, err := at.requests(ctx)
	rate := float64(after-before) / p.quiet.Seconds() / engines
	return &rate, err
}

// grown is what a step costs when there are already some runs on record.
type grown struct {
	runs int
	step spread // seconds
}

// sharedGrowth measures runs among more and more of them.
func (b *bench) sharedGrowth(ctx context.Context, at place, p sharedPlan) (all []grown, err error) {
	s, err := startEngine(ctx, at, 100)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.close(context.WithoutCancel(ctx))) }()
	l := &loadGenerator{session: s}
	for _, size := range p.sizes {
		for l.next.Load() < int64(size) {
			b.logf("shared: growth: %d of %d runs", l.next.Load(), size)
			if _, err := l.run(ctx, 1000, min(20*time.Second, time.Duration(int64(size)-l.next.Load())*300*time.Microsecond)); err != nil {
				return nil, err
			}
		}
		var samples []float64
		for range p.repetitions {
			out, err := l.run(ctx, 100, p.duration)
			if err != nil {
				return nil, err
			}
			samples = append(samples, out.elapsed.Seconds()/float64(out.runs*steps))
		}
		all = append(all, grown{size, spreadOf(samples)})
	}
	return all, nil
}

var _ store.Watcher = counted{}
