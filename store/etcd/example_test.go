package etcd_test

import (
	"context"
	"log"
	"strings"

	"os"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/store/etcd"
)

// Every process of a program opens the store like this, and has an engine of its own on it.
func ExampleOpen() {
	ctx := context.Background()
	st, err := etcd.Open(ctx, clientv3.Config{Endpoints: strings.Split(os.Getenv("ETCD_ENDPOINTS"), ",")}, etcd.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer st.Close()
	engine, err := conveyor.New(st, conveyor.Options{Name: "builder-1"})
	if err != nil {
		log.Fatal(err)
	}
	// Register drivers and save pipelines here, as with any other store.
	if err := engine.Start(ctx); err != nil {
		log.Fatal(err)
	}
	if err := engine.Shutdown(ctx); err != nil {
		log.Fatal(err)
	}
}

// What Health returns goes into the metrics of the program.
func ExampleStore_Health() {
	ctx := context.Background()
	st, err := etcd.Open(ctx, clientv3.Config{Endpoints: strings.Split(os.Getenv("ETCD_ENDPOINTS"), ",")}, etcd.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer st.Close()
	health, err := st.Health(ctx)
	if err != nil {
		log.Fatal(err)
	}
	for _, server := range health.Servers {
		log.Printf("%s: %d of %d bytes, error %v", server.Endpoint, server.Bytes, server.Quota, server.Err)
	}
}
