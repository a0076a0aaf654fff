package cedar

import (
	"regexp"
	"slices"
	"strings"

	cedargo "github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/x/exp/ast"
)

// An optional member may be accessed where "has" says that it is there. The
// validator tells each level of a path apart, and not how to mend it.

var unguardedForm = regexp.MustCompile("optional attribute `(.*)` in context for (.*)$")

// unguarded reads which optional member of an action's context the validator
// says is accessed unguarded; "" if it says something else.
func unguarded(text string) (path, action string) {
	if m := unguardedForm.FindStringSubmatch(text); m != nil {
		return m[1], m[2]
	}
	return "", ""
}

// innermost leaves out that an optional member is not guarded where one of its
// own members is not guarded either: one guard mends both.
func innermost(texts []string) []string {
	outer := map[[2]string]bool{} // action, path
	for _, text := range texts {
		path, action := unguarded(text)
		for i := range path {
			if path[i] == '.' {
				outer[[2]string{action, path[:i]}] = true
			}
		}
	}
	return slices.DeleteFunc(texts, func(text string) bool {
		path, action := unguarded(text)
		return outer[[2]string{action, path}]
	})
}

// identifier is what may stand behind a dot; another name is quoted.
var identifier = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

var keywords = []string{"true", "false", "if", "then", "else", "in", "is", "like", "has", "__cedar"}

// guard writes the condition under which context has the path.
func (p *parsed) guard(path string) string {
	names := p.accessed(path)
	n := slices.IndexFunc(names, func(name string) bool { return !identifier.MatchString(name) || slices.Contains(keywords, name) })
	if n < 0 {
		n = len(names)
	}
	plain := strings.Join(names[:n], ".")
	guard, at := "context has "+plain, "context."+plain
	for _, name := range names[n:] {
		quoted := string(cedargo.String(name).MarshalCedar())
		guard += " && " + at + " has " + quoted
		at += "[" + quoted + "]"
	}
	return guard
}

// accessed gives the names of a path of context that the policy accesses. The
// validator joins them by dots, which names may have, too.
func (p *parsed) accessed(path string) []string {
	var found []string
	for _, c := range p.ast().Conditions {
		ast.Inspect(ast.NewNode(c.Body), func(n ast.IsNode) bool {
			var names []string
			at, ok := n.(ast.NodeTypeAccess)
			for ; ok; at, ok = n.(ast.NodeTypeAccess) {
				names = append(names, string(at.Value))
				n = at.Arg
			}
			slices.Reverse(names)
			if isContext(n) && strings.Join(names, ".") == path {
				found = names
			}
			return found == nil
		})
	}
	return found
}
