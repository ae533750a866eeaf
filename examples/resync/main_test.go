package main

import (
	"io"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

const want = `created: www is "", set it to "192.0.2.1"
somebody sets www to "203.0.113.66"
resync: www is "203.0.113.66", set it to "192.0.2.1"
generation 1 still: the spec has not changed
`

func TestDriftIsRepaired(t *testing.T) {
	read, write, err := os.Pipe()
	require.NoError(t, err)
	stdout := os.Stdout
	os.Stdout = write
	t.Cleanup(func() { os.Stdout = stdout })
	main()
	require.NoError(t, write.Close())
	printed, err := io.ReadAll(read)
	require.NoError(t, err)
	require.Equal(t, want, string(printed))
}
