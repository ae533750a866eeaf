/* The processes of the model. An atomic block is one commit, or one step of an engine that needs no store. See README.md. */
#include "head.pml"

/* What an engine does whatever its runs are. */
proctype engine(byte e) {
end:
  do
  /* It renews itself. */
  :: atomic { CONNECTED(e) && eng[ID(e)] == LIVE && (age[ID(e)] > 0 || late[e] || fenced[e]) ->
       age[ID(e)] = 0; late[e] = 0; fenced[e] = 0 }
  /* It is marked dead. It drops everything and starts with another id. */
  :: atomic { CONNECTED(e) && eng[ID(e)] != LIVE && life[e] < LIVES-1 -> start_engine(e) }
  /* It fences itself. This needs no store. */
  :: atomic { up[e] && !frozen[e] && age[ID(e)] > 0 && !fenced[e] && !PLANTED(NOFENCE) ->
       fenced[e] = 1; late[e] = 0;
       if
       :: call[e] > 0 -> back[e] = call[e]; call[e] = 0; call_ends[e] = 1
       :: else
       fi }
  /* A driver returns. */
  :: atomic { up[e] && !frozen[e] && call[e] > 0 && back[e] == 0 && (call[e] != HANGING+1 || call_ends[e]) ->
       back[e] = call[e]; call[e] = 0 }
  /* It finds that the generation of the pauses has changed, and reads them. */
  :: atomic { CONNECTED(e) && view[e] != pse && !PLANTED(RESUME) -> view[e] = pse }
  od
}

/* What an engine does with one run. */
proctype work(byte e; byte r) {
end:
  do
  /* A claim is decided. It is not made if it can neither start a step nor end the run. */
  :: atomic { FREE(e) && want[e] == 0 && eng[ID(e)] == LIVE && UNFINISHED(r) && owner[r] == 0 && rdy[r] && HINTED(e,r) &&
       (stop[r] || HASDRIVER(e,r) && !HELD(e,r)) -> decide(e,r) }
  /* The claim is committed, together with the start of the step. */
  :: atomic { CONNECTED(e) && want[e] == r+1 && want_of[e] == 0 ->
       if
       :: FREE(e) && (UNCHANGED(e,r) && rdy[r] && ENGHOLDS(e) && (stop[r] || PSEHOLDS(r,want_view[e])) ||
          PLANTED(CLAIM) && !over[r]) ->
            forbid(started_again, ONCE, step[r] > want_step[e]);
            owner[r] = ID(e); rdy[r] = 0; SIGNALSEEN(e,r) = want_signal[e];
            if
            :: stop[r] || AWAITS(r) -> KNOWN(e,r) = 1
            :: else ->
               record_start(e,r);
               if
               :: lost > 0 -> lost--    /* the engine does not learn that it is the owner */
               :: KNOWN(e,r) = 1; call_driver(e,r)
               fi
            fi
       :: else -> conflict(e)
       fi;
       decided(e) }
  /* A takeover is decided. */
  :: atomic { CONNECTED(e) && !fenced[e] && want[e] == 0 && eng[ID(e)] == LIVE && UNFINISHED(r) && owner[r] != 0 &&
       eng[owner[r]] == DEAD -> decide(e,r) }
  /* The takeover is committed. It starts nothing. */
  :: atomic { CONNECTED(e) && want[e] == r+1 && want_of[e] != 0 ->
       if
       :: UNCHANGED(e,r) && ENGHOLDS(e) ->
            owner[r] = ID(e); rdy[r] = 0; KNOWN(e,r) = 1; SIGNALSEEN(e,r) = want_signal[e]
       :: else
       fi;
       decided(e) }

  /* The owner ends a run that is to be canceled. */
  :: atomic { FREE(e) && OWNS(e,r) && stop[r] -> end_run(e,r) }
  /* The owner starts a step. A step that awaits a signal takes the one that is there, or waits. */
  :: atomic { FREE(e) && OWNS(e,r) && !stop[r] && HASDRIVER(e,r) && !HELD(e,r) &&
       (!AWAITS(r) || !waits[r] || SIGNALSEEN(e,r)) ->
       if
       :: PSEHOLDS(r,view[e]) ->
            record_start(e,r);
            if
            :: !AWAITS(r) -> call_driver(e,r)
            :: AWAITS(r) && SIGNALSEEN(e,r) -> step[r] = STEPS; end_run(e,r)
            :: AWAITS(r) && !SIGNALSEEN(e,r) -> SIGNALSEEN(e,r) = signal[r]; waits[r] = 1
            fi
       :: else -> conflict(e)
       fi }
  /* The owner releases a run whose driver is missing here. */
  :: atomic { FREE(e) && OWNS(e,r) && !stop[r] && !HASDRIVER(e,r) && !HELD(e,r) ->
       owner[r] = 0; waits[r] = 0; KNOWN(e,r) = 0; SIGNALSEEN(e,r) = 0;
       if
       :: !PLANTED(RELEASE) -> rdy[r] = 1; hint(r)
       :: else
       fi }
  /* The outcome of a call is recorded. The outcome of an engine that is not the owner any more is refused. */
  :: atomic { CONNECTED(e) && back[e] == r+1 && !fenced[e] ->
       if
       :: owner[r] == ID(e) && !over[r] && step[r] == call_step[e] ->
            if
            :: call_ends[e] && stop[r] -> end_run(e,r)
            :: call_ends[e] && !stop[r] /* an interruption; the step is started again */
            :: !call_ends[e] ->
               step[r]++; begun[r] = 0;
               if
               :: step[r] == STEPS -> end_run(e,r)
               :: else
               fi
            fi
       :: else -> KNOWN(e,r) = 0
       fi;
       call_recorded(e) }
  /* A call saves a checkpoint. */
  :: atomic { CONNECTED(e) && call[e] == r+1 && !call_saved[e] ->
       call_saved[e] = 1;
       forbid(foreign_checkpoint, WRITER, CKPHOLDS(e,r) && owner[r] != ID(e)) }
  /* The engine finds an entry of ask/ME, reads the record of the run, and removes the entry. */
  :: atomic { CONNECTED(e) && (ask[r] & BIT(ID(e))) && HINTED(e,r) ->
       ask[r] = ask[r] & ~BIT(ID(e)); hinted[e*RUNS+r] = 0;
       if
       :: OWNS(e,r) ->
            SIGNALSEEN(e,r) = signal[r];
            if
            :: stop[r] && call[e] == r+1 -> call_ends[e] = 1
            :: else
            fi
       :: else
       fi }
  /* Once a lease, the engine compares own/ME with its memory. */
  :: atomic { CONNECTED(e) && UNFINISHED(r) && owner[r] == ID(e) && !KNOWN(e,r) && !PLANTED(FORGET) ->
       KNOWN(e,r) = 1; SIGNALSEEN(e,r) = signal[r] }
  od
}

