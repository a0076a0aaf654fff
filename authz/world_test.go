package authz

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"go.uber.org/goleak"
	"go.uber.org/zap"

	"github.com/toolgrant/toolgrant/audit"
	"github.com/toolgrant/toolgrant/catalog"
	"github.com/toolgrant/toolgrant/grants"
	"github.com/toolgrant/toolgrant/identity"
	"github.com/toolgrant/toolgrant/token"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const brokerIssuer = "https://broker.internal"

// world is a Door on real parts: store, table, keys, issuer. Policy is a function:
// inside a grant everything is permitted, and without one the tools of set read.
type world struct {
	t      testing.TB
	cfg    Config
	door   *Door
	store  *grants.Memory
	table  *grants.Table
	keys   *token.Keys
	issuer *identity.DevIssuer
	bot    grants.Principal

	mu      sync.Mutex
	records []audit.Record
	asked   []grants.Input
	full    bool // nothing can be recorded
}

// newWorld makes one; change may alter the Config.
func newWorld(t testing.TB, change ...func(*Config)) *world {
	t.Helper()
	w := &world{t: t, bot: grants.Principal{Issuer: "corp", Subject: "spiffe://corp/bot"}}
	cat, err := catalog.Parse("tools.yaml", []byte(tools))
	w.must(err)
	w.keys, err = token.OpenKeys(filepath.Join(t.TempDir(), "keys"), token.EdDSA)
	w.must(err)
	tokens, err := token.NewVerifier(brokerIssuer, w.keys.Public())
	w.must(err)
	w.issuer, err = identity.NewDevIssuer(filepath.Join(t.TempDir(), "issuer"), "https://idp.internal")
	w.must(err)
	who, err := identity.New(identity.Config{
		Issuers:      []identity.Issuer{{Alias: "corp", URL: "https://idp.internal", JWKSFile: w.issuer.JWKSFile(), Audience: "toolgrant"}},
		Certificates: "mesh",
	})
	w.must(err)
	w.store = grants.NewMemory(grants.MemoryConfig{})
	w.table = grants.NewTable(grants.TableConfig{Draw: w.store.Draw})
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = w.table.Follow(ctx, w.store, nil) })
	t.Cleanup(func() { stop(); running.Wait() })
	w.cfg = Config{
		Catalog: cat, Table: w.table, Decide: w.decide, Tokens: tokens, Identity: who, Record: w.record,
		Digest: func(b []byte) string { sum := sha256.Sum256(b); return hex.EncodeToString(sum[:]) }, Logger: zap.NewNop(),
	}
	for _, f := range change {
		f(&w.cfg)
	}
	w.door = New(w.cfg)
	w.until("the table is fresh", w.table.Fresh)
	return w
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) until(what string, ok func() bool) {
	w.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			w.t.Fatalf("waiting until %s: it never came to that", what)
		}
	}
}

func (w *world) decide(_ context.Context, in []grants.Input) ([]grants.Decision, error) {
	w.mu.Lock()
	w.asked = append(w.asked, in...)
	w.mu.Unlock()
	out := make([]grants.Decision, len(in))
	for i, q := range in {
		tool, _ := w.cfg.Catalog.Tool(q.Tool)
		if q.Grant != nil || slices.Contains(tool.Sets, "read") {
			out[i] = grants.Decision{Allow: true, Policies: []string{"test"}}
		}
	}
	return out, nil
}

func (w *world) record(r audit.Record) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.full {
		return errors.New("no space")
	}
	w.records = append(w.records, r)
	return nil
}

// last is the newest record.
func (w *world) last() audit.Record {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.records) == 0 {
		w.t.Fatal("nothing is on record")
	}
	return w.records[len(w.records)-1]
}

func (w *world) setFull(full bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.full = full
}

// args are what policy was last shown of a call's input.
func (w *world) args() any {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.asked[len(w.asked)-1].Args
}

