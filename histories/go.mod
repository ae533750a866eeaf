module github.com/conveyor-go/conveyor/histories

go 1.26.0

require (
	github.com/anishathalye/porcupine v1.3.1
	github.com/conveyor-go/conveyor v0.0.0
	github.com/stretchr/testify v1.12.1
)

require (
	github.com/cenkalti/backoff/v4 v4.3.0 // indirect
	go.etcd.io/bbolt v1.5.0 // indirect
	go.uber.org/goleak v1.3.0 // indirect
	go.yaml.in/yaml/v3 v3.0.5 // indirect
	golang.org/x/sync v0.24.0 // indirect
	golang.org/x/sys v0.45.0 // indirect
)

replace github.com/conveyor-go/conveyor => ../
