package main

func Example_driftIsRepaired() {
	main()
	// Output:
	// created: www is "", set it to "192.0.2.1"
	// somebody sets www to "203.0.113.66"
	// resync: www is "203.0.113.66", set it to "192.0.2.1"
	// generation 1 still: the spec has not changed
}
