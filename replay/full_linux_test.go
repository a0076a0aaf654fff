package replay

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
// TestFailingDisk shows the same where that is not to be had.
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
	ballast, path := filepath.Join(dir, "ballast"), filepath.Join(dir, "inputs.jsonl")
	if err := os.WriteFile(ballast, make([]byte, 256<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	s := openInputs(t, path)
	var ids []string
	for i := 0; s.Lost() == 0 && i < 10_000; i++ {
		ask(s, idOf(i), call(testGrant(), nil), allow(oldRe))
		ids = append(ids, idOf(i))
	}
	ids = ids[:len(ids)-1]
	if len(ids) < 100 || s.Lost() != 1 {
		t.Fatalf("%d written, %d lost", len(ids), s.Lost())
	}
	wantLines(t, path, ids...) // nothing half-written
	for range 5 {
		ask(s, "lost", call(testGrant(), nil), allow(oldRe))
	}
	wantLines(t, path, ids...)
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	ask(s, "d_again", call(testGrant(), nil), allow(oldRe))
	wantLines(t, path, append(ids, "d_again")...)
	if s.Lost() != 6 {
		t.Errorf("%d lost", s.Lost())
	}
}
