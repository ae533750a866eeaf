package main

func Example_runToleratesALintAndCleansUp() {
	main()
	// Output:
	// clean up after a run that succeeded
	// - fetch succeeded
	// - lint failed two lines are too long
	// - test succeeded
	// - scan succeeded
	// - package succeeded
	// - clean succeeded
	// the run succeeded
	//
	// flowchart LR
	//   s1["fetch<br/>fetcher<br/>succeeded"]
	//   s2["lint<br/>linter<br/>failed"]
	//   s3["test<br/>tester<br/>succeeded"]
	//   s4["scan<br/>scanner<br/>succeeded"]
	//   s5["package<br/>packager<br/>succeeded"]
	//   s6["clean<br/>cleaner<br/>succeeded"]
	//   s1 --> s2
	//   s1 --> s3
	//   s1 --> s4
	//   s2 --> s5
	//   s3 --> s5
	//   s4 --> s5
	//   s5 -. finally .-> s6
	//   classDef succeeded fill:#a6e9b5,color:#000
	//   class s1,s3,s4,s5,s6 succeeded
	//   classDef failed fill:#ff9e9e,color:#000
	//   class s2 failed
}
