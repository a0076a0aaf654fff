package broker

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp/syntax"

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
	weight := 0
	for _, a := range o.asks {
		weight += weigh(a.constraints)
	}
	if rep := b.affordable(r, weight); rep.why != grants.None {
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

// affordable takes what constraints of this weight cost from the caller's rate.
func (b *Broker) affordable(r *request, weight int) reply {
	if weight > maxWeight {
		return reply{why: grants.BadRequest, code: badDetails, detail: fmt.Sprintf(
			"the constraints are too costly together (some %d instructions of patterns, at most %d): use smaller repetitions, or ask for fewer tools at a time", weight, maxWeight)}
	}
	if !b.pay(r, weight, perWeight) {
		return refused(grants.Limit, "constraints cost as much as several requests: wait a second")
	}
	return reply{}
}

// weigh estimates what compiling costs, without doing so. What cannot be read
// weighs its bytes alone: it is refused before its patterns are looked at.
func weigh(constraints []json.RawMessage) (weight int) {
	for _, raw := range constraints {
		weight += len(raw) / bytesPerInst
		if doc, err := strictjson.Parse(raw, strictjson.Limits{Bytes: grants.MaxConstraint}); err == nil {
			weight += weighPatterns(doc)
		}
	}
	return weight
}

// weighPatterns adds up all that is called "pattern", wherever it stands.
func weighPatterns(v any) (weight int) {
	switch v := v.(type) {
	case []any:
		for _, one := range v {
			weight += weighPatterns(one)
		}
	case map[string]any:
		for name, one := range v {
			if text, ok := one.(string); ok && name == "pattern" {
				weight += instructions(text)
			} else {
				weight += weighPatterns(one)
			}
		}
	}
	return weight
}

// instructions estimates those of a pattern from its tree, in which repetitions
// are not written out. The parser bounds their product by 1,000.
func instructions(pattern string) int {
	const maxPattern = 256 // bytes; longer ones are refused unread
	if len(pattern) > maxPattern {
		return 0
	}
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
