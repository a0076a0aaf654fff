package cedar

import (
	"cmp"
	"slices"
	"strings"

	cedargo "github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/x/exp/ast"
)

// maxValue bounds the text of a value, in bytes.
const maxValue = 200

// values gives the members that an expression names, each once.
func (q *question) values(n ast.IsNode) []Value {
	var out []Value
	ast.Inspect(ast.NewNode(n), func(n ast.IsNode) bool {
		root, names := memberPath(n)
		if len(names) == 0 || root != "context" && root != "principal" {
			return true
		}
		value := q.value(string(root), names)
		if !slices.ContainsFunc(out, func(v Value) bool { return v.Path == value.Path }) {
			out = append(out, value)
		}
		return false
	})
	return out
}

// memberPath reads ROOT.name.name and ROOT.name has name.
func memberPath(n ast.IsNode) (root cedargo.String, names []cedargo.String) {
	for {
		switch at := n.(type) {
		case ast.NodeTypeAccess:
			n, names = at.Arg, append(names, at.Value)
		case ast.NodeTypeHas:
			if len(names) > 0 { // of what "has" comes to, no member is taken
				return "", nil
			}
			n, names = at.Arg, append(names, at.Value)
		case ast.NodeTypeVariable:
			slices.Reverse(names)
			return at.Name, names
		default:
			return "", nil
		}
	}
}

func (q *question) value(root string, names []cedargo.String) Value {
	v := Value{Path: root, Type: "absent"}
	var at cedargo.Value = q.request.Context
	if root == "principal" {
		at = q.request.Principal
	}
	there := true
	for _, name := range names {
		if identifier.MatchString(string(name)) {
			v.Path += "." + string(name)
		} else {
			v.Path += "[" + string(name.MarshalCedar()) + "]"
		}
		if there {
			at, there = q.member(at, name)
		}
	}
	if !there {
		return v
	}
	v.Type = cmp.Or(typeName(at), "record")
	text := cut(string(at.MarshalCedar()))
	switch at := at.(type) {
	case cedargo.Set:
		v.Type = "Set"
	case cedargo.EntityUID:
		v.Type = string(at.Type)
	}
	if isPrivate(root, names) {
		v.secret = text
	} else if v.Type != "record" {
		v.Text = text
	}
	return v
}

// cut shortens a text to maxValue.
func cut(text string) string {
	if len(text) <= maxValue {
		return text
	}
	return strings.ToValidUTF8(text[:maxValue], "") + "…"
}

// member takes a member of a record or of an entity.
func (q *question) member(of cedargo.Value, name cedargo.String) (cedargo.Value, bool) {
	switch of := of.(type) {
	case cedargo.Record:
		return of.Get(name)
	case cedargo.EntityUID:
		e, known := q.entities.Get(of)
		if !known {
			return nil, false
		}
		return e.Attributes.Get(name)
	}
	return nil, false
}

// isPrivate reports whether a member holds what the agent or the user brought:
// arguments, answers to a server's questions, a task's parameters.
func isPrivate(root string, names []cedargo.String) bool {
	if root != "context" {
		return false
	}
	return names[0] == "input" || names[0] == "retry" ||
		len(names) > 1 && (names[0] == "task" || names[0] == "grant") && names[1] == "params"
}

// WithValues is the explanation with the values of arguments, of what a retry
// brings, and of parameters. They are what the agent works on: show it to nobody
// who may not see that.
func (e Explanation) WithValues() Explanation {
	e.Policies = slices.Clone(e.Policies)
	for i := range e.Policies {
		conditions := slices.Clone(e.Policies[i].Conditions)
		for j := range conditions {
			values := slices.Clone(conditions[j].Values)
			for k := range values {
				values[k].Text = cmp.Or(values[k].Text, values[k].secret)
			}
			conditions[j].Values = values
		}
		e.Policies[i].Conditions = conditions
	}
	e.Differ = e.differ()
	return e
}
