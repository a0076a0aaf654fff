package authz

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/google/go-cmp/cmp"

	"github.com/toolgrant/toolgrant/audit"
	"github.com/toolgrant/toolgrant/grants"
	"github.com/toolgrant/toolgrant/strictjson"
)

// pay calls srv/pay.
func pay(token, body string) *authv3.CheckRequest {
	return ask("srv/pay", "POST", "/pay", body, "authorization", "Bearer "+token, "content-type", "application/json")
}

// TestSum: a budget over an argument is spent by an allow and by nothing else.
func TestSum(t *testing.T) {
	w := newWorld(t)
	g := w.grant("srv/pay", func(g *grants.Grant) {
		g.Budgets = []grants.Budget{
			{Key: grants.TaskBudget(g.Task, g.Tool, "/body/amount"), Arg: "/body/amount", Limit: 100_0000},
			{Key: grants.TaskBudget(g.Task, g.Tool, ""), Limit: 4},
		}
	})
	tok := w.token(g)
	w.want("60", pay(tok, `{"amount":60}`), "")
	w.want("more than is left", pay(tok, `{"amount":40.0001}`), "budget_spent")
	w.want("not an exact amount", pay(tok, `{"amount":0.00001}`), "constraint")
	w.want("negative, which would refill it", pay(tok, `{"amount":-50}`), "constraint")
	w.want("absent", pay(tok, `{"to":"x"}`), "mismatch")
	w.want("a text", pay(tok, `{"amount":"1"}`), "mismatch")
	w.setFull(true)
	w.want("not on record", pay(tok, `{"amount":40}`), "cannot_record")
	w.setFull(false)
	// None of these spent anything, of the sum or of the calls.
	w.want("40", pay(tok, `{"amount":4e1}`), "")
	w.want("nothing is left", pay(tok, `{"amount":0.0001}`), "budget_spent")
	w.want("0, of which there is always enough", pay(tok, `{"amount":0}`), "")
	w.want("the fourth", pay(tok, `{"amount":0}`), "")
	w.want("the fifth call", pay(tok, `{"amount":0}`), "budget_spent")
}

// TestInputThatPolicySees: query, header and body, each with its types.
func TestInputThatPolicySees(t *testing.T) {
	w := newWorld(t)
	tok := w.token(w.grant("srv/full"))
	send := func(query, tenant, body string) *authv3.CheckRequest {
		h := []string{"authorization", "Bearer " + tok, "content-type", "application/json"}
		if tenant != "" {
			h = append(h, "x-tenant", tenant)
		}
		return ask("srv/full", "POST", "/full"+query, body, h...)
	}
	w.want("all parts", send("?format=csv&page=3&dry=true&q=a%20%26%C3%BC", "acme", `{"month":"x","rows":[1.5,2]}`), "")
	want := map[string]any{
		"query":  map[string]any{"format": "csv", "page": strictjson.Number("3"), "dry": true, "q": "a &ü"},
		"header": map[string]any{"x-tenant": "acme"},
		"body":   map[string]any{"month": "x", "rows": []any{strictjson.Number("1.5"), strictjson.Number("2")}},
	}
	if diff := cmp.Diff(want, w.args()); diff != "" {
		t.Errorf("policy saw (-want +got):\n%s", diff)
	}
	w.want("the least", send("", "", `{"month":"x"}`), "")
	want = map[string]any{"query": map[string]any{}, "header": map[string]any{}, "body": map[string]any{"month": "x"}}
	if diff := cmp.Diff(want, w.args()); diff != "" {
		t.Errorf("policy saw (-want +got):\n%s", diff)
	}
	for query, why := range map[string]string{
		// What parseInt and atoi read otherwise.
		"?page=1.0": "malformed", "?page=1e2": "malformed", "?page=1000000e-6": "malformed", "?page=1E0": "malformed", "?page=-0": "malformed",
		"?page=01": "malformed", "?page=0x1": "malformed", "?page=0.1e1": "malformed", "?page=0": "", "?page=-7": "",
		"?page=1.5": "malformed", "?page=%22%31%22": "malformed", "?page=": "malformed", "?page=true": "malformed",
		"?page=9007199254740993": "malformed", "?dry=1": "malformed", "?dry=null": "malformed", "?dry=false": "", "?q=": "", "?q=null": "",
		"?format=CSV": "malformed", "?page=1&page=1": "malformed",
	} {
		w.want(query, send(query, "", `{"month":"x"}`), why)
	}
}

