package plan

// only returns a slice of one position, not to be changed.
func only(i int) []int {
	if i < len(positions) {
		return positions[i : i+1]
	}
	return []int{i}
}

// positions are in their places, so that the usual plan needs no memory to say what comes next.
var positions = func() (p [256]int) {
	for i := range p {
		p[i] = i
	}
	return p
}()
