package broker

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp/syntax"
	"strings"
	"time"

	"github.com/toolgrant/toolgrant/grants"
	"github.com/toolgrant/toolgrant/strictjson"
)

// What compiling constraints costs, in instructions of their patterns: a pattern
// of 200 bytes can have 200,000, and 75 ms. So they are weighed before they are
// compiled, and cost the caller as much of its rate as a request for each
// perWeight; a request may bring maxWeight. Those of one grant that compile have
// some 4,000. The store and the table compile those of each grant again, so that
// the same text for several tools weighs as often.
const (
	perWeight = 200
	maxWeight = 10_000

	bytesPerInst = 32 // of text, to be parsed
)

// constrain checks the constraints of an order, for a caller whose task it is.
func (b *Broker) constrain(r *request, o *order) reply {
	size := 0
	for _, a := range o.asks {
		n, err := bounded(a.constraints)
		if err != nil {
			return reply{why: grants.BadRequest, code: badDetails, detail: a.at + ": constraints: " + err.Error()}
		}
		size += n
	}
	// Reading them to weigh them costs, too: their bytes are paid first.
	s := scale{weight: size / bytesPerInst}
	if rep := b.affordable(r, s.weight, 0); rep.why != grants.None {
		return rep
	}
	paid := s.weight
	for _, a := range o.asks {
		s.put(a.constraints)
	}
	if rep := b.affordable(r, s.weight, paid); rep.why != grants.None {
		return rep
	}
	seen := map[string]error{} // the constraints of a grant, as one text -> what is wrong with them
	for _, a := range o.asks {
		text := string(bytes.Join(rawTexts(a.constraints), []byte(",")))
		err, compiled := seen[text]
		if !compiled {
			_, err = grants.CompileConstraints(a.constraints)
			seen[text] = err
		}
		if err == nil {
			err = canHold(a.tool, a.constraints)
		}
		if err != nil {
			return reply{why: grants.BadRequest, code: badDetails, detail: a.at + ": constraints: " + err.Error()}
		}
	}
	return reply{}
}

func rawTexts(raw []json.RawMessage) [][]byte {
	out := make([][]byte, len(raw))
	for i, r := range raw {
		out[i] = r
	}
	return out
}

// bounded holds the constraints of one grant against what grants allows, by
// number and bytes (those of all are size), before any of them is read.
func bounded(constraints []json.RawMessage) (size int, err error) {
	if len(constraints) > grants.MaxConstraints {
		return 0, fmt.Errorf("%d constraints, at most %d are allowed", len(constraints), grants.MaxConstraints)
	}
	for i, raw := range constraints {
		if size += len(raw); len(raw) > grants.MaxConstraint {
			return 0, fmt.Errorf("number %d: it is %d bytes, at most %d are allowed", i, len(raw), grants.MaxConstraint)
		}
	}
	if size > grants.MaxConstraintsBytes {
		return 0, fmt.Errorf("the constraints are %d bytes together, at most %d are allowed; ask for one grant per alternative, with shorter ones", size, grants.MaxConstraintsBytes)
	}
	return size, nil
}

// affordable takes what constraints of this weight cost from the caller's rate,
// beyond what it has paid for a part of it. As with pay, all of it is never more
// than half of what a rested caller has.
func (b *Broker) affordable(r *request, weight, paid int) reply {
	if weight > maxWeight {
		return reply{why: grants.BadRequest, code: badDetails, detail: fmt.Sprintf(
			"the constraints are too costly together (over %d instructions of patterns): use smaller repetitions, or ask for fewer tools at a time", maxWeight)}
	}
	now := time.Now()
	allowance := b.limits.allowance(r.who.Principal.ID(), now)
	half := allowance.Burst() / 2
	if !allowance.AllowN(now, min(weight/perWeight, half)-min(paid/perWeight, half)) {
		return refused(grants.Limit, "constraints cost as much as several requests: wait a second")
	}
	return reply{}
}

// weigh estimates what compiling the constraints of one grant costs.
func weigh(constraints []json.RawMessage) int {
	var s scale
	for _, raw := range constraints {
		s.weight += len(raw) / bytesPerInst
	}
	s.put(constraints)
	return s.weight
}

// scale estimates what compiling costs, without doing so. Once it is over
// maxWeight it looks at nothing more.
type scale struct {
	weight int
	parsed map[string]int // pattern -> its instructions: each is parsed once
}

func (s *scale) full() bool { return s.weight > maxWeight }

// put adds the patterns of constraints. What cannot be read has none: it is
// refused before they are looked at.
func (s *scale) put(constraints []json.RawMessage) {
	for _, raw := range constraints {
		if s.full() {
			return
		}
		if doc, err := strictjson.Parse(raw, strictjson.Limits{Bytes: grants.MaxConstraint}); err == nil {
			s.patterns(doc)
		}
	}
}

// patterns adds all that is called "pattern", wherever it stands.
func (s *scale) patterns(v any) {
	if s.full() {
		return
	}
	switch v := v.(type) {
	case []any:
		for _, one := range v {
			s.patterns(one)
		}
	case map[string]any:
		for name, one := range v {
			if text, ok := one.(string); ok && name == "pattern" {
				s.pattern(text)
			} else {
				s.patterns(one)
			}
		}
	}
}

func (s *scale) pattern(text string) {
	if s.full() || !parsable(text) {
		return
	}
	n, ok := s.parsed[text]
	if !ok {
		if s.parsed == nil {
			s.parsed = map[string]int{}
		}
		n = instructions(text)
		s.parsed[text] = n
	}
	s.weight += n
}

// parsable reports whether a pattern is one that grants parses. The others weigh
// nothing, for grants refuses them by their text, as it is done here: a Unicode
// class or a flag can make the parser itself take milliseconds.
func parsable(pattern string) bool {
	const maxPattern = 256 // bytes
	if len(pattern) > maxPattern {
		return false
	}
	inner, ok := strings.CutPrefix(pattern, "^(?:")
	if ok {
		inner, ok = strings.CutSuffix(inner, ")$")
	}
	if !ok {
		return false
	}
	for i := 0; i+1 < len(inner); i++ {
		switch inner[i : i+2] {
		case `\p`, `\P`, `\Q`:
			return false
		case "(?":
			if !strings.HasPrefix(inner[i:], "(?:") {
				return false
			}
		}
		if inner[i] == '\\' {
			i++ // what it escapes begins nothing
		}
	}
	return true
}

// instructions estimates those of a pattern from its tree, in which repetitions
// are not written out. The parser bounds their product by 1,000.
func instructions(pattern string) int {
	tree, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		return 0
	}
	return treeSize(tree)
}

func treeSize(re *syntax.Regexp) int {
	n := max(1, len(re.Rune))
	if re.Op == syntax.OpCharClass {
		n = 1
	}
	for _, sub := range re.Sub {
		n += treeSize(sub)
	}
	if re.Op == syntax.OpRepeat {
		n *= max(1, re.Min, re.Max)
	}
	return n
}
