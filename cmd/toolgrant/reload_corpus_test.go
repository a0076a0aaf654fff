package main

import (
	"archive/tar"
	"compress/gzip"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// corpusPolicies gives so many policy files of the corpus with which Cedar's
// implementations are compared, as it lies in the cedar-go module of this build.
func corpusPolicies(t *testing.T, want int) []string {
	t.Helper()
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/cedar-policy/cedar-go").Output()
	if err != nil {
		t.Fatalf("where cedar-go lies: %v", err)
	}
	f, err := os.Open(filepath.Join(strings.TrimSpace(string(dir)), "corpus-tests.tar.gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	zip, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	var texts []string
	for r := tar.NewReader(zip); len(texts) < want; {
		h, err := r.Next()
		if err != nil {
			t.Fatalf("%d policy files: %v", len(texts), err)
		}
		if !strings.HasSuffix(h.Name, ".cedar") {
			continue
		}
		text, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		texts = append(texts, string(text))
	}
	return texts
}

// TestCorpusOnHangup is row P01 through the running program: a SIGHUP with each of 20
// files of the corpus, none of which loads here, changes nothing and is told.
func TestCorpusOnHangup(t *testing.T) {
	w := layOut(t)
	cmd := w.serve()
	w.startEnvoy()
	tok := w.export(w.task())
	metric := func(text string) func() bool {
		return func() bool { _, page := w.page("/metrics"); return strings.Contains(page, "\n"+text+"\n") }
	}
	hangup := func() {
		t.Helper()
		if err := cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
	}
	for _, text := range corpusPolicies(t, 20) {
		if err := w.write("policies/corpus.cedar", text); err != nil {
			t.Fatal(err)
		}
		hangup()
		w.until("the broken file is told", metric("toolgrant_policy_reload_failed 1"))
		w.wantCall(tok.AccessToken, http.StatusOK, "")
		if status, _ := w.page("/readyz"); status != http.StatusOK {
			t.Errorf("/readyz: %d", status)
		}
		if err := os.Remove(filepath.Join(w.dir, "policies/corpus.cedar")); err != nil {
			t.Fatal(err)
		}
		hangup()
		w.until("it is whole again", metric("toolgrant_policy_reload_failed 0"))
	}
}
