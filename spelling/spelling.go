// Package spelling finds what a misspelt name was probably meant to be. It knows
// names as bytes alone; what is made of its answer in a message is its caller's.
package spelling

// most is how many bytes may be wrong; what is further off is no misspelling.
const most = 2

// Nearest returns the known name that takes the fewest bytes to insert, delete or
// replace to be made of name, the first of them if there are several; "" if each
// takes more than two. It takes time by the product of the lengths of name and of
// each known name that is about as long, so both are to be bounded before.
func Nearest(name string, known []string) string {
	best, least := "", most+1
	for _, k := range known {
		if d := distance(name, k, least); d < least {
			best, least = k, d
		}
	}
	return best
}

// distance is the number of bytes to insert, delete or replace to make b of a
// (Levenshtein's); bound, if it is not less.
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
