package stage

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// A test runs this program again as the parent of a child that would not end: both
// hold the write end of a pipe, as their file 3.
func TestMain(m *testing.M) {
	if os.Getenv("STAGE_TEST_PARENT") == "" {
		os.Exit(m.Run())
	}
	cmd := exec.Command("sleep", "600")
	cmd.ExtraFiles = []*os.File{os.NewFile(3, "held")}
	p, err := Start(cmd)
	if err != nil {
		panic(err)
	}
	_, _ = cmd.ExtraFiles[0].WriteString("started")
	_ = p.Wait()
}

func TestListens(t *testing.T) {
	addrs, err := FreeAddrs(1)
	if err != nil {
		t.Fatal(err)
	}
	p, err := Start(exec.Command("sh", "-c", "echo no such flag; exit 2"))
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Listens(t.Context(), addrs[0]); err == nil || !strings.Contains(err.Error(), "sh ended at once:\nno such flag") {
		t.Errorf("a program that ends: %v", err)
	}
	if err := p.Wait(); err == nil || err.Error() != "exit status 2" {
		t.Errorf("it ended with %v", err)
	}

	p, err = Start(exec.Command("sleep", "600"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.Listens(ctx, addrs[0]); err == nil || !strings.Contains(err.Error(), "does not listen") {
		t.Errorf("an interrupted wait: %v", err)
	}
	p.Stop()
	if err := p.Wait(); err == nil || err.Error() != "signal: terminated" {
		t.Errorf("it was stopped, and ended with %v", err)
	}
}
