package main

import (
	"os/exec"
	"unsafe"

	"golang.org/x/sys/windows"
)

// A group is a program together with all processes that the program starts, and that those start. On Windows it is a job
// object. The system ends all processes of the job when the last handle of the job is closed, and it closes the handle when
// this process ends in any way. A process that the program starts before it is assigned to the job is not in the job.
type group struct{ job windows.Handle }

// newGroup makes the job for the program of cmd.
func newGroup(cmd *exec.Cmd) (*group, error) {
	job, err := windows.CreateJobObject(nil, nil)
	if err != nil {
		return nil, err
	}
	var limits windows.JOBOBJECT_EXTENDED_LIMIT_INFORMATION
	limits.BasicLimitInformation.LimitFlags = windows.JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE
	_, err = windows.SetInformationJobObject(job, windows.JobObjectExtendedLimitInformation,
		uintptr(unsafe.Pointer(&limits)), uint32(unsafe.Sizeof(limits)))
	if err != nil {
		windows.CloseHandle(job)
		return nil, err
	}
	cmd.Cancel = func() error { return windows.TerminateJobObject(job, 1) }
	return &group{job: job}, nil
}

// started has to be called when the program was started, or could not be started.
func (g *group) started(cmd *exec.Cmd) error {
	if cmd.Process == nil {
		return nil
	}
	process, err := windows.OpenProcess(windows.PROCESS_SET_QUOTA|windows.PROCESS_TERMINATE, false, uint32(cmd.Process.Pid))
	if err != nil {
		return err
	}
	defer windows.CloseHandle(process)
	return windows.AssignProcessToJobObject(g.job, process)
}

// end ends the processes that the program has left.
func (g *group) end() { windows.CloseHandle(g.job) }

// superviseIfAsked returns, because Windows needs no supervisor.
func superviseIfAsked() {}
