package main

import (
	"io"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

const want = `  create the network of staging in north
  create the database of staging in north
  create the app of staging in north
applied staging generation 1
delete
  remove the app of staging
  remove the database of staging
  remove the network of staging
gone: true
  create the network of staging in south
  create the database of staging in south
  create the app of staging in south
applied staging generation 2
another resource of the same name: true
`

func TestDeletionTakesDownFromTheTop(t *testing.T) {
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
