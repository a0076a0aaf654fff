package manifest

import (
	"slices"
	"strconv"
	"strings"
)

const (
	maxMisspelling = 2 // bytes to change; further off is no misspelling
	maxListed      = 12
)

// suggest completes an error about a name that is not known: with the nearest of
// those that are or, if none is near, with all of a few.
func suggest(name string, known []string) string {
	known = slices.Sorted(slices.Values(known))
	best, least := "", maxMisspelling+1
	for _, k := range known {
		if d := distance(name, k, least); d < least {
			best, least = k, d
		}
	}
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

// distance is the number of bytes to insert, delete or replace to make b of a;
// bound, if it is not less.
func distance(a, b string, bound int) int {
	if max(len(a)-len(b), len(b)-len(a)) >= bound {
		return bound
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j+1]+1, row[j]+1)
		}
	}
	return min(row[len(b)], bound)
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
