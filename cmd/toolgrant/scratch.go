package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// scratch is a private folder of this process. All of a user's lie in one
// place, each locked by whoever made it: what a process that was killed left
// there is found by its lock being free, and taken away by the next one.
type scratch struct {
	dir  string
	lock *os.File // the folder itself
}

// newScratch makes a folder of mode 0700 whose name begins with kind.
func newScratch(kind string) (*scratch, error) {
	base, err := lockBase()
	if err != nil {
		return nil, fmt.Errorf("making a private folder: %w", err)
	}
	defer base.Close()
	sweep(base.Name())
	dir, err := os.MkdirTemp(base.Name(), kind+"-")
	if err != nil {
		return nil, fmt.Errorf("making a private folder: %w", err)
	}
	lock, err := lockDir(dir, syscall.LOCK_EX|syscall.LOCK_NB)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("making a private folder: %w", err), os.RemoveAll(dir))
	}
	return &scratch{dir: dir, lock: lock}, nil
}

// remove takes the folder away, and the common one if it was the last.
func (s *scratch) remove() error {
	err := os.RemoveAll(s.dir)
	s.lock.Close()
	if base, lockErr := lockBase(); lockErr == nil {
		_ = os.Remove(base.Name()) // fails while another folder is in it
		base.Close()
	}
	return err
}

// lockBase opens the folder of all scratch folders, made if it is not there,
// and locks it. Temporary folders are everybody's: it must be this user's alone.
func lockBase() (*os.File, error) {
	name := filepath.Join(os.TempDir(), fmt.Sprintf("toolgrant-%d", os.Getuid()))
	for {
		if err := os.Mkdir(name, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
		info, err := os.Lstat(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue // the last user of it has just gone
		}
		if err != nil {
			return nil, err
		}
		owner, ok := info.Sys().(*syscall.Stat_t)
		if !info.IsDir() || info.Mode().Perm()&0o077 != 0 || !ok || int(owner.Uid) != os.Getuid() {
			return nil, fmt.Errorf("%s is not a folder that only you can open: remove it, or set TMPDIR", name)
		}
		f, err := lockDir(name, syscall.LOCK_EX)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		// It may have been removed while this waited for its lock.
		held, err := f.Stat()
		if now, again := os.Lstat(name); err == nil && again == nil && os.SameFile(held, now) {
			return f, nil
		}
		f.Close()
	}
}

func lockDir(name string, how int) (*os.File, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), how); err != nil {
		f.Close()
		return nil, fmt.Errorf("locking %s: %w", name, err)
	}
	return f, nil
}

// sweep removes the folders whose makers are gone. The base is locked.
func sweep(base string) {
	entries, _ := os.ReadDir(base)
	for _, e := range entries {
		dir := filepath.Join(base, e.Name())
		if lock, err := lockDir(dir, syscall.LOCK_EX|syscall.LOCK_NB); err == nil {
			_ = os.RemoveAll(dir)
			lock.Close()
		}
	}
}

// replaceFile writes a file of mode 0600 that a reader sees either as it was
// or as it is, never in part.
func replaceFile(path, text string) error {
	part := path + ".new"
	if err := os.WriteFile(part, []byte(text), 0o600); err != nil {
		return err
	}
	if err := os.Rename(part, path); err != nil {
		return errors.Join(err, os.Remove(part))
	}
	return nil
}
