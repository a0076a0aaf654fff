package broker

import (
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/toolgrant/toolgrant/catalog"
	"github.com/toolgrant/toolgrant/grants"
	"github.com/toolgrant/toolgrant/token"
)

// order is what one request asks for: tools for one agent and one task.
type order struct {
	task  grants.ID
	agent grants.Principal // who would hold the grants
	end   time.Time        // after which the manifest has nothing; zero: it does not say
	asks  []ask            // 1 to token.MaxDetails, each of another tool
}

// ask is one tool that is asked for.
type ask struct {
	tool        *catalog.Tool
	ttl         time.Duration     // 0: DefaultTTL
	bounds      []bound           // by argument, each once; calls first
	constraints []json.RawMessage // as they came: constrain compiles them
	renew       grants.ID         // "": a grant beside what there is
	at          string            // where it stands in the request, for a refusal

	// Of a one-time grant: the one input that it is for, and its digest.
	input any // as strictjson gives it
	once  grants.Digest

	// What the manifest of the task's kind adds (under).
	ceiling  json.RawMessage // a constraint; nil: none
	oneByOne bool            // each grant has to be a one-time grant
}

// wish is how both ways of asking in JSON say it; a member that is not here is
// refused.
type wish struct {
	Tool        string                     `json:"tool"`
	TTL         *int64                     `json:"ttl"`       // seconds; absent: DefaultTTL
	MaxCalls    *int64                     `json:"max_calls"` // absent: not counted
	MaxSum      map[string]json.RawMessage `json:"max_sum"`   // JSON Pointer into the input -> decimal, in quotes
	Constraints []json.RawMessage          `json:"constraints"`
	Input       json.RawMessage            `json:"input"` // of the one call that a one-time grant covers; absent: any
	Renew       *grants.ID                 `json:"renew"`
}

// badDetails is RFC 9396, Section 5.
const badDetails = "invalid_authorization_details"

// read checks a wish against the catalogue. at is where it stands, for the
// refusal.
func (b *Broker) read(w wish, at string) (ask, reply) {
	bad := func(why grants.Reason, detail string) (ask, reply) {
		return ask{}, reply{why: why, code: badDetails, detail: at + ": " + detail}
	}
	tool, ok := b.cfg.Catalog.Tool(w.Tool)
	if !ok {
		return bad(grants.UnknownTool, "the catalogue has no such tool: write SERVER/TOOL")
	}
	a := ask{tool: tool, constraints: w.Constraints, at: at}
	if w.TTL != nil {
		if a.ttl, ok = seconds(*w.TTL, minTTL); !ok {
			return bad(grants.BadTTL, b.ttlRange(`"ttl"`))
		}
	}
	if w.MaxCalls != nil {
		if *w.MaxCalls < 1 || *w.MaxCalls > maxCalls {
			return bad(grants.BadRequest, fmt.Sprintf(`"max_calls" is a whole number from 1 to %d`, maxCalls))
		}
		a.bounds = []bound{{limit: *w.MaxCalls}}
	}
	sums, err := readSums(tool, w.MaxSum)
	if err != nil {
		return bad(grants.BadRequest, `"max_sum": `+err.Error())
	}
	a.bounds = append(a.bounds, sums...)
	if w.Input != nil {
		if w.MaxCalls != nil {
			return bad(grants.BadRequest, `"max_calls" and "input" do not go together: a one-time grant covers one call`)
		}
		if a.input, a.once, err = readOnce(tool, w.Input); err != nil {
			return bad(grants.BadRequest, `"input": `+err.Error())
		}
	}
	if w.Renew != nil {
		if a.renew = *w.Renew; !grants.ValidID(a.renew, grants.GrantPrefix) {
			return bad(grants.BadRequest, `"renew" is the id of a grant`)
		}
	}
	return a, reply{}
}

// ttlRange says what a time may be, in words.
func (b *Broker) ttlRange(name string) string {
	return fmt.Sprintf("%s is a whole number of seconds, %d or more; what is over %d is cut to that", name, minTTL, b.cfg.MaxTTL/time.Second)
}

// tooMany says how many tools one request may name.
var tooMany = "1 to " + strconv.Itoa(token.MaxDetails)

// eachOnce refuses a tool that is asked for twice: which of the two would hold?
func eachOnce(asks []ask) reply {
	seen := map[string]bool{}
	for _, a := range asks {
		if seen[a.tool.ID] {
			return reply{why: grants.BadRequest, code: "invalid_request", detail: "a tool came twice: ask for each once"}
		}
		seen[a.tool.ID] = true
	}
	return reply{}
}
