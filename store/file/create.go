package file

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"go.etcd.io/bbolt"
)

// create makes a file with an empty store at path. The file is written under a temporary name and gets its own name
// when it is complete, so a crash in between leaves no partial store at path. If another process makes a file at path
// meanwhile, the file of the other process stays.
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

// publish gives the file temp the name path. It returns fs.ErrExist if there is a file of that name.
func publish(temp, path string) error {
	err := os.Link(temp, path)
	if err == nil || errors.Is(err, fs.ErrExist) {
		return err
	}
	// Some file systems have no links. A rename would replace a file that was made meanwhile, so look once more.
	if _, err := os.Lstat(path); err == nil {
		return fs.ErrExist
	}
	return os.Rename(temp, path)
}

// makeDir makes a directory and its parents. It syncs each parent, so that a crash cannot remove the path to the file.
// A directory that exists already may have been made by a process that died or failed before it synced the parent, so
// the parent is synced then too.
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
