package pdp

import (
	"errors"
	"fmt"
	"slices"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/toolgrant/toolgrant/grants"
)

// Bounds of what an engine says; more is an error.
const (
	maxPolicies = 64  // that one decision names
	maxPolicy   = 256 // bytes of an id
	maxAdvice   = 512 // bytes
	maxRevision = 512 // bytes
)

// said is what any engine may say beside yes and no.
type said struct {
	Policies     []string `json:"policies"`
	Advice       string   `json:"advice"`
	CacheableFor int64    `json:"cacheable_for"` // seconds for which the question's seconds do not matter
}

// answer is an engine's to one question.
type answer struct {
	allow     bool
	why       grants.Reason // of a denial; None: Policy
	policies  []string      // sorted
	advice    string
	cacheable time.Duration // however the seconds in the question move; 0: not at all
	revision  string        // of the engine's policy; "": it states none
}

func (s said) answer(allow bool) (answer, error) {
	if len(s.Policies) > maxPolicies {
		return answer{}, fmt.Errorf("it names %d policies; at most %d are taken", len(s.Policies), maxPolicies)
	}
	for _, id := range s.Policies {
		if err := checkText("policies", id, maxPolicy); err != nil {
			return answer{}, err
		}
		if id == "" {
			return answer{}, errors.New("policies: one has no name")
		}
	}
	if err := checkText("advice", s.Advice, maxAdvice); err != nil {
		return answer{}, err
	}
	if s.CacheableFor < 0 {
		return answer{}, errors.New("cacheable_for: must be 0 or more seconds")
	}
	slices.Sort(s.Policies)
	return answer{
		allow: allow, policies: slices.Compact(s.Policies), advice: s.Advice,
		cacheable: time.Duration(min(s.CacheableFor, int64(MaxCache/time.Second))) * time.Second,
	}, nil
}

// checkText wants a text that prints, for it is recorded and told.
func checkText(what, text string, limit int) error {
	if len(text) > limit || !utf8.ValidString(text) {
		return fmt.Errorf("%s: must be a text of at most %d bytes", what, limit)
	}
	for _, r := range text {
		if !unicode.IsPrint(r) {
			return fmt.Errorf("%s: has a character that does not print", what)
		}
	}
	return nil
}

// decision is the answer as the doors take it; they set the revision.
func (a answer) decision() grants.Decision {
	d := grants.Decision{Allow: a.allow, Policies: a.policies}
	if !a.allow {
		d.Reason, d.Advice = a.why, a.advice
		if d.Reason == grants.None {
			d.Reason = grants.Policy
		}
	}
	return d
}
