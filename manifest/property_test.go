package manifest_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/toolgrant/toolgrant/catalog"
	"github.com/toolgrant/toolgrant/grants"
	"github.com/toolgrant/toolgrant/manifest"
	"github.com/toolgrant/toolgrant/strictjson"
)

// TestClosed holds what passes against the closed reading, over random catalogues,
// manifests, parameters, grants, renewals and calls: 2,000 manifests, or as many as
// TOOLGRANT_MANIFEST_CASES says. TOOLGRANT_MANIFEST_SEED runs one seed again.
func TestClosed(t *testing.T) {
	cases, seed := fromEnv(t, "TOOLGRANT_MANIFEST_CASES", 2_000), fromEnv(t, "TOOLGRANT_MANIFEST_SEED", rand.Uint64())
	t.Logf("seed %d", seed)
	const batch = 50 // manifests of one catalogue and set
	n := map[string]int{}
	for i := uint64(0); uint64(n["manifests read"]) < cases && !t.Failed(); i++ {
		synctest.Test(t, func(t *testing.T) {
			d := &driver{T: t, m: &maker{Rand: rand.New(rand.NewPCG(seed, i))}, n: n}
			d.batch(batch)
		})
	}
	for _, what := range slices.Sorted(maps.Keys(n)) {
		t.Logf("%8d %s", n[what], what)
	}
	// None of it is vacuous: each side of the property was met often.
	for what, share := range map[string]struct {
		of   string
		part float64
	}{
		"manifests read":                  {"manifests", .8},
		"tasks started":                   {"manifests read", .5},
		"tasks refused":                   {"manifests read", .02},
		"grants issued":                   {"grants asked for", .3},
		"grants not admitted":             {"grants asked for", .02},
		"renewals issued":                 {"grants issued", .05},
		"calls passed":                    {"calls", .1},
		"calls passed under a renewal":    {"calls", .005},
		"calls refused: constraint":       {"calls", .1},
		"calls refused: budget_spent":     {"calls", .02},
		"calls refused: window":           {"calls", .02},
		"calls under all of the manifest": {"calls", .2},
	} {
		if float64(n[what]) < share.part*float64(n[share.of]) || n[what] == 0 {
			t.Errorf("%d %s of %d %s: that says too little", n[what], what, n[share.of], share.of)
		}
	}
}

