// Package histories tests what concurrent clients of an engine may rely on, while its store fails and its process dies
// under them. It holds nothing but tests.
//
// A history is what a handful of clients saw: each call with the moment at which it began and the one at which it was
// answered, some of them never. Porcupine judges whether there is an order of the calls, true to those moments, in which
// each answer is the one that a plain sequential resource would have given (model_test.go). The streams of the watchers
// are compared with one another and with what was acknowledged (streams_test.go).
//
//	go test .                                       # 10,000 histories of 100 operations
//	CONVEYOR_HISTORIES=200000 go test -timeout 0 .  # a long run
package histories
