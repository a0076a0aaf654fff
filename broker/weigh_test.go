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
	for _, p := range []string{`^(?:(`, `^(?:a{1001})$`, strings.Repeat("a", 257)} {
		if est := instructions(p); est != 0 {
			t.Errorf("%.20s: %d", p, est)
		}
	}
	nested := `{"type":"object","properties":{"pattern":{"type":"array","items":{"type":"string","pattern":"^(?:a{1,500})$"}}},"enum":[{"pattern":"^(?:a{1,500})$"}]}`
	if w := weigh([]json.RawMessage{[]byte(nested), []byte(`{`), []byte(patterned(`^(?:a{500})$`))}); w < 1500 || w > 3500 {
		t.Errorf("it weighs %d", w)
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