// grant issues one for the bot, with a task of its own, and waits until the table
// has it.
func (w *world) grant(tool string, change ...func(*grants.Grant)) grants.Grant {
	w.t.Helper()
	now := time.Now().Truncate(time.Second)
	task := grants.Task{
		ID: grants.NewID(grants.TaskPrefix), Kind: "test", Owner: w.bot, Agents: []string{w.bot.ID()}, Deadline: now.Add(time.Hour),
	}
	_, why, err := w.store.Start(w.t.Context(), task)
	if err != nil || why != grants.None {
		w.t.Fatal(why, err)
	}
	known, _ := w.cfg.Catalog.Tool(tool)
	g := grants.Grant{
		ID: grants.NewID(grants.GrantPrefix), Task: task.ID, Agent: w.bot, Requester: w.bot, Tool: tool,
		Pin: known.Digest, NotBefore: now, Expires: now.Add(30 * time.Minute), Rev: w.table.Rev(),
	}
	for _, f := range change {
		f(&g)
	}
	rev, why, err := w.store.Issue(w.t.Context(), []grants.Grant{g})
	if err != nil || why != grants.None {
		w.t.Fatal(why, err)
	}
	w.must(w.table.Wait(w.t.Context(), rev))
	g.Rev = rev
	return g
}

// token signs a token for a grant, and for more of its task.
func (w *world) token(g grants.Grant, more ...grants.Grant) string {
	w.t.Helper()
	rev, details := g.Rev, []token.Detail{}
	for _, one := range append([]grants.Grant{g}, more...) {
		details = append(details, token.Detail{Type: token.DetailType, GrantID: one.ID, Tool: one.Tool})
		if rev.Compare(one.Rev) < 0 {
			rev = one.Rev
		}
	}
	tool, _ := w.cfg.Catalog.Tool(g.Tool)
	jwt, err := w.keys.Mint(token.Claims{
		Issuer: brokerIssuer, Subject: g.Agent.ID(), Audience: tool.Server.Resource, ID: grants.NewID(token.IDPrefix),
		IssuedAt: g.NotBefore, NotBefore: g.NotBefore, Expires: g.Expires, Task: token.Task{ID: g.Task, Kind: "test"}, Rev: rev,
		Details: details,
	})
	w.must(err)
	return jwt
}

func (w *world) identity(sub, audience string) string {
	w.t.Helper()
	jwt, err := w.issuer.Mint(sub, nil, audience, time.Hour)
	w.must(err)
	return jwt
}

// check asks the door, and holds what no answer may lack.
func (w *world) check(req *authv3.CheckRequest) *authv3.CheckResponse {
	w.t.Helper()
	resp, err := w.door.Check(w.t.Context(), req)
	if err != nil || !sound(resp) {
		w.t.Fatal(resp, err)
	}
	return resp
}

// reason is why the response denies; "" for an allow.
func reason(r *authv3.CheckResponse) string {
	if r.GetOkResponse() != nil {
		return ""
	}
	return r.GetDynamicMetadata().GetFields()["reason"].GetStringValue()
}

// want checks a request and holds the reason: "" is an allow.
func (w *world) want(name string, req *authv3.CheckRequest, why string) *authv3.CheckResponse {
	w.t.Helper()
	r := w.check(req)
	if got := reason(r); got != why {
		w.t.Errorf("%s: %q, want %q: %s", name, got, why, strings.TrimSpace(r.GetDeniedResponse().GetBody()))
	}
	return r
}

// cfgWith is the door's Config, changed.
func (w *world) cfgWith(change func(*Config)) Config {
	c := w.cfg
	change(&c)
	return c
}

// issuersOnly is a Verifier for which certificates name nobody.
func issuersOnly(t testing.TB, w *world) *identity.Verifier {
	t.Helper()
	v, err := identity.New(identity.Config{
		Issuers: []identity.Issuer{{Alias: "corp", URL: "https://idp.internal", JWKSFile: w.issuer.JWKSFile(), Audience: "toolgrant"}},
	})
	w.must(err)
	return v
}
