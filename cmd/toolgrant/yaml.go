package main

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"sort"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// The library's own strict decoding turns numbers and booleans into text,
// reads a bare 15 as 15 ns, ignores a second document, and names any one of
// several unknown keys. So the library parses, and what follows reads the
// tree: text is text, a duration has a unit, and every error has its place.

// maxConfig is in bytes. The parser calls itself for each level of nesting, and
// its time grows with the square of it: the size is what bounds both.
const maxConfig = 32 << 10

// ConfigError is one thing that is wrong in a configuration file. Line and
// Column count from 1; 0 means that the error is about the file as a whole.
type ConfigError struct {
	File         string
	Line, Column int
	Text         string // what is wrong and what to write
}

func (e *ConfigError) Error() string {
	if e.Line == 0 {
		return e.File + ": " + e.Text
	}
	return fmt.Sprintf("%s:%d:%d: %s", e.File, e.Line, e.Column, e.Text)
}

// place is where something stands in the file.
type place struct{ line, column int }

func placeOf(n ast.Node) place {
	if t := n.GetToken(); t != nil && t.Position != nil {
		return place{t.Position.Line, t.Position.Column}
	}
	return place{1, 1}
}

// yamlFile fills a struct from one YAML document and keeps where each value
// stood, so that whoever checks the values later can say it.
type yamlFile struct {
	name   string
	places map[string]place // path ("identity.issuers[0].alias") -> its key, or the item
}

// readYAML reads text into the struct that into points to. Fields carry the
// tag `yaml:"key"` and are structs, slices of structs, map[string]string,
// string, bool, int (above zero) or time.Duration. What the file leaves out stays as it is.
func readYAML(name string, text []byte, into any) (*yamlFile, error) {
	f := &yamlFile{name: name, places: map[string]place{"": {1, 1}}}
	fail := func(format string, args ...any) (*yamlFile, error) {
		return nil, &ConfigError{File: name, Text: fmt.Sprintf(format, args...)}
	}
	switch {
	case len(text) > maxConfig:
		return fail("longer than %d bytes: is it the configuration?", maxConfig)
	case !utf8.Valid(text) || bytes.IndexByte(text, 0) >= 0:
		return fail("not UTF-8 text: is it the configuration?")
	}
	file, err := parser.ParseBytes(text, 0)
	if err != nil {
		var ye yaml.Error
		if errors.As(err, &ye) && ye.GetToken() != nil && ye.GetToken().Position != nil {
			p := ye.GetToken().Position
			return nil, &ConfigError{name, p.Line, p.Column, "not YAML: " + ye.GetMessage()}
		}
		return fail("not YAML: %v", err)
	}
	var docs []ast.Node
	for _, d := range file.Docs {
		if d.Body != nil && d.Body.Type() != ast.CommentGroupType {
			docs = append(docs, d.Body)
		}
	}
	switch len(docs) {
	case 0:
		return fail("empty; write at least\n%s", leastConfig)
	case 1:
	default:
		return nil, f.errorAt(placeOf(docs[1]), "a second document; a configuration is one")
	}
	return f, f.read("", docs[0], reflect.ValueOf(into).Elem())
}

func (f *yamlFile) errorAt(p place, format string, args ...any) error {
	return &ConfigError{f.name, p.line, p.column, fmt.Sprintf(format, args...)}
}

// errorf gives an error about the value at path, or, where the file does not
// have it, about the nearest section around it.
func (f *yamlFile) errorf(path, format string, args ...any) error {
	at := path
	for {
		if p, ok := f.places[at]; ok {
			return f.errorAt(p, path+": "+format, args...)
		}
		at = at[:max(strings.LastIndexAny(at, ".["), 0)]
	}
}

var durationType = reflect.TypeFor[time.Duration]()

