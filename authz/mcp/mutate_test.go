package mcp

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"unicode/utf16"
)

// node is JSON that need not be good: an object may have a name twice, and a
// scalar may be any text.
type node struct {
	kind    byte // '{', '[', '"' or 0: text is written as it is
	text    string
	members []member
	items   []*node
}

type member struct {
	name  string
	value *node
}

func raw(text string) *node    { return &node{text: text} }
func quoted(text string) *node { return &node{kind: '"', text: text} }

func obj(pairs ...any) *node {
	n := &node{kind: '{'}
	for i := 0; i < len(pairs); i += 2 {
		v, ok := pairs[i+1].(*node)
		if !ok {
			v = quoted(pairs[i+1].(string))
		}
		n.members = append(n.members, member{pairs[i].(string), v})
	}
	return n
}

// mutator makes the requests of one case, from good ones.
type mutator struct{ *rand.Rand }

func pick[T any](m mutator, of ...T) T { return of[m.IntN(len(of))] }

// request gives a request that is good but for what was changed in it. The
// headers are those of the good one.
func (m mutator) request() HTTPRequest {
	method, params, subject := m.ask()
	r := post(pick(m, "", Rev20250326, Rev20250618, Rev20251125), "")
	known, _ := Lookup(method, Request)
	if known != nil && (!known.In(Rev20251125) || known.In(Rev20260728) && m.IntN(2) == 0) {
		params.members = append(params.members, member{"_meta", obj(metaRevision, Rev20260728)})
		r.Header[headerRevision], r.Header[headerMethod] = []string{Rev20260728}, []string{method}
		if subject != "" {
			r.Header[headerName] = []string{subject}
		}
	} else if known == nil || !known.In(Rev20250326) {
		r.Header[headerRevision] = []string{Rev20251125}
	}
	msg := obj("jsonrpc", "2.0", "id", m.id(), "method", method, "params", params)
	switch {
	case method == "":
		msg = obj("jsonrpc", "2.0", "id", m.id(), "result", params)
	case known == nil:
		msg = obj("jsonrpc", "2.0", "method", method, "params", params)
	}
	for range pick(m, 0, 0, 1, 1, 2) {
		m.change(msg)
	}
	var b strings.Builder
	m.write(&b, msg)
	r.Body = []byte(b.String())
	if m.IntN(6) == 0 {
		r.Body = m.spoil(r.Body)
	}
	return r
}

// ask gives a method, its params, and what Mcp-Name says; "" for an answer.
func (m mutator) ask() (method string, params *node, subject string) {
	switch m.IntN(12) {
	case 0:
		return "prompts/get", obj("name", "p", "arguments", obj("a", m.word(), "b", m.word())), "p"
	case 1:
		return "resources/read", obj("uri", "file:///a/b"), "file:///a/b"
	case 2:
		return "tasks/get", obj("taskId", "t-1"), "t-1"
	case 3:
		return "completion/complete", obj("ref", obj("type", "ref/prompt", "name", m.word()+"n"), "argument", obj("name", "a", "value", m.word())), ""
	case 4:
		return "notifications/cancelled", obj("requestId", m.id(), "reason", m.word()), ""
	case 5:
		return "", obj("action", "accept", "content", m.value(3)), ""
	case 6:
		return "initialize", obj("protocolVersion", Rev20251125, "capabilities", obj(), "clientInfo", obj("name", m.word())), ""
	case 7:
		return ToolsCall, obj("name", "call_tool", "arguments", obj("name", "echo", "arguments", m.object(3))), "call_tool"
	}
	return ToolsCall, obj("name", "echo", "arguments", m.object(4)), "echo"
}

func (m mutator) id() *node {
	if m.IntN(2) == 0 {
		return quoted(m.word())
	}
	return raw(pick(m, "0", "1", "-7", "42", "9007199254740991"))
}

func (m mutator) word() string {
	return pick(m, "", "a", "b/c", "Straße", "naïve", "日本", "😀", "a\"b\\c", "line\nbreak", "\x00", "\u2028", "\ufeff", "K", "ſ", "null", "__proto__", "é")
}

func (m mutator) number() string {
	return pick(m,
		"0", "-0", "1", "10", "-1", "1.0", "-0.0", "1e2", "1E+2", "1.5e-7", "0.1", "0.30000000000000004", "123456789.125", "1e21", "1.7976931348623157e308",
		"5e-324", "9007199254740991", "9007199254740991.25", "4503599627370496.5", "0.1234567890123456789", "1e-9", "2.5e-6", "100000000000000000000.5",
		// and what is refused, or none
		"9007199254740993", "1e20", "1e400", "1e-400", "01", "+1", ".5", "1.", "0x10", "1_000", "NaN", "Infinity", "-Infinity", "-", "1e", "１",
		strings.Repeat("9", 70), "1."+strings.Repeat("0", 70),
	)
}

func (m mutator) object(depth int) *node {
	n := obj()
	for range m.IntN(4) {
		n.members = append(n.members, member{m.word() + pick(m, "x", "y", "z", "X"), m.value(depth - 1)})
	}
	return n
}

func (m mutator) value(depth int) *node {
	switch k := m.IntN(8); {
	case k < 2 && depth > 0:
		return m.object(depth)
	case k == 2 && depth > 0:
		n := &node{kind: '['}
		for range m.IntN(3) {
			n.items = append(n.items, m.value(depth-1))
		}
		return n
	case k < 5:
		return quoted(m.word())
	case k == 5:
		return raw(pick(m, "true", "false", "null", "0", "1.5", "-3e5"))
	}
	return raw(pick(m, "7", m.number()))
}

