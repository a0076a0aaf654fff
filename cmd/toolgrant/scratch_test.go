package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

func TestScratch(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	one, err := newScratch("dev")
	if err != nil {
		t.Fatal(err)
	}
	base := filepath.Dir(one.dir)
	for _, dir := range []string{base, one.dir} {
		if info, err := os.Lstat(dir); err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("%s: %v, %v", dir, info, err)
		}
	}
	// What a dead process left, and what a live one has.
	left := filepath.Join(base, "exec-dead")
	if err := errors.Join(os.Mkdir(left, 0o700), os.WriteFile(filepath.Join(left, "token"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	two, err := newScratch("exec")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(left); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what was left is still there: %v", err)
	}
	if _, err := os.Stat(one.dir); err != nil {
		t.Errorf("another's was taken away: %v", err)
	}
	for _, s := range []*scratch{two, one} {
		if err := s.remove(); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Stat(base); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the common folder is left: %v", err)
	}
}

// Many come and go at once: each has its own while it has it.
func TestScratchRaces(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 50 {
				s, err := newScratch("x")
				if err != nil {
					t.Error(err)
					return
				}
				if err := replaceFile(filepath.Join(s.dir, "f"), "text"); err != nil {
					t.Error(err)
				}
				if err := s.remove(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
}

// A folder that others could have prepared is not used.
func TestScratchNotOurs(t *testing.T) {
	probe := func(t *testing.T, prepare func(base string) error) error {
		t.Setenv("TMPDIR", t.TempDir())
		s, err := newScratch("x")
		if err != nil {
			t.Fatal(err)
		}
		base := filepath.Dir(s.dir)
		if err := errors.Join(s.remove(), prepare(base)); err != nil {
			t.Fatal(err)
		}
		s, err = newScratch("x")
		if err == nil {
			_ = s.remove()
		}
		return err
	}
	for name, prepare := range map[string]func(string) error{
		"open to others": func(base string) error { return errors.Join(os.Mkdir(base, 0o700), os.Chmod(base, 0o755)) },
		"a link":         func(base string) error { return os.Symlink(t.TempDir(), base) },
		"a file":         func(base string) error { return os.WriteFile(base, nil, 0o600) },
		"of another": func(base string) error {
			if os.Getuid() != 0 {
				return os.WriteFile(base, nil, 0o600) // only root can give it away
			}
			return errors.Join(os.Mkdir(base, 0o700), os.Chown(base, 65534, 65534))
		},
	} {
		t.Run(name, func(t *testing.T) {
			if err := probe(t, prepare); err == nil || !strings.Contains(err.Error(), "only you can open") {
				t.Errorf("it was used: %v", err)
			}
		})
	}
}

func TestReplaceFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(path, []byte("old"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := replaceFile(path, "new"); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	text, _ := os.ReadFile(path)
	if err != nil || string(text) != "new" || info.Mode().Perm() != 0o600 {
		t.Errorf("%q, %v, %v", text, info, err)
	}
}
