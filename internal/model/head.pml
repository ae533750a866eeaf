/* The size, the planted bugs and the properties of the model, its state, and the conditions of its commits. The processes
 * are in body.pml, which includes this file. */

/* ---- The size. A variant sets other values with -D. ---- */
#ifndef ENGINES
#define ENGINES 2       /* 2 or 3 */
#endif
#ifndef RUNS
#define RUNS 3          /* 1 or 3 */
#endif
#ifndef FAULTS
#define FAULTS 1        /* crashes, freezes and cuts, all together */
#endif
#ifndef LOST
#define LOST 0          /* answers of the store that do not arrive */
#endif
#ifndef PAUSES
#define PAUSES 0        /* 1: a client pauses everything once, at any time, and resumes it, at any time */
#endif
#define STEPS 2         /* steps of a run */
#define LIVES 2         /* ids of a process: the first, and one more after a fault */
#define IDS (ENGINES*LIVES)

/* ---- The planted bugs. A variant has one of them with -DBUG=NAME, and none without. ---- */
#define NONE 0
#define CLAIM 1         /* a claim has no condition */
#define RELEASE 2       /* a release does not put the run into rdy/ */
#define EARLY 3         /* an engine is marked dead after two thirds of a lease */
#define WALL 4          /* the age of a heartbeat is the difference of two wall clocks, and one of them is ahead */
#define NOFENCE 5       /* an engine that is cut off from the store goes on */
#define HINT 6          /* an engine looks only where a hint has come from, and a hint can get lost */
#define HBCHECK 7       /* the commit that marks an engine dead has no Check of its heartbeat */
#define ZOMBIE 8        /* a create has no Check of the engine that becomes the owner */
#define ACQUIRE 9       /* a claim and a takeover have no Check of the engine that becomes the owner */
#define SIGNAL 10       /* a signal does not write the record of the run */
#define CKP 11          /* a checkpoint has the step as its condition, but not the run */
#define PENDING 12      /* the end of a run wakes the next one in memory, where the wake-up gets lost */
#define FORGET 13       /* own/ME is not compared with memory */
#define PAUSE 14        /* a start has no Check of pse */
#define RESUME 15       /* an engine reads the pauses only after a conflict */
#define ASK 16          /* a dead engine is removed when ask/ID is empty too */
#define LOOP 17         /* after a conflict, the pauses are not read again */
#ifndef BUG
#define BUG NONE
#endif
#define PLANTED(bug) (BUG == bug)

/* ---- The properties. A variant checks one of them with -DCHECK=NAME, and all of them without. ---- */
#define ALL 0
#define PLACE 1         /* the Invariant: an unfinished run has an owner, stands in rdy/, or stands in line */
#define SERVICE 2       /* an owner is live, or it is marked dead and not removed */
#define DRIVERS 3       /* a resource has one driver at a time, unless a process was frozen past its lease */
#define ONCE 4          /* a step that has ended is not started again */
#define WRITER 5        /* a checkpoint comes from the owner */
#define HOLD 6          /* a step that a pause holds is not started between Pause and Resume */
#define REST 7          /* where nothing can happen any more, all runs have ended, all requests were made, and the engine
                         * ids that no process has are removed */
#ifndef CHECK
#define CHECK ALL
#endif
#define CHECKED(property) (CHECK == ALL || CHECK == property)

/* ---- The store ----
 *
 * Run 0 is the run of resource 0. A client applies run 0. Its second step awaits a signal.
 * Runs 1 and 2 are runs of resource 1. Run 2 waits in line until run 1 has ended. The driver of the first step of run 1
 * does not return by itself, and a client cancels run 1.
 */
bit made[RUNS];         /* the record of the run exists */
bit over[RUNS];         /* the run has ended */
byte owner[RUNS];       /* an engine id, or 0 */
bit rdy[RUNS];          /* the run stands in rdy/ */
byte step[RUNS];        /* the number of steps that have ended */
bit begun[RUNS];        /* the current step was started before, so that no pause holds it */
bit waits[RUNS];        /* the current step waits for a signal */
bit stop[RUNS];         /* the run is to be canceled */
bit signal[RUNS];       /* a signal is there */
byte ask[RUNS];         /* the engine ids with an entry ask/ID/RUN, a bit for each of them */
byte eng[IDS+1];        /* eng/ID: one of the following, or 0 if the id was not used yet */
#define LIVE 1
#define DEAD 2          /* marked dead */
#define GONE 3          /* removed */
byte age[IDS+1];        /* the age of hbt/ID: 0 fresh, 1 two thirds of a lease, 2 a lease */
byte pse;               /* the generation of the pauses: 0 before Pause, 1 until Resume, 2 afterwards */
bit canceled, signaled; /* the client has made the request */

