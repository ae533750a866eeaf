//go:build !unix

package file_test

// modesCount says whether the system keeps the permissions of a file.
const modesCount = false
