//go:build race

package testenv

// Race says whether the race detector is at work.
const Race = true
