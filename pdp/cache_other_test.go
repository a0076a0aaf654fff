package pdp

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/toolgrant/toolgrant/catalog"
	"github.com/toolgrant/toolgrant/grants"
	"github.com/toolgrant/toolgrant/strictjson"
)

// TestCacheTakesNoOther is row B14: two questions that differ in one member never
// share a decision. 10^5 pairs, each of random questions; the engine permits the
// first and denies the second, so that a decision taken over would show.
func TestCacheTakesNoOther(t *testing.T) {
	pairs := 100_000
	if testing.Short() {
		pairs = 1000
	}
	r := rand.New(rand.NewPCG(1, 2))
	basis := grants.Digest{1}
	catalogue, all := testCatalog(t), questions(t)
	var base []grants.Input
	for _, name := range sorted(all) {
		if in := all[name]; keeps(&in) {
			base = append(base, in)
		}
	}
	changed := map[string]int{}
	for range pairs {
		first := clone(base[r.IntN(len(base))])
		scramble(r, &first)
		second := clone(first)
		mutation := mutations[r.IntN(len(mutations))]
		before, ok := asked(catalogue, &first)
		if !ok {
			t.Fatalf("%+v is no question", first)
		}
		otherBasis := basis
		if mutation.name == "revision of policy" {
			otherBasis[r.IntN(len(otherBasis))] ^= byte(1 + r.IntN(255))
		} else if !mutation.change(r, &second) {
			continue // this kind of question does not have the member
		}
		after, ok := asked(catalogue, &second)
		if !ok {
			continue // it is not put to any engine
		}
		changed[mutation.name]++
		c := newCache(MaxCache)
		c.saw(now, "1")
		cacheable := time.Duration(r.IntN(2)) * time.Minute
		c.put(now, 0, []question{before}, []answer{{allow: true, cacheable: cacheable, revision: "1"}}, basis)
		if a, ok := c.find(now, &before, basis); !ok || !a.allow {
			t.Fatal("the same question is not found")
		}
		if _, ok := c.find(now, &after, otherBasis); ok && !(mutation.second && cacheable > 0 && before.doc.Grant.Age != nil) {
			t.Fatalf("%s: another's decision is taken\n%s\n%s", mutation.name, before.text, after.text)
		}
	}
	for _, m := range mutations {
		if changed[m.name] == 0 {
			t.Errorf("%s: never changed", m.name)
		}
	}
}

// asked is the question as an engine would be asked it, whatever manifests say.
func asked(c *catalog.Catalog, in *grants.Input) (question, bool) {
	doc, why := newDocument(c, in)
	if why != grants.None {
		return question{}, false
	}
	text, err := doc.text()
	return question{in: in, doc: doc, text: text}, err == nil
}

func word(r *rand.Rand) string { return string(rune('a'+r.IntN(26))) + string(rune('a'+r.IntN(26))) }

// scramble makes a question of its kind that is like no other.
func scramble(r *rand.Rand, in *grants.Input) {
	in.Task.Kind, in.Task.Owner.Subject = word(r), word(r)
	in.Grant.Expires = in.Grant.Expires.Add(time.Duration(r.IntN(500)) * time.Second)
	if in.Tool == "bank/pay" && in.Args != nil {
		in.Args = map[string]any{"body": map[string]any{"to": word(r), "amount": number(r)}}
	}
	if r.IntN(2) == 0 {
		in.Task.Params = json.RawMessage(`{"x":"` + word(r) + `"}`)
	}
}

// mutation changes one member of a question; false: it does not have it.
type mutation struct {
	name   string
	change func(*rand.Rand, *grants.Input) bool
	second bool // only seconds, which an engine may say do not matter
}

func other(r *rand.Rand, s string) string {
	for {
		if w := word(r); w != s {
			return w
		}
	}
}

