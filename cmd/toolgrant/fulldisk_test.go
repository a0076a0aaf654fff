package main

import (
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/toolgrant/toolgrant/audit"
	"github.com/toolgrant/toolgrant/client"
)

// TestFullDisk (O07): the audit log is on a disk that runs full, while calls and
// grants go on. The answer is no, nothing is spent or granted by it, and all
// goes on when there is room again; the chain is whole.
func TestFullDisk(t *testing.T) {
	disk := filepath.Join(t.TempDir(), "disk")
	if err := os.Mkdir(disk, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=256k"); err != nil {
		if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EACCES) {
			t.Skip("this user may not mount a tmpfs: ", err)
		}
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(disk, syscall.MNT_DETACH) })

	w := layOut(t)
	conf, err := os.ReadFile(filepath.Join(w.dir, "toolgrant.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if err := w.write("toolgrant.yaml", strings.Replace(string(conf), "file: run/audit.jsonl", "file: "+filepath.Join(disk, "audit.jsonl"), 1)); err != nil {
		t.Fatal(err)
	}
	w.load()
	w.serve()
	w.startEnvoy()
	task := w.task()
	tok := w.export(task, func(r *client.GrantRequest) { r.MaxCalls = 2 })
	w.wantCall(tok.AccessToken, http.StatusOK, "")

	filler := filepath.Join(disk, "filler")
	fill(t, filler)
	// The log's last page has room for some more: denials, which are the shortest
	// records, use it up.
	w.until("the log is full", func() bool {
		return w.call("", "POST", exportCSV, october).status == http.StatusServiceUnavailable
	})
	for range 50 {
		w.wantCall(tok.AccessToken, http.StatusServiceUnavailable, "cannot_record")
	}
	var refused *client.Error
	for range 5 {
		_, err := w.bot().Exchange(t.Context(), client.GrantRequest{Tool: "reports/export", Task: task, TTL: time.Minute})
		if !errors.As(err, &refused) || refused.Reason != "cannot_record" {
			t.Fatalf("exchange on a full disk: %v", err)
		}
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	w.until("it records again", func() bool {
		return w.call("", "POST", exportCSV, october).status == http.StatusUnauthorized
	})
	w.wantCall(tok.AccessToken, http.StatusOK, "") // none of the fifty has spent it
	w.wantCall(tok.AccessToken, http.StatusForbidden, "budget_spent")

	f, err := os.Open(filepath.Join(disk, "audit.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	text, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	if s, err := audit.Verify(strings.NewReader(string(text))); err != nil {
		t.Fatalf("after %d good records: %v", s.Lines, err)
	}
	if n := strings.Count(string(text), `"kind":"resumed"`); n == 0 {
		t.Error("the log does not say that it had stopped")
	}
	allowed := 0
	for line := range strings.SplitSeq(string(text), "\n") {
		if strings.Contains(line, `"kind":"call"`) && strings.Contains(line, `"outcome":"allow"`) {
			allowed++
		}
	}
	if allowed != w.tool.calls() || allowed != 2 {
		t.Errorf("%d calls are allowed on record, and the tool ran %d times", allowed, w.tool.calls())
	}
}

// fill writes until the disk takes no byte more.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for size := 64 << 10; size > 0; {
		switch n, err := f.Write(make([]byte, size)); {
		case errors.Is(err, syscall.ENOSPC):
			if n == 0 {
				size /= 2
			}
		case err != nil:
			t.Fatal(err)
		}
	}
}
