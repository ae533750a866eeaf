package file

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"go.etcd.io/bbolt"
)

// create makes a file with an empty store in it. It is made under another name, which is changed when it is complete,
// so that a crash on the way leaves no half of a store. If another process makes one meanwhile, that one stays.
func create(path string) (err error) {
	dir := filepath.Dir(path)
	if err := makeDir(dir); err != nil {
		return err
	}
	temp, err := os.CreateTemp(dir, filepath.Base(path)+".new-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(temp.Name())
	if err := temp.Close(); err != nil {
		return err
	}
	if err := fill(temp.Name(), boltOptions()); err != nil {
		return err
	}
	if err := publish(temp.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return syncDir(dir)
}

// fill writes an empty store to an empty file.
func fill(path string, opts *bbolt.Options) error {
	s := &Store{path: path}
	err := s.withBolt(opts, func() error {
		if managesFileSize {
			if err := extend(s.file, 8*int64(s.db.Info().PageSize)); err != nil {
				return err
			}
		}
		return s.db.Update(emptyStore)
	})
	if err != nil {
		return err
	}
	return s.db.Close()
}

// publish gives a file its name, unless there is one of that name.
func publish(temp, path string) error {
	err := os.Link(temp, path)
	if err == nil || errors.Is(err, fs.ErrExist) {
		return err
	}
	// Some file systems have no links. A rename would take the place of a file made since, so look once more.
	if _, err := os.Lstat(path); err == nil {
		return fs.ErrExist
	}
	return os.Rename(temp, path)
}

// makeDir makes a directory and those above it, and syncs each one above, so that a crash cannot take away what leads to
// the file. One that is there already may have been made by a process that has died, or failed, before it came to that.
func makeDir(dir string) error {
	above := filepath.Dir(dir)
	if above == dir {
		return nil
	}
	if err := makeDir(above); err != nil {
		return err
	}
	if _, err := os.Stat(dir); err == nil {
		return syncOldDir(above)
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return syncDir(above)
}