// TestRecord: what is on record of an allow and of a denial.
func TestRecord(t *testing.T) {
	w := newWorld(t)
	g := w.grant("srv/bare")
	from := func(req *authv3.CheckRequest) *authv3.CheckRequest {
		req.Attributes.Source = &authv3.AttributeContext_Peer{Address: &corev3.Address{Address: &corev3.Address_SocketAddress{
			SocketAddress: &corev3.SocketAddress{Address: "192.0.2.7", PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: 4711}},
		}}}
		return req
	}
	// A client's own idea of its address is none.
	w.want("granted", from(ask("srv/bare", "GET", "/bare", "", "authorization", "Bearer "+w.token(g), "x-forwarded-for", "203.0.113.1")), "")
	allowed := w.last()
	if allowed.Source != "192.0.2.7" || allowed.Count != 1 || allowed.Outcome != audit.Allow || allowed.Grant != g.ID || allowed.Task != g.Task || allowed.Agent != w.bot.ID() {
		t.Errorf("%+v", allowed)
	}
	body := `{"amount":1,"to":"secret"}`
	w.want("with an input", pay(w.token(w.grant("srv/pay")), body), "")
	if r := w.last(); r.Args != w.cfg.Digest([]byte(`{"body":`+body+`}`)) {
		t.Errorf("args %q", r.Args)
	}
	w.want("no tool", from(ask("srv/gone", "GET", "/gone", "")), "unknown_tool")
	if r := w.last(); r.Source != "192.0.2.7" || r.Count != 1 || r.Outcome != audit.Deny || r.Agent != "" {
		t.Errorf("%+v", r)
	}
	w.want("a socket", ask("srv/bare", "GET", "/bare", ""), "no_credential")
	if r := w.last(); r.Source != "" {
		t.Errorf("source %q", r.Source)
	}
}

// TestChecksUnderWay: beyond the bound the answer is no, at once and on record;
// a check that has ended makes room.
func TestChecksUnderWay(t *testing.T) {
	entered, release := make(chan struct{}), make(chan struct{})
	w := newWorld(t, func(c *Config) {
		c.MaxChecks = 2
		decide := c.Decide
		c.Decide = func(ctx context.Context, in []grants.Input) ([]grants.Decision, error) {
			entered <- struct{}{}
			<-release
			return decide(ctx, in)
		}
	})
	req := ask("srv/bare", "GET", "/bare", "", "authorization", "Bearer "+w.token(w.grant("srv/bare")))
	var slow sync.WaitGroup
	for range 2 {
		slow.Go(func() {
			if resp, err := w.door.Check(t.Context(), req); err != nil || reason(resp) != "" {
				t.Errorf("%v %v", resp, err)
			}
		})
		<-entered
	}
	r := w.want("the third", req, "limit")
	if status := r.GetDeniedResponse().GetStatus().GetCode(); status != 429 {
		t.Errorf("status %d", status)
	}
	retry := false
	for _, h := range r.GetDeniedResponse().GetHeaders() {
		retry = retry || h.GetHeader().GetKey() == "retry-after" && h.GetHeader().GetValue() == "1"
	}
	if !retry || w.last().Reason != grants.Limit {
		t.Errorf("no retry-after, or not on record: %v", r)
	}
	close(release)
	slow.Wait()
	done := make(chan struct{})
	go func() { defer close(done); w.want("after them", req, "") }()
	<-entered
	<-done
}

// TestPanicLeavesRoom: a check that panics is denied, and its place is free.
func TestPanicLeavesRoom(t *testing.T) {
	var broken bool
	w := newWorld(t, func(c *Config) {
		c.MaxChecks = 1
		decide := c.Decide
		c.Decide = func(ctx context.Context, in []grants.Input) ([]grants.Decision, error) {
			if broken {
				panic("planted")
			}
			return decide(ctx, in)
		}
	})
	req := ask("srv/bare", "GET", "/bare", "", "authorization", "Bearer "+w.token(w.grant("srv/bare")))
	broken = true
	w.want("broken", req, "undecided")
	broken = false
	w.want("mended", req, "")
}

// TestPinAndWindow: a grant of another descriptor of the tool, and one whose
// window is to come.
func TestPinAndWindow(t *testing.T) {
	w := newWorld(t)
	pinned := w.token(w.grant("srv/bare", func(g *grants.Grant) { g.Pin = grants.Digest{1} }))
	w.want("another tool by the same name", ask("srv/bare", "GET", "/bare", "", "authorization", "Bearer "+pinned), "tool_changed")
	bound := w.token(w.grant("srv/bare", func(g *grants.Grant) { g.CNF = grants.Digest{1} }))
	w.want("bound to a key", ask("srv/bare", "GET", "/bare", "", "authorization", "Bearer "+bound), "unbound_token")
	g := w.grant("srv/bare")
	g.Expires = g.Expires.Add(-29*time.Minute - 59*time.Second) // of the token alone, 1 s from its start
	short := w.token(g)
	w.until("the token has ended", func() bool {
		return reason(w.check(ask("srv/bare", "GET", "/bare", "", "authorization", "Bearer "+short))) == "expired_token"
	})
}

func BenchmarkCheck(b *testing.B) {
	w := newWorld(b)
	w.door.cfg.Record = func(audit.Record) error { return nil }
	decided := []grants.Decision{{Allow: true}}
	w.door.cfg.Decide = func(context.Context, []grants.Input) ([]grants.Decision, error) { return decided, nil }
	for name, req := range map[string]*authv3.CheckRequest{
		"GET":  ask("srv/bare", "GET", "/bare", "", "authorization", "Bearer "+w.token(w.grant("srv/bare")), "accept", "*/*", "user-agent", "x", "x-request-id", "y"),
		"POST": pay(w.token(w.grant("srv/pay")), `{"amount":60,"to":"somebody"}`),
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if resp, _ := w.door.Check(b.Context(), req); resp.GetOkResponse() == nil {
					b.Fatal(fmt.Sprint(resp))
				}
			}
		})
	}
}
