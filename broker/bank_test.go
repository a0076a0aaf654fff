package broker

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/toolgrant/toolgrant/audit"
	"github.com/toolgrant/toolgrant/catalog"
	"github.com/toolgrant/toolgrant/grants"
	"github.com/toolgrant/toolgrant/manifest"
)

const bankTools = houseTools + `
- id: bank
  resource: https://bank.internal
  upstream: 127.0.0.1:1
  http:
  - tool: wire
    method: POST
    path: /wire
    volatile: [/body/memo]
    opaque: [/body/raw]
    body:
      type: object
      required: [iban, amount]
      properties:
        iban: {type: string}
        amount: {type: number}
        speed: {type: string, enum: [fast, slow]}
        list: {type: array, items: {type: integer}}
        memo: {type: string}
        raw: {type: any}
`

const payBill = `
kind: pay-bill
max_duration: 10m
params:
  type: object
  required: [recipient, limit]
  properties: {recipient: {type: string, maxLength: 20}, limit: {type: number, maximum: 10000}, note: {type: string, default: none}}
tools:
- tool: pay/send
  ttl: 2m
  max_calls: 3
  sum: {argument: /body/amount, max: {$param: limit}}
  input:
    query: {to: {const: {$param: recipient}}}
    body: {amount: {maximum: {$param: limit}}}
- {tool: pay/show}
- {tool: pay/purge}
- {tool: rep/export, ttl: 20m}
- {tool: bank/wire, once: true, max_calls: 5}
`

// pinned is what payBill makes of pay/send for the parameters of billParams.
const (
	billParams = `{"recipient":"supplier-7","limit":100.5}`
	pinned     = `{"additionalProperties":false,"properties":{"body":{"additionalProperties":false,"properties":{"amount":{"maximum":100.5,"type":"number"}},"required":["amount"],"type":"object"},"query":{"additionalProperties":false,"properties":{"to":{"const":"supplier-7","type":"string"}},"required":["to"],"type":"object"}},"required":["body","query"],"type":"object"}`
)

// bank is a house with manifests, whose Decider looks at them before its rules.
type bank struct {
	*house
	door, decider atomic.Pointer[manifest.Set] // those of the door, and of its Decider
	stories       [][]audit.Record             // what was written together
}

func newBank(t testing.TB, text string, change ...func(*Config)) *bank {
	t.Helper()
	b := &bank{}
	b.house = newHouse(t, append([]func(*Config){func(c *Config) {
		var err error
		if c.Catalog, err = catalog.Parse("tools.yaml", []byte(bankTools)); err != nil {
			t.Fatal(err)
		}
		c.Manifests = b.door.Load
		record := c.Record
		c.Record = func(rs []audit.Record) error {
			b.stories = append(b.stories, slices.Clone(rs))
			return record(rs)
		}
	}}, change...)...)
	b.load(text)
	b.rule(houseRules, nil)
	return b
}

// read makes a set of manifests, one in each text.
func (b *bank) read(texts ...string) *manifest.Set {
	b.t.Helper()
	dir := b.t.TempDir()
	for i, text := range texts {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint("m", i, ".yaml")), []byte(text), 0o600); err != nil {
			b.t.Fatal(err)
		}
	}
	set, err := manifest.Load(dir, b.cfg.Catalog)
	if err != nil {
		b.t.Fatal(err)
	}
	return set
}

// load puts manifests in force, of another policy revision; "" is none.
func (b *bank) load(texts ...string) {
	b.t.Helper()
	texts = slices.DeleteFunc(texts, func(s string) bool { return s == "" })
	set := b.read(texts...)
	b.door.Store(set)
	b.decider.Store(set)
	b.mu.Lock()
	b.rev[0]++
	b.mu.Unlock()
}

// rule is that of a house, with what every Decider does of manifests.
func (b *bank) rule(policy func(grants.Input) grants.Decision, err error) {
	b.house.rule(func(in grants.Input) grants.Decision {
		set := b.decider.Load()
		switch in.Action {
		case grants.ActionStartTask:
			if _, has := set.Kind(in.Task.Kind); has != (in.Task.Params != nil) {
				return grants.Decision{Reason: grants.Manifest}
			}
		case grants.ActionGrant, grants.ActionAskFor:
			if set.Admits(in.Task, in.Grant) != nil {
				return grants.Decision{Reason: grants.Manifest}
			}
		}
		return policy(in)
	}, err)
}

// bill starts a task of payBill for corp/bot.
func (b *bank) bill(more string) string {
	b.t.Helper()
	return b.must("POST /v1/tasks", b.boss(), `{"kind":"pay-bill","agents":["corp/bot"],"params":`+billParams+more+`}`)["task"].(string)
}

// live is a grant that must be alive.
func (h *house) live(id grants.ID) *grants.Grant {
	h.t.Helper()
	l, why := h.cfg.Table.Lookup(id)
	if why != grants.None {
		h.t.Fatalf("%s: %v", id, why)
	}
	return l.Grant()
}
