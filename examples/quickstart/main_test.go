package main

func Example_printsWhatTheReadmeSays() {
	main()
	// Output:
	// clone https://example.com/app.git
	// test /src/app
	// succeeded
}
