//go:build !linux

package main

func kernel() string { return "" }

func processor() string { return "" }

func fileSystem(string) string { return "" }
