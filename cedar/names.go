package cedar

import (
	"iter"
	"maps"
	"regexp"
	"slices"
	"strings"

	cedargo "github.com/cedar-policy/cedar-go"

	"github.com/toolgrant/toolgrant/spelling"
)

const maxListed = 12

// suggest completes an error about a name that is not known: with the nearest
// of those that are or, if none is near, with all of a few.
func suggest(name string, known iter.Seq[string]) string {
	all := slices.Sorted(known)
	near := didYouMean(name, all)
	switch {
	case near != "":
		return near
	case len(all) == 0:
		return "; there is none"
	case len(all) <= maxListed:
		return "; there are: " + strings.Join(all, ", ")
	}
	return ""
}

// didYouMean is the question for the nearest of the names; "" if none is near.
func didYouMean(name string, sorted []string) string {
	best := spelling.Nearest(name, sorted)
	if best == "" {
		return ""
	}
	return "; did you mean \"" + best + "\"?"
}

// names gives the keys of a map as texts.
func names[K ~string, V any](m map[K]V) iter.Seq[string] {
	return func(yield func(string) bool) {
		for k := range maps.Keys(m) {
			if !yield(string(k)) {
				return
			}
		}
	}
}

// findText returns the offset at which the policy first has a literal of the
// text. Cedar's syntax tree has no positions, so it is looked for in the text;
// where it is not found, the policy's own beginning has to do.
func (p *parsed) findText(text string) int {
	return p.search(regexp.QuoteMeta(`"` + text + `"`))
}

// findMember returns the offset at which the policy first names the member.
func (p *parsed) findMember(name string) int {
	quoted := regexp.QuoteMeta(name)
	return p.search(`(?:\bhas\s+|\.\s*)` + quoted + `\b|(?:\bhas\s+|\[\s*)"` + quoted + `"`)
}

// findType returns the offset at which the policy first asks for the type.
func (p *parsed) findType(t cedargo.EntityType) int {
	return p.search(`\bis\s+` + regexp.QuoteMeta(string(t)) + `\b`)
}

func (p *parsed) findLike() int { return p.search(`\blike\s*"`) }

func (p *parsed) search(pattern string) int {
	// The last byte: a match may begin lines before what it is about.
	if at := regexp.MustCompile(pattern).FindIndex(p.file.text[p.from:p.to]); at != nil {
		return p.from + at[1] - 1
	}
	return p.from
}
