// Package histories tests what concurrent clients of an engine can rely on while its store fails and its process is
// killed. The package contains only tests.
//
// A history is what a few clients saw. It has each call with the time at which the call began and the time at which the
// call returned. Some calls never returned. Porcupine checks whether the calls have an order that respects these times and
// in which each call returns what a plain sequential resource would have returned (model_test.go). The streams of the
// watchers are compared with one another and with the acknowledged changes (streams_test.go).
//
//	go test .                                       # 10,000 histories of 100 operations
//	CONVEYOR_HISTORIES=200000 go test -timeout 0 .  # a long run
package histories
