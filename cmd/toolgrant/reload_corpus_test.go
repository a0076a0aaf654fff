package main

import (
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/toolgrant/toolgrant/cedar/cedartest"
)

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
	files, tried := cedartest.Corpus(t), 0
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if !strings.HasSuffix(name, ".cedar") {
			continue
		}
		if tried++; tried > 20 {
			break
		}
		if err := w.write("policies/corpus.cedar", string(files[name])); err != nil {
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
	if tried < 20 {
		t.Errorf("only %d files", tried)
	}
}
