package broker

import (
	"encoding/json"
	"fmt"
	"net/http"
	"regexp/syntax"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/toolgrant/toolgrant/grants"
)

// patterned is a constraint of the tool pay/send.
func patterned(pattern string) string {
	text, _ := json.Marshal(pattern)
	return fmt.Sprintf(`{"type":"object","properties":{"query":{"type":"object","properties":{"to":{"type":"string","pattern":%s}},"required":["to"],"additionalProperties":false},"body":{"type":"object","additionalProperties":false}},"required":["query","body"],"additionalProperties":false}`, text)
}

// bomb is a pattern of some 200,000 instructions.
var bomb = `^(?:(?:` + strings.Repeat("a", 200) + `){1,1000})$`

// TestInstructions: the estimate is at most a little under what the compiler
// would make of it, and for what people write not far above.
func TestInstructions(t *testing.T) {
	for _, p := range []string{
		`^(?:a)$`, `^(?:[a-z]{1,63})$`, `^(?:[A-Za-z0-9_.-]+@[a-z]{2,20}\.[a-z]{2,6})$`, `^(?:(?:abc|abd){1,60})$`,
		`^(?:(?:(?:a|b){1,30}){1,30})$`, `^(?:a*b+c?d{3,}(e)(?:f|g|hi))$`, `^(?:(?:` + strings.Repeat("ab?", 60) + `){12})$`, bomb,
	} {
		tree, err := syntax.Parse(p, syntax.Perl)
		if err != nil {
			t.Fatal(err)
		}
		prog, err := syntax.Compile(tree.Simplify())
		if err != nil {
			t.Fatal(err)
		}
		if est, is := instructions(p), len(prog.Inst); est*2 < is || est > 2*is+20 {
			t.Errorf("%.60s: estimated at %d, and has %d", p, est, is)
		}
	}
	for _, p := range []string{`^(?:()$`, `^(?:a{1001})$`} {
		if est := instructions(p); est != 0 {
			t.Errorf("%.20s: %d", p, est)
		}
	}
	nested := `{"type":"object","properties":{"pattern":{"type":"array","items":{"type":"string","pattern":"^(?:a{1,500})$"}}},"enum":[{"pattern":"^(?:a{1,500})$"}]}`
	if w := weigh([]json.RawMessage{[]byte(nested), []byte(`{`), []byte(patterned(`^(?:a{500})$`))}); w < 1500 || w > 3500 {
		t.Errorf("it weighs %d", w)
	}
}

// TestParsable: what grants refuses by its text is not parsed here, and what it
// does not is.
func TestParsable(t *testing.T) {
	for p, want := range map[string]bool{
		`^(?:a)$`: true, `^(?:(?:a|b)\\p\\Q)$`: true, `^(?:\(?a)$`: true, `^(?:()$`: true,
		`^(?:\pL)$`: false, `^(?:[\PL])$`: false, `^(?:\\\pL)$`: false, `^(?:\Qa)$`: false, `^(?:(?i)a)$`: false, `^(?:(?P<a>b))$`: false,
		`^(?i:a)$`: false, `(?i)^(?:a)$`: false, `a`: false, `^(?:)$`: true, `^(?:`: false, `^(?:` + strings.Repeat("a", 251) + `)$`: false,
	} {
		if got := parsable(p); got != want {
			t.Errorf("%s: %v", p, got)
		}
		_, err := grants.CompileConstraints([]json.RawMessage{[]byte(patterned(p))})
		if err == nil && !want {
			t.Errorf("%s: grants compiles it", p)
		}
	}
}

// TestWeighingIsCheap: patterns whose parsing is what costs are not parsed at
// all, others once each, and none beyond the limit.
func TestWeighingIsCheap(t *testing.T) {
	h := newHouse(t)
	task := h.start("", "corp/bot")
	put := func(n int, pattern func(int) string) (s scale) {
		for i := range n {
			s.put([]json.RawMessage{[]byte(patterned(pattern(i)))})
		}
		return s
	}
	slow := `(?i)[` + strings.Repeat(`\pL`, 82) + `]`
	for _, p := range []string{slow, `^(?:` + slow + `)$`, `^(?:[` + strings.Repeat(`\pL`, 80) + `])$`} {
		if s := put(160, func(int) string { return p }); len(s.parsed) != 0 || s.weight != 0 {
			t.Errorf("%.20s: parsed %d, weighs %d", p, len(s.parsed), s.weight)
		}
		cs := strings.TrimSuffix(strings.Repeat(patterned(p)+",", 10), ",")
		h.refuse("POST /v1/grants", h.as("bot"), fmt.Sprintf(`{"task":%q,"grants":[{"tool":"pay/send","constraints":[%s]},{"tool":"pay/show","constraints":[%s]}]}`, task, cs, cs), 400, grants.BadRequest)
	}
	if s := put(9, func(int) string { return `^(?:a{1,500})$` }); len(s.parsed) != 1 || s.weight < 9*1000 {
		t.Errorf("the same one: parsed %d, weighs %d", len(s.parsed), s.weight)
	}
	if s := put(100, func(i int) string { return fmt.Sprintf(`^(?:a{1,%d})$`, 600+i) }); len(s.parsed) > 9 || s.weight <= maxWeight {
		t.Errorf("over the limit: parsed %d, weighs %d", len(s.parsed), s.weight)
	}
}

