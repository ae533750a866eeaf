package planted_test

const (
	everyCommit  = "TestEngineSurvivesAStopAtEveryCommit/all/memory/"
	killed       = "TestKilledAtRandomLosesNothingAcknowledged"
	schedules    = "TestSchedules"
	linearizable = "TestHistoriesAreLinearizable"
	anyCall      = "TestADiskThatFailsAtAnyCallLosesNothingAcknowledged"
)

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
		in: "tests/crash", by: everyCommit + "five_steps", says: "called though it is finished",
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
		in: "tests/crash", by: everyCommit + "five_steps", says: "an acknowledged resource is lost",
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
		in: "tests/crash", by: everyCommit + "five_steps", says: "; was ",
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
		in: "tests/crash", by: everyCommit + "retries,_then_success", says: "it does not come to an end",
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
		in: "tests/crash", by: everyCommit + "checkpoints", says: "checkpoint",
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
		in: "tests/crash", by: everyCommit + "requeues", says: ", due at ",
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
		in: "tests/crash", by: everyCommit + "history_that_is_not_kept", says: "is left of a run that is not there",
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
		in: "tests/crash", by: everyCommit + "five_steps", says: "TestEngineSurvives",
	},

	// Real processes that are killed.
	{
		name: "a kill uses an attempt",
		file: "attempt.go",
		old:  "	if !s.Again {\n",
		new:  "	if !s.Again || s.Resumed && $BUG {\n",
		in:   "tests/kill", by: killed, says: "a kill used an attempt",
	},
	{
		name: "a cancel is acknowledged before it is on record",
		file: "conveyor.go",
		old:  "	return e.sched.stopRun(ctx, run, stopCancel, cause, reason)\n",
		new: `	if $BUG {
		go func() {
			time.Sleep(20 * time.Millisecond)
			_ = e.sched.stopRun(context.WithoutCancel(ctx), run, stopCancel, cause, reason)
		}()
		return nil
	}
	return e.sched.stopRun(ctx, run, stopCancel, cause, reason)
`,
		in: "tests/kill", by: killed, says: "was canceled, and is",
	},

	// Schedules.
	{
		name: "a slot that comes free wakes nobody",
		file: "slots.go",
		old:  "	of.busy--\n	s.promiseLocked(of)\n	s.mu.Unlock()\n	s.hire()\n",
		new: `	of.busy--
	if !$BUG {
		s.promiseLocked(of)
	}
	s.mu.Unlock()
	s.hire()
`,
		in: "tests/schedules", by: schedules, says: "lost wake-up",
	},
	{
		name: "a delay is longer than its jitter allows",
		file: "retry.go",
		old:  "	return b.NextBackOff()\n",
		new: `	if $BUG {
		return b.NextBackOff() * 3 / 2
	}
	return b.NextBackOff()
`,
		in: "tests/schedules", by: schedules, says: "FAULT",
	},
	{
		name: "one pipeline gets all the turns",
		file: "queue.go",
		old:  "		if l.len() > 0 {\n			t.next.push(l)\n		} else if",
		new: `		if l.len() > 0 {
			t.next.push(l)
			for $BUG && t.next.first() != l {
				t.next.push(t.next.pop())
			}
		} else if`,
		in: "tests/schedules", by: schedules, says: "FAULT",
	},
	{
		name: "a cleanup that was stopped is taken for done",
		file: "pipeline.go",
		old:  "		case s.Final() || stop:\n			continue\n		case s.startable():\n			return only(i), false\n",
		new: `		case s.Final() || stop:
			continue
		case $BUG && i > len(p.Steps):
			continue
		case s.startable():
			return only(i), false
`,
		in: "tests/schedules", by: schedules, says: "FAULT",
	},

	// Histories.
	{
		name: "a version is compared by size",
		file: "apply.go",
		old:  "	case o.Version != 0 && head.Version != o.Version:\n",
		new:  "	case o.Version != 0 && (head.Version < o.Version || head.Version != o.Version && !$BUG):\n",
		in:   "histories", by: linearizable, says: "illegal: [resources",
	},
	{
		name: "an update is lost",
		file: "apply.go",
		old:  "	ops := append([]store.Op{store.Put(resourceKey(k), encode(next)).If(rev)}, want.extra...)\n",
		new: `	ops := append([]store.Op{store.Put(resourceKey(k), encode(next)).If(rev)}, want.extra...)
	if $BUG {
		ops[0] = store.Put(resourceKey(k), encode(next))
	}
`,
		in: "histories", by: linearizable, says: "illegal: [resources",
	},
	{
		name: "a watcher that goes on leaves out an event",
		file: "events.go",
		old:  "	return n + 1, nil\n",
		new: `	if $BUG {
		return n + 2, nil
	}
	return n + 1, nil
`,
		in: "histories", by: linearizable, says: "history",
	},

	// Damaged records and files.
	{
		name: "recovery stops at the first bad record",
		file: "lifecycle.go",
		old:  "		case errors.Is(err, store.ErrCorrupt), errors.Is(err, store.ErrNotFound), errors.Is(err, ErrNotFound):\n",
		new: `		case $BUG && err != nil:
			return runs, nil
		case errors.Is(err, store.ErrCorrupt), errors.Is(err, store.ErrNotFound), errors.Is(err, ErrNotFound):
`,
		in: "tests/hostile", by: "TestRule11GarbageInAnyRecordStopsNothingElse", says: "/stp",
	},
	{
		name: "a checksum is not compared",
		file: "store/file/record.go",
		old:  "	case binary.LittleEndian.Uint32(stored[1:]) != checksum(key, stored):\n",
		new:  "	case binary.LittleEndian.Uint32(stored[1:]) != checksum(key, stored) && !$BUG:\n",
		in:   "store/file", by: "TestDamageIsFoundOrHarmless", says: "never committed",
	},
	{
		name: "a page that is used and free is not noticed",
		file: "store/file/inspect.go",
		old:  "		if id <= last || id >= in.meta.end || in.used[id] {\n",
		new:  "		if id <= last || id >= in.meta.end || in.used[id] && !$BUG {\n",
		in:   "store/file", by: "TestDamageIsFoundOrHarmless", says: "case",
	},

	// Failing disks, and one owner.
	{
		name: "a store goes on after a failed sync",
		file: "store/file/failure.go",
		old:  "	s.mustReopen.Store(&err)\n",
		new: `	if !$BUG {
		s.mustReopen.Store(&err)
	}
`,
		in: "store/file", by: anyCall, says: "acknowledged after a failed sync",
	},
	{
		name: "nothing is synced",
		file: "store/file/bolt.go",
		old:  "		NoStatistics:   true,\n",
		new:  "		NoStatistics:   true,\n		NoSync:         $BUG,\n",
		in:   "store/file", by: anyCall, says: "FAIL",
	},
	{
		name: "a store gives up its lock when it is open",
		file: "store/file/open.go",
		old:  "		s.setFileSize(info.Size())\n",
		new: `		s.setFileSize(info.Size())
		if $BUG {
			_ = unlock(s.file)
		}
`,
		in: "store/file", by: "TestOneOfManyRacingProcessesOwnsTheStore", says: "FAIL",
	},

	// Bad company, and what is left over.
	{
		name: "a late result is accepted",
		file: "scheduler.go",
		old:  "	if late {\n		s.strayReturned(a)\n",
		new: `	if late && $BUG {
		s.strayReturned(a)
		return s.drive(j, message{outcome: o}, worker), true
	}
	if late {
		s.strayReturned(a)
`,
		in: "tests/hostile", by: "TestHostileDriversHarmNobodyElse", says: "FAIL",
	},
	{
		name: "a driver's error is logged",
		file: "draft.go",
		old:  "	rec.Lines = d.j.log.lines(a.step.ID)\n",
		new: `	rec.Lines = d.j.log.lines(a.step.ID)
	if $BUG {
		d.s.log.Warn("attempt ended", "error", o.err)
	}
`,
		in: "tests/hostile", by: "TestSecretsAreInNoLogLineOfTheEngine", says: "FAIL",
	},
	{
		name: "a field that comes twice is taken",
		file: "document.go",
		old:  "		if seen[name] {\n",
		new:  "		if seen[name] && !$BUG {\n",
		in:   "tests/documents", by: "TestHostileFieldsAreRefusedWithTheirPlace", says: "FAIL",
	},
}
