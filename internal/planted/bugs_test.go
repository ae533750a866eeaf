package planted_test

// everyCommit stops the engine at every commit and read of its workloads.
const everyCommit = "TestEngineSurvivesAStopAtEveryCommit/all/memory/"

var bugs = []bug{
	{
		name: "a step is started before its start is on record",
		file: "journey.go",
		old:  "	rev, err := s.ledger.commit(s.base, ops)\n	for pause",
		new: `	if $BUG && len(d.starts) > 0 && len(d.settled) > 0 {
		for _, st := range d.starts {
			step := d.plan.step(st.index)
			req := &Request{Resource: d.j.object.Clone(), Run: d.j.id, Step: step.clone(), Attempt: d.step(st.index).Attempt, resourceID: d.rec.ResourceID}
			_, _ = st.driver.impl.Reconcile(context.Background(), req)
		}
	}
	rev, err := s.ledger.commit(s.base, ops)
	for pause`,
		in: ".", by: everyCommit + "five_steps", says: "called though it is finished",
	},
	{
		name: "an apply is acknowledged whatever the store says",
		file: "apply.go",
		old:  "	if err != nil {\n		return nil, fmt.Errorf(\"resource %s: %w\", o.Key(), err)\n	}\n	*r.Resource",
		new: `	if $BUG && err != nil && head == nil {
		o.Generation, o.Version = 1, 1
		*r.ResourceMeta() = o.Meta
		return new(Run), nil
	}
	if err != nil {
		return nil, fmt.Errorf("resource %s: %w", o.Key(), err)
	}
	*r.Resource`,
		in: ".", by: everyCommit + "five_steps", says: "an acknowledged resource is lost",
	},
	{
		name: "an idempotency key has a random part",
		file: "driver.go",
		old:  "	return r.resourceID + \"/\" + r.Run + \"/\" + r.Step.ID\n",
		new: `	if $BUG {
		return fmt.Sprint(r.resourceID, "/", r.Run, "/", r.Step.ID, "/", time.Now().UnixNano())
	}
	return r.resourceID + "/" + r.Run + "/" + r.Step.ID
`,
		in: ".", by: everyCommit + "five_steps", says: "; was ",
	},
	{
		name: "a retry forgets its count",
		file: "attempt.go",
		old:  "		s.State, s.Due = StateRetrying, toInstant(o.ended).after(delay)\n",
		new: `		s.State, s.Due = StateRetrying, toInstant(o.ended).after(delay)
		if $BUG {
			s.Attempt = 0
		}
`,
		in: ".", by: everyCommit + "retries,_then_success", says: "it does not come to an end",
	},
	{
		name: "a checkpoint is acknowledged and not saved",
		file: "attempt.go",
		old:  "	if errors.Is(err, store.ErrConflict) {\n		err = ErrConflict\n	}\n",
		new: `	if $BUG {
		return nil
	}
	if errors.Is(err, store.ErrConflict) {
		err = ErrConflict
	}
`,
		in: ".", by: everyCommit + "checkpoints", says: "checkpoint",
	},
	{
		name: "a requeue comes early",
		file: "attempt.go",
		old:  "		s.Due = toInstant(o.ended).after(o.result.delay)\n		s.Requeues++\n",
		new: `		s.Due = toInstant(o.ended).after(o.result.delay)
		if $BUG {
			s.Due -= instant(time.Millisecond)
		}
		s.Requeues++
`,
		in: ".", by: everyCommit + "requeues", says: ", due at ",
	},
	{
		name: "a removal that was cut short is not finished",
		file: "retention.go",
		old:  "			if err := l.removeRest(ctx, k, id); err != nil {\n",
		new: `			if $BUG {
				continue
			}
			if err := l.removeRest(ctx, k, id); err != nil {
`,
		in: ".", by: everyCommit + "history_that_is_not_kept", says: "is left of a run that is not there",
	},
	{
		name: "a commit whose outcome is unknown is taken for done",
		file: "ledger.go",
		old:  "	if errors.Is(err, store.ErrUnknown) {\n		return l.findOut(ctx, ops, err)\n",
		new: `	if errors.Is(err, store.ErrUnknown) {
		if $BUG {
			return rev, nil
		}
		return l.findOut(ctx, ops, err)
`,
		in: ".", by: everyCommit + "five_steps", says: "TestEngineSurvives",
	},
}
