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

// SetGrace sets how long a commit tries to find out what came of it.
func SetGrace(s *Store, grace time.Duration) { s.grace = grace }