func fromEnv(t *testing.T, name string, def uint64) uint64 {
	text := os.Getenv(name)
	if text == "" {
		return def
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// driver puts manifests, grants, a Store and a Table together as the doors do.
type driver struct {
	*testing.T
	m     *maker
	n     map[string]int
	cat   *catalog.Catalog
	set   *manifest.Set
	store *grants.Memory
	table *grants.Table
}

func (d *driver) must(err error) {
	d.Helper()
	if err != nil {
		d.Fatal(err)
	}
}

// batch runs so many manifests of one catalogue, all of them in one set.
func (d *driver) batch(size int) {
	text, inputs := d.m.catalogue()
	var err error
	d.cat, err = catalog.Parse("tools.yaml", text)
	d.must(err)
	dir := d.TempDir()
	docs := map[string]object{}
	params := map[string]object{}
	for i := range size {
		d.n["manifests"]++
		d.m.kind = fmt.Sprint("k", i)
		doc := d.m.manifest(inputs)
		if _, err := manifest.Parse("m.yaml", marshal(doc), d.cat); err != nil {
			continue
		}
		d.n["manifests read"]++
		docs[d.m.kind], params[d.m.kind] = doc, d.m.params
		d.must(os.WriteFile(filepath.Join(dir, d.m.kind+".yaml"), marshal(doc), 0o600))
	}
	d.set, err = manifest.Load(dir, d.cat)
	d.must(err)
	defer d.open()()
	for _, kind := range slices.Sorted(maps.Keys(docs)) {
		d.m.kind, d.m.params = kind, params[kind]
		d.task(docs[kind], inputs)
	}
}

// open makes a Store with a Table that follows it, inside a bubble of synctest.
func (d *driver) open() (closed func()) {
	start := time.Now()
	d.store = grants.NewMemory(grants.MemoryConfig{})
	d.table = grants.NewTable(grants.TableConfig{Draw: d.store.Draw, Clock: func() (time.Time, time.Duration) {
		return time.Now().Round(0), time.Since(start)
	}})
	ctx, stop := context.WithCancel(d.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = d.table.Follow(ctx, d.store, nil) })
	synctest.Wait()
	return func() { stop(); running.Wait() }
}

// play is one task, in both readings.
type play struct {
	*driver
	r     *reading
	mf    *manifest.Manifest
	task  grants.Task
	begin time.Time
	held  []*holding
}

// holding is one grant, in both readings.
type holding struct {
	id      grants.ID
	given   *given
	begin   time.Time
	ends    time.Time // by what was asked for
	whole   bool      // nothing in it is narrower than the manifest
	renewal bool
	fenced  bool
}

var bot = grants.Principal{Issuer: "corp", Subject: "bot"}

func (d *driver) task(doc object, inputs map[string]toolInput) {
	values := d.m.values()
	r, ok := read(doc, inputs, values)
	mf, _ := d.set.Kind(d.m.kind)
	params, err := mf.ReadParams(marshal(values))
	if err != nil {
		d.n["tasks refused"]++
		if ok {
			d.n["tasks refused that the reading would start"]++
		}
		return
	}
	if !ok {
		d.Fatalf("parameters that the reading refuses: %s\n%s", marshal(values), marshal(doc))
	}
	if started := parse(d.T, params); !equal(started, r.params) {
		d.Fatalf("parameters of the task: %s, the reading has %s\n%s", params, marshal(r.params), marshal(doc))
	}
	d.n["tasks started"]++
	p := d.start(r, mf, params)
	for range 24 {
		switch roll := d.m.Float64(); {
		case len(p.held) == 0 || roll < .15:
			p.ask(nil)
		case roll < .25:
			p.ask(pick(d.m, p.held...))
		case roll < .33:
			time.Sleep(pick[time.Duration](d.m, 1, 1, 3) * time.Second)
		default:
			p.call(pick(d.m, p.held...))
		}
	}
}

// start starts a task as the broker does.
func (d *driver) start(r *reading, mf *manifest.Manifest, params json.RawMessage) *play {
	now := time.Now()
	p := &play{driver: d, r: r, mf: mf, begin: now}
	p.task = grants.Task{ID: grants.NewID(grants.TaskPrefix), Kind: mf.Kind, Owner: bot, Agents: []string{bot.ID()}, Params: params, Deadline: now.Add(time.Minute)}
	if mf.MaxDuration > 0 {
		p.task.Deadline = now.Add(min(time.Minute, mf.MaxDuration))
	}
	_, why, err := d.store.Start(d.Context(), p.task)
	d.must(err)
	if why != grants.None {
		d.Fatal(why)
	}
	return p
}

// ask asks for a grant, or for a renewal of one, as the issue door narrows it; or,
// as a door with a fault would, for one that is wider somewhere.
func (p *play) ask(old *holding) {
	m := p.m
	tool := pick(m, p.mf.Tools...).Tool
	if old != nil {
		tool, _ = p.cat.Tool(old.given.tool)
	}
	e, ok, err := p.mf.Entry(tool.ID, p.task.Params)
	if err != nil || !ok {
		p.Fatalf("entry of %s: %v, %v", tool.ID, ok, err)
	}
	p.n["grants asked for"]++
	now := time.Now()
	h := &holding{given: &given{tool: tool.ID}, begin: now, whole: true, renewal: old != nil}
	ttl := pick[time.Duration](m, 2, 3, 10) * time.Second
	fault := ""
	if m.one(.2) {
		fault = pick(m, "ttl", "constraint", "calls", "sum", "once", "own")
	}
	if e.TTL > 0 && fault != "ttl" {
		ttl = min(ttl, e.TTL)
	}
	g := grants.Grant{
		ID: grants.NewID(grants.GrantPrefix), Task: p.task.ID, Agent: bot, Requester: bot, Tool: tool.ID, Pin: tool.Digest,
		NotBefore: now, Expires: now.Add(ttl), Rev: p.table.Rev(),
	}
	if left := p.task.Deadline; g.Expires.After(left) {
		g.Expires = left
	}
	h.ends = g.Expires
	var carried []grants.Budget
	if old == nil {
		carried = p.table.TaskBudgets(p.task.ID, tool.ID)
	} else {
		was, _ := p.table.Grant(old.id)
		if was == nil {
			return
		}
		g.Renews, g.Once, g.Constraints, carried = old.id, was.Once, was.Constraints, was.Budgets
		h.given, h.whole = old.given, old.whole
	}
	if fault == "own" { // as if the task had none, or the old grant
		carried = nil
	}
	if e.Constraint != nil && fault != "constraint" && !slices.ContainsFunc(g.Constraints, func(c json.RawMessage) bool { return string(c) == string(e.Constraint) }) {
		g.Constraints = append(slices.Clone(g.Constraints), e.Constraint)
	}
	if m.one(.1) { // one of the asker's own
		if text := m.constraint(p.r.inputs[tool.ID].schema); len(text) > 0 {
			g.Constraints, h.whole = append(slices.Clone(g.Constraints), text), false
		}
	}
	asked := map[string]int64{}
	if e.MaxCalls > 0 {
		asked[""] = e.MaxCalls
	}
	maps.Copy(asked, e.Sums)
	for _, arg := range slices.Sorted(maps.Keys(asked)) {
		limit := asked[arg]
		if m.one(.08) {
			asked[arg], h.whole = max(1, limit-1), false
		}
		if fault == "calls" && arg == "" || fault == "sum" && arg != "" {
			asked[arg] = limit + 10
		}
	}
	if old == nil && (e.Once && fault != "once" || m.one(.1)) {
		text := marshal(m.input(p.r, tool.ID, m.one(.1)))
		read, err := strictjson.Parse(text, strictjson.Limits{})
		if err != nil {
			return // nor does the issue door take it
		}
		if g.Once, err = grants.OnceDigest(read, tool.Volatile); err != nil {
			return
		}
		in := parse(p.T, text)
		h.given.once, h.given.bound = in, true
		carried = append(slices.Clone(carried), grants.Budget{Key: grants.GrantBudget(g.ID, ""), Limit: 1})
	}
	g.Budgets = slices.Clone(carried)
	for _, arg := range slices.Sorted(maps.Keys(asked)) {
		key := grants.TaskBudget(p.task.ID, tool.ID, arg)
		if fault == "own" {
			key = grants.GrantBudget(g.ID, arg)
		}
		i := slices.IndexFunc(g.Budgets, func(b grants.Budget) bool { return b.Key == key })
		own := grants.GrantBudget(g.ID, arg)
		switch {
		case i < 0:
			g.Budgets = append(g.Budgets, grants.Budget{Key: key, Arg: arg, Limit: asked[arg]})
		case asked[arg] < g.Budgets[i].Limit && !slices.ContainsFunc(g.Budgets, func(b grants.Budget) bool { return b.Key == own }):
			g.Budgets = append(g.Budgets, grants.Budget{Key: own, Arg: arg, Limit: asked[arg]})
		}
	}
	if err := p.set.Admits(&p.task, &g); err != nil {
		p.n["grants not admitted"]++
		if fault == "" {
			p.Fatalf("a grant within the manifest is not admitted: %v\n%s\n%s", err, marshal(p.r.doc), marshal(g))
		}
		return
	}
	rev, why, err := p.store.Issue(p.Context(), []grants.Grant{g})
	p.must(err)
	if why != grants.None {
		p.n["grants refused: "+why.String()]++
		return
	}
	p.must(p.table.Wait(p.Context(), rev))
	p.n["grants issued"]++
	if old != nil {
		p.n["renewals issued"]++
	}
	if old != nil && m.one(.7) {
		_, err := p.store.Fence(p.Context(), grants.Fence{Scope: grants.ScopeGrant, Key: old.id, Why: grants.Superseded, Until: h.ends.Add(time.Minute)})
		p.must(err)
		old.fenced = true
	}
	// A first grant that asked for less has made the task's budget a lesser one.
	for _, b := range p.table.TaskBudgets(p.task.ID, tool.ID) {
		h.whole = h.whole && b.Limit == map[bool]int64{true: e.MaxCalls, false: e.Sums[b.Arg]}[b.Arg == ""]
	}
	h.id = g.ID
	p.held = append(p.held, h)
}

// constraint is one that an asker might add: of the arguments' types.
func (m *maker) constraint(schema object) json.RawMessage {
	var closed func(s object) object
	closed = func(s object) object {
		switch properties, _ := s["properties"].(object); s["type"] {
		case "object":
			out, required := object{}, []any{}
			for _, name := range sorted(properties) {
				out[name], required = closed(properties[name].(object)), append(required, name)
			}
			return object{"type": "object", "properties": out, "required": required, "additionalProperties": false}
		case "array":
			return object{"type": "array", "items": closed(s["items"].(object))}
		}
		return object{"type": s["type"]}
	}
	text := marshal(closed(schema))
	if _, err := grants.CompileConstraint(text); err != nil {
		return nil
	}
	return text
}

// call makes a call under a grant, in both readings.
func (p *play) call(h *holding) {
	text := marshal(p.m.input(p.r, h.given.tool, p.m.one(.4)))
	if h.given.bound && p.m.one(.7) {
		text = marshal(h.given.once)
		if o, ok := h.given.once.(object); ok && p.m.one(.3) {
			o = maps.Clone(o)
			o["x"] = p.m.scalar("string")
			text = marshal(o)
		}
	}
	p.n["calls"]++
	input, err := strictjson.Parse(text, strictjson.Limits{})
	if err != nil {
		p.n["calls that are not read"]++
		return
	}
	plain := parse(p.T, text)
	now := time.Now()
	why := p.r.refuses(h.given, plain)
	if !p.inWindow(h, now) {
		why = "window"
	}
	got := p.passes(h.id, input)
	tell := func(what string) {
		g, _ := p.table.Grant(h.id)
		p.Fatalf("%s: got %q, the reading has %q\nmanifest %s\nparams %s\ngrant %s\ninput %s\nseen: calls %v, sums %v",
			what, got, why, marshal(p.r.doc), p.task.Params, marshal(g), text, p.r.calls, p.r.sums)
	}
	whole := h.whole && !h.fenced && now.Before(h.ends)
	if whole {
		p.n["calls under all of the manifest"]++
	}
	switch {
	case got == "" && why != "":
		tell("a call passed that the manifest's closed reading refuses")
	case got == "":
		p.r.spend(h.given, plain)
		p.n["calls passed"]++
		if h.renewal {
			p.n["calls passed under a renewal"]++
		}
	case whole && why == "":
		tell("a call was refused that the manifest lets pass")
	case whole && !strings.Contains(why, got):
		tell("a call was refused for another reason")
	default:
		p.n["calls refused: "+cmp.Or(why, "by what was asked for")]++
	}
}

// inWindow is the reading's own view of time: a grant has at most its tool's ttl,
// and a task at most max_duration.
func (p *play) inWindow(h *holding, now time.Time) bool {
	within := func(begin time.Time, longest any) bool {
		text, bounded := longest.(string)
		if !bounded {
			return true
		}
		d, err := time.ParseDuration(text)
		p.must(err)
		return now.Before(begin.Add(d))
	}
	return within(h.begin, p.r.entry(h.given.tool)["ttl"]) && within(p.begin, p.r.doc["max_duration"])
}

// passes asks the parts in the order of the call door; "" lets the call pass.
func (p *play) passes(id grants.ID, input any) string {
	live, why := p.table.Lookup(id)
	if why != grants.None {
		return "window"
	}
	g := live.Grant()
	if p.set.Admits(live.Task(), g) != nil {
		return grants.Manifest.String()
	}
	for _, c := range live.Constraints() {
		if c.Check(input) != nil {
			return grants.ConstraintBroken.String()
		}
	}
	if !g.Once.IsZero() {
		tool, _ := p.cat.Tool(g.Tool)
		if d, err := grants.OnceDigest(input, tool.Volatile); err != nil || d != g.Once {
			return grants.ConstraintBroken.String()
		}
	}
	_, why, err := p.table.Spend(p.Context(), live, input)
	p.must(err)
	if why != grants.None {
		return why.String()
	}
	return ""
}

// parse reads JSON as the reading sees it.
func parse(t testing.TB, text []byte) (v any) {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		t.Fatal(err)
	}
	return v
}

func sorted(o object) []string { return slices.Sorted(maps.Keys(o)) }
