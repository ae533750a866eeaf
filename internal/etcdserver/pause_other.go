//go:build !unix

package etcdserver

import "errors"

// Pause stops a server where it is, and Resume lets it go on.
func (m *Member) Pause() error { return errors.ErrUnsupported }

// Resume lets a server go on that Pause has stopped.
func (m *Member) Resume() error { return errors.ErrUnsupported }
