package main

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestNumbersReadWell(t *testing.T) {
	for _, test := range []struct{ name, got, want string }{
		{"nothing", number(0), "0"},
		{"a fraction", number(0.01234), "0.012"},
		{"a few", number(1.234), "1.23"},
		{"tens", number(12.34), "12.3"},
		{"hundreds", number(123.4), "123"},
		{"thousands", number(1234.5), "1,235"},
		{"millions", number(1234567), "1,234,567"},
		{"a negative one", grouped(-123456), "-123,456"},
		{"an unknown one", known(unknown), "n/a"},
		{"bytes", size(512), "512 B"},
		{"kibibytes", size(1536), "1.50 KiB"},
		{"unknown bytes", size(unknown), "n/a"},
		{"nanoseconds", duration(25e-9), "25.0 ns"},
		{"microseconds", duration(1.5e-6), "1.50 µs"},
		{"milliseconds", duration(0.0152), "15.2 ms"},
		{"seconds", duration(4), "4.00 s"},
		{"a range", spread{median: 2, min: 1, max: 3}.ranged(number), "2.00 (1.00 – 3.00)"},
		{"a single value", spread{median: 2, min: 2, max: 2}.ranged(number), "2.00"},
	} {
		t.Run(test.name, func(t *testing.T) { require.Equal(t, test.want, test.got) })
	}
}
