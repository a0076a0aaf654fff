package strictyaml

import (
	"fmt"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"
)

// Node is a value with its place in the text. Line and Column count from 1; a
// mapping is where its first key is.
type Node struct {
	Kind         Kind
	Line, Column int
	Text         string  // of a Text: what it says; of a number or boolean: as it was written
	Block        bool    // of a Text: written as a block of lines, after "|" or ">"
	Yes          bool    // of a Boolean
	Fields       []Field // of a Mapping, in order; keys are unique and Text
	Items        []*Node // of a Sequence
}

// Field is one key of a mapping with its value.
type Field struct{ Key, Value *Node }

// Kind is what a value is. It is also its name in a message.
type Kind string

const (
	Text     Kind = "a string"
	Boolean  Kind = "true or false"
	Number   Kind = "a number" // as JSON writes it (RFC 8259, Section 6)
	Null     Kind = "null"
	Mapping  Kind = "a mapping"
	Sequence Kind = "a list"
	// OddNumber is what YAML takes for a number, and JSON does not write so: 0x10,
	// 017, 1_000, +1, .5, 1., .inf. Readers differ about them (017 is 15 or 17), so
	// it stands for no value; Value and Fields.Number refuse it.
	OddNumber Kind = "a number that JSON writes in another way, or not at all"
)

// Errorf gives a *PosError about the value.
func (n *Node) Errorf(format string, args ...any) error {
	return &PosError{n.Line, n.Column, fmt.Sprintf(format, args...)}
}

// What names the value's kind for one who wants another kind. Such a one wants
// no number, so all that could be one are named alike.
func (n *Node) What() string {
	switch n.Kind {
	case Number, OddNumber, Null:
		return "a number or null"
	}
	return string(n.Kind)
}

// JSONNumber is the Text of a Number as Value gives it.
type JSONNumber string

// Value gives the tree as a JSON value: nil, bool, string, JSONNumber, []any or
// map[string]any. An OddNumber in it is an error, with its place.
func (n *Node) Value() (any, error) {
	switch n.Kind {
	case Null:
		return nil, nil
	case Boolean:
		return n.Yes, nil
	case Text:
		return n.Text, nil
	case Number:
		return JSONNumber(n.Text), nil
	case Sequence:
		list := make([]any, len(n.Items))
		for i, item := range n.Items {
			var err error
			if list[i], err = item.Value(); err != nil {
				return nil, err
			}
		}
		return list, nil
	case Mapping:
		object := make(map[string]any, len(n.Fields))
		for _, f := range n.Fields {
			v, err := f.Value.Value()
			if err != nil {
				return nil, err
			}
			object[f.Key.Text] = v
		}
		return object, nil
	default:
		return nil, n.oddNumber()
	}
}

func (n *Node) oddNumber() error {
	return n.Errorf("%s: write a number in digits as JSON does (RFC 8259, Section 6), such as 16, -0.5 or 1e3; put a string in quotes", n.Text)
}

// toNode turns the library's tree into nodes. Its depth is bounded by
// checkText and checkTokens.
func toNode(n ast.Node) (*Node, error) {
	t := n.GetToken()
	out := &Node{Line: t.Position.Line, Column: t.Position.Column}
	switch n := n.(type) {
	case *ast.StringNode:
		out.Kind, out.Text = Text, n.Value
		// The library takes 1e3, 09, +.inf and integers beyond 64 bits for text.
		if t.Type == token.StringType && coreNumber.MatchString(n.Value) {
			out.setNumber(n.Value)
		}
		return out, out.checkString()
	case *ast.LiteralNode:
		out.Kind, out.Text, out.Block = Text, n.Value.Value, true
		return out, out.checkString()
	case *ast.BoolNode:
		out.Kind, out.Text, out.Yes = Boolean, t.Value, n.Value
		return out, nil
	case *ast.IntegerNode, *ast.FloatNode, *ast.InfinityNode, *ast.NanNode:
		out.setNumber(t.Value)
		return out, nil
	case *ast.NullNode:
		out.Kind = Null
		return out, nil
	case *ast.MappingNode:
		out.Kind = Mapping
		return out, out.addFields(n.Values)
	case *ast.MappingValueNode:
		out.Kind = Mapping
		return out, out.addFields([]*ast.MappingValueNode{n})
	case *ast.SequenceNode:
		out.Kind = Sequence
		for _, v := range n.Values {
			item, err := toNode(v)
			if err != nil {
				return nil, err
			}
			out.Items = append(out.Items, item)
		}
		return out, nil
	default:
		return nil, errorAt(t, "%s is not supported here", n.Type())
	}
}

var (
	jsonNumber = regexp.MustCompile(`^-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?$`)
	// coreNumber is what YAML 1.2's core schema takes for a number (YAML 1.2.2,
	// Section 10.3.2); the library finds its other spellings.
	coreNumber = regexp.MustCompile(`^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$|^[-+]?\.(inf|Inf|INF)$`)
)

func (n *Node) setNumber(text string) {
	n.Kind, n.Text = OddNumber, text
	if jsonNumber.MatchString(text) {
		n.Kind = Number
	}
}

func (n *Node) addFields(values []*ast.MappingValueNode) error {
	seen := map[string]bool{}
	for i, v := range values {
		key, err := toNode(v.Key)
		if err != nil {
			return err
		}
		if key.Kind != Text {
			return key.Errorf("a key must be a string; put it in quotes")
		}
		if seen[key.Text] {
			return key.Errorf("duplicate key %q", key.Text)
		}
		seen[key.Text] = true
		if v.Value == nil {
			return key.Errorf("%q has no value", key.Text)
		}
		value, err := toNode(v.Value)
		if err != nil {
			return err
		}
		if i == 0 {
			// The library places a mapping at its first colon.
			n.Line, n.Column = key.Line, key.Column
		}
		n.Fields = append(n.Fields, Field{key, value})
	}
	return nil
}

// checkString refuses strings that an escape has made invalid: a digest must
// tell any two strings apart, and a message must be printable.
func (n *Node) checkString() error {
	if !utf8.ValidString(n.Text) || strings.ContainsRune(n.Text, utf8.RuneError) {
		return n.Errorf("the string is not valid Unicode")
	}
	for _, r := range n.Text {
		if r != '\n' && r != '\t' && unicode.IsControl(r) {
			return n.Errorf("character %U is not allowed", r)
		}
	}
	return nil
}
