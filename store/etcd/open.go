package etcd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/status"

	"github.com/conveyor-go/conveyor/store"
	"github.com/conveyor-go/conveyor/store/internal/again"
	"github.com/conveyor-go/conveyor/store/internal/gate"
)

// ErrVersion means that the keys of the prefix are of a format that this program does not know.
var ErrVersion = errors.New("etcd: other version of the format")

// The parts of the keys of a store, after its prefix.
const (
	recordsPart = "r/"
	markersPart = "m/"
	formatPart  = "format"
)

// format is the format of the keys that this program writes.
const format = 1

// The connection is given up when a server has not answered for thirteen seconds. Less than ten is not possible for the first of the two.
const (
	keepAliveTime    = 10 * time.Second
	keepAliveTimeout = 3 * time.Second
)

// connecting says how often the client tries to connect. By default, two attempts can be two minutes apart: all engines would be taken for dead
// by the first that finds the servers back.
var connecting = grpc.ConnectParams{
	Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 200 * time.Millisecond},
	MinConnectTimeout: longestAttempt,
}

// Open opens the store in an etcd, with a client of its own. The first Open under a prefix makes the store.
//
// The config is the one of the client of etcd: endpoints, TLS, user and password. Where it is silent, the client writes no log, notices
// within thirteen seconds that a server does not answer, tries to connect to it again several times a second, and can send a request of
// [Options].MaxRequestBytes.
//
// Open returns these errors:
//
//   - ErrVersion if a newer program has written the keys of the prefix.
//   - ErrUnavailable if no server could be reached within [Options].Patience.
//   - The cause of ctx if ctx has ended.
//   - The error of the server if it refuses something, such as the password.
func Open(ctx context.Context, config clientv3.Config, opts Options) (*Store, error) {
	opts, err := opts.withDefaults()
	if err != nil {
		return nil, err
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if config.Logger == nil && config.LogConfig == nil {
		config.Logger = zap.NewNop()
	}
	config.DialKeepAliveTime = cmp.Or(config.DialKeepAliveTime, keepAliveTime)
	config.DialKeepAliveTimeout = cmp.Or(config.DialKeepAliveTimeout, keepAliveTimeout)
	config.MaxUnaryRetries = cmp.Or(config.MaxUnaryRetries, 1) // the store tries again itself, and says what was wrong
	config.MaxCallSendMsgSize = cmp.Or(config.MaxCallSendMsgSize, opts.MaxRequestBytes+(1<<20))
	if len(config.Endpoints) == 0 {
		return nil, errors.New("etcd: the config has no endpoints")
	}
	seen := new(trouble)
	config.DialOptions = slices.Concat([]grpc.DialOption{grpc.WithConnectParams(connecting)}, config.DialOptions,
		[]grpc.DialOption{grpc.WithChainUnaryInterceptor(seen.watch)})
	client, err := connect(ctx, config, seen, opts.Patience)
	if err != nil {
		return nil, err
	}
	s, err := openWith(ctx, client, seen, opts)
	if err != nil {
		_ = client.Close()
		return nil, err
	}
	s.ownClient = true
	return s, nil
}

// connect makes a client. With a user and a password, the client asks a server for a token, which is tried again until patience is over.
func connect(ctx context.Context, config clientv3.Config, seen *trouble, patience time.Duration) (client *clientv3.Client, err error) {
	parent := config.Context
	if parent == nil {
		parent = context.Background()
	}
	err = again.Tries{
		Longest: longestAttempt,
		Final:   func(err error) error { return fmt.Errorf("etcd: %w", err) },
		Failed:  seen.telling,
		Passing: func(err error) bool {
			_, answered := status.FromError(err) // anything else is a fault of the config
			return config.Username != "" && (answered || errors.Is(err, context.DeadlineExceeded)) && passing(err)
		},
	}.Until(ctx, time.Now().Add(patience), func(attempt context.Context) error {
		own, cancel := context.WithCancel(parent) // the client lives as long
		goOn := context.AfterFunc(ctx, cancel)
		config.Context = own
		if end, ok := attempt.Deadline(); ok {
			config.DialTimeout = time.Until(end) // for the token alone
		}
		made, err := clientv3.New(config)
		inTime := goOn()
		switch {
		case err != nil:
			cancel()
			return err
		case !inTime:
			_ = made.Close()
			return ctx.Err()
		}
		client = made
		return nil
	})
	return client, err
}

// OpenClient is [Open] with a client that the caller has, and closes after the store. Its MaxCallSendMsgSize must be more than
// [Options].MaxRequestBytes if that is more than 1.5 MiB, and it needs a DialKeepAliveTime to notice a server that is silent,
// and grpc.WithConnectParams to connect soon to a server that is back: by default, gRPC waits up to two minutes.
func OpenClient(ctx context.Context, client *clientv3.Client, opts Options) (*Store, error) {
	opts, err := opts.withDefaults()
	if err != nil {
		return nil, err
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return openWith(ctx, client, new(trouble), opts)
}

// openWith opens the store with a client, and with options that are valid.
func openWith(ctx context.Context, client *clientv3.Client, seen *trouble, opts Options) (*Store, error) {
	s := &Store{client: client, trouble: seen, opts: opts, limits: opts.limits(), records: opts.Prefix + recordsPart, grace: grace, gate: gate.New()}
	s.lanes = newLanes(opts.Prefix + markersPart)
	s.lease.asking = make(chan struct{}, 1)
	s.noStreams.Store(client.Username != "") // otherwise the client would ask for a token for each stream, with the password
	if err := s.checkFormat(ctx); err != nil {
		s.gate.Close(func() {})
		return nil, err
	}
	if opts.History > 0 {
		s.gate.Go(func() { s.compactNowAndThen(opts.History / 2) })
	}
	return s, nil
}

// checkFormat writes the format of the store, or checks what is written.
func (s *Store) checkFormat(ctx context.Context) error {
	key := s.opts.Prefix + formatPart
	return s.read(ctx, func(ctx context.Context) error {
		r, err := s.client.Txn(ctx).
			If(clientv3.Compare(clientv3.CreateRevision(key), "=", 0)).
			Then(clientv3.OpPut(key, strconv.Itoa(format))).
			Else(clientv3.OpGet(key)).
			Commit()
		if err != nil || r.Succeeded {
			return err
		}
		found := r.Responses[0].GetResponseRange().Kvs[0].Value
		switch n, err := strconv.Atoi(string(found)); {
		case err != nil:
			return fmt.Errorf("%w: the key %q has the value %.20q", store.ErrCorrupt, key, found)
		case n > format:
			return fmt.Errorf("%w: prefix %q is of format %d, and this program knows none above %d", ErrVersion, s.opts.Prefix, n, format)
		}
		return nil
	})
}
