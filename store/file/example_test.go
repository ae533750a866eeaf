package file_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/conveyor-go/conveyor/store"
	"github.com/conveyor-go/conveyor/store/file"
)

// A store can be checked while nobody has it open, for example before a backup.
func ExampleCheck() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "conveyor.db")
	st, err := file.Open(ctx, path, file.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	_, err = st.Commit(ctx, store.Put("a/key", []byte("a value")))
	fmt.Println("commit:", err)
	fmt.Println("in use:", errors.Is(file.Check(ctx, path, file.Options{}), store.ErrLocked))
	fmt.Println("close:", st.Close())
	fmt.Println("check:", file.Check(ctx, path, file.Options{}))

	fmt.Println("truncate:", os.Truncate(path, 5000))
	fmt.Println("damaged:", errors.Is(file.Check(ctx, path, file.Options{}), store.ErrCorrupt))
	// Output:
	// commit: <nil>
	// in use: true
	// close: <nil>
	// check: <nil>
	// truncate: <nil>
	// damaged: true
}
