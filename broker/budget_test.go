package broker

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/toolgrant/toolgrant/catalog"
	"github.com/toolgrant/toolgrant/grants"
	"github.com/toolgrant/toolgrant/strictjson"
)

func TestReadSums(t *testing.T) {
	cat, err := catalog.Parse("tools.yaml", []byte(houseTools))
	if err != nil {
		t.Fatal(err)
	}
	send, _ := cat.Tool("pay/send")
	for _, tc := range []struct {
		arg, limit string
		units      int64 // 0: refused
		help       string
	}{
		{"/body/amount", "1000.50", 10_005_000, ""}, {"/body/amount", "0.0001", 1, ""}, {"/body/amount", "7", 70_000, ""},
		{"/query/copies", "3", 30_000, ""}, {"/body/a~1b~0c", "1", 10_000, ""},
		{"/body/amount", "900719925474.0991", 9007199254740991, ""},

		{"/body/amount", "0", 0, "over 0"}, {"/body/amount", "0.00001", 0, "4 decimals"}, {"/body/amount", "1.00000", 0, "4 decimals"},
		{"/body/amount", "-1", 0, ""}, {"/body/amount", "1e3", 0, ""}, {"/body/amount", "+1", 0, ""}, {"/body/amount", "01", 0, ""},
		{"/body/amount", "", 0, ""}, {"/body/amount", ".5", 0, ""}, {"/body/amount", "1.", 0, ""}, {"/body/amount", " 1", 0, ""},
		{"/body/amount", "NaN", 0, ""}, {"/body/amount", "99999999999999999999", 0, ""}, {"/body/amount", "1,5", 0, ""},
		{"/body/note", "1", 0, "is a string"}, {"/query/to", "1", 0, "is a string"}, {"/body", "1", 0, "is a object"},
		{"/body/hidden/n", "1", 0, "opaque"}, {"/body/hidden", "1", 0, ""}, {"/body/list/0", "1", 0, "objects alone"}, {"/body/list", "1", 0, "array"},
		{"/body/none", "1", 0, "declares no such"}, {"/amount", "1", 0, "declares no such"}, {"", "1", 0, "JSON Pointer"}, {"/", "1", 0, ""},
		{"body/amount", "1", 0, "JSON Pointer"}, {"/body/a/b~c", "1", 0, ""}, {"/body/a~1b~c", "1", 0, "followed by"}, {"/body/a~2b", "1", 0, "followed by"},
		{"/body/amount/", "1", 0, ""}, {"/" + strings.Repeat("x", 1000), "1", 0, ""},
	} {
		quoted, _ := json.Marshal(tc.limit)
		got, err := readSums(send, map[string]json.RawMessage{tc.arg: quoted})
		switch {
		case tc.units > 0 && (err != nil || len(got) != 1 || got[0] != bound{tc.arg, tc.units}):
			t.Errorf("%s %s: %v %v", tc.arg, tc.limit, got, err)
		case tc.units == 0 && (err == nil || !strings.Contains(err.Error(), tc.help) || len(err.Error()) > 250):
			t.Errorf("%.40s %s: %v %v", tc.arg, tc.limit, got, err)
		}
	}
	for _, other := range []string{`1000.5`, `1`, `null`, `true`, `["1"]`, `{}`, ``, `"1"2`} {
		if got, err := readSums(send, map[string]json.RawMessage{"/body/amount": json.RawMessage(other)}); err == nil || !strings.Contains(err.Error(), "in quotes") {
			t.Errorf("%s: %v %v", other, got, err)
		}
	}
	many := map[string]json.RawMessage{}
	for i := range grants.MaxBudgets + 1 {
		many[fmt.Sprint("/body/x", i)] = json.RawMessage(`"1"`)
	}
	if _, err := readSums(send, many); err == nil {
		t.Error("more sums than budgets")
	}
}

func TestDecimal(t *testing.T) {
	for n, want := range map[int64]string{1: "0.0001", 10_000: "1", 10_005_000: "1000.5", 12_345: "1.2345", 100: "0.01", 9007199254740991: "900719925474.0991"} {
		if got := decimal(n); got != want {
			t.Errorf("%d: %s", n, got)
		}
		if back, ok := units(want); !ok || back != n {
			t.Errorf("%s: %d %v", want, back, ok)
		}
	}
}

