package main

import (
	"errors"
	"net/url"
	"os"

	"go.etcd.io/etcd/server/v3/embed"
)

// hostEtcd starts an etcd in this process, with its data in a temporary folder, and returns its address.
func hostEtcd() (endpoint string, end func(), err error) {
	dir, err := os.MkdirTemp("", "conveyor-cluster-*")
	if err != nil {
		return "", nil, err
	}
	anywhere := []url.URL{{Scheme: "http", Host: "127.0.0.1:0"}}
	config := embed.NewConfig()
	config.Dir, config.LogLevel = dir, "fatal"
	config.ListenClientUrls, config.AdvertiseClientUrls = anywhere, anywhere
	config.ListenPeerUrls, config.AdvertisePeerUrls = anywhere, anywhere
	config.InitialCluster = config.InitialClusterFromName(config.Name)
	server, err := embed.StartEtcd(config)
	if err != nil {
		return "", nil, errors.Join(err, os.RemoveAll(dir))
	}
	end = func() {
		server.Close()
		_ = os.RemoveAll(dir)
	}
	select {
	case <-server.Server.ReadyNotify():
		return server.Clients[0].Addr().String(), end, nil
	case err := <-server.Err():
		end()
		return "", nil, err
	}
}
