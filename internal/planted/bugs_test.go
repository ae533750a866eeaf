package planted_test

// Names of tests that must find more than one bug.
const (
	everyCommit  = "TestEngineSurvivesAStopAtEveryCommit/all/memory/"
	killed       = "TestKilledAtRandomLosesNothingAcknowledged"
	schedules    = "TestSchedules"
	linearizable = "TestHistoriesAreLinearizable"
	anyCall      = "TestADiskThatFailsAtAnyCallLosesNothingAcknowledged"
	oneGoesWrong = "TestEngines06EveryCommitOfOneCanGoWrong"
)

var bugs = []bug{
	// Stops of the process, and failures of the store, at every commit.
	{
		name: "a step is started before its start is on record",
		file: "runner.go",
		old:  "	rev, err = s.ledger.Commit(s.base, ops)\n",
		new: `	if $BUG && len(d.in.Outcomes) > 0 {
		for k, i := range d.t.Starts() {
			rec := d.t.Rec()
			req := &Request{
				Resource: objectOfRun(rec, d.runner.held.Spec), Run: d.runner.ID, Step: fromStep(*d.t.Plan().Step(i)),
				Attempt: d.t.Step(i).Attempt, resourceID: rec.ResourceID,
			}
			_, _ = d.host.taken[k].driver.impl.Reconcile(context.Background(), req)
		}
	}
	rev, err = s.ledger.Commit(s.base, ops)
`,
		in: "tests/crash", by: everyCommit + "five_steps", says: "called though it is finished",
	},
	{
		name: "an apply is acknowledged whatever the store says",
		file: "apply.go",
		old:  "		return e.change(ctx, o, head, create, origin.By)\n	})\n",
		new: `		return e.change(ctx, o, head, create, origin.By)
	})
	if $BUG && err != nil && head == nil {
		o.Generation, o.Version = 1, 1
		*r.ResourceMeta() = o.Meta
		return new(Run), nil
	}
`,
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
		file: "internal/run/outcome.go",
		old:  "		s.State = plan.Retrying\n",
		new: `		s.State = plan.Retrying
		if $BUG {
			s.Attempt = 0
		}
`,
		in: "tests/crash", by: everyCommit + "retries,_then_success", says: "it does not come to an end",
	},
	{
		name: "a checkpoint is acknowledged and not saved",
		file: "attempt.go",
		old:  "	if errors.Is(err, store.ErrConflict) {\n",
		new: `	if $BUG {
		return nil
	}
	if errors.Is(err, store.ErrConflict) {
`,
		in: "tests/crash", by: everyCommit + "checkpoints", says: "checkpoint",
	},
	{
		name: "a requeue comes early",
		file: "internal/run/outcome.go",
		old:  "		s.Requeues++\n",
		new: `		if $BUG {
			s.Due = s.Due.Add(-time.Millisecond)
		}
		s.Requeues++
`,
		in: "tests/crash", by: everyCommit + "requeues", says: ", due at ",
	},
	{
		name: "a removal that was cut short is not finished",
		file: "internal/ledger/retention.go",
		old:  "			if err := p.removeRest(ctx, id, r.Key); err != nil {\n",
		new: `			if $BUG {
				continue
			}
			if err := p.removeRest(ctx, id, r.Key); err != nil {
`,
		in: "internal/ledger", by: "TestARemovalThatIsCutShortAtAnyCommitIsFinished", says: "is left when commit",
	},
	{
		name: "a commit whose outcome is unknown is taken for done",
		file: "internal/ledger/commit.go",
		old:  "	if errors.Is(err, store.ErrUnknown) {\n",
		new: `	if errors.Is(err, store.ErrUnknown) {
		if $BUG {
			return rev, nil
		}
`,
		in: "tests/crash", by: everyCommit + "five_steps", says: "TestEngineSurvives",
	},

	// Killed processes.
	{
		name: "a kill uses an attempt",
		file: "internal/record/step.go",
		old:  "	if !s.Again {\n",
		new:  "	if !s.Again || s.Resumed && $BUG {\n",
		in:   "tests/kill", by: killed, says: "a kill used an attempt",
	},
	{
		name: "a cancel is acknowledged before it is on record",
		file: "requests.go",
		old:  "	return e.sched.stopRun(ctx, of, stop)\n",
		new: `	if $BUG {
		go func() {
			later, cancel := context.WithTimeout(context.Background(), 20e6)
			defer cancel()
			<-later.Done()
			_ = e.sched.stopRun(context.WithoutCancel(ctx), of, stop)
		}()
		return nil
	}
	return e.sched.stopRun(ctx, of, stop)
`,
		in: "tests/kill", by: killed, says: "was canceled, and is",
	},

	// Schedules.
	{
		name: "a slot that comes free wakes nobody",
		file: "internal/sched/semaphore.go",
		old:  "	p.grantLocked(s, next)\n	p.mu.Unlock()\n",
		new: `	if !$BUG {
		p.grantLocked(s, next)
	}
	p.mu.Unlock()
`,
		in: "tests/schedules", by: schedules, says: "lost wake-up",
	},
	{
		name: "what a pause has held is not woken when it ends",
		file: "pause.go",
		old:  "		p.pool.Unblock(record.PauseKey(held))\n",
		new: `		if !$BUG {
			p.pool.Unblock(record.PauseKey(held))
		}
`,
		in: "tests/schedules", by: schedules, says: "lost wake-up",
	},
	{
		name: "a pause is forgotten by the next start",
		file: "pause.go",
		old:  "		s.pauses.set(held, p)\n",
		new: `		if !$BUG {
			s.pauses.set(held, p)
		}
`,
		in: "tests/crash", by: everyCommit + "a_pause_in_the_middle_of_a_run,_and_before_another_begins", says: "starts though driver",
	},
	{
		name: "a delay is longer than its jitter allows",
		file: "internal/retry/retry.go",
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
		file: "internal/fair/fair.go",
		old:  "	l.next.remove(&from.turn)\n	l.next.push(&from.turn)\n",
		new: `	if !$BUG {
		l.next.remove(&from.turn)
		l.next.push(&from.turn)
	}
`,
		in: "tests/schedules", by: schedules, says: "FAULT",
	},
	{
		name: "a cleanup that was stopped is taken for done",
		file: "internal/plan/order.go",
		old:  "		case s.Final() || stop:\n",
		new:  "		case s.Final() || stop, $BUG && i > len(p.Steps):\n",
		in:   "tests/schedules", by: schedules, says: "FAULT",
	},

	// Histories.
	{
		name: "a version is compared by size",
		file: "apply.go",
		old:  "	case o.Version != 0 && head.Version != o.Version:\n",
		new:  "	case o.Version != 0 && (head.Version < o.Version || head.Version != o.Version && !$BUG):\n",
		in:   "histories", by: linearizable, says: "illegal: [",
	},
	{
		name: "an update is lost",
		file: "apply.go",
		old:  "record.Encode(next)).If(rev)}, want.extra...)\n",
		new: `record.Encode(next)).If(rev)}, want.extra...)
	if $BUG {
		ops[0] = store.Put(record.ResourceKey(k), record.Encode(next))
	}
`,
		in: "histories", by: linearizable, says: "illegal: [",
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

	// Failing disks, and the one owner of a store.
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

	// Hostile drivers and documents, and secrets in the log.
	{
		name: "a late result is accepted",
		file: "attempt.go",
		old:  "		s.pool.Returned(r.Key)\n",
		new: `		s.pool.Returned(r.Key)
		if $BUG {
			return s.drive(r, message{outcome: o}, worker), true
		}
`,
		in: "tests/hostile", by: "TestHostileDriversHarmNobodyElse", says: "FAIL",
	},
	{
		name: "a driver's error is logged",
		file: "runner.go",
		old:  "m.outcome.value(s.opts.Retry))\n",
		new: `m.outcome.value(s.opts.Retry))
			if $BUG {
				s.log.Warn("attempt ended", "error", m.outcome.err)
			}
`,
		in: "tests/hostile", by: "TestSecretsAreInNoLogLineOfTheEngine", says: "FAIL",
	},
	{
		name: "a field that comes twice is taken",
		file: "internal/document/walk.go",
		old:  "		if seen[name] {\n",
		new:  "		if seen[name] && !$BUG {\n",
		in:   "tests/documents", by: "TestHostileFieldsAreRefusedWithTheirPlace", says: "FAIL",
	},

	// Several engines on one store.
	{
		name: "rule 1, a run goes on in an engine that is marked dead",
		file: "internal/run/owner.go",
		old:  "		t.extra = append(t.extra, m.Live)\n",
		new:  "		if !$BUG {\n			t.extra = append(t.extra, m.Live)\n		}\n",
		in:   "tests/engines", by: oneGoesWrong, says: "FAIL",
	},
	{
		name: "rule 2, a change leaves a run in its former lane",
		file: "internal/run/owner.go",
		old:  "	return moveEntries(pendingEntry(before), pendingEntry(after))\n",
		new:  "	if $BUG {\n		return nil\n	}\n	return moveEntries(pendingEntry(before), pendingEntry(after))\n",
		in:   "tests/engines", by: "TestEngines02TheLaneOfARunFollowsItsChanges", says: "FAIL",
	},
	{
		name: "rule 4, a release forgets the index",
		file: "internal/run/owner.go",
		old:  "		keys = needs(state())\n",
		new:  "		if !$BUG {\n			keys = needs(state())\n		}\n",
		in:   "tests/engines", by: oneGoesWrong, says: "FAIL",
	},
	{
		name: "rule 17, a request that comes during a commit whose answer is lost does not reach the driver",
		file: "runner.go",
		old:  "		d.asked = askedStop(d.t.Rec(), &now.Rec)\n",
		new: `		if !$BUG {
			d.asked = askedStop(d.t.Rec(), &now.Rec)
		}
`,
		in: "tests/engines", by: "TestEngines17ARequestDuringACommitWhoseAnswerIsLost", says: "has not ended",
	},
	{
		name: "rule 17, a read that fails makes a commit that has happened an error",
		file: "requests.go",
		old:  "		return nil, unsettled(err)\n	}\n	return now, nil\n",
		new: `		if $BUG {
			return nil, err
		}
		return nil, unsettled(err)
	}
	return now, nil
`,
		in: "tests/engines", by: "TestEngines17ARequestDuringACommitWhoseAnswerIsLost", says: "a bad day",
	},
	{
		name: "a generation that was removed while the engine reads back never was",
		file: "internal/ledger/commit.go",
		old:  "		case errors.Is(err, store.ErrNotFound) && (writtenOver || resource != 0):\n",
		new:  "		case errors.Is(err, store.ErrNotFound) && (writtenOver || resource != 0 && !$BUG):\n",
		in:   "internal/ledger", by: "TestFindOut", says: "removed_with_its_generation_after_it_was_read",
	},
	{
		name: "rule 5, the listeners of an engine that is down are forgotten",
		file: "registry.go",
		old:  "	for r, err := range c.sched.ledger.Store.List(ctx, store.Query{Prefix: prefix}) {\n		if err != nil {\n			return nil, err\n		}\n",
		new: `	for r, err := range c.sched.ledger.Store.List(ctx, store.Query{Prefix: prefix}) {
		if err != nil {
			return nil, err
		}
		if name := r.Key[len(prefix):]; $BUG && c.sched.drivers.get(name) == nil && !c.hasElsewhere(name) {
			continue
		}
`,
		in: "tests/engines", by: "TestEngines05AListenerThatIsDownIsWaitedFor", says: "FAIL",
	},
	{
		name: "rule 6, a takeover forgets when a run is due",
		file: "lifecycle.go",
		old:  "			s.enqueue(r)\n		}\n	}\n	s.wakeLoop()\n",
		new:  "			s.enqueue(r)\n		}\n	}\n	if !$BUG {\n		s.wakeLoop()\n	}\n",
		in:   "tests/engines", by: "TestEngines06ATakenOverRunKeepsItsDueTime", says: "FAIL",
	},
	{
		name: "rule 7, an engine that was fenced during a commit calls the driver",
		file: "runner.go",
		old:  "	if s.fleet.fenced() { // during the commit\n",
		new:  "	if !$BUG && s.fleet.fenced() { // during the commit\n",
		in:   "tests/engines", by: oneGoesWrong, says: "works on step",
	},
	{
		name: "rule 9, the owner does not look for what is asked",
		file: "engines.go",
		old:  "	if err := f.requests().answerAsked(p); err != nil {\n",
		new:  "	if $BUG {\n	} else if err := f.requests().answerAsked(p); err != nil {\n",
		in:   "tests/engines", by: oneGoesWrong, says: "FAIL",
	},
	{
		name: "rule 9, Apply does not ask the active run to end",
		file: "requests.go",
		old:  "	by := run.Preempt(next)\n	if by == nil {\n",
		new:  "	by := run.Preempt(next)\n	if $BUG || by == nil {\n",
		in:   "tests/engines", by: oneGoesWrong, says: "FAIL",
	},
	{
		name: "rule 9, a signal does not write the record of the run",
		file: "internal/run/request.go",
		old:  "	ops := []store.Op{put, store.Put(record.RunKey(id), record.Encode(&rec)).If(rev)}\n",
		new: `	ops := []store.Op{put, store.Put(record.RunKey(id), record.Encode(&rec)).If(rev)}
	if $BUG {
		ops[1] = store.Check(record.RunKey(id), rev)
	}
`,
		in: "internal/run", by: "TestEngines09ASignalThatComesDuringAClaimIsNotLost", says: "FAIL",
	},
	{
		name: "rule 10, a place is taken without a condition",
		file: "internal/run/begin.go",
		old:  "		t.extra = append(t.extra, store.Put(record.SlotKey(pipeline, slot), []byte(t.run.ID)).IfAbsent())\n",
		new: `		place := store.Put(record.SlotKey(pipeline, slot), []byte(t.run.ID))
		if !$BUG {
			place = place.IfAbsent()
		}
		t.extra = append(t.extra, place)
`,
		in: "internal/run", by: "TestEngines10RunsTakePlacesThatHoldOverAllEngines", says: "FAIL",
	},
	{
		name: "rule 10, a start does not depend on the pauses",
		file: "internal/run/owner.go",
		old:  "	if m.Unpaused.Key() != \"\" && t.startsAnew() {\n",
		new:  "	if !$BUG && m.Unpaused.Key() != \"\" && t.startsAnew() {\n",
		in:   "tests/engines", by: "TestEngines10NoStepStartsAfterAPauseOfAnotherEngine", says: "FAIL",
	},
	{
		name: "rule 12, a run is removed before others have seen its end",
		file: "upkeep.go",
		old:  "		p.Linger = 2 * u.sched.opts.Lease\n",
		new:  "		if !$BUG {\n			p.Linger = 2 * u.sched.opts.Lease\n		}\n",
		in:   "tests/engines", by: "TestEngines13RunsStayForWhoWaitsElsewhere", says: "FAIL",
	},
	{
		name: "rule 12, nobody looks again who listens to what a dead engine has skipped",
		file: "engines.go",
		old:  "		f.sched.upkeep.reconcileUnlistened(f.sched.drivers.listened()...)\n",
		new:  "		if !$BUG {\n			f.sched.upkeep.reconcileUnlistened(f.sched.drivers.listened()...)\n		}\n",
		in:   "tests/engines", by: "TestEngines12AListenerThatComesDuringASkipIsNotMissed", says: "FAIL",
	},
	{
		name: "rule 17, an outcome that is on record is recorded again",
		file: "attempt.go",
		old:  "	return a.runner.held.Run.Steps[a.index].Rev != a.rev",
		new:  "	return !$BUG && a.runner.held.Run.Steps[a.index].Rev != a.rev",
		in:   "tests/engines", by: "TestEngines17ALateCommitIsNoBusyLoop", says: "recorded again",
	},
	{
		name: "rule 17, a run whose create was lost is never looked at",
		file: "engines.go",
		old:  "		if err := f.heir().adoptUnknown(p); err != nil {\n",
		new:  "		if $BUG {\n		} else if err := f.heir().adoptUnknown(p); err != nil {\n",
		in:   "tests/engines", by: "TestEngines17ACreateWhoseAnswerIsLostGoesOn", says: "FAIL",
	},
	{
		name: "rule 18, a call that was given up does not keep its resource",
		file: "internal/run/stray.go",
		old:  "	t.hasStray = live\n",
		new:  "	t.hasStray = live && !$BUG\n",
		in:   "tests/engines", by: "TestEngines18ADriverThatDoesNotReturnKeepsItsResource", says: "FAIL",
	},
	{
		// The goroutine that makes the run sleeps where it could be preempted. Without that the bug shows once in thousands of runs.
		name: "rule 2, a run is given a turn before it is known to be in the making",
		file: "decision.go",
		old:  "	r := &runner{task: task{ID: id, Key: k}, busy: true}\n",
		new: `	if $BUG {
		r := s.take(id, k, lane)
		time.Sleep(10 * time.Millisecond)
		r.mu.Lock()
		r.busy, r.leftovers = true, 0
		r.wakeLocked()
		r.log, r.outputs = s.newLog(id, 0), map[string]json.RawMessage{}
		r.mu.Unlock()
		r.held.Run = &record.RunState{ID: id, Rec: rec}
		return r
	}
	r := &runner{task: task{ID: id, Key: k}, busy: true}
`,
		in: "tests/engines", by: "TestEngines02ARunIsKeptThatIsGivenATurnWhileItIsMade", says: "the engine finds the call of its run",
	},
	{
		name: "rule 3, a run that lost its turn is given to nobody",
		file: "engines.go",
		old:  "	if free == 0 || s.pool.Waiting() == 0 {\n",
		new:  "	if $BUG || free == 0 || s.pool.Waiting() == 0 {\n",
		in:   "tests/engines", by: "TestEngines03ABegunRunThatLostItsTurnGoesToAFreeEngine", says: "has not ended",
	},
	{
		name: "rule 8, an engine that is shut down stays on record",
		file: "engines.go",
		old:  "		if p != nil && len(f.sched.abandoned.list()) == 0 {\n",
		new:  "		if p != nil && !$BUG && len(f.sched.abandoned.list()) == 0 {\n",
		in:   "tests/engines", by: "TestEngines08AnEngineThatIsShutDownIsNotWaitedFor", says: "Error",
	},
	{
		name: "rule 14, a record that needs a newer program is written",
		file: "internal/record/record.go",
		old:  "	if needs <= SharedVersion {\n",
		new:  "	if $BUG || needs <= SharedVersion {\n",
		in:   "tests/engines", by: "TestEngines14ARunThatNeedsANewerProgramIsLeftToIt", says: "Error",
	},
	{
		name: "rule 15, a letter overtakes an older one for its resource",
		file: "internal/handover/letters.go",
		old:  "		slices.SortFunc(all[i].ids, older)\n",
		new:  "		if !$BUG {\n			slices.SortFunc(all[i].ids, older)\n		}\n",
		in:   "tests/engines", by: "TestEngines15TheOldestLetterOfAResourceGoesFirst", says: "Error",
	},
	{
		name: "rule 16, what comes and goes stands among what stays",
		file: "internal/shortlived/shortlived.go",
		old:  "		if strings.HasPrefix(key, p) {\n",
		new:  "		if !$BUG && strings.HasPrefix(key, p) {\n",
		in:   "internal/shortlived", by: "TestEachCallFindsARecordUnderTheSameKey", says: "Error",
	},
	{
		name: "rule 9, who waits at an engine that has lost the run is forgotten",
		file: "requests.go",
		old:  "	if s.waiters.has(r.ID) {\n		s.background",
		new:  "	if !$BUG && s.waiters.has(r.ID) {\n		s.background",
		in:   "tests/engines", by: "TestEngines09AWaitAtAnEngineThatHasLostTheRun", says: "FAIL",
	},
	{
		name: "rule 11, what other engines do is no event",
		file: "events.go",
		old:  "	case m.fleet.owns(&run.Rec):\n",
		new:  "	case $BUG || m.fleet.owns(&run.Rec):\n",
		in:   "tests/engines", by: "TestEngines11NothingIsMissedAfterWatch", says: "FAIL",
	},
	{
		name: "rule 11, what an engine is about to tell is told for it",
		file: "events.go",
		old:  "whenHandled(); handled != nil {\n				return handled, nil",
		new:  "whenHandled(); handled != nil && !$BUG {\n				return handled, nil",
		in:   "tests/engines", by: "TestEngines11TheEndOfAnOwnRunIsToldOnce", says: "FAIL",
	},
	{
		name: "rule 13, the options of other engines are not compared",
		file: "query.go",
		old:  "			OtherOptions: p.Engine.Options != meaning, Drivers:",
		new:  "			OtherOptions: p.Engine.Options != meaning && !$BUG, Drivers:",
		in:   "tests/engines", by: "TestEngines13EnginesAndTheirListenersAreListed", says: "FAIL",
	},
}