// TestBounded: number and bytes come before anything is read.
func TestBounded(t *testing.T) {
	many := func(n, size int) (cs []json.RawMessage) {
		for range n {
			cs = append(cs, []byte(strings.Repeat("x", size)))
		}
		return cs
	}
	for _, c := range []struct {
		n, size int
		want    bool
	}{{0, 0, true}, {16, 1024, true}, {2, 8192, true}, {17, 1, false}, {1, 8193, false}, {3, 8192, false}} {
		if n, err := bounded(many(c.n, c.size)); (err == nil) != c.want || c.want && n != c.n*c.size {
			t.Errorf("%+v: %d, %v", c, n, err)
		}
	}
}

// TestUnknownTaskFirst: nothing is compiled, nor weighed, for whom the task is not.
func TestUnknownTaskFirst(t *testing.T) {
	h := newHouse(t)
	foreign := h.start("", "corp/bot")
	for _, task := range []string{"t_aaaaaaaaaaaaaaaaaaaaaaaaaa", foreign} {
		h.refuse("POST /v1/grants", h.as("mallory"), fmt.Sprintf(`{"task":%q,"grants":[{"tool":"pay/send","constraints":[%s]}]}`, task, patterned(bomb)), 404, grants.UnknownTask)
	}
}

// TestTooCostly: by one pattern, and by the same one for each tool.
func TestTooCostly(t *testing.T) {
	h := newHouse(t)
	task := h.start("", "corp/bot")
	ask := func(tool, pattern string, n int) string {
		return fmt.Sprintf(`{"tool":%q,"constraints":[%s]}`, tool, strings.TrimSuffix(strings.Repeat(patterned(pattern)+",", n), ","))
	}
	for _, asks := range []string{
		ask("pay/send", bomb, 1),
		ask("pay/send", `^(?:(?:ab|c){500})$`, 3) + "," + ask("pay/show", `^(?:(?:ab|c){500})$`, 3),
	} {
		help := h.refuse("POST /v1/grants", h.as("bot"), fmt.Sprintf(`{"task":%q,"grants":[%s]}`, task, asks), 400, grants.BadRequest)
		if !strings.Contains(help, "too costly together") {
			t.Error(help)
		}
	}
}

// TestConstraintsCostTheirRate: one of some 1,000 instructions costs as much as
// five requests beside its own.
func TestConstraintsCostTheirRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		task := h.start("", "corp/bot")
		me := h.as("bot")
		count := func(more string) (heard int) {
			h.limits = newLimits(15)
			for status := 200; status == 200; heard++ {
				status, _ = h.json("POST /v1/grants", me, fmt.Sprintf(`{"task":%q,"grants":[{"tool":"pay/send"%s}]}`, task, more))
			}
			return heard - 1
		}
		if n := count(""); n != 30 {
			t.Errorf("%d requests without", n)
		}
		if n := count(`,"constraints":[` + patterned(`^(?:a{1,500})$`) + `]`); n != 5 {
			t.Errorf("%d requests with a constraint", n)
		}
		id := h.buyFresh(me, task, `,"constraints":[`+patterned(`^(?:a{1,500})$`)+`]`)
		h.limits = newLimits(5)
		for range 5 { // what is carried over costs, too
			h.json("GET /v1/tasks/"+task, me, "")
		}
		if status, m := h.json("POST /v1/grants", me, fmt.Sprintf(`{"task":%q,"grants":[{"tool":"pay/send","renew":%q}]}`, task, id)); status != http.StatusTooManyRequests {
			t.Errorf("renewing: %d %v", status, m)
		}
	})
}

// buyFresh is buy with a rested allowance.
func (h *house) buyFresh(bearer, task, more string) grants.ID {
	h.t.Helper()
	h.limits = newLimits(1000)
	return h.buy(bearer, task, "pay/send", more).GrantID
}