/* What an engine does about another engine id. */
proctype observer(byte e; byte id) {
#define LEFT(r) (owner[r] != id && !(PLANTED(ASK) && (ask[r] & BIT(id))))
end:
  do
  /* It sees that the other engine is dead. */
  :: atomic { CONNECTED(e) && dead_seen[e] == 0 && eng[id] == LIVE && id != ID(e) && EXPIRED(id) -> dead_seen[e] = id }
  /* It marks the other engine dead. */
  :: atomic { CONNECTED(e) && dead_seen[e] == id ->
       if
       :: eng[id] == LIVE && HBTHOLDS(id) -> eng[id] = DEAD
       :: else
       fi;
       dead_seen[e] = 0 }
  :: atomic { PLANTED(WALL) && CONNECTED(e) && e == 1 && id == ID(0) && eng[id] == LIVE && call[0] > 0 -> eng[id] = DEAD }
  /* It removes the other engine when own/ID is empty, with what is left of ask/ID. */
  :: atomic { CONNECTED(e) && eng[id] == DEAD && EVERYRUN(LEFT) ->
       eng[id] = GONE;
       d_step {
         for (i : 0 .. RUNS-1) { ask[i] = ask[i] & ~BIT(id) }
       } }
  od
}

/* The heartbeat of an engine id gets older while no process renews it. An engine that is cut off fences itself before the
 * lease is over. */
proctype time(byte id) {
#define NOBODY(id) (!up[PROCESS(id)] || ID(PROCESS(id)) != id)
end:
  do
  :: atomic { eng[id] == LIVE && age[id] == 0 && (NOBODY(id) || frozen[PROCESS(id)] || cut[PROCESS(id)]) -> age[id] = 1 }
  :: atomic { eng[id] == LIVE && age[id] == 1 &&
       (NOBODY(id) || frozen[PROCESS(id)] || cut[PROCESS(id)] && (fenced[PROCESS(id)] || PLANTED(NOFENCE))) ->
       age[id] = 2;
       if
       :: !NOBODY(id) && frozen[PROCESS(id)] -> late[PROCESS(id)] = 1
       :: else
       fi }
  od
}

/* The faults of a process. A process has a fault with its first id only, since it needs the second one afterwards. */
proctype fault(byte e) {
end:
  do
  :: atomic { faults > 0 && up[e] && !frozen[e] && !cut[e] && life[e] < LIVES-1 ->
       faults--;
       if
       :: frozen[e] = 1
       :: cut[e] = 1
       :: up[e] = 0; lose_memory(e)
       :: e == 0 -> up[e] = 0; lose_memory(e); buried[e] = 1
       fi }
  :: atomic { frozen[e] -> frozen[e] = 0 }
  :: atomic { cut[e] -> cut[e] = 0 }
  :: atomic { !up[e] && !buried[e] -> up[e] = 1; start_engine(e) }
  od
}