var mutations = []mutation{
	{name: "revision of policy"},
	{name: "task", change: func(r *rand.Rand, in *grants.Input) bool {
		id := "t_" + word(r)
		in.Task.ID, in.Grant.Task = id, id
		return true
	}},
	{name: "kind", change: func(r *rand.Rand, in *grants.Input) bool { in.Task.Kind = other(r, in.Task.Kind); return true }},
	{name: "owner", change: func(r *rand.Rand, in *grants.Input) bool {
		in.Task.Owner.Subject = other(r, in.Task.Owner.Subject)
		return true
	}},
	{name: "owner's groups", change: func(r *rand.Rand, in *grants.Input) bool { in.Task.Owner.Groups = []string{word(r)}; return true }},
	{name: "params", change: func(r *rand.Rand, in *grants.Input) bool {
		in.Task.Params = json.RawMessage(`{"x":"` + word(r) + `x"}`)
		return true
	}},
	{name: "tool", change: func(r *rand.Rand, in *grants.Input) bool {
		if in.Action == grants.ActionCall+in.Tool && in.Tool == "bank/pay" {
			in.Tool, in.Action = "bank/rates", grants.ActionCall+"bank/rates"
			in.Grant.Tool = in.Tool
			return true
		}
		if in.Tool == "bank/pay" {
			in.Tool, in.Grant.Tool = "bank/rates", "bank/rates"
			return true
		}
		return false
	}},
	{name: "action", change: func(r *rand.Rand, in *grants.Input) bool {
		switch in.Action {
		case "mcp:resources/read":
			in.Action = "mcp:resources/subscribe"
		case grants.ActionAskFor:
			return false
		case grants.ActionGrant:
			in.Action = grants.ActionCall + in.Tool
		default:
			return false
		}
		return true
	}},
	{name: "grant", change: func(r *rand.Rand, in *grants.Input) bool {
		in.Grant.ID = "g_" + word(r)
		return in.Action != grants.ActionGrant && in.Action != grants.ActionAskFor
	}},
	{name: "principal", change: func(r *rand.Rand, in *grants.Input) bool {
		in.Principal.Subject, in.Grant.Agent.Subject = "x"+word(r), "x"+word(r)
		in.Grant.Agent = in.Principal
		return in.Action != grants.ActionAskFor
	}},
	{name: "requester", change: func(r *rand.Rand, in *grants.Input) bool { in.Requester.Subject += word(r); return true }},
	{name: "groups", change: func(r *rand.Rand, in *grants.Input) bool {
		in.Principal.Groups = append([]string{"x" + word(r)}, in.Principal.Groups...)
		return true
	}},
	{name: "fewer groups", change: func(r *rand.Rand, in *grants.Input) bool {
		in.Principal.Groups = in.Principal.Groups[1:]
		return true
	}},
	{name: "two groups as one", change: func(r *rand.Rand, in *grants.Input) bool {
		if len(in.Principal.Groups) < 2 {
			return false
		}
		in.Principal.Groups = []string{in.Principal.Groups[0] + `","` + in.Principal.Groups[1]}
		return true
	}},
	{name: "tags", change: func(r *rand.Rand, in *grants.Input) bool {
		in.Principal.Tags = map[string]string{"env": "x" + word(r), "tier": "1"}
		return true
	}},
	{name: "holder's groups", change: func(r *rand.Rand, in *grants.Input) bool { in.Grant.Agent.Groups = nil; return true }},
	{name: "depth", change: func(r *rand.Rand, in *grants.Input) bool {
		in.Grant.Actors = append(in.Grant.Actors, "x/y")
		return true
	}},
	{name: "bound", change: func(r *rand.Rand, in *grants.Input) bool {
		in.Grant.CNF = grants.Digest{boolByte(in.Grant.CNF.IsZero())}
		return true
	}},
	{name: "once", change: func(r *rand.Rand, in *grants.Input) bool {
		in.Grant.Once = grants.Digest{boolByte(in.Grant.Once.IsZero())}
		return true
	}},
	{name: "constraints", change: func(r *rand.Rand, in *grants.Input) bool {
		in.Grant.Constraints = []json.RawMessage{json.RawMessage(`{"x": "` + word(r) + `"}`)}
		return true
	}},
	{name: "a budget", change: func(r *rand.Rand, in *grants.Input) bool {
		in.Grant.Budgets = append(in.Grant.Budgets, grants.Budget{Key: "x", Limit: 1000})
		return true
	}},
	{name: "a budget's key", change: func(r *rand.Rand, in *grants.Input) bool {
		if len(in.Grant.Budgets) == 0 {
			return false
		}
		in.Grant.Budgets[0].Key = "x"
		return true
	}},
	{name: "a budget's limit", change: func(r *rand.Rand, in *grants.Input) bool {
		if len(in.Grant.Budgets) == 0 {
			return false
		}
		in.Grant.Budgets[r.IntN(len(in.Grant.Budgets))].Limit += int64(1 + r.IntN(100))
		return true
	}},
	{name: "arguments", change: func(r *rand.Rand, in *grants.Input) bool {
		args, ok := in.Args.(map[string]any)
		if !ok || args["body"] == nil {
			return false
		}
		body := args["body"].(map[string]any)
		in.Args = map[string]any{"body": map[string]any{"to": other(r, fmt.Sprint(body["to"])), "amount": body["amount"]}}
		return true
	}},
	{name: "no arguments", change: func(r *rand.Rand, in *grants.Input) bool {
		known := in.Args != nil && in.Server == ""
		in.Args = nil
		return known
	}},
	{name: "MCP's revision", change: func(r *rand.Rand, in *grants.Input) bool {
		if in.Revision == "" || in.Retry != nil {
			return false
		}
		in.Revision = "2025-06-18"
		return true
	}},
	{name: "answers of a retry", change: func(r *rand.Rand, in *grants.Input) bool {
		if in.Retry == nil {
			return false
		}
		in.Retry = &grants.Retry{Responses: word(r), State: in.Retry.State}
		return true
	}},
	{name: "state of a retry", change: func(r *rand.Rand, in *grants.Input) bool {
		if in.Retry == nil {
			return false
		}
		in.Retry = &grants.Retry{Responses: in.Retry.Responses, State: !in.Retry.State}
		return true
	}},
	{name: "window", change: func(r *rand.Rand, in *grants.Input) bool {
		in.Grant.Expires = in.Grant.Expires.Add(time.Duration(1+r.IntN(1000)) * time.Second)
		return true
	}, second: true},
	{name: "second", change: func(r *rand.Rand, in *grants.Input) bool {
		in.At = in.At.Add(time.Duration(1+r.IntN(1000)) * time.Second)
		return in.Action != grants.ActionGrant && in.Action != grants.ActionAskFor
	}, second: true},
}

func boolByte(b bool) byte {
	if b {
		return 1
	}
	return 0
}

func number(r *rand.Rand) strictjson.Number { return strictjson.Number(fmt.Sprint(r.IntN(1000))) }
