package cedar

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"

	"github.com/toolgrant/toolgrant/grants"
)

const (
	maxAdvice  = 256 // bytes of one policy's @advice
	maxAdvices = 512 // bytes of what one denial tells
)

// checkAdvice holds that what a policy tells whom it refuses can be told: agents
// and terminals read it.
func checkAdvice(p *parsed) error {
	text, there := p.policy.Annotations()["advice"]
	switch {
	case !there:
		return nil
	case text == "":
		return errors.New(`an @advice that says nothing; write @advice("what to do instead"), or take it away`)
	case len(text) > maxAdvice:
		return fmt.Errorf("an @advice of more than %d bytes; write a shorter one", maxAdvice)
	case strings.ContainsFunc(string(text), func(r rune) bool { return !unicode.IsPrint(r) }):
		return fmt.Errorf("@advice(%q) has characters that do not print", string(text))
	}
	return nil
}

// advice is what the policies that forbade it tell, in the order of their ids, as
// far as it fits. Policies that erred decided nothing, and tell nothing.
func (s *Set) advice(d grants.Decision) string {
	if d.Reason != grants.Policy || len(s.advices) == 0 {
		return ""
	}
	var told []string
	size := -1                      // of the texts, and a blank between two
	for _, id := range d.Policies { // sorted
		text := s.advices[id]
		if text == "" || slices.Contains(told, text) {
			continue
		}
		if size += 1 + len(text); size > maxAdvices {
			break
		}
		told = append(told, text)
	}
	return strings.Join(told, " ")
}
