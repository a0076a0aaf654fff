package broker

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
	"unicode"

	"github.com/toolgrant/toolgrant/grants"
)

// FuzzTask: a task that is read from any body is one that the door may start.
func FuzzTask(f *testing.F) {
	f.Add(`{"kind":"release","agents":["corp/bot"],"ttl":60,"beat":5}`)
	f.Add(`{"kind":"a b"}`)
	f.Add(`{"kind":"x","agents":["corp/\u202e"]}`)
	b := testBroker(f)
	f.Fuzz(func(t *testing.T, body string) {
		hr := httptest.NewRequest(http.MethodPost, "/v1/tasks", nil)
		hr.Header.Set("Content-Type", "application/json")
		r := &request{Request: hr, body: []byte(body)}
		r.who.Principal = grants.Principal{Issuer: "corp", Subject: "me"}
		st, rep := b.readStart(r)
		if rep.why != grants.None {
			if rep.detail == "" {
				t.Fatalf("%q: refused without help", body)
			}
			return
		}
		task := st.task
		if task.Kind == "" || len(task.Agents) == 0 || task.Beat < 0 || task.Deadline.Before(r.now) || task.Deadline.After(r.now.Add(b.cfg.MaxTask)) {
			t.Fatalf("%q: %+v", body, task)
		}
		for _, text := range append(task.Agents, task.Kind) {
			for _, c := range text {
				if !unicode.IsPrint(c) {
					t.Fatalf("%q: %q does not print", body, text)
				}
			}
		}
	})
}

// FuzzQuery: what is read from a query is once there, and decoded whole.
func FuzzQuery(f *testing.F) {
	f.Add("task=t_x&agent=corp%2Fbot")
	f.Add("task=a&task=b")
	f.Add("tool=%zz;x=1")
	f.Fuzz(func(t *testing.T, query string) {
		r := &request{Request: &http.Request{URL: &url.URL{Path: "/v1/grants", RawQuery: query}}}
		q, why, _ := r.parameters("task", "agent", "tool")
		if why != grants.None {
			return
		}
		for name, values := range q {
			if len(values) != 1 || name != "task" && name != "agent" && name != "tool" {
				t.Fatalf("%q: %q", query, q)
			}
		}
	})
}
