package member

import (
	"context"
	"errors"

	"github.com/conveyor-go/conveyor/internal/ledger"
	"github.com/conveyor-go/conveyor/internal/record"
	"github.com/conveyor-go/conveyor/store"
)

// Peer is an engine as its records show it.
type Peer struct {
	ID        string
	Engine    record.Engine
	Heartbeat record.Heartbeat // zero if there is none

	rev, heartbeatRev store.Revision
}

// List returns the engines on record, in the order of their ids. If records are damaged, List returns the other engines and an
// error that wraps [store.ErrCorrupt]. After another error of the store, it returns no engine.
func List(ctx context.Context, l *ledger.Ledger) (peers []Peer, err error) {
	// The heartbeats are read first: a heartbeat that is older than the record of its engine can make the engine seem silent for
	// longer, and the mark is then refused. In the other order it could seem alive after its end.
	beats := map[string]Peer{}
	damaged, err := each(ctx, l, record.HeartbeatPrefix, func(id string, r store.Record) error {
		p := Peer{heartbeatRev: r.Revision}
		err := record.Decode(r, &p.Heartbeat)
		beats[id] = p
		return err
	})
	if err != nil {
		return nil, err
	}
	more, err := each(ctx, l, record.EnginePrefix, func(id string, r store.Record) error {
		p := beats[id]
		p.ID, p.rev = id, r.Revision
		err := record.Decode(r, &p.Engine)
		if err == nil {
			peers = append(peers, p)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return peers, errors.Join(damaged, more)
}

// each calls do for the record of each engine under a prefix. It returns the errors of do apart from that of the store.
func each(ctx context.Context, l *ledger.Ledger, prefix string, do func(id string, r store.Record) error) (damaged, err error) {
	for r, err := range l.Store.List(ctx, store.Query{Prefix: prefix}) {
		if err != nil {
			return nil, err
		}
		id, err := record.ParseEngineKey(r.Key)
		if err == nil {
			err = do(id, r)
		}
		damaged = errors.Join(damaged, err)
	}
	return damaged, nil
}
