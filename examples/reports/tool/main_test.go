package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"
)

func TestTools(t *testing.T) {
	for _, tc := range []struct {
		name, method, target, body string
		header                     http.Header
		code                       int
		answer                     string // a part of the body
		log                        string // the line without its time and level; "" for none
	}{
		{
			name: "export", method: "POST", target: "/export?format=csv", body: `{"month":"2026-10"}`,
			header: http.Header{"X-Grant-Ctx-Task": {"t_1"}, "X-Grant-Ctx-Agent": {"corp/bot"}, "X-Other": {"no"}},
			code:   200, answer: `"rows":42`,
			log: "msg=ran tool=export authorization=false month=2026-10 format=csv X-Grant-Ctx-Agent=corp/bot X-Grant-Ctx-Task=t_1",
		},
		{
			name: "a credential shows and is not printed", method: "GET", target: "/health",
			header: http.Header{"Authorization": {"Bearer secret"}},
			code:   200, answer: `"ok":true`, log: "msg=ran tool=health authorization=true",
		},
		{
			name: "an argument cannot forge a line", method: "POST", target: "/export", body: `{"month":"x\nmsg=ran tool=purge"}`,
			code: 200, answer: `"rows":42`, log: `msg=ran tool=export authorization=false month="x\nmsg=ran tool=purge" format=""`,
		},
		{name: "purge", method: "DELETE", target: "/archive", code: 200, answer: `"purged":true`, log: "msg=ran tool=purge authorization=false"},
		{name: "no body", method: "POST", target: "/export", code: 400},
		{name: "too large", method: "POST", target: "/export", body: `{"month":"` + strings.Repeat("x", maxBody) + `"}`, code: 400},
		{name: "wrong method", method: "GET", target: "/archive", code: 405},
		{name: "no such tool", method: "GET", target: "/", code: 404},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var out bytes.Buffer
			r := httptest.NewRequest(tc.method, tc.target, strings.NewReader(tc.body))
			for k, v := range tc.header {
				r.Header[k] = v
			}
			w := httptest.NewRecorder()
			tools(slog.New(slog.NewTextHandler(&out, nil))).ServeHTTP(w, r)
			if w.Code != tc.code || !strings.Contains(w.Body.String(), tc.answer) {
				t.Errorf("answer: %d %q, want %d and %q", w.Code, w.Body, tc.code, tc.answer)
			}
			_, line, _ := strings.Cut(strings.TrimSuffix(out.String(), "\n"), "level=INFO ")
			if line != tc.log {
				t.Errorf("log: %q\nwant %q", line, tc.log)
			}
		})
	}
}

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
	m := regexp.MustCompile(`address=(\S+)`).FindSubmatch(buf[:n])
	if m == nil {
		t.Fatalf("no address in %q", buf[:n])
	}
	go func() { _, _ = io.Copy(io.Discard, pr) }()
	resp, err := http.Get(fmt.Sprintf("http://%s/health", m[1]))
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("GET /health: %s", resp.Status)
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("run after its context ended: %v", err)
	}
}
