package audit

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// A disk that is really full. Needs the right to mount; TestShortWriteIsTakenBack
// shows the same without.
func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Skipf("mounting a tmpfs: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	for _, mode := range []string{FsyncAlways, FsyncInterval} {
		ballast := filepath.Join(dir, "ballast")
		if err := os.WriteFile(ballast, make([]byte, 24<<10), 0o600); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, mode)
		l, err := Open(Config{File: path, Fsync: mode, Key: testKey})
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for err = nil; err == nil && n < 1000; n++ {
			err = l.Append(testRecord(n))
		}
		if n--; !errors.Is(err, syscall.ENOSPC) || n < 10 {
			t.Fatalf("after %d records: %v", n, err)
		}
		if l.Healthy() == nil {
			t.Error("healthy on a full disk")
		}
		mustVerify(t, path, n) // nothing half-written
		for range 5 {
			l.tick()
			if err := l.Append(testRecord(n)); !errors.Is(err, syscall.ENOSPC) {
				t.Fatalf("again: %v", err)
			}
		}
		mustVerify(t, path, n)

		if err := os.Remove(ballast); err != nil {
			t.Fatal(err)
		}
		mustAppend(t, l, 1)
		if err := l.Healthy(); err != nil {
			t.Error(err)
		}
		mustVerify(t, path, n+2) // with "resumed"
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
}
