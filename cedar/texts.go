package cedar

import (
	"errors"

	cedargo "github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/x/exp/ast"
	"github.com/cedar-policy/cedar-go/x/exp/schema/resolved"

	"github.com/toolgrant/toolgrant/authz/mcp"
)

// To Cedar, every text may be any text. Of some it is known what they can be,
// so that a misspelt one in a policy, which would never match, is found:
//
//   - the alias of an agent's issuer (Config.Aliases);
//   - an argument for which the catalogue has an enum, a parameter of tasks for
//     which the manifests have one, or a parameter of MCP's that has few values
//     (closedParams);
//   - context.revision;
//   - the arguments in context.sums: numbers of a tool's input.
//
// What a policy compares them with is looked at where it is written out.

// checkTexts looks for texts that one of two nodes, which are compared, has and
// that the other never is.
func (m *members) checkTexts(left, right ast.IsNode) {
	m.checkWritten(left, textsIn(right))
	m.checkWritten(right, textsIn(left))
}

func (m *members) checkWritten(n ast.IsNode, texts []string) {
	if len(texts) == 0 {
		return
	}
	all, why := m.closed(n)
	for _, text := range texts {
		if all != nil && !all[text] {
			m.faults.add("%s: policy %q: %s never has %q: %s%s",
				m.p.at(m.p.findText(text)), m.p.id, written(n), text, why, suggest(text, names(all)))
		}
	}
}

// checkLike holds that a pattern matches something that the node can be.
func (m *members) checkLike(n ast.NodeTypeLike) {
	all, why := m.closed(n.Arg)
	for text := range all {
		if n.Value.Match(cedargo.String(text)) {
			return
		}
	}
	if all != nil {
		m.faults.add("%s: policy %q: %s is never like %s: %s", m.p.at(m.p.findLike()), m.p.id, written(n.Arg), n.Value.MarshalCedar(), why)
	}
}

// closed gives the texts that a node can be or, if it is a set, that can be in
// it, and why there are no others; nil where that is not known.
func (m *members) closed(n ast.IsNode) (all map[string]bool, why string) {
	if isSums(n) {
		all = map[string]bool{}
		for id, input := range m.w.inputs {
			if m.about(id) {
				input.sums("", all)
			}
		}
		return all, "in the input of no tool that the policy is about is there a number"
	}
	if m.isIssuer(n) && len(m.w.aliases) > 0 {
		all = map[string]bool{}
		for _, alias := range m.w.aliases {
			all[alias] = true
		}
		return all, "it is the alias of no issuer of identities"
	}
	if isOfContext(n, "revision") {
		all = map[string]bool{}
		for _, revision := range mcp.Revisions() {
			all[revision] = true
		}
		return all, "it is no revision of MCP that is known"
	}
	for _, s := range m.shapesOf(n) {
		for s != nil && s.of == "array" {
			s = s.items
		}
		if s == nil || len(s.enum) == 0 {
			return nil, ""
		}
		if all == nil {
			all = map[string]bool{}
		}
		for _, text := range s.enum {
			all[text] = true
		}
	}
	return all, "it is in no enum that the catalogue, the manifests or MCP have for it"
}

// isIssuer reports whether the node is the issuer of an agent.
func (m *members) isIssuer(n ast.IsNode) bool {
	of, ok := n.(ast.NodeTypeAccess)
	if !ok || of.Value != "issuer" {
		return false
	}
	types, ok := m.typesOf(of.Arg)
	for _, t := range types {
		ok = ok && t == resolved.IsType(resolved.EntityType(agentType))
	}
	return ok && len(types) > 0
}

// shapesOf gives the shapes of what a node takes from the input of the calls in
// the scope, or from the parameters of a task, nil among them for what it may take
// from elsewhere; none if it takes nothing from there.
func (m *members) shapesOf(n ast.IsNode) []*shape {
	switch n := n.(type) {
	case ast.NodeTypeAccess:
		if n.Value == "input" && isContext(n.Arg) {
			return m.inputs
		}
		if n.Value == "params" && isHolder(n.Arg) && !isContext(n.Arg) {
			return []*shape{m.w.params}
		}
		var out []*shape
		for _, s := range m.shapesOf(n.Arg) {
			if s == nil {
				return []*shape{nil}
			}
			if a := s.attrs[string(n.Value)]; a.shape != nil { // or else not of this tool
				out = append(out, a.shape)
			}
		}
		return out
	case ast.NodeTypeIfThenElse:
		then, or := m.shapesOf(n.Then), m.shapesOf(n.Else)
		if len(then) == 0 || len(or) == 0 {
			return []*shape{nil}
		}
		return append(then[:len(then):len(then)], or...)
	}
	return nil
}

// textsIn gives the texts that are written out in a node: those that it may be
// or, of a set, that may be in it.
func textsIn(n ast.IsNode) []string {
	switch n := n.(type) {
	case ast.NodeTypeIfThenElse:
		return append(textsIn(n.Then), textsIn(n.Else)...)
	case ast.NodeTypeSet:
		var all []string
		for _, e := range n.Elements {
			all = append(all, textsIn(e)...)
		}
		return all
	}
	if text, ok := literal(n); ok {
		return []string{text}
	}
	texts, _ := literals(n)
	return texts
}

var errSumsForm = errors.New(`context.sums may only be compared with what is written out: .contains("/pointer"), ` +
	`containsAny, containsAll, == or != with ["/pointer", "/pointer"], or .isEmpty(); another form could hide a misspelt pointer, which never matches`)

// checkSumsForm allows context.sums only where checkTexts sees what it is
// compared with.
func checkSumsForm(condition ast.IsNode) error {
	stands, known := 0, 0
	set := func(left, right ast.IsNode) {
		if isSums(right) {
			left, right = right, left
		}
		if _, ok := literals(right); ok && isSums(left) {
			known++
		}
	}
	ast.Inspect(ast.NewNode(condition), func(n ast.IsNode) bool {
		if isSums(n) {
			stands++
		}
		switch n := n.(type) {
		case ast.NodeTypeContains:
			if _, ok := literal(n.Right); ok && isSums(n.Left) {
				known++
			}
		case ast.NodeTypeContainsAny:
			set(n.Left, n.Right)
		case ast.NodeTypeContainsAll:
			set(n.Left, n.Right)
		case ast.NodeTypeEquals:
			set(n.Left, n.Right)
		case ast.NodeTypeNotEquals:
			set(n.Left, n.Right)
		case ast.NodeTypeIsEmpty:
			if isSums(n.Arg) {
				known++
			}
		}
		return true
	})
	if known != stands {
		return errSumsForm
	}
	return nil
}

func isSums(n ast.IsNode) bool { return isOfContext(n, "sums") }

// isOfContext reports whether the node is the member of context.
func isOfContext(n ast.IsNode, name cedargo.String) bool {
	of, ok := n.(ast.NodeTypeAccess)
	return ok && of.Value == name && isContext(of.Arg)
}
