package main

import (
	"context"
	"io"
	"net/http"
	"regexp"
	"testing"
	"time"
)

func TestRunServesAndStops(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	pr, pw := io.Pipe()
	done := make(chan error, 1)
	go func() { done <- run(ctx, "127.0.0.1:0", pw); _ = pw.Close() }()

	buf := make([]byte, 256)
	n, err := pr.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`url=(\S+)`).FindSubmatch(buf[:n])
	if m == nil {
		t.Fatalf("no address in %q", buf[:n])
	}
	go func() { _, _ = io.Copy(io.Discard, pr) }()
	resp, err := http.Get(string(m[1]))
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusBadRequest { // no session, and no stream is asked for
		t.Errorf("GET: %s", resp.Status)
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("run after its context ended: %v", err)
	}
}
