package catalog

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// Bounds on nesting. The YAML parser calls itself for each level, and a Go
// stack that overflows ends the process.
const (
	maxFlowDepth = 64  // of [ and {
	maxIndent    = 128 // columns before a line's first word
)

// node is a YAML value with its place in the file.
type node struct {
	kind         kind
	line, column int
	text         string  // of a string
	yes          bool    // of a boolean
	fields       []field // of a mapping, in order; keys are unique
	items        []*node // of a sequence
}

type field struct{ key, value *node }

type kind string

const (
	text     kind = "a string"
	boolean  kind = "true or false"
	mapping  kind = "a mapping"
	sequence kind = "a list"
	// other is a number or null: nothing in a catalogue is one.
	other kind = "a number or null"
)

// posError is an error at a place in the file.
type posError struct {
	line, column int
	message      string
}

func (e *posError) Error() string { return fmt.Sprintf("%d:%d: %s", e.line, e.column, e.message) }

func (n *node) errorf(format string, args ...any) error {
	return &posError{n.line, n.column, fmt.Sprintf(format, args...)}
}

// parseYAML reads the one document in b. It accepts the part of YAML that has
// one meaning to everybody: no anchors, aliases, merge keys, tags, directives
// or complex keys.
func parseYAML(b []byte) (*node, error) {
	if err := checkText(b); err != nil {
		return nil, err
	}
	tokens := lexer.Tokenize(string(b))
	if err := checkTokens(tokens); err != nil {
		return nil, err
	}
	// Duplicate keys are found below, by their values.
	file, err := parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		var syntax *yaml.SyntaxError
		if errors.As(err, &syntax) && syntax.Token != nil {
			return nil, errorAt(syntax.Token, "%s", syntax.Message)
		}
		return nil, err
	}
	var docs []ast.Node
	for _, d := range file.Docs {
		if d.Body != nil {
			docs = append(docs, d.Body)
		}
	}
	switch len(docs) {
	case 0:
		return nil, &posError{1, 1, "the file is empty"}
	case 1:
		return toNode(docs[0])
	default:
		return nil, errorAt(docs[1].GetToken(), "more than one YAML document")
	}
}

// checkText refuses what could not be shown or would be read differently
// elsewhere, and what would exhaust the parser.
func checkText(b []byte) error {
	if len(b) > MaxSize {
		return fmt.Errorf("larger than %d bytes", MaxSize)
	}
	for i, line := range bytes.Split(b, []byte("\n")) {
		line = bytes.TrimSuffix(line, []byte("\r"))
		if !utf8.Valid(line) {
			return &posError{i + 1, 1, "not UTF-8"}
		}
		for j, r := range string(line) {
			if r != '\t' && unicode.IsControl(r) || r == '\u2028' || r == '\u2029' || r == '\ufeff' {
				return &posError{i + 1, utf8.RuneCount(line[:j]) + 1, fmt.Sprintf("character %U is not allowed", r)}
			}
		}
		if indent := len(line) - len(bytes.TrimLeft(line, " \t-?:")); indent > maxIndent {
			return &posError{i + 1, 1, fmt.Sprintf("indented by more than %d columns", maxIndent)}
		}
	}
	return nil
}

func checkTokens(tokens token.Tokens) error {
	depth, previous := 0, token.UnknownType
	for _, t := range tokens {
		switch t.Type {
		case token.SequenceEntryType:
			// "- - -" and "[- -" nest without brackets or indentation, and long
			// runs of empty entries take the parser minutes.
			if depth > 0 || previous == token.SequenceEntryType {
				return errorAt(t, "\"-\" is not supported here")
			}
		case token.SequenceStartType, token.MappingStartType:
			if depth++; depth > maxFlowDepth {
				return errorAt(t, "nested deeper than %d levels", maxFlowDepth)
			}
		case token.SequenceEndType, token.MappingEndType:
			depth--
		case token.AnchorType, token.AliasType, token.MergeKeyType:
			return errorAt(t, "anchors, aliases and merge keys are not supported")
		case token.TagType:
			return errorAt(t, "tags are not supported")
		case token.DirectiveType:
			return errorAt(t, "directives are not supported")
		case token.MappingKeyType:
			return errorAt(t, "complex keys are not supported")
		}
		previous = t.Type
	}
	return nil
}

// toNode turns the library's tree into nodes. Its depth is bounded by
// checkText and checkTokens.
func toNode(n ast.Node) (*node, error) {
	t := n.GetToken()
	out := &node{line: t.Position.Line, column: t.Position.Column}
	switch n := n.(type) {
	case *ast.StringNode:
		out.kind, out.text = text, n.Value
		return out, out.checkString()
	case *ast.LiteralNode:
		out.kind, out.text = text, n.Value.Value
		return out, out.checkString()
	case *ast.BoolNode:
		out.kind, out.yes = boolean, n.Value
		return out, nil
	case *ast.IntegerNode, *ast.FloatNode, *ast.InfinityNode, *ast.NanNode, *ast.NullNode:
		out.kind = other
		return out, nil
	case *ast.MappingNode:
		out.kind = mapping
		return out, out.addFields(n.Values)
	case *ast.MappingValueNode:
		out.kind = mapping
		return out, out.addFields([]*ast.MappingValueNode{n})
	case *ast.SequenceNode:
		out.kind = sequence
		for _, v := range n.Values {
			item, err := toNode(v)
			if err != nil {
				return nil, err
			}
			out.items = append(out.items, item)
		}
		return out, nil
	default:
		return nil, errorAt(t, "%s is not supported here", n.Type())
	}
}

func (n *node) addFields(values []*ast.MappingValueNode) error {
	seen := map[string]bool{}
	for i, v := range values {
		key, err := toNode(v.Key)
		if err != nil {
			return err
		}
		if key.kind != text {
			return key.errorf("a key must be a string; put it in quotes")
		}
		if seen[key.text] {
			return key.errorf("duplicate key %q", key.text)
		}
		seen[key.text] = true
		if v.Value == nil {
			return key.errorf("%q has no value", key.text)
		}
		value, err := toNode(v.Value)
		if err != nil {
			return err
		}
		if i == 0 {
			// The library places a mapping at its first colon.
			n.line, n.column = key.line, key.column
		}
		n.fields = append(n.fields, field{key, value})
	}
	return nil
}

// checkString refuses strings that an escape has made invalid: a digest must
// tell any two strings apart, and a message must be printable.
func (n *node) checkString() error {
	if !utf8.ValidString(n.text) || strings.ContainsRune(n.text, utf8.RuneError) {
		return n.errorf("the string is not valid Unicode")
	}
	for _, r := range n.text {
		if r != '\n' && r != '\t' && unicode.IsControl(r) {
			return n.errorf("character %U is not allowed", r)
		}
	}
	return nil
}

func errorAt(t *token.Token, format string, args ...any) error {
	e := &posError{1, 1, fmt.Sprintf(format, args...)}
	if t != nil && t.Position != nil {
		e.line, e.column = t.Position.Line, t.Position.Column
	}
	return e
}
