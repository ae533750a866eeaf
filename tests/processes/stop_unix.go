//go:build unix

package processes

import "syscall"

// pause stops the process, and resume lets it go on. It knows of nothing meanwhile.
func (p *process) pause()  { _ = p.cmd.Process.Signal(syscall.SIGSTOP) }
func (p *process) resume() { _ = p.cmd.Process.Signal(syscall.SIGCONT) }