#define RESOURCE(r) ((r) == 0 -> 0 : 1)
#define HANGING 1       /* the run whose driver does not return */
#define AWAITS(r) ((r) == 0 && step[r] == 1)
#define OVER(r) over[r]
#define UNFINISHED(r) (made[r] && !over[r])
#define BIT(id) (1 << (id))

/* ---- The processes with their engines ---- */
bit up[ENGINES];        /* the process runs */
bit frozen[ENGINES];    /* the process stands still: SIGSTOP, a suspended machine */
bit cut[ENGINES];       /* the process does not reach the store */
bit buried[ENGINES];    /* the process will not be started again */
byte life[ENGINES];     /* how often the process has taken a new id */
bit fenced[ENGINES];    /* the engine calls no driver and starts nothing until it has renewed itself */
bit late[ENGINES];      /* the process was frozen for a lease and has not renewed since: the window of rule 7 */
byte view[ENGINES];     /* the generation of the pauses that the engine has read */
byte dead_seen[ENGINES];/* an engine id whose heartbeat the engine has seen unchanged for a lease, or 0 */
bit known[ENGINES*RUNS];       /* the engine has the run in memory */
bit signal_seen[ENGINES*RUNS]; /* the engine has read the signal of the run */
bit hinted[ENGINES*RUNS];      /* a hint about the run has come; needed by HINT alone */

/* The call of a driver. */
byte call[ENGINES];     /* the run for which a driver is called, plus 1, or 0 */
byte call_step[ENGINES];/* the step of this run */
bit call_ends[ENGINES]; /* the context of the call has ended */
bit call_saved[ENGINES];/* the call has tried to save a checkpoint; a call does so once at most */
bit call_same[ENGINES]; /* the record of the step is as the start of the call has written it */
byte back[ENGINES];     /* the run whose driver has returned, plus 1, until the outcome is recorded, or 0 */

/* What a claim or a takeover was decided on. */
byte want[ENGINES];     /* the run, plus 1, or 0 */
byte want_of[ENGINES];  /* its owner: 0 for a claim, a dead engine for a takeover */
byte want_step[ENGINES];
bit want_signal[ENGINES];
bit want_stop[ENGINES];
byte want_view[ENGINES];

byte faults = FAULTS;   /* faults that can still happen */
byte lost = LOST;       /* answers that can still get lost */
hidden byte i, j;       /* counters within one atomic step */

#define ID(e) (1 + (e)*LIVES + life[e])
#define PROCESS(id) (((id)-1) / LIVES)
#define KNOWN(e,r) known[(e)*RUNS+(r)]
#define SIGNALSEEN(e,r) signal_seen[(e)*RUNS+(r)]
#define HINTED(e,r) (!PLANTED(HINT) || hinted[(e)*RUNS+(r)])
#define CONNECTED(e) (up[e] && !frozen[e] && !cut[e])
#define FREE(e) (CONNECTED(e) && !fenced[e] && call[e] == 0 && back[e] == 0)
#define OWNS(e,r) (owner[r] == ID(e) && KNOWN(e,r) && !over[r])
#define HASDRIVER(e,r) ((e) != 0 || step[r] == 0)  /* the driver of the second step is missing in engine 0 */
#define HELD(e,r) (view[e] == 1 && !begun[r])     /* as far as the engine knows */

#if RUNS > 1
#define EVERYRUN(is) (is(0) && is(1) && is(2))
#else
#define EVERYRUN(is) is(0)
#endif
#if ENGINES > 2
#define EVERYID(is) (is(1) && is(2) && is(3) && is(4) && is(5) && is(6))
#define ANYTWO(are) (are(0,1) || are(0,2) || are(1,2))
#else
#define EVERYID(is) (is(1) && is(2) && is(3) && is(4))
#define ANYTWO(are) are(0,1)
#endif

