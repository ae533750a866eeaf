package groupcommit

// Options limit what a group has. A limit of zero is no limit. A group always has at least one commit, however large.
type Options struct {
	MaxBytes   int // the largest number of bytes of keys and values in a group
	MaxOps     int // the largest number of ops in a group
	MaxCommits int // the largest number of commits in a group

	// Disjoint keeps two commits out of one group if both have an op for the same key, unless both only check that key.
	// A store can then judge the conditions of all commits of a group at once, and write all that hold at once.
	//
	// A commit waits as long as one that came before it, and with which it may not share a group, has not been carried
	// out. Commits for the same key are therefore carried out in the order in which they came.
	Disjoint bool
}

// divide divides the commits that wait into the next group and those that are left, both in the order in which they
// wait. The first commit is always part of the group. Those that are left keep the memory of waiting.
func (o Options) divide(waiting []*Commit) (group, left []*Commit) {
	var (
		size extent
		seen keys // nil if it does not matter who has which key
	)
	if o.Disjoint && len(waiting) > 1 {
		seen = make(keys, len(waiting))
	}
	group, left = make([]*Commit, 0, len(waiting)), waiting[:0]
	for i, c := range waiting {
		if seen != nil && !seen.add(c) && i > 0 {
			left = append(left, c)
			continue
		}
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
		e.bytes += op.Size()
	}
	return e
}

func (e extent) exceeds(o Options) bool {
	over := func(n, limit int) bool { return limit > 0 && n > limit }
	return over(e.bytes, o.MaxBytes) || over(e.ops, o.MaxOps) || over(e.commits, o.MaxCommits)
}

// keys are the keys of the commits that have been looked at, also of those that are left, because the commits after them
// must not overtake them. The value is true if one of the commits writes the key, and false if all of them only check it.
type keys map[string]bool

// add adds the keys of a commit. It reports whether the commit may share a group with every commit that was added before.
func (k keys) add(c *Commit) bool {
	apart := true
	for _, op := range c.Ops {
		written, found := k[op.Key()]
		if found && (written || op.Writes()) {
			apart = false
		}
		if !found || op.Writes() && !written {
			k[op.Key()] = op.Writes()
		}
	}
	return apart
}
