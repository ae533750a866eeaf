//go:build !unix && !windows

package main

import "os"

// terminalHeight returns 0, because this system has no terminals.
func terminalHeight(*os.File) int { return 0 }
