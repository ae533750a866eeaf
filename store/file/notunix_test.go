//go:build !unix

package file_test

// modesCount says whether files have the permissions that they were made with.
const modesCount = false
