package main

func Example_runGoesOnFromTheFailedStep() {
	main()
	// Output:
	// build ./app (this takes an hour)
	// first run failed
	// - build succeeded
	// - push failed the registry is full
	// - announce skipped step push failed
	// make room in the registry
	// push sha256:c0ffee
	// announce app
	// second run succeeded
	// - build succeeded
	// - push succeeded
	// - announce succeeded
	// it repeats the first one: true
}
