package etcd

import (
	"context"
	"fmt"
	"slices"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/conveyor-go/conveyor/store"
)

// Health is what an operator looks at. See docs/etcd.md of the repository for what to do about it.
type Health struct {
	// Newest is the newest revision of etcd, to which all of its programs contribute.
	Newest store.Revision
	// Full reports that the database of a server has reached its quota: every commit fails with ErrFull until the alarm is disarmed.
	Full bool
	// HistoryErr is why the newest compaction of this handle has failed; nil if it has not, and without Options.History.
	HistoryErr error
	// Servers are those of the endpoints of the client.
	Servers []ServerHealth
}

// ServerHealth is the state of a server.
type ServerHealth struct {
	Endpoint string
	Err      error // why the server could not be asked; the other fields are zero then
	Leader   bool  // whether it is the leader
	Bytes    int64 // the size of its database
	InUse    int64 // the part of it that has records; the rest is given back when the server is defragmented
	Quota    int64 // the size that the database may have; 0 from a server older than 3.6, which does not tell
	Version  string
}

// Health asks each server how it is. It reads no records. Its errors are those of Get, if no server answers.
func (s *Store) Health(ctx context.Context) (h Health, err error) {
	if ctx.Err() != nil {
		return h, context.Cause(ctx)
	}
	if err := s.enter(); err != nil {
		return h, err
	}
	defer s.gate.Leave()
	err = s.read(ctx, func(ctx context.Context) error {
		h = Health{}
		alarms, err := s.client.AlarmList(ctx)
		if err != nil {
			return err
		}
		h.Newest = store.Revision(alarms.Header.Revision)
		h.Full = slices.ContainsFunc(alarms.Alarms, func(a *pb.AlarmMember) bool { return a.Alarm == pb.AlarmType_NOSPACE })
		return nil
	})
	if err != nil {
		return Health{}, err
	}
	if failed := s.compacting.Load(); failed != nil {
		h.HistoryErr = fmt.Errorf("etcd: compaction: %w", *failed)
	}
	for _, endpoint := range s.client.Endpoints() {
		h.Servers = append(h.Servers, s.healthOf(ctx, endpoint))
	}
	return h, nil
}

func (s *Store) healthOf(ctx context.Context, endpoint string) (h ServerHealth) {
	ctx, cancel := context.WithTimeout(ctx, longestAttempt)
	defer cancel()
	h.Endpoint = endpoint
	r, err := s.client.Status(ctx, endpoint)
	if err != nil {
		h.Err = fmt.Errorf("etcd: %w", err)
		return h
	}
	h.Leader, h.Bytes, h.InUse, h.Quota, h.Version = r.Header.MemberId == r.Leader, r.DbSize, r.DbSizeInUse, r.DbSizeQuota, r.Version
	return h
}
