package run

// A call that was given up and has not returned is a stray. While it may be under way, no other engine calls a driver for its
// resource: the record of the resource names the engine. An engine that is not live has no strays.

// noteStray records a stray of this engine. On a store that is not shared, the host knows all strays.
func (t *Transition) noteStray(o *Outcome) error {
	if t.member == nil || !o.Stray {
		return nil
	}
	if err := t.readResource(); err != nil {
		return err
	}
	if t.head != nil && t.head.ID == t.rec.ResourceID {
		t.head.Stray = t.member.ID
	}
	return nil
}

// lookForStray finds out whether another engine has a stray, if the run has no owner and could begin, or go on, here.
func (t *Transition) lookForStray() error {
	if t.member == nil || t.run.Rec.Owner == t.member.ID {
		return nil
	}
	head := t.head
	if !t.created {
		s := t.state
		if s.Rev == 0 {
			var err error
			if s.Head, s.Rev, err = t.reader.Resource(t.key); err != nil {
				return err
			}
		}
		head = s.Head
	}
	if head == nil || head.Stray == "" || head.Stray == t.member.ID {
		return nil
	}
	live, err := t.host.IsLive(head.Stray)
	t.hasStray = live
	return err
}
