package cedar

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	cedargo "github.com/cedar-policy/cedar-go"

	"github.com/toolgrant/toolgrant/grants"
)

// Examples are of a kind whose manifest has the tool, and show its parameters.
func TestManifestExampleInput(t *testing.T) {
	s := bounded(t, permitAll)
	for _, tt := range []struct {
		action, tool, kind string
		params             string // of the context; "": none
	}{
		{"start_task", "", "pay-bill", `{"channel":"phone", "limit":decimal("12.5"), "parts":[7], "recipient":"text"}`},
		{"end_task", "", "pay-bill", ""},
		{"grant", "bank/pay", "pay-bill", `{"channel":"phone", "limit":decimal("12.5"), "parts":[7], "recipient":"text"}`},
		{"ask_for", "github/get_pr", "pay-bill", `{"channel":"phone", "limit":decimal("12.5"), "parts":[7], "recipient":"text"}`},
		{"revoke", "bank/pay", "pay-bill", `{"channel":"phone", "limit":decimal("12.5"), "parts":[7], "recipient":"text"}`},
		{"call", "bank/pay", "pay-bill", `{"channel":"phone", "limit":decimal("12.5"), "parts":[7], "recipient":"text"}`},
		{"grant", "reports/export", "release", ""},
		{"call", "reports/export", "release", ""},
	} {
		t.Run(tt.action+" "+tt.tool, func(t *testing.T) {
			doc, err := s.ExampleInput(tt.action, tt.tool)
			if err != nil {
				t.Fatal(err)
			}
			d, err := s.DecideExample(doc)
			if err != nil {
				t.Fatalf("%v\n%s", err, doc)
			}
			want(t, d, "allow all")
			var text exampleText
			if err := json.Unmarshal(doc, &text); err != nil {
				t.Fatal(err)
			}
			q, err := s.read(&text)
			if err != nil {
				t.Fatal(err)
			}
			checkRequest(t, s.schema, q)
			about, there := q.request.Context.Get("task")
			if !there {
				about, _ = q.request.Context.Get("grant")
			}
			if kind, _ := about.(cedargo.Record).Get("kind"); kind != cedargo.Value(cedargo.String(tt.kind)) {
				t.Errorf("it is of the kind %v", kind)
			}
			got := ""
			if params, there := about.(cedargo.Record).Get("params"); there {
				got = params.String()
			}
			if got != tt.params {
				t.Errorf("its parameters are %q", got)
			}
			if tt.params != "" {
				sameMembers(t, "context", q.request.Context, s.schema.Actions[q.request.Action].AppliesTo.Context)
			}
		})
	}
	// Only look's manifest may have the tool, and it has no parameters.
	cfg := manifests(t, permitAll)
	cfg.Manifests = dir(t, "look.yaml", look)
	if err := os.Remove(filepath.Join(cfg.Dir, entitiesFile)); err != nil {
		t.Fatal(err)
	}
	s, err := Load(cfg)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := s.ExampleInput("grant", "github/get_pr")
	if err != nil || !bytes.Contains(doc, []byte(`"kind": "look"`)) {
		t.Errorf("%v\n%s", err, doc)
	}
	if d, err := s.DecideExample(doc); err != nil || !d.Allow {
		t.Errorf("%+v, %v", d, err)
	}
}

// A written question has the parameters of its kind, or none would ask it; and a
// tool that the manifest does not have is refused as the doors refuse it.
func TestManifestExampleRefuses(t *testing.T) {
	s := bounded(t, permitAll)
	doc := func(action, tool string) string {
		text, err := s.ExampleInput(action, tool)
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		if err := json.Compact(&out, text); err != nil {
			t.Fatal(err)
		}
		return out.String()
	}
	start, grant, ask, call := doc("start_task", ""), doc("grant", "bank/pay"), doc("ask_for", "bank/pay"), doc("call", "bank/pay")
	revoke, free := doc("revoke", "bank/pay"), doc("grant", "reports/export")
	const params = `,"params":{"channel":"phone","limit":{"__extn":{"fn":"decimal","arg":"12.5"}},"parts":[7],"recipient":"text"}`
	for _, tt := range []struct{ name, doc, from, to, want string }{ // "": it is decided
		{"no parameters", start, params, "", `context.task.params: it is not there; the kind "pay-bill" has a manifest, and each task of it the parameters {channel, limit, parts, recipient}`},
		{"no parameters of a grant", grant, params, "", "context.task.params: it is not there"},
		{"no parameters of a call", call, params, "", "context.grant.params: it is not there"},
		{"too few", grant, `"channel":"phone",`, "", `context.task.params: {limit, parts, recipient}; each task of the kind "pay-bill" has the parameters {channel, limit, parts, recipient}`},
		{"misspelt", ask, `"channel"`, `"chanel"`, `did you mean "channel"?`},
		{"another type", start, `"recipient":"text"`, `"recipient":7`, "is not of the type String"},
		{"another kind", grant, `"kind":"pay-bill"`, `"kind":"release"`, `there is no manifest of the kind "release"`},
		{"another kind of a call", call, `"kind":"pay-bill"`, `"kind":"release"`, `context.grant.params: there is no manifest`},
		{"of a kind without parameters", grant, `"kind":"pay-bill"`, `"kind":"look"`, `each task of the kind "look" has the parameters {}`},
		{"a kind with a manifest, without parameters", free, `"kind":"release"`, `"kind":"look"`, `has a manifest, and each task of it the parameters {}`},
		{"once that is no truth", grant, `"once":false`, `"once":0`, "context.once: 0 is not of the type Bool"},
		{"no once", grant, `"once":false,`, ``, "context.once: it is not there"},
		{"revoke: of another time", revoke, params, "", ""},
		{"for one call", grant, `"once":false`, `"once":true`, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			changed := strings.Replace(tt.doc, tt.from, tt.to, 1)
			if changed == tt.doc {
				t.Fatalf("%q is not in %s", tt.from, tt.doc)
			}
			d, err := s.DecideExample([]byte(changed))
			if tt.want == "" {
				if err != nil || !d.Allow {
					t.Errorf("%+v, %v", d, err)
				}
			} else if err == nil || d.Allow || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%+v, %v", d, err)
			}
		})
	}
	for _, text := range []string{grant, ask} {
		text = strings.ReplaceAll(text, "bank/pay", "reports/health")
		text = strings.NewReplacer(`"id":"bank"`, `"id":"reports"`, `"id":"write"`, `"id":"init"`).Replace(text)
		d, err := s.DecideExample([]byte(text))
		if err != nil || d.Reason != grants.Manifest || d.Allow || d.Revision != s.Revision() {
			t.Errorf("%+v, %v", d, err)
		}
	}
}
