package main

func Example_deploymentWaitsForItsApproval() {
	main()
	// Output:
	// shop v7: please approve
	// shop v7: approved by ada
	// shop v7: live
	// shop: succeeded
	// - approve succeeded
	// - deploy succeeded
	// blog v3: please approve
	// blog: failed
	// - approve failed nobody approved within 20ms
	// - deploy skipped step approve failed
}
