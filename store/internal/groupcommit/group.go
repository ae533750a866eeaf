package groupcommit

// Options limit what a group has. A limit of zero is no limit. A group always has at least one commit, however large.
type Options struct {
	MaxBytes   int // the largest number of bytes of keys and values in a group
	MaxOps     int // the largest number of ops in a group
	MaxCommits int // the largest number of commits in a group
}

// divide divides the commits that wait into the next group and those that are left, both in the order in which they
// wait. The first commit is always part of the group. Those that are left keep the memory of waiting.
func (o Options) divide(waiting []*Commit) (group, left []*Commit) {
	var size extent
	group, left = make([]*Commit, 0, len(waiting)), waiting[:0]
	for i, c := range waiting {
		larger := size.with(c)
		if i > 0 && larger.exceeds(o) {
			left = append(left, waiting[i:]...)
			break
		}
		group, size = append(group, c), larger
	}
	clear(waiting[len(left):])
	return group, left
}

// extent is how much a group has of what [Options] limit.
type extent struct{ bytes, ops, commits int }

func (e extent) with(c *Commit) extent {
	e.commits++
	e.ops += len(c.Ops)
	for _, op := range c.Ops {
		e.bytes += len(op.Key()) + len(op.Value())
	}
	return e
}

func (e extent) exceeds(o Options) bool {
	over := func(n, limit int) bool { return limit > 0 && n > limit }
	return over(e.bytes, o.MaxBytes) || over(e.ops, o.MaxOps) || over(e.commits, o.MaxCommits)
}
