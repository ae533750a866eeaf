package text

import "fmt"

// FixedLimit is said in place of the name of a limit that nothing sets.
const FixedLimit = "a fixed limit"

// MoreThan returns the end of a text about something that has passed a limit. The name tells the reader what to change: it
// is the field that sets the limit, such as "Limits.Spec", or [FixedLimit].
func MoreThan(limit int, name string) string {
	return fmt.Sprintf("more than the limit of %d (%s)", limit, name)
}