// TestBudgetsOnlyNarrow: the first bound is the task's, a narrower one the
// grant's, a wider one nothing; what is carried stays.
func TestBudgetsOnlyNarrow(t *testing.T) {
	const task, tool = "t_x", "pay/send"
	shared := grants.Budget{Key: "task/t_x/pay/send#/body/amount", Arg: "/body/amount", Limit: 100}
	counted := grants.Budget{Key: "task/t_x/pay/send", Limit: 5}
	own := grants.Budget{Key: "grant/g_old", Limit: 3}
	for name, tc := range map[string]struct {
		carried []grants.Budget
		asked   []bound
		want    []grants.Budget
	}{
		"nothing":       {nil, nil, nil},
		"the first":     {nil, []bound{{"", 5}, {"/body/amount", 100}}, []grants.Budget{counted, shared}},
		"none is asked": {[]grants.Budget{counted}, nil, []grants.Budget{counted}},
		"wider":         {[]grants.Budget{counted, shared}, []bound{{"", 6}, {"/body/amount", 101}}, []grants.Budget{counted, shared}},
		"equal":         {[]grants.Budget{counted}, []bound{{"", 5}}, []grants.Budget{counted}},
		"narrower": {[]grants.Budget{counted, shared}, []bound{{"", 4}, {"/body/amount", 99}}, []grants.Budget{
			counted, shared, {Key: "grant/g_new", Limit: 4}, {Key: "grant/g_new#/body/amount", Arg: "/body/amount", Limit: 99}}},
		"wider than the old grant's own": {[]grants.Budget{counted, own}, []bound{{"", 4}}, []grants.Budget{counted, own}},
		"narrower than that":             {[]grants.Budget{counted, own}, []bound{{"", 2}}, []grants.Budget{counted, own, {Key: "grant/g_new", Limit: 2}}},
		"another argument": {[]grants.Budget{shared}, []bound{{"/query/copies", 7}}, []grants.Budget{
			shared, {Key: "task/t_x/pay/send#/query/copies", Arg: "/query/copies", Limit: 7}}},
	} {
		before := append([]grants.Budget(nil), tc.carried...)
		got := budgets(tc.carried, "g_new", task, tool, tc.asked)
		if diff := cmp.Diff(tc.want, got); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
		if diff := cmp.Diff(before, tc.carried); diff != "" {
			t.Errorf("%s: what is carried was changed: %s", name, diff)
		}
	}
}

// spend makes a call of the grant with an amount, as the call door would.
func (h *house) spend(id grants.ID, amount string) grants.Reason {
	h.t.Helper()
	live, why := h.cfg.Table.Lookup(id)
	if why != grants.None {
		return why
	}
	_, why, err := h.cfg.Table.Spend(h.t.Context(), live, map[string]any{"body": map[string]any{"amount": strictjson.Number(amount)}})
	if err != nil {
		h.t.Fatal(err)
	}
	return why
}

// TestSumIsTheTasks: over all grants of the task for the tool, whoever asks
// again and whatever is asked.
func TestSumIsTheTasks(t *testing.T) {
	h := newHouse(t)
	task := h.start("", "corp/bot", "corp/mate")
	first := h.buy(h.as("bot"), task, "pay/send", `,"max_sum":{"/body/amount":"100"}`)
	if first.MaxSum["/body/amount"] != "100" {
		t.Fatalf("%+v", first)
	}
	if why := h.spend(first.GrantID, "60.5"); why != grants.None {
		t.Fatal(why)
	}
	for _, more := range []string{"", `,"max_sum":{"/body/amount":"100000"}`, `,"ttl":700,"max_sum":{"/query/copies":"5"}`} {
		for _, who := range []string{h.as("bot"), h.as("mate")} {
			g := h.buy(who, task, "pay/send", more)
			if why := h.spend(g.GrantID, "39.5001"); why == grants.None || g.MaxSum["/body/amount"] != "100" {
				t.Errorf("%s: %v, %v", more, why, g.MaxSum)
			}
		}
	}
	narrow := h.buy(h.as("mate"), task, "pay/send", `,"max_sum":{"/body/amount":"10.0001"}`)
	if narrow.MaxSum["/body/amount"] != "10.0001" {
		t.Errorf("%+v", narrow)
	}
}

// TestTooManyBudgets: each renewal that narrows adds one of its own.
func TestTooManyBudgets(t *testing.T) {
	h := newHouse(t)
	task := h.start("", "corp/bot")
	g := h.buy(h.as("bot"), task, "pay/send", `,"max_calls":50,"max_sum":{"/body/amount":"9","/body/a~1b~0c":"90","/query/copies":"4"}`)
	for i := range grants.MaxBudgets - 4 {
		if g = h.renew(h.as("bot"), task, "pay/send", g.GrantID, fmt.Sprintf(`,"max_calls":%d`, 49-i)); g.MaxCalls != int64(49-i) {
			t.Fatalf("%+v", g)
		}
	}
	help := h.refuse("POST /v1/grants", h.as("bot"), fmt.Sprintf(`{"task":%q,"grants":[{"tool":"pay/send","max_calls":2,"renew":%q}]}`, task, g.GrantID), 400, grants.BadRequest)
	if !strings.Contains(help, "at most 8 budgets") || h.state(g.GrantID) != grants.None {
		t.Errorf("%q", help)
	}
	h.renew(h.as("bot"), task, "pay/send", g.GrantID, `,"max_calls":99`)
}