/* The clients. Each request is made at any time. */
proctype client() {
  byte e, id, seen;  /* the engine of the create, its id, and the generation of the pauses with which it was decided */
end:
  do
  /* A create of run 0 is decided. Its commit is under way while anything happens to the engine. */
  :: atomic { !made[0] && id == 0 && CONNECTED(0) && eng[ID(0)] == LIVE -> e = 0; id = ID(0); seen = view[0] }
  :: atomic { !made[0] && id == 0 && CONNECTED(1) && eng[ID(1)] == LIVE -> e = 1; id = ID(1); seen = view[1] }
  :: atomic { !made[0] && id != 0 ->
       if
       /* The create starts the first step and makes the engine the owner. */
       :: seen != 1 && (eng[id] == LIVE || PLANTED(ZOMBIE)) && PSEHOLDS(0,seen) ->
            made[0] = 1; owner[0] = id; record_start(e,0);
            if
            :: up[e] && ID(e) == id && lost > 0 -> lost--
            :: up[e] && ID(e) == id -> KNOWN(e,0) = 1
            :: !(up[e] && ID(e) == id)
            fi
       /* No worker is free there, or a pause holds the run. */
       :: made[0] = 1; rdy[0] = 1; hint(0)
       /* The create meets a conflict. It is decided anew. */
       :: eng[id] != LIVE && !PLANTED(ZOMBIE)
       :: seen != 1 && !PSEHOLDS(0,seen) -> conflict(e)
       fi;
       e = 0; id = 0; seen = 0 }
  /* Signal */
  :: atomic { !signaled && UNFINISHED(0) ->
       signaled = 1; signal[0] = 1;
       if
       :: owner[0] == 0 -> rdy[0] = 1
       :: else -> ask[0] = ask[0] | BIT(owner[0])
       fi;
       hint(0) }
#if RUNS > 1
  /* Cancel */
  :: atomic { !canceled && !over[1] ->
       canceled = 1; stop[1] = 1;
       if
       :: owner[1] == 0 -> rdy[1] = 1
       :: else -> ask[1] = ask[1] | BIT(owner[1])
       fi;
       hint(1) }
#endif
  /* Pause and Resume. Both rewrite pse. */
  :: atomic { PAUSES > 0 && pse == 0 && !EVERYRUN(OVER) -> pse = 1 }
  :: atomic { pse == 1 -> pse = 2 }
  od
}

/* The properties that hold in every state, and the one that holds where nothing can happen any more. Every execution ends,
 * which the search for cycles shows. Therefore the last property says what happens eventually. */
proctype monitor() {
#define PLACED(r) (!UNFINISHED(r) || owner[r] != 0 || rdy[r] || (r) == 2 && !over[1])
#define SERVED(r) (!UNFINISHED(r) || owner[r] == 0 || eng[owner[r]] == LIVE || eng[owner[r]] == DEAD)
#define CLASH(a,b) (call[a] != 0 && call[b] != 0 && RESOURCE(call[a]-1) == RESOURCE(call[b]-1) && !late[a] && !late[b])
#define CLEAN(r) (over[r] && ask[r] == 0)
#define SETTLED(id) (eng[id] == 0 || eng[id] == GONE || eng[id] == LIVE && !NOBODY(id))
end:
  do
  :: CHECKED(PLACE) && !EVERYRUN(PLACED) -> misplaced = 1; assert(!misplaced)
  :: CHECKED(SERVICE) && !EVERYRUN(SERVED) -> unserved = 1; assert(!unserved)
  :: CHECKED(DRIVERS) && ANYTWO(CLASH) -> two_drivers = 1; assert(!two_drivers)
  :: timeout ->
       forbid(unfinished, REST, !(EVERYRUN(CLEAN) && canceled && signaled && pse != 1 && EVERYID(SETTLED)));
       break
  od
}

init {
  atomic {
#if RUNS > 1
    made[1] = 1; rdy[1] = 1; hint(1); made[2] = 1;
#else
    canceled = 1;
#endif
    for (i : 0 .. ENGINES-1) {
      up[i] = 1; eng[ID(i)] = LIVE;
      run engine(i); run fault(i);
      for (j : 0 .. RUNS-1) { run work(i, j) }
      for (j : 1 .. IDS) { run observer(i, j) }
    }
    for (j : 1 .. IDS) { run time(j) }
    run client(); run monitor()
  }
}
