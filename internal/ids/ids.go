// Package ids makes identifiers and timestamps that always grow. It must not know what they are for, and it reads no clock:
// the caller passes the time.
package ids

import (
	"math/rand/v2"
	"strings"
	"sync"
	"time"
)

// IDs makes identifiers that sort by the time at which they were made, in the manner of a ULID: 48 bits of
// milliseconds and 80 random bits, as 26 characters of lower-case Crockford base 32.
//
// Within one millisecond, or when the clock goes back, the next id is the last one plus a random number. The ids of one
// IDs therefore always grow. Across engines and restarts, ids grow as the clock does, or as After makes them. The zero
// value is ready for use. An IDs is safe for concurrent use.
type IDs struct {
	mu     sync.Mutex // guards what follows; held for a few instructions
	millis uint64
	high   uint64 // 16 random bits
	low    uint64 // 64 random bits
}

const letters = "0123456789abcdefghjkmnpqrstvwxyz"

// Next returns a new identifier for the time now. It is greater than every identifier that g has returned before.
func (g *IDs) Next(now time.Time) string {
	millis := uint64(max(now.UnixMilli(), 0)) & (1<<48 - 1)
	g.mu.Lock()
	if millis > g.millis {
		// The top bit stays clear, so that later additions within the millisecond do not overflow.
		g.millis, g.high, g.low = millis, rand.Uint64()&0x7FFF, rand.Uint64()
	} else {
		g.add(1 + rand.Uint64()&0xFFFFFF)
	}
	top, bottom := g.millis<<16|g.high, g.low
	g.mu.Unlock()

	var id [26]byte
	for i := len(id) - 1; i >= 0; i-- {
		id[i] = letters[bottom&31]
		bottom = bottom>>5 | top<<59
		top >>= 5
	}
	return string(id[:])
}

// After makes g go on from an identifier that another IDs has returned: what Next returns from now on is greater. A text
// that Next cannot have returned, or of a time more than four thousand years away, is ignored.
func (g *IDs) After(id string) {
	var top, bottom uint64
	if len(id) != 26 {
		return
	}
	for i := range len(id) {
		digit := strings.IndexByte(letters, id[i])
		if digit < 0 || top>>59 != 0 {
			return
		}
		top, bottom = top<<5|bottom>>59, bottom<<5|uint64(digit)
	}
	if top>>63 != 0 { // otherwise the milliseconds of later identifiers could overflow
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if last := g.millis<<16 | g.high; top > last || top == last && bottom > g.low {
		g.millis, g.high, g.low = top>>16, top&0xFFFF, bottom
	}
}

// add adds n to the last identifier. A carry that leaves the random bits goes to the milliseconds.
func (g *IDs) add(n uint64) {
	if g.low += n; g.low < n { // the sum wrapped
		if g.high++; g.high > 0xFFFF {
			g.high, g.millis = 0, g.millis+1
		}
	}
}
