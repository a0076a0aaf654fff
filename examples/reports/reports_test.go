package reports

import (
	"bytes"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
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
			Tools(slog.New(slog.NewTextHandler(&out, nil))).ServeHTTP(w, r)
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

// What a program carries is what lies in the folder: a file that is not
// embedded would be missing in `toolgrant dev`.
func TestFiles(t *testing.T) {
	for _, name := range []string{"toolgrant.yaml", "tools.yaml", "csv-only.json", "policies/issue.cedar", "policies/call.cedar", "policies/entities.json"} {
		if text, err := Files.ReadFile(name); err != nil || len(text) == 0 {
			t.Errorf("%s: %d bytes, %v", name, len(text), err)
		}
	}
}
