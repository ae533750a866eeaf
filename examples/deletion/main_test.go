package main

func Example_layersAreTakenDownFromTheTop() {
	main()
	// Output:
	//   create the network of staging in north
	//   create the database of staging in north
	//   create the app of staging in north
	// applied staging generation 1
	// delete
	//   remove the app of staging
	//   remove the database of staging
	//   remove the network of staging
	// gone: true
	//   create the network of staging in south
	//   create the database of staging in south
	//   create the app of staging in south
	// applied staging generation 2
	// another resource of the same name: true
}
