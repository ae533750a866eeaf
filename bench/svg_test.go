package main

import (
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestPictureIsSoundXMLWithABarForEachContender(t *testing.T) {
	picture := drawSpeed([]*result{
		measured(conveyorFile, 1, 100, 300, 200), measured(dbosSQLite, 1, 20), measured(appendLoop, 1, 7000),
		measured(conveyorFile, 100, 4000), {contender: riverSQLite, flight: 100, leftOut: "too slow"},
	})
	bars := 0
	for dec := xml.NewDecoder(strings.NewReader(string(picture))); ; {
		token, err := dec.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		if start, ok := token.(xml.StartElement); ok && start.Name.Local == "rect" {
			bars++
		}
	}
	require.Contains(t, string(picture), "left out")
	require.Equal(t, 3, bars, "no bar for what does no runs, nor for what was left out")
	require.NotContains(t, string(picture), "NaN")
	require.Contains(t, string(picture), "prefers-color-scheme: dark")
}
