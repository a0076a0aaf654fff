package stage

import (
	"io"
	"os"
	"os/exec"
	"testing"
	"time"
)

// A child does not outlive a parent that is killed.
func TestDieWithParent(t *testing.T) {
	held, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	parent := exec.Command(os.Args[0])
	parent.Env = append(os.Environ(), "STAGE_TEST_PARENT=1")
	parent.ExtraFiles = []*os.File{write}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	_ = write.Close()
	_ = held.SetReadDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.ReadFull(held, make([]byte, len("started"))); err != nil {
		t.Errorf("no child was started: %v", err)
	}
	_ = parent.Process.Kill()
	_ = parent.Wait()
	if _, err := held.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the pipe is still held: %v", err)
	}
}