// all gives the node and all below it.
func (n *node) all() []*node {
	list := []*node{n}
	for _, c := range n.members {
		list = append(list, c.value.all()...)
	}
	for _, c := range n.items {
		list = append(list, c.all()...)
	}
	return list
}

// change does one thing to a message somewhere.
func (m mutator) change(msg *node) {
	nodes := msg.all()
	objects := slices.DeleteFunc(slices.Clone(nodes), func(n *node) bool { return n.kind != '{' || len(n.members) == 0 })
	in, at := pick(m, objects...), pick(m, nodes...)
	i := m.IntN(len(in.members))
	switch m.IntN(10) {
	case 0: // the same name twice, in either order
		in.members = slices.Insert(in.members, m.IntN(len(in.members)+1), member{in.members[i].name, pick(m, m.value(2), quoted("query"))})
	case 1: // another spelling of it
		in.members = slices.Insert(in.members, m.IntN(len(in.members)+1), member{m.respell(in.members[i].name), pick(m, m.value(2), quoted("query"))})
	case 2:
		in.members[i].name = m.respell(in.members[i].name)
	case 3:
		in.members[i].value = raw(m.number())
	case 4:
		in.members[i].value = m.value(3)
	case 5:
		in.members = append(in.members, member{pick(m, "__proto__", "constructor", "toString", "extra", "result", "error", "task", "requestState"), m.value(2)})
	case 6:
		in.members = slices.Delete(in.members, i, i+1)
	case 7: // a deep value
		n, depth := raw("1"), pick(m, 5, 59, 60, 61, 62, 63, 64, 65, 200)
		for range depth {
			if m.IntN(2) == 0 {
				n = obj("d", n)
			} else {
				n = &node{kind: '[', items: []*node{n}}
			}
		}
		in.members = append(in.members, member{"deep", n})
	case 8:
		m.Shuffle(len(in.members), func(i, j int) { in.members[i], in.members[j] = in.members[j], in.members[i] })
	case 9: // a string as no parser should take it
		if at.kind == '"' {
			*at = *raw(pick(m, `'a'`, `"\x41"`, `"\ud800"`, `"\udc00\ud800"`, `"\uD83D\uDE00"`, `"\u00"`, "\"tab\tin\"", "\"\xff\"", "\"\xc0\xaf\"", "\"\xed\xa0\x80\"", `"a" "b"`, `undefined`, "`a`", `"\/\b\f"`))
		}
	}
}

// respell changes a name so that some reader may take it for the same.
func (m mutator) respell(name string) string {
	switch m.IntN(6) {
	case 0:
		return strings.ToUpper(name)
	case 1:
		return strings.Replace(name, "k", "K", 1) // Kelvin sign
	case 2:
		return strings.Replace(name, "s", "ſ", 1) // long s
	case 3:
		return name + pick(m, " ", "\x00", "\u200b", "́")
	case 4:
		return strings.Replace(name, "_", "-", 1)
	}
	if name == "" {
		return "a"
	}
	return strings.ToUpper(name[:1]) + name[1:]
}

func (m mutator) blank(b *strings.Builder) {
	if m.IntN(8) == 0 {
		b.WriteString(pick(m, " ", "\n", "\t", "\r\n", "  "))
	}
}

func (m mutator) write(b *strings.Builder, n *node) {
	m.blank(b)
	switch n.kind {
	case '{':
		b.WriteByte('{')
		for i, c := range n.members {
			if i > 0 {
				b.WriteByte(',')
			}
			m.blank(b)
			m.quote(b, c.name)
			m.blank(b)
			b.WriteByte(':')
			m.write(b, c.value)
		}
		b.WriteByte('}')
	case '[':
		b.WriteByte('[')
		for i, c := range n.items {
			if i > 0 {
				b.WriteByte(',')
			}
			m.write(b, c)
		}
		b.WriteByte(']')
	case '"':
		m.quote(b, n.text)
	default:
		b.WriteString(n.text)
	}
	m.blank(b)
}

// quote writes a string, some of its characters in one of their other spellings.
func (m mutator) quote(b *strings.Builder, s string) {
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r < ' ' || r == '"' || r == '\\' || m.IntN(12) == 0:
			units := utf16.Encode([]rune{r})
			for _, u := range units {
				fmt.Fprintf(b, pick(m, `\u%04x`, `\u%04X`), u)
			}
		case r == '/' && m.IntN(2) == 0:
			b.WriteString(`\/`)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
}

// spoil changes the bytes of a body.
func (m mutator) spoil(body []byte) []byte {
	at := m.IntN(len(body))
	insert := func(s string) []byte { return slices.Concat(body[:at], []byte(s), body[at:]) }
	switch m.IntN(9) {
	case 0:
		return append([]byte("\ufeff"), body...)
	case 1:
		return slices.Concat(body, []byte(pick(m, "{}", `{"method":"tools/call"}`, "x", "]", "\x00", "//", ",", "\u00a0", " \n\t")))
	case 2:
		return insert(pick(m, "/* */", "//\n", "#\n", "\v", "\f", "\u00a0", "\ufeff", "\u2028", "\x00", ",", ";", "\xff"))
	case 3:
		return slices.Concat([]byte(pick(m, " ", "\n", ")]}',\n", "\x1e", "[")), body)
	case 4: // UTF-16
		var out []byte
		for _, u := range utf16.Encode([]rune(string(body))) {
			out = append(out, byte(u), byte(u>>8))
		}
		return out
	case 5:
		return body[:at]
	case 6:
		return []byte(strings.Replace(string(body), `"`, `'`, pick(m, 2, -1)))
	case 7:
		return []byte(strings.Replace(string(body), "}", ",}", 1))
	}
	out := slices.Clone(body)
	out[at] ^= 1 << m.IntN(8)
	return out
}
