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

	"github.com/toolgrant/toolgrant/strictyaml"
)

// maxConfig is in bytes. It bounds the parser's time, too.
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

func placeOf(n *strictyaml.Node) place { return place{n.Line, n.Column} }

// yamlFile fills a struct from one YAML document and keeps where each value
// stood, so that whoever checks the values later can say it.
type yamlFile struct {
	name   string
	places map[string]place // path ("identity.issuers[0].alias") -> its key, or the item
}

// readYAML reads text into the struct that into points to. Fields carry the
// tag `yaml:"key"` and are structs, slices of structs, map[string]string,
// string, bool, int (above zero), time.Duration (whole seconds) or fineDuration (milliseconds). What the file leaves out stays as it is.
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
	root, err := strictyaml.Parse(text, maxConfig)
	var at *strictyaml.PosError
	switch {
	case errors.Is(err, strictyaml.ErrEmpty):
		return fail("empty; write at least\n%s", leastConfig)
	case errors.As(err, &at):
		return nil, f.errorAt(place{at.Line, at.Column}, "not YAML that is read here: %s", at.Message)
	case err != nil:
		return fail("%v", err)
	}
	return f, f.read("", root, reflect.ValueOf(into).Elem())
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

func (f *yamlFile) read(path string, n *strictyaml.Node, into reflect.Value) error {
	if n.Kind == strictyaml.Null {
		return f.errorf(path, "is empty; give it a value, or leave it out")
	}
	switch into.Kind() {
	case reflect.Struct:
		fields := map[string]reflect.Value{} // key -> field
		for i := range into.NumField() {
			fields[into.Type().Field(i).Tag.Get("yaml")] = into.Field(i)
		}
		return f.mapping(path, n, func(key, path string, at place, value *strictyaml.Node) error {
			field, ok := fields[key]
			if !ok {
				return f.errorAt(at, "unknown key %q; known here: %s", key, strings.Join(sortedKeys(fields), ", "))
			}
			return f.read(path, value, field)
		})
	case reflect.Map:
		into.Set(reflect.MakeMap(into.Type()))
		return f.mapping(path, n, func(key, path string, _ place, value *strictyaml.Node) error {
			text, err := f.text(path, value)
			into.SetMapIndex(reflect.ValueOf(key), reflect.ValueOf(text))
			return err
		})
	case reflect.Slice:
		if n.Kind != strictyaml.Sequence {
			return f.errorf(path, "must be a list, not %s", describe(n))
		}
		into.Set(reflect.MakeSlice(into.Type(), len(n.Items), len(n.Items)))
		for i, item := range n.Items {
			path := fmt.Sprintf("%s[%d]", path, i)
			f.places[path] = placeOf(item)
			if err := f.read(path, item, into.Index(i)); err != nil {
				return err
			}
		}
		return nil
	case reflect.Int:
		if n.Kind != strictyaml.Number && n.Kind != strictyaml.OddNumber {
			return f.errorf(path, "must be a whole number, not %s", describe(n))
		}
		count, err := strconv.ParseUint(n.Text, 10, 31)
		if err != nil || count == 0 {
			return f.errorf(path, "%q is not a whole number above zero, in digits", n.Text)
		}
		into.SetInt(int64(count))
		return nil
	case reflect.Bool:
		if n.Kind != strictyaml.Boolean || n.Text != strconv.FormatBool(n.Yes) {
			return f.errorf(path, "must be true or false, not %s", describe(n))
		}
		into.SetBool(n.Yes)
		return nil
	}
	switch into.Type() {
	case durationType:
		d, err := f.duration(path, n, time.Second)
		into.SetInt(int64(d))
		return err
	case reflect.TypeFor[fineDuration]():
		d, err := f.duration(path, n, time.Millisecond)
		into.SetInt(int64(d))
		return err
	}
	text, err := f.text(path, n)
	into.SetString(text)
	return err
}

func (f *yamlFile) duration(path string, n *strictyaml.Node, unit time.Duration) (time.Duration, error) {
	text := n.Text
	if n.Kind != strictyaml.Number && n.Kind != strictyaml.OddNumber { // of a number a unit is missing, and no quotes
		var err error
		if text, err = f.text(path, n); err != nil {
			return 0, err
		}
	}
	if seconds, err := strconv.ParseUint(text, 10, 31); err == nil && seconds > 0 {
		return 0, f.errorf(path, "%s has no unit; for %[1]s seconds write %s", text, withUnits(time.Duration(seconds)*time.Second))
	}
	d, err := time.ParseDuration(text)
	switch {
	case unit == time.Millisecond && (err != nil || d <= 0 || d%unit != 0):
		return 0, f.errorf(path, "%q is not a time that can be used; write whole milliseconds above zero with a unit, such as 200ms or 5s", text)
	case err != nil || d <= 0 || d%unit != 0:
		return 0, f.errorf(path, "%q is not a time that can be used; write whole seconds above zero with a unit, such as 90s, 15m or 4h", text)
	}
	return d, nil
}

// mapping calls do for each key and value, in the file's order.
func (f *yamlFile) mapping(path string, n *strictyaml.Node, do func(key, path string, at place, value *strictyaml.Node) error) error {
	if n.Kind != strictyaml.Mapping {
		if path == "" {
			return f.errorAt(placeOf(n), "must be a mapping (key: value), not %s", describe(n))
		}
		return f.errorf(path, "must be a mapping (key: value), not %s", describe(n))
	}
	for _, e := range n.Fields {
		at := placeOf(e.Key)
		path := strings.TrimPrefix(path+"."+e.Key.Text, ".")
		f.places[path] = at
		if err := do(e.Key.Text, path, at, e.Value); err != nil {
			return err
		}
	}
	return nil
}

func (f *yamlFile) text(path string, n *strictyaml.Node) (string, error) {
	if n.Kind != strictyaml.Text || n.Block {
		return "", f.errorf(path, "must be text, not %s", describe(n))
	}
	if strings.TrimSpace(n.Text) == "" {
		return "", f.errorf(path, "is empty; give it a value, or leave it out")
	}
	for _, r := range n.Text {
		if r < ' ' || r == 0x7f {
			return "", f.errorf(path, "has a control character in it")
		}
	}
	return n.Text, nil
}

func describe(n *strictyaml.Node) string {
	switch n.Kind {
	case strictyaml.Number, strictyaml.OddNumber:
		return "a number (quote it, if it is meant as text)"
	case strictyaml.Boolean:
		return "true or false (quote it, if it is meant as text)"
	case strictyaml.Null:
		return "nothing"
	case strictyaml.Text:
		if n.Block {
			return "a block of lines"
		}
		return "text"
	}
	return string(n.Kind)
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}
