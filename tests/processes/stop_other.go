//go:build !unix

package processes

// There is nothing here that stops a process. The tests are skipped.
func (p *process) pause()  {}
func (p *process) resume() {}
