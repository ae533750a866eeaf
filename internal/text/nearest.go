package text

// Nearest returns the candidate that a misspelt name most likely stands for, and an empty text if none is near. A candidate is
// near if at most a third of the letters of the name, and at most three, must be inserted, removed, replaced, or swapped with
// their neighbour.
func Nearest(name string, candidates []string) string {
	if len(name) > MaxName {
		return ""
	}
	best, least := "", min(max(len(name)/3, 1), 3)+1
	for _, c := range candidates {
		if d := distance(name, c, least); d < least && c != name {
			best, least = c, d
		}
	}
	return best
}

// DidYouMean returns a question that proposes the nearest candidate, to be appended to the text of an error. It returns an
// empty text if no candidate is near.
func DidYouMean(name string, candidates []string) string {
	if near := Nearest(name, candidates); near != "" {
		return "; did you mean " + Quote(near) + "?"
	}
	return ""
}

// distance returns how many bytes of a must be inserted, removed, replaced or swapped with their neighbour to make b. It stops
// counting at limit.
func distance(a, b string, limit int) int {
	if len(a)-len(b) >= limit || len(b)-len(a) >= limit {
		return limit
	}
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range row {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			replace := last[j-1]
			if a[i-1] != b[j-1] {
				replace++
			}
			row[j] = min(replace, last[j]+1, row[j-1]+1)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return min(last[len(b)], limit)
}