func (f *yamlFile) read(path string, n ast.Node, into reflect.Value) error {
	if n.Type() == ast.NullType {
		return f.errorf(path, "is empty; give it a value, or leave it out")
	}
	switch into.Kind() {
	case reflect.Struct:
		fields := map[string]reflect.Value{} // key -> field
		for i := range into.NumField() {
			fields[into.Type().Field(i).Tag.Get("yaml")] = into.Field(i)
		}
		return f.mapping(path, n, func(key, path string, at place, value ast.Node) error {
			field, ok := fields[key]
			if !ok {
				return f.errorAt(at, "unknown key %q; known here: %s", key, strings.Join(sortedKeys(fields), ", "))
			}
			return f.read(path, value, field)
		})
	case reflect.Map:
		into.Set(reflect.MakeMap(into.Type()))
		return f.mapping(path, n, func(key, path string, _ place, value ast.Node) error {
			text, err := f.text(path, value)
			into.SetMapIndex(reflect.ValueOf(key), reflect.ValueOf(text))
			return err
		})
	case reflect.Slice:
		seq, ok := n.(*ast.SequenceNode)
		if !ok {
			return f.errorf(path, "must be a list, not %s", describe(n))
		}
		into.Set(reflect.MakeSlice(into.Type(), len(seq.Values), len(seq.Values)))
		for i, item := range seq.Values {
			path := fmt.Sprintf("%s[%d]", path, i)
			f.places[path] = placeOf(item)
			if m, ok := item.(*ast.MappingNode); ok && len(m.Values) > 0 && !m.IsFlowStyle {
				f.places[path] = placeOf(m.Values[0].Key) // the mapping's own token is its first colon
			}
			if err := f.read(path, item, into.Index(i)); err != nil {
				return err
			}
		}
		return nil
	}
	switch into.Kind() {
	case reflect.Int:
		i, ok := n.(*ast.IntegerNode)
		if !ok {
			return f.errorf(path, "must be a whole number, not %s", describe(n))
		}
		count, err := strconv.ParseUint(i.GetToken().Value, 10, 31)
		if err != nil || count == 0 {
			return f.errorf(path, "%q is not a whole number above zero, in digits", i.GetToken().Value)
		}
		into.SetInt(int64(count))
		return nil
	case reflect.Bool:
		b, ok := n.(*ast.BoolNode)
		if !ok || b.GetToken().Value != strconv.FormatBool(b.Value) {
			return f.errorf(path, "must be true or false, not %s", describe(n))
		}
		into.SetBool(b.Value)
		return nil
	}
	if into.Type() == durationType {
		d, err := f.duration(path, n)
		into.SetInt(int64(d))
		return err
	}
	text, err := f.text(path, n)
	into.SetString(text)
	return err
}

func (f *yamlFile) duration(path string, n ast.Node) (time.Duration, error) {
	var text string
	switch n.Type() {
	case ast.IntegerType, ast.FloatType: // a unit is what is missing, and no quotes
		text = n.GetToken().Value
	default:
		var err error
		if text, err = f.text(path, n); err != nil {
			return 0, err
		}
	}
	if seconds, err := strconv.ParseUint(text, 10, 31); err == nil && seconds > 0 {
		return 0, f.errorf(path, "%s has no unit; for %[1]s seconds write %s", text, withUnits(time.Duration(seconds)*time.Second))
	}
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 || d%time.Second != 0 {
		return 0, f.errorf(path, "%q is not a time that can be used; write whole seconds above zero with a unit, such as 90s, 15m or 4h", text)
	}
	return d, nil
}

// mapping calls do for each key and value, in the file's order.
func (f *yamlFile) mapping(path string, n ast.Node, do func(key, path string, at place, value ast.Node) error) error {
	var entries []*ast.MappingValueNode
	switch n := n.(type) {
	case *ast.MappingNode:
		entries = n.Values
	case *ast.MappingValueNode: // a mapping of one key, in some positions
		entries = []*ast.MappingValueNode{n}
	default:
		if path == "" {
			return f.errorAt(placeOf(n), "must be a mapping (key: value), not %s", describe(n))
		}
		return f.errorf(path, "must be a mapping (key: value), not %s", describe(n))
	}
	for _, e := range entries { // the parser has refused keys that are there twice
		at := placeOf(e.Key)
		name, ok := e.Key.(*ast.StringNode)
		if !ok {
			return f.errorAt(at, "a key must be plain text; merge keys (<<), anchors, aliases and tags are not read")
		}
		path := strings.TrimPrefix(path+"."+name.Value, ".")
		f.places[path] = at
		if err := do(name.Value, path, at, e.Value); err != nil {
			return err
		}
	}
	return nil
}

func (f *yamlFile) text(path string, n ast.Node) (string, error) {
	s, ok := n.(*ast.StringNode)
	if !ok {
		return "", f.errorf(path, "must be text, not %s", describe(n))
	}
	if strings.TrimSpace(s.Value) == "" {
		return "", f.errorf(path, "is empty; give it a value, or leave it out")
	}
	for _, r := range s.Value {
		if r < ' ' || r == 0x7f {
			return "", f.errorf(path, "has a control character in it")
		}
	}
	return s.Value, nil
}

func describe(n ast.Node) string {
	switch n.Type() {
	case ast.MappingType, ast.MappingValueType:
		return "a mapping"
	case ast.SequenceType:
		return "a list"
	case ast.IntegerType, ast.FloatType, ast.InfinityType, ast.NanType:
		return "a number (quote it, if it is meant as text)"
	case ast.BoolType:
		return "true or false (quote it, if it is meant as text)"
	case ast.NullType:
		return "nothing"
	case ast.AnchorType, ast.AliasType, ast.TagType:
		return "an anchor, alias or tag, which are not read"
	case ast.LiteralType:
		return "a block of lines"
	}
	return "text"
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}
