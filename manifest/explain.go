package manifest

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf16"

	"github.com/toolgrant/toolgrant/strictjson"
)

// Explain says in words, for people, what a task of the kind may have, with the
// constraint that each template compiles to. With params (as ReadParams takes
// them) it is about one task; with nil every parameter stands as $NAME, and in a
// constraint as {"$param":NAME}. The error is ReadParams'.
func (m *Manifest) Explain(params json.RawMessage) (string, error) {
	x := explainer{m: m}
	if params != nil {
		full, err := m.ReadParams(params)
		if err != nil {
			return "", err
		}
		if x.values, err = m.started(full); err != nil {
			return "", err
		}
	}
	x.head()
	for _, t := range m.Tools {
		x.tool(t)
	}
	return x.out.String(), nil
}

type explainer struct {
	m      *Manifest
	values map[string]any // nil: the names stand in their places
	out    strings.Builder
}

func (x *explainer) line(indent int, format string, args ...any) {
	fmt.Fprintf(&x.out, strings.Repeat("  ", indent)+format+"\n", args...)
}

func (x *explainer) head() {
	m := x.m
	about := ""
	if m.Description != "" {
		about = ": " + printable(strings.Join(strings.Fields(m.Description), " "))
	}
	x.line(0, "%s%s", m.Kind, about)
	x.line(1, "from %s", m.At)
	if m.MaxDuration > 0 {
		x.line(1, "a task of this kind lasts at most %v", m.MaxDuration)
	} else {
		x.line(1, "a task of this kind lasts as long as the broker lets any")
	}
	if len(m.params) == 0 {
		x.line(1, "it has no parameters")
	} else {
		x.line(1, "its parameters, fixed when it starts:")
	}
	names := sortedKeys(m.params)
	for _, name := range names {
		p := m.params[name]
		text := x.words(p.doc)
		if p.must {
			text += "; required"
		} else {
			text += "; " + show(p.def) + " if it is not given"
		}
		if x.values != nil {
			text += "; here " + show(x.values[name])
		}
		x.line(2, "%s: %s", name, text)
	}
	x.line(1, "it may have these tools as far as policy permits, and no others:")
}

func (x *explainer) tool(t *Tool) {
	x.line(0, "")
	x.line(0, "%s", t.Tool.ID)
	if t.Once {
		x.line(1, "each grant is for one call, whose whole input is given when it is asked for")
	}
	x.line(1, "each grant lasts at most %s", orBroker(t.TTL))
	if t.calls == nil {
		x.line(1, "any number of calls")
	} else {
		x.line(1, "at most %s calls in the whole task", x.bound(t.calls, 1))
	}
	for _, s := range t.sums {
		x.line(1, "the sum of %s over the whole task is at most %s", s.arg, x.bound(s.max, 10_000))
	}
	if t.input == nil {
		x.line(1, "any input")
		return
	}
	x.members(1, "its input", t.input)
	doc := any(t.input)
	if x.values != nil {
		doc = fill(doc, x.values)
	} else {
		doc = spelled(doc)
	}
	text, _ := strictjson.Canonical(doc) // all of it has been written so before
	x.line(1, "constraint: %s", printable(string(text)))
}

func orBroker(d time.Duration) string {
	if d == 0 {
		return "what the broker lets any"
	}
	return d.String()
}

func (x *explainer) bound(b *bound, unit int64) string {
	if b.param != "" && x.values == nil {
		return "$" + b.param
	}
	n, _ := b.of(x.values) // they have been read
	whole := strconv.FormatInt(n/unit, 10)
	if n%unit == 0 {
		return whole
	}
	return whole + "." + strings.TrimRight(fmt.Sprintf("%04d", n%unit), "0")
}

// members lists what an object has.
func (x *explainer) members(indent int, what string, doc map[string]any) {
	properties := doc["properties"].(map[string]any)
	if len(properties) == 0 {
		x.line(indent, "%s has nothing in it", what)
		return
	}
	x.line(indent, "%s has exactly:", what)
	for _, name := range sortedKeys(properties) {
		x.member(indent+1, printable(name), properties[name].(map[string]any))
	}
}

func (x *explainer) member(indent int, name string, doc map[string]any) {
	items, _ := doc["items"].(map[string]any)
	switch {
	case doc["type"] == "object":
		x.members(indent, name+": an object, which", doc)
	case items != nil && (items["type"] == "object" || items["type"] == "array"):
		x.line(indent, "%s: %s", name, x.words(doc))
		x.member(indent+1, "each", items)
	default:
		x.line(indent, "%s: %s", name, x.words(doc))
	}
}

// words says what a value of a schema may be; the members of objects are
// listed elsewhere.
func (x *explainer) words(doc map[string]any) string {
	kind := doc["type"].(string)
	text, each := kind, ""
	if items, ok := doc["items"].(map[string]any); ok {
		text = "list"
		if items["type"] != "object" && items["type"] != "array" {
			each = "; each: " + x.words(items)
		}
	}
	for _, word := range words[kind] {
		v, ok := doc[word]
		if !ok || said[word] == "" {
			continue
		}
		text += ", " + fmt.Sprintf(said[word], x.value(v))
	}
	return text + each
}

// said is how each keyword reads.
var said = map[string]string{
	"const": "exactly %s", "enum": "one of %s",
	"minimum": "at least %s", "maximum": "at most %s",
	"exclusiveMinimum": "above %s", "exclusiveMaximum": "below %s",
	"minLength": "of at least %s characters", "maxLength": "of at most %s characters",
	"maxItems": "at most %s items", "pattern": "matching %s",
}

func (x *explainer) value(v any) string {
	if p, ok := v.(place); ok {
		if x.values == nil {
			return "$" + string(p)
		}
		v = x.values[string(p)]
	}
	return show(v)
}

// show writes a value for people: as JSON, on one line of what prints.
func show(v any) string {
	text, err := strictjson.Canonical(v)
	if err != nil {
		return "?" // none that has been read
	}
	return printable(string(text))
}

// printable writes what would be invisible, or would turn the direction of
// writing, as JSON escapes.
func printable(text string) string {
	var b strings.Builder
	for _, r := range text {
		if unicode.IsPrint(r) {
			b.WriteRune(r)
			continue
		}
		for _, unit := range utf16.Encode([]rune{r}) {
			fmt.Fprintf(&b, `\u%04x`, unit)
		}
	}
	return b.String()
}

// spelled is a template with its places as a file writes them.
func spelled(v any) any {
	switch v := v.(type) {
	case place:
		return map[string]any{placeKey: string(v)}
	case map[string]any:
		out := make(map[string]any, len(v))
		for name, member := range v {
			out[name] = spelled(member)
		}
		return out
	}
	return v
}
