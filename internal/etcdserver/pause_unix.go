//go:build unix

package etcdserver

import "syscall"

// Pause stops a server where it is, and Resume lets it go on.
func (m *Member) Pause() error { return m.signal(syscall.SIGSTOP) }

// Resume lets a server go on that Pause has stopped.
func (m *Member) Resume() error { return m.signal(syscall.SIGCONT) }

func (m *Member) signal(s syscall.Signal) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.process == nil {
		return nil
	}
	return m.process.Process.Signal(s)
}
