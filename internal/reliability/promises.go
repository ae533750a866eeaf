package main

// promise is something that the library promises, and the test that tries to break it.
type promise struct {
	Claim string
	Dir   string // the folder of the test's package
	Test  string
	// Bound is the environment variable that says how long the test goes on, and Long its value for a long run; 0 if there
	// is none on the page.
	Bound string
	Long  int
}

var promises = []promise{
	{
		Claim: "Wherever the process dies, or the store fails, or does not know: all goes on as if it had not, in order, no " +
			"finished step is called again, and attempts, due times and keys are kept",
		Dir: "./tests/crash", Test: "TestEngineSurvivesAStopAtEveryCommit",
	},
	{
		Claim: "The same, when the recovery is cut short too",
		Dir:   "./tests/crash", Test: "TestEngineSurvivesAStopAtEveryCommitOfARecovery",
	},
	{
		Claim: "What a process acknowledged before a SIGKILL is there, and holds",
		Dir:   "./tests/kill", Test: "TestKilledAtRandomLosesNothingAcknowledged", Bound: "CONVEYOR_KILLS", Long: 10_000,
	},
	{
		Claim: "A commit that was acknowledged survives a loss of power, and no commit is there in part",
		Dir:   "./store/file", Test: "TestWhatWasAcknowledgedSurvivesALossOfPower", Bound: "CONVEYOR_POWER_LOSSES", Long: 30_000,
	},
	{
		Claim: "A disk that fails at a write, a sync or a change of size loses nothing acknowledged; after a failed sync nothing " +
			"more is acknowledged until the store is opened again",
		Dir: "./store/file", Test: "TestADiskThatFailsAtAnyCallLosesNothingAcknowledged", Bound: "CONVEYOR_DISK_SWEEPS", Long: 4,
	},
	{
		Claim: "A damaged file is refused, or the damage is found, or it is harmless",
		Dir:   "./store/file", Test: "TestDamageIsFoundOrHarmless", Bound: "CONVEYOR_DAMAGE", Long: 104_000,
	},
	{
		Claim: "A store has one owner",
		Dir:   "./store/file", Test: "TestOneOfManyRacingProcessesOwnsTheStore", Bound: "CONVEYOR_OWNER_ROUNDS", Long: 200,
	},
	{
		Claim: "What concurrent clients see of a resource and of its runs is linearizable, across deaths of the process; watchers " +
			"miss nothing and see it in order, or get ErrGap",
		Dir: "./histories", Test: "TestHistoriesAreLinearizable", Bound: "CONVEYOR_HISTORIES",
	},
	{
		Claim: "In whatever order things happen: steps in order, never two runs of a resource at once, no lost wake-up, fair turns, " +
			"delays within their bounds",
		Dir: "./tests/schedules", Test: "TestSchedules", Bound: "CONVEYOR_SCHEDULES", Long: 40_000,
	},
	{
		Claim: "Several engines on one store: whichever commit of one of them goes wrong, whether it dies, stands still, is cut off or does " +
			"not know, the others go on, no resource has two calls at once, and after each commit every unfinished run is where somebody looks",
		Dir: "./tests/engines", Test: "TestEngines06EveryCommitOfOneCanGoWrong",
	},
	{
		Claim: "The same, when the engine that takes over goes wrong too",
		Dir:   "./tests/engines", Test: "TestEngines06ATakeoverCanGoWrong",
	},
	{
		Claim: "The same in any order of what engines and clients do at random, with deaths, stops, cuts, and a store that is away for all",
		Dir:   "./tests/engines", Test: "TestEnginesAnySchedule", Bound: "CONVEYOR_ENGINE_SCHEDULES", Long: 20_000,
	},
	{
		Claim: "A signal or a cancel from another engine comes about, before and after whichever call of the store it comes",
		Dir:   "./tests/engines", Test: "TestEngines09ARequestAtEveryCallOfTheStore",
	},
	{
		Claim: "An engine that was stopped for three leases in a loop of checkpoints and lines writes nothing of a run that was taken over",
		Dir:   "./tests/engines", Test: "TestEngines01NothingIsWrittenByAnEngineThatWasStopped",
	},
	{
		Claim: "Runs that wait are taken over within two leases of a death, and of a second one meanwhile",
		Dir:   "./tests/engines", Test: "TestEngines06VeryManyWaitingRunsAreTakenOverInTime",
	},
	{
		Claim: "MaxRuns holds over all engines, and no place is lost with one of them",
		Dir:   "./tests/engines", Test: "TestEngines10PlacesOutliveTheirEngines",
	},
	{
		Claim: "Connections to PostgreSQL that are terminated in the middle of commits lose nothing that was acknowledged, and do nothing twice",
		Dir:   "./store/postgres", Test: "TestTerminatedBackendsLoseNothingAcknowledged",
	},
	{
		Claim: "Real processes with an engine each on PostgreSQL go on when they are killed, stopped for three leases, cut off or disturbed in the middle of " +
			"an answer, and when the server restarts or is away: nothing acknowledged is lost, no finished step is called again, and no two drivers are at " +
			"work on a resource unless one of their processes has stood still",
		Dir: "./store/postgres", Test: "TestProcessesGoOnWhateverHappensToThem", Bound: "CONVEYOR_PROCESS_FAULTS", Long: 2000,
	},
	{
		Claim: "A server that is away for three leases makes no engine take another one for dead",
		Dir:   "./store/postgres", Test: "TestAServerThatIsAwayForThreeLeasesChangesNothing",
	},
	{
		Claim: "Five drivers in five processes carry out five steps in order, whichever of them is killed",
		Dir:   "./store/postgres", Test: "TestFiveDriversInFiveProcesses",
	},
	{
		Claim: "Three servers of etcd lose nothing acknowledged, and do nothing twice, when their leader is killed or any of them stands still",
		Dir:   "./store/etcd", Test: "TestThreeServersLoseNothingAcknowledged",
	},
	{
		Claim: "A database of etcd whose quota many commits reach at once has exactly what was acknowledged",
		Dir:   "./store/etcd", Test: "TestAQuotaThatManyReachAtOnce",
	},
	{
		Claim: "Real processes with an engine each on three servers of etcd go on when they are killed, stopped for three leases, cut off or " +
			"disturbed in the middle of an answer, and when the leader is killed or stopped, or all servers are away: the same as on PostgreSQL",
		Dir: "./store/etcd", Test: "TestProcessesGoOnWhateverHappensToThemAndTheirServers", Bound: "CONVEYOR_PROCESS_FAULTS",
	},
	{
		Claim: "Servers of etcd that are away for three leases make no engine take another one for dead",
		Dir:   "./store/etcd", Test: "TestServersThatAreAwayForThreeLeasesChangeNothing",
	},
	{
		Claim: "What concurrent clients of two and three engines on one store see is linearizable, across deaths of one of them",
		Dir:   "./histories", Test: "TestHistoriesOfSeveralEnginesAreLinearizable", Bound: "CONVEYOR_SHARED_HISTORIES", Long: 10_000,
	},
	{
		Claim: "A driver that misbehaves harms nobody else",
		Dir:   "./tests/hostile", Test: "TestHostileDriversHarmNobodyElse",
	},
	{
		Claim: "Shutdown returns by its context, however many drivers are stuck",
		Dir:   "./tests/hostile", Test: "TestShutdownReturnsByItsContextHoweverManyDriversAreStuck",
	},
	{
		Claim: "A program that opens, applies and closes again and again holds no more than before",
		Dir:   "./tests/hostile", Test: "TestAThousandRoundsLeaveNoGoroutineDescriptorLockOrMap", Bound: "CONVEYOR_ROUNDS",
	},
	{
		Claim: "A run that waits holds at most 1 KiB of heap, whatever it waits for",
		Dir:   "./tests/hostile", Test: "TestAMillionAppliesToWhatIsStuckHoldOneKilobyteEach",
	},
	{
		Claim: "A watcher that does not read holds no more than its buffer",
		Dir:   "./tests/hostile", Test: "TestSilentWatchersHoldNoMoreThanTheBuffer",
	},
	{
		Claim: "A damaged record stops nothing but what needs it",
		Dir:   "./tests/hostile", Test: "TestRule11GarbageInAnyRecordStopsNothingElse",
	},
	{
		Claim: "A document is read in bounded memory",
		Dir:   "./tests/hostile", Test: "TestDocumentsAreReadInBoundedMemory", Bound: "CONVEYOR_DOCUMENT_KIB", Long: 500,
	},
	{
		Claim: "The engine logs no secret",
		Dir:   "./tests/hostile", Test: "TestSecretsAreInNoLogLineOfTheEngine",
	},
	{
		Claim: "The tests on this page find the bugs that they are there for",
		Dir:   "./internal/planted", Test: "TestEveryPlantedBugIsFound",
	},
}
