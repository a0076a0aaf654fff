package grants

import (
	"encoding/json"
	"fmt"
	"runtime"
	"strings"
	"testing"
)

// members is a constraint of n members with one schema.
func members(n int, schema string) string {
	var properties, required []string
	for i := range n {
		name := fmt.Sprintf(`"%x"`, i)
		properties, required = append(properties, name+":"+schema), append(required, name)
	}
	return `{"type":"object","properties":{` + strings.Join(properties, ",") + `},"required":[` + strings.Join(required, ",") + `],"additionalProperties":false}`
}

func patterned(inner string) string {
	return member(`{"type":"string","pattern":"^(?:` + inner + `)$"}`)
}

func numbers(n int, format string) string {
	all := make([]string, n)
	for i := range all {
		all[i] = fmt.Sprintf(format, i)
	}
	return strings.Join(all, ",")
}

// measured is how many bytes of heap the compiled constraints of one grant take.
func measured(t *testing.T, raw []json.RawMessage) int {
	heap := func() int64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	var keep [16][]*Constraint
	before := heap()
	for i := range keep {
		list, err := CompileConstraints(raw)
		if err != nil {
			t.Fatalf("%.80s: %v", raw[0], err)
		}
		keep[i] = list
	}
	n := (heap() - before) / int64(len(keep))
	runtime.KeepAlive(&keep)
	return int(n)
}

// What the compiled constraints of one grant take stays below the estimate,
// for whatever costs most.
func TestConstraintState(t *testing.T) {
	for name, raw := range map[string]string{
		"plain":             `{"type":"object","properties":{"owner":{"type":"string","const":"example"},"repo":{"type":"string","pattern":"^(?:[a-z-]{1,32})$"},"pull_number":{"type":"integer","minimum":1}},"required":["owner","repo","pull_number"],"additionalProperties":false}`,
		"members":           members(maxSchemas-1, `{"type":"null"}`),
		"bounds":            members(70, `{"type":"number","minimum":1,"exclusiveMinimum":1,"maximum":3,"exclusiveMaximum":4}`),
		"consts":            members(200, `{"type":"null","const":null}`),
		"enum":              member(`{"type":"number","enum":[` + numbers(1_600, "%d") + `]}`),
		"enum, written out": member(`{"type":"number","enum":[` + numbers(999, "%de12") + `]}`),
		"nested":            nested(maxSchemaDepth),
		"patterns":          members(100, `{"type":"string","pattern":"^(?:a)$"}`),
		"repetition":        patterned(`a{990}`),
		"optional":          patterned(`(?:a?){900}`),
		"ranges":            patterned(`[a-cx-z]{900}`),
		"not":               patterned(`[^a-cx-z]{900}`),
		"not, at will":      patterned(strings.Repeat(`[^a][^b]*`, 20)),
		"grouped":           patterned(strings.Repeat(`(`, 100) + `[^a]` + strings.Repeat(`)`, 100)),
		"alternatives":      patterned(strings.Repeat(`(?:[a-c]|`, 20) + `[^x]` + strings.Repeat(`)`, 20)),
	} {
		one := []json.RawMessage{json.RawMessage(raw)}
		list, err := CompileConstraints(one)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		got, most := measured(t, one), list[0].state+len(raw)
		t.Logf("%-20s %5d bytes of text: %6d bytes of state, estimated %6d", name, len(raw), got, most)
		if got > most {
			t.Errorf("%s takes %d bytes; estimated are %d", name, got, most)
		}
	}
}

func TestConstraintBounds(t *testing.T) {
	raw := func(schemas ...string) (list []json.RawMessage) {
		for _, s := range schemas {
			list = append(list, json.RawMessage(s))
		}
		return list
	}
	half := member(`{"type":"string","const":"` + strings.Repeat("a", MaxConstraintsBytes/2-len(member(`{"type":"string","const":""}`))) + `"}`)
	if _, err := CompileConstraints(raw(half, half)); err != nil {
		t.Errorf("%d bytes: %v", MaxConstraintsBytes, err)
	}
	if _, err := ConstraintsDigest(raw(half, half)); err != nil {
		t.Errorf("digest of %d bytes: %v", MaxConstraintsBytes, err)
	}
	if _, err := ConstraintsDigest(raw(half, half, member(`{"type":"null"}`))); err == nil || !strings.Contains(err.Error(), "16384") {
		t.Errorf("digest of more: %v", err)
	}
	many := `{"type":"string","pattern":"^(?:(?:[a-cx-z]?){900})$"}`
	for name, c := range map[string]struct {
		raw  []json.RawMessage
		want string
	}{
		"much text":            {raw(half, half, member(`{"type":"null"}`)), "at most 16384 are allowed"},
		"many schemas":         {raw(members(maxSchemas, `{"type":"null"}`)), "more than 256 schemas"},
		"many ranges":          {raw(members(8, many)), "too costly"},
		"many ranges by parts": {raw(member(many), member(many), member(many), member(many)), "number "},
		"many values":          {raw(members(200, `{"type":"null","const":null}`), members(200, `{"type":"null","const":null}`)), "number 1"},
	} {
		if _, err := CompileConstraints(c.raw); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v; want %q in it", name, err, c.want)
		}
	}
}
