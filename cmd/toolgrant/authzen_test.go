package main

import (
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/toolgrant/toolgrant/client"
)

// asPDP serves the issue door of parts, AuthZEN included, where it says that it is.
func asPDP(t *testing.T, w *world, p *parts) *httptest.Server {
	t.Helper()
	h, err := p.withAuthZEN(w.cfg, p.issue.Handler())
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(w.cfg.Broker.PublicURL)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", u.Host)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewUnstartedServer(h)
	srv.Listener.Close()
	srv.Listener = l
	srv.Start()
	return srv
}

// TestDecidedByAnother: one toolgrant asks another's policies, by AuthZEN. Nothing
// that the other does not permit passes here, and nothing at all once it is known to be away.
func TestDecidedByAnother(t *testing.T) {
	pdpWorld := layOut(t)
	pdpWorld.cfg.AuthZEN.Agents = []string{"corp/gateway"}
	pdpWorld.cfg.Limits.RequestsPerAgent = 1 << 20
	pdpParts := pdpWorld.run()
	srv := asPDP(t, pdpWorld, pdpParts)

	w := layOut(t)
	bearer := filepath.Join(t.TempDir(), "bearer")
	if err := os.WriteFile(bearer, []byte(pdpWorld.identity("gateway", "toolgrant")), 0o600); err != nil {
		t.Fatal(err)
	}
	w.cfg.PDP = PDPConfig{
		Engine: "authzen", URL: pdpWorld.cfg.Broker.PublicURL, BearerFile: bearer,
		Timeout: fineDuration(10 * time.Second), Cache: fineDuration(time.Second),
	}
	p := w.run()
	serveIssue(t, w, p)

	task := w.task()
	tok := w.export(task)
	allowed := func() bool {
		resp, err := p.check.Check(t.Context(), checkRequest(tok.AccessToken))
		if err != nil {
			t.Fatal(err)
		}
		return resp.GetOkResponse() != nil
	}
	if !allowed() {
		t.Fatal("what the other permits is refused")
	}
	for _, no := range []struct {
		who  *client.Client
		tool string
		ttl  time.Duration
	}{
		{w.as("report-bot"), "reports/export", time.Minute},            // not in the group
		{w.bot(), "reports/export", 11 * time.Minute},                  // longer than its policy has
		{w.as("stranger", "reporting"), "reports/export", time.Minute}, // not of the task
	} {
		if _, err := no.who.Exchange(t.Context(), client.GrantRequest{Tool: no.tool, Task: task, TTL: no.ttl}); err == nil {
			t.Errorf("%+v: granted", no)
		}
	}

	// Every answer is on the other's record, with who asked.
	log, err := os.ReadFile(pdpWorld.cfg.Audit.File)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(log), `"kind":"evaluate","agent":"corp/report-bot","actor":"","requester":"corp/gateway"`) {
		t.Errorf("not on the other's record: %s", log)
	}

	srv.Close()
	w.until("it says that it is not ready", func() bool { return p.health.err() != nil })
	if allowed() { // an answer of before is not used any more
		t.Error("allowed while nobody decides")
	}
	again := asPDP(t, pdpWorld, pdpParts)
	defer again.Close()
	w.until("it decides again", allowed)
}

// TestWhoMayAskByAuthZEN: nobody but those whom the configuration names, and with a
// token for the broker alone.
func TestWhoMayAskByAuthZEN(t *testing.T) {
	w := layOut(t)
	w.cfg.AuthZEN.Agents = []string{"corp/gateway"}
	srv := asPDP(t, w, w.run())
	defer srv.Close()
	ask := func(change func(*http.Request)) int {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, srv.URL+"/access/v1/evaluation",
			strings.NewReader(`{"subject":{"type":"agent","id":"corp/a"},"action":{"name":"call:reports/export"},"resource":{"type":"tool","id":"reports/export"}}`))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		change(req)
		resp, err := srv.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		return resp.StatusCode
	}
	bearer := func(jwt string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+jwt) }
	}
	gateway := w.identity("gateway", "toolgrant")
	for name, change := range map[string]func(*http.Request){
		"nobody":              func(*http.Request) {},
		"another agent":       bearer(w.identity("report-bot", "toolgrant", "reporting")),
		"a token for a tool":  bearer(w.identity("gateway", w.cat.Servers[0].Resource)),
		"one for both":        bearer(w.identityFor("gateway", "toolgrant", w.cat.Servers[0].Resource)),
		"a changed signature": bearer(gateway[:len(gateway)-4] + "AAAA"),
		"two":                 func(r *http.Request) { r.Header["Authorization"] = []string{"Bearer " + gateway, "Bearer " + gateway} },
		"another scheme":      func(r *http.Request) { r.Header.Set("Authorization", "Basic "+gateway) },
	} {
		if got := ask(change); got != http.StatusUnauthorized {
			t.Errorf("%s: %d", name, got)
		}
	}
	for range 2 { // the second by what is remembered of the first
		if got := ask(bearer(gateway)); got != http.StatusOK {
			t.Errorf("who may: %d", got)
		}
	}
	resp, err := srv.Client().Get(srv.URL + "/v1/tasks")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusUnauthorized || resp.Header.Get("WWW-Authenticate") == "" {
		t.Errorf("the issue door beside it: %d", resp.StatusCode)
	}
}
