// Package strictyaml reads the part of YAML that has one meaning to everybody:
// one document of mappings, lists, strings, numbers, booleans and null, without
// anchors, aliases, merge keys, tags, directives or complex keys.
//
// It is the project's one reader of YAML: what a security team writes and what a
// program reads must not be two things. A tree that Parse has returned:
//   - has unique keys, which are strings;
//   - has valid Unicode alone, and no control characters but tab and line feed;
//   - has numbers as they were written, apart from those that JSON would write
//     otherwise or that readers take for different things (OddNumber);
//   - is of bounded depth, and each value knows its place in the text.
package strictyaml

import (
	"bytes"
	"errors"
	"fmt"
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

// PosError is an error at a place in the text. Line and Column count from 1.
type PosError struct {
	Line, Column int
	Message      string
}

func (e *PosError) Error() string { return fmt.Sprintf("%d:%d: %s", e.Line, e.Column, e.Message) }

// ErrEmpty is Parse's error, a *PosError, for a text with nothing in it but
// blanks and comments.
var ErrEmpty error = &PosError{1, 1, "the file is empty"}

// Parse reads the one document in text, which is at most max bytes long. Its
// errors are *PosError; only that of a text which is too long is not.
//
// max bounds the time as well, which grows with the square of the number of keys
// in a mapping: half a megabyte of them takes most of a minute. Text of a
// stranger is not to be read here.
func Parse(text []byte, max int) (*Node, error) {
	if len(text) > max {
		return nil, fmt.Errorf("larger than %d bytes", max)
	}
	// YAML 1.2.2, Section 5.4: both are one line break. The library counts lines of
	// comments twice where they end in two characters.
	text = bytes.ReplaceAll(text, []byte("\r\n"), []byte("\n"))
	if err := checkText(text); err != nil {
		return nil, err
	}
	tokens := lexer.Tokenize(string(text))
	if err := checkTokens(tokens); err != nil {
		return nil, err
	}
	// Duplicate keys are found below, by their values.
	file, err := parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		var syntax *yaml.SyntaxError
		if errors.As(err, &syntax) {
			return nil, errorAt(syntax.Token, "%s", syntax.Message)
		}
		return nil, errorAt(nil, "%v", err)
	}
	var docs []ast.Node
	for _, d := range file.Docs {
		if d.Body != nil {
			docs = append(docs, d.Body)
		}
	}
	switch len(docs) {
	case 0:
		return nil, ErrEmpty
	case 1:
	default:
		return nil, errorAt(docs[1].GetToken(), "more than one YAML document")
	}
	root, err := toNode(docs[0])
	if err != nil {
		return nil, err
	}
	return root, nil
}

// checkText refuses what could not be shown or would be read differently
// elsewhere, and what would exhaust the parser.
func checkText(text []byte) error {
	for i, line := range bytes.Split(text, []byte("\n")) {
		if !utf8.Valid(line) {
			return &PosError{i + 1, 1, "not UTF-8"}
		}
		for j, r := range string(line) {
			if r != '\t' && unicode.IsControl(r) || r == '\u2028' || r == '\u2029' || r == '\ufeff' {
				return &PosError{i + 1, utf8.RuneCount(line[:j]) + 1, fmt.Sprintf("character %U is not allowed", r)}
			}
		}
		if indent := len(line) - len(bytes.TrimLeft(line, " \t-?:")); indent > maxIndent {
			return &PosError{i + 1, 1, fmt.Sprintf("indented by more than %d columns", maxIndent)}
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

func errorAt(t *token.Token, format string, args ...any) error {
	e := &PosError{1, 1, fmt.Sprintf(format, args...)}
	if t != nil && t.Position != nil {
		e.Line, e.Column = t.Position.Line, t.Position.Column
	}
	return e
}
