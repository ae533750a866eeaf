package main

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestQuickstartPrintsWhatTheReadmeSays(t *testing.T) {
	read, write, err := os.Pipe()
	require.NoError(t, err)
	stdout := os.Stdout
	os.Stdout = write
	t.Cleanup(func() { os.Stdout = stdout })
	main()
	require.NoError(t, write.Close())
	printed := make([]byte, 1<<10)
	n, err := read.Read(printed)
	require.NoError(t, err)
	require.Equal(t, "clone https://example.com/app.git\ntest /src/app\nsucceeded\n", string(printed[:n]))
}
