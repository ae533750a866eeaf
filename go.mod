module github.com/conveyor-go/conveyor

go 1.26.0