/* ---- The conditions of commits ---- */

/* run.If and step.If: the records are as they were when the commit was decided. A request writes the record of the run. */
#define UNCHANGED(e,r) (!over[r] && owner[r] == want_of[e] && step[r] == want_step[e] && stop[r] == want_stop[e] && \
  (signal[r] == want_signal[e] || PLANTED(SIGNAL)))
/* Check(eng/ME): the engine that becomes the owner is live. */
#define ENGHOLDS(e) (eng[ID(e)] == LIVE || PLANTED(ACQUIRE))
/* Check(pse): the pauses are as they were when the start was decided. A step that was started before needs no Check. */
#define PSEHOLDS(r,seen) (pse == (seen) || begun[r] || PLANTED(PAUSE))
/* Check(run) and step.If of a checkpoint: the engine is the owner, and its call is the newest of the step. */
#define CKPHOLDS(e,r) (call_same[e] && (owner[r] == ID(e) || PLANTED(CKP)))
/* Check(hbt/ID): the heartbeat has not changed since it was seen unchanged for a lease. */
#define HBTHOLDS(id) (EXPIRED(id) || PLANTED(HBCHECK))
#define EXPIRED(id) (age[id] == 2 || PLANTED(EARLY) && age[id] == 1)

/* ---- Parts of commits and of other steps ---- */

/* What the model has found: a variable for each property. */
bit misplaced, unserved, two_drivers, started_again, foreign_checkpoint, started_held, unfinished;

/* An event that breaks a property. */
inline forbid(event, property, condition) {
  if
  :: CHECKED(property) && (condition) -> event = 1; assert(!event)
  :: else
  fi
}

/* The watch of the store hints at a change that concerns the run, or the hint gets lost. */
inline hint(r) {
  if
  :: PLANTED(HINT) -> hinted[r] = 1; hinted[RUNS+r] = 1
  :: true
  fi
}

inline decide(e, r) {
  want[e] = r+1; want_of[e] = owner[r]; want_step[e] = step[r]; want_signal[e] = signal[r]; want_stop[e] = stop[r];
  want_view[e] = view[e]
}

inline decided(e) {
  want[e] = 0; want_of[e] = 0; want_step[e] = 0; want_signal[e] = 0; want_stop[e] = 0; want_view[e] = 0
}

/* A commit met a conflict. What it was decided on is read again before the next decision. */
inline conflict(e) {
  view[e] = (PLANTED(LOOP) -> view[e] : pse)
}

/* The start of a step is recorded. The revision of its record changes. Therefore the checkpoint of an older call is refused. */
inline record_start(e, r) {
  forbid(started_held, HOLD, pse == 1 && !begun[r]);
  d_step {
    begun[r] = 1;
    for (i : 0 .. ENGINES-1) { call_same[i] = call_same[i] && (i == e || call[i] != r+1) }
  }
}

inline call_driver(e, r) {
  call[e] = r+1; call_step[e] = step[r]; call_same[e] = 1
}

inline call_recorded(e) {
  back[e] = 0; call_step[e] = 0; call_ends[e] = 0; call_same[e] = 0; call_saved[e] = 0
}

/* The run ends. The same commit puts the run that waits behind it into rdy/. */
inline end_run(e, r) {
  over[r] = 1; owner[r] = 0; rdy[r] = 0; begun[r] = 0; waits[r] = 0; ask[r] = ask[r] & ~BIT(ID(e));
  KNOWN(e,r) = 0; SIGNALSEEN(e,r) = 0;
#if RUNS > 1
  if
  :: r == 1 && !PLANTED(PENDING) -> rdy[2] = 1; hint(2)
  :: else
  fi
#endif
}

/* The process loses what is in its memory. */
inline lose_memory(e) {
  decided(e); call[e] = 0; call_recorded(e); fenced[e] = 0; late[e] = 0; view[e] = 0; dead_seen[e] = 0;
  d_step {
    for (i : 0 .. RUNS-1) { known[e*RUNS+i] = 0; signal_seen[e*RUNS+i] = 0; hinted[e*RUNS+i] = 0 }
  }
}

/* The engine starts with a new id. It reads the pauses. */
inline start_engine(e) {
  lose_memory(e); life[e]++; eng[ID(e)] = LIVE; age[ID(e)] = 0; view[e] = pse
}
