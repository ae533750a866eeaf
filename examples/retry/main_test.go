package main

import (
	"io"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

const want = `build ./app (this takes an hour)
first run failed
- build succeeded
- push failed the registry is full
- announce skipped step push failed
make room in the registry
push sha256:c0ffee
announce app
second run succeeded
- build succeeded
- push succeeded
- announce succeeded
it repeats the first one: true
`

func TestRetryGoesOnFromTheFailedStep(t *testing.T) {
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
