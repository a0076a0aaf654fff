package audit

import (
	"strconv"
	"strings"
)

// Facts are what a policy saw of the task and of who asked that no other member
// of a Record says. In a Note they tell an operator why a policy did not fit.
type Facts struct {
	Kind   string   // of the task; "": there is none, and no TTL
	TTL    int64    // seconds, as policy saw them
	More   string   // other terms, such as "max_calls=2"
	Groups []string // of the principal that was decided on, as its identity was verified
}

// String gives "kind=KIND ttl=SECONDS MORE groups=A,B". Groups come last, and
// what is over MaxNote bytes of them is left out: their names are another's, and
// can neither push out nor feign what is before them.
func (f Facts) String() string {
	var b strings.Builder
	if f.Kind != "" {
		b.WriteString("kind=" + f.Kind + " ttl=" + strconv.FormatInt(f.TTL, 10) + " ")
	}
	if f.More != "" {
		b.WriteString(f.More + " ")
	}
	b.WriteString("groups=")
	for i, g := range f.Groups {
		if i > 0 {
			b.WriteByte(',')
		}
		if b.WriteString(g); b.Len() > MaxNote {
			break
		}
	}
	return b.String()
}

// Note joins the parts of a Note that are there.
func Note(parts ...string) string {
	var b strings.Builder
	for _, p := range parts {
		if p == "" {
			continue
		}
		if b.Len() > 0 {
			b.WriteString("; ")
		}
		b.WriteString(p)
	}
	return b.String()
}
