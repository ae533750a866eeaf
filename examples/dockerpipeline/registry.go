package main

import (
	"io"
	"log"
	"net"
	"net/http"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"
)

// loopbackRegistry is a registry on a free port of this machine. It keeps its images in memory. They are lost when the
// program ends.
type loopbackRegistry struct {
	listener net.Listener
	server   *http.Server
	served   chan struct{} // closed by the goroutine of Serve when the goroutine ends
}

func startRegistry() (*loopbackRegistry, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	silent := log.New(io.Discard, "", 0)
	r := &loopbackRegistry{
		listener: listener,
		server: &http.Server{
			Handler:           registry.New(registry.Logger(silent)),
			ReadHeaderTimeout: 10 * time.Second,
			ErrorLog:          silent,
		},
		served: make(chan struct{}),
	}
	go func() {
		defer close(r.served)
		r.server.Serve(listener) // ends with ErrServerClosed
	}()
	return r, nil
}

// Addr returns the host:port of the registry.
func (r *loopbackRegistry) Addr() string { return r.listener.Addr().String() }

// Close closes all connections and waits until the goroutine of the server has ended.
func (r *loopbackRegistry) Close() error {
	err := r.server.Close()
	<-r.served
	return err
}
