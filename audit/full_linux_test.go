package audit

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// fullDiskDir tells the child of TestFullDisk where to mount.
const fullDiskDir = "TOOLGRANT_TEST_FULL_DISK"

// A disk that is really full: a tmpfs of 1 MB, mounted by a child in namespaces
// of its own, so that no rights are needed and nothing stays mounted.
// TestShortWriteIsTakenBack shows the same where that is not to be had.
func TestFullDisk(t *testing.T) {
	if dir := os.Getenv(fullDiskDir); dir != "" {
		fullDisk(t, dir)
		return
	}
	child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestFullDisk$", "-test.v")
	child.Env = append(os.Environ(), fullDiskDir+"="+t.TempDir())
	child.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
	out, err := child.CombinedOutput()
	var ran *exec.ExitError
	switch {
	case err != nil && !errors.As(err, &ran):
		t.Skipf("no user and mount namespaces here: %v", err)
	case err != nil:
		t.Fatalf("%v\n%s", err, out)
	case strings.Contains(string(out), "--- SKIP"):
		t.Skipf("no tmpfs here:\n%s", out)
	case !strings.Contains(string(out), "--- PASS: TestFullDisk"):
		t.Fatalf("the child did not run it:\n%s", out)
	}
}

func fullDisk(t *testing.T, dir string) {
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Skipf("mounting a tmpfs: %v", err)
	}
	for _, mode := range []string{FsyncAlways, FsyncInterval} {
		ballast := filepath.Join(dir, "ballast")
		if err := os.WriteFile(ballast, make([]byte, 256<<10), 0o600); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, mode)
		l, err := Open(Config{File: path, Fsync: mode, Key: testKey})
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for err = nil; err == nil && n < 10_000; n++ {
			err = l.Append(testRecord(n))
		}
		if n--; !errors.Is(err, syscall.ENOSPC) || n < 500 {
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
