package manifest

import (
	"slices"
	"strconv"
	"strings"

	"github.com/toolgrant/toolgrant/spelling"
)

const maxListed = 12

// suggest completes an error about a name that is not known: with the nearest of
// those that are or, if none is near, with all of a few.
func suggest(name string, known []string) string {
	known = slices.Sorted(slices.Values(known))
	best := spelling.Nearest(name, known)
	switch {
	case best != "":
		return "; did you mean " + strconv.Quote(best) + "?"
	case len(known) == 0:
		return "; there is none"
	case len(known) <= maxListed:
		return "; there are: " + strings.Join(known, ", ")
	}
	return ""
}

// cut shortens a name from outside for a message.
func cut(name string) string {
	const most = 64
	if runes := []rune(name); len(runes) > most {
		return string(runes[:most]) + "…"
	}
	return name
}

// token writes a name as a JSON Pointer token (RFC 6901, Section 3).
func token(name string) string {
	return strings.ReplaceAll(strings.ReplaceAll(name, "~", "~0"), "/", "~1")
}
