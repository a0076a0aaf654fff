package cedar

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/toolgrant/toolgrant/grants"
)

const maxNearest = 3 // permits that are told of a denial

// differ says what would have to be otherwise for a denial to be none.
func (e Explanation) differ() []string {
	switch {
	case e.Decision.Allow:
		return nil
	case e.Decision.Reason == grants.PolicyError:
		return e.each(func(x Examined) bool { return x.Holds == Errs }, func(x Examined) string {
			var texts []string
			for _, part := range x.Conditions {
				if part.Holds == Errs {
					texts = append(texts, fmt.Sprintf("%s: %s", part, part.Error))
				}
			}
			return fmt.Sprintf("%s errs, and what it would say is not known: %s", x, strings.Join(texts, "; "))
		})
	case e.Decision.Reason != grants.Policy:
		return e.Differ // no policy was looked at
	case len(e.Decision.Policies) > 0:
		return e.each(func(x Examined) bool { return x.Forbid && x.Holds == True }, func(x Examined) string {
			if held := x.held(); held != "" {
				return fmt.Sprintf("%s holds, and one of these would have to be false: %s", x, held)
			}
			return fmt.Sprintf("%s holds, whatever the question", x)
		})
	}
	permits := slices.DeleteFunc(slices.Clone(e.Policies), func(x Examined) bool { return x.Forbid })
	if len(permits) == 0 {
		return []string{"no permit is about this action on this resource: one would have to be written"}
	}
	slices.SortStableFunc(permits, func(a, b Examined) int { return cmp.Compare(len(a.failed()), len(b.failed())) })
	var out []string
	for _, x := range permits[:min(maxNearest, len(permits))] {
		out = append(out, fmt.Sprintf("%s would permit it, but for: %s", x, strings.Join(x.failed(), "; ")))
	}
	return out
}

// each tells of some of the policies.
func (e Explanation) each(some func(Examined) bool, tell func(Examined) string) []string {
	var out []string
	for _, x := range e.Policies {
		if some(x) {
			out = append(out, tell(x))
		}
	}
	return out
}

// held lists what a policy asks for; "": nothing.
func (x Examined) held() string {
	var texts []string
	if x.Scope.Text != "principal" {
		texts = append(texts, x.Scope.String())
	}
	for _, part := range x.Conditions {
		texts = append(texts, part.String())
	}
	return strings.Join(texts, "; ")
}

// failed lists what did not hold.
func (x Examined) failed() []string {
	var texts []string
	for _, part := range append([]Part{x.Scope}, x.Conditions...) {
		if part.Holds != True {
			texts = append(texts, part.String())
		}
	}
	return texts
}

// String names the policy.
func (x Examined) String() string {
	effect := "permit"
	if x.Forbid {
		effect = "forbid"
	}
	return fmt.Sprintf("%s %q (%s)", effect, x.ID, x.At)
}

// says is what is said of a policy.
func (v Verdict) says() string {
	switch v {
	case True:
		return "holds"
	case Errs:
		return "errs"
	}
	return "does not hold"
}

// String is the text with the values of what it names.
func (p Part) String() string {
	var values []string
	for _, v := range p.Values {
		values = append(values, v.String())
	}
	if len(values) == 0 {
		return p.Text
	}
	return fmt.Sprintf("%s [%s]", p.Text, strings.Join(values, ", "))
}

func (v Value) String() string {
	switch {
	case v.Text != "":
		return v.Path + " is " + v.Text
	case v.Type == "absent":
		return v.Path + " is not there"
	}
	return v.Path + " is a " + v.Type
}

// String is for people: the decision, each policy with what held of it, and what
// would have to differ.
func (e Explanation) String() string {
	var b strings.Builder
	d := e.Decision
	answer := "allow"
	if !d.Allow {
		answer = "deny (" + d.Refusal().String() + ")"
	}
	fmt.Fprintf(&b, "%s: %s", answer, e.Question)
	if len(d.Policies) > 0 {
		fmt.Fprintf(&b, "\nby %s", strings.Join(d.Policies, ", "))
	}
	if d.Advice != "" {
		fmt.Fprintf(&b, "\nadvice: %s", d.Advice)
	}
	b.WriteString("\n")
	for _, x := range e.Policies {
		fmt.Fprintf(&b, "\n%s: %s\n", x, x.Holds.says())
		for _, part := range append([]Part{x.Scope}, x.Conditions...) {
			fmt.Fprintf(&b, "  %-9s  %s\n", part.Holds, part)
			if part.Error != "" {
				fmt.Fprintf(&b, "             %s\n", part.Error)
			}
		}
	}
	if len(e.Differ) > 0 {
		b.WriteString("\nwhat would have to differ:\n")
		for _, text := range e.Differ {
			fmt.Fprintf(&b, "- %s\n", text)
		}
	}
	return b.String()
}
