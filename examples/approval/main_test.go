package main

import (
	"io"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

const want = `shop v7: please approve
shop v7: approved by ada
shop v7: live
shop: succeeded
- approve succeeded
- deploy succeeded
blog v3: please approve
blog: failed
- approve failed nobody approved within 20ms
- deploy skipped step approve failed
`

func TestADeploymentWaitsForItsApproval(t *testing.T) {
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
