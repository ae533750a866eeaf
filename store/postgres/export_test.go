package postgres

import (
	"context"
	"time"
)

// PruneAll forgets all changes, however new they are.
func PruneAll(ctx context.Context, s *Store) error {
	_, err := s.prune(ctx, -time.Minute)
	return err
}

// Groups returns the number of groups that the handle has committed. No commit may be under way.
func Groups(s *Store) int64 { return s.group }

// Hasten makes a handle try for a shorter time than can be asked for. No call may be under way.
func Hasten(s *Store, patience, grace time.Duration) { s.opts.Patience, s.grace = patience, grace }
