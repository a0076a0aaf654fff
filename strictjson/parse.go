// Package strictjson is the one parser of JSON that comes from outside.
//
// What was decided must be what runs, so a text that two parsers could read
// differently is refused, not repaired. Of everything that RFC 8259 leaves to
// the implementation ("SHOULD be unique", "may set limits"), Parse takes the
// strict side:
//
//   - names are unique within their object after unescaping, also under
//     Unicode simple case folding (encoding/json matches names that way), and
//     have no control characters;
//   - the text is UTF-8 without a byte order mark, and strings hold Unicode
//     scalar values alone: no lone surrogate, escaped or not;
//   - there is one value, and nothing after it but white space;
//   - numbers have at most 64 digits and exponents within ±308, fit a double,
//     and are within ±(2^53-1) where they are integers and not of 10^21 or more
//     in exponent form;
//   - bytes, depth and the count of values are bounded.
//
// Parse works in one pass, and in time and memory linear in the input. No error
// text holds a value, only names.
package strictjson

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// The limits that a zero field of Limits stands for.
const (
	DefaultBytes  = 1 << 20
	DefaultDepth  = 64
	DefaultValues = 100_000
)

// Limits bounds one text. A field that is not positive means its default.
type Limits struct {
	Bytes  int // length of the text
	Depth  int // arrays and objects inside each other; a lone scalar has depth 0
	Values int // scalars, arrays and objects, the outermost included; names are not counted
}

func (l Limits) orDefaults() Limits {
	if l.Bytes <= 0 {
		l.Bytes = DefaultBytes
	}
	if l.Depth <= 0 {
		l.Depth = DefaultDepth
	}
	if l.Values <= 0 {
		l.Values = DefaultValues
	}
	return l
}

// Kind says what sort of refusal an Error is. The zero value is none of them.
type Kind uint8

// The kinds of refusal.
const (
	_         Kind = iota
	Syntax         // not JSON in UTF-8; JSON-RPC -32700
	Ambiguous      // JSON that parsers read differently: duplicates, names with controls, numbers past a bound; JSON-RPC -32600
	TooLarge       // over one of Limits
	Shape          // unambiguous JSON, but not what Unmarshal decodes into; JSON-RPC -32600
)

func (k Kind) String() string {
	switch k {
	case Syntax:
		return "syntax"
	case Ambiguous:
		return "ambiguous"
	case TooLarge:
		return "too large"
	case Shape:
		return "shape"
	}
	return "kind(" + strconv.Itoa(int(k)) + ")"
}

// Error is every error of Parse, Unmarshal and UnmarshalOpen.
type Error struct {
	Offset int // byte at which it was noticed
	Kind   Kind
	Msg    string // names may be in it, values never
}

func (e *Error) Error() string {
	return fmt.Sprintf("JSON at byte %d: %s", e.Offset, e.Msg)
}

// Parse reads one JSON text. It gives nil, bool, string, Number, []any or
// map[string]any, which share no memory with data, or an *Error.
func Parse(data []byte, lim Limits) (any, error) {
	lim = lim.orDefaults()
	p := parser{data: data, depth: lim.Depth, values: lim.Values}
	if len(data) > lim.Bytes {
		return nil, p.fail(TooLarge, "over "+strconv.Itoa(lim.Bytes)+" bytes")
	}
	if bytes.HasPrefix(data, []byte("\xef\xbb\xbf")) {
		return nil, p.fail(Syntax, "starts with a byte order mark")
	}
	p.space()
	v, err := p.value()
	if err != nil {
		return nil, err
	}
	p.space()
	if p.pos < len(data) {
		return nil, p.fail(Syntax, "something follows the value")
	}
	return v, nil
}

// parser is one pass over data. depth and values count down.
type parser struct {
	data          []byte
	pos           int
	depth, values int
}

func (p *parser) fail(kind Kind, msg string) error {
	return &Error{Offset: p.pos, Kind: kind, Msg: msg}
}

func (p *parser) space() {
	for p.pos < len(p.data) {
		switch p.data[p.pos] {
		case ' ', '\t', '\n', '\r':
			p.pos++
		default:
			return
		}
	}
}

// accept steps over c if it is next.
func (p *parser) accept(c byte) bool {
	if p.pos < len(p.data) && p.data[p.pos] == c {
		p.pos++
		return true
	}
	return false
}

func (p *parser) value() (any, error) {
	if p.pos == len(p.data) {
		return nil, p.fail(Syntax, "ends where a value should be")
	}
	if p.values--; p.values < 0 {
		return nil, p.fail(TooLarge, "too many values")
	}
	switch c := p.data[p.pos]; c {
	case '{':
		return p.object()
	case '[':
		return p.array()
	case '"':
		return p.boxedString()
	case 'n':
		return nil, p.literal("null")
	case 't':
		return true, p.literal("true")
	case 'f':
		return false, p.literal("false")
	default:
		if c == '-' || isDigit(c) {
			return p.number()
		}
		return nil, p.fail(Syntax, "not the start of a value")
	}
}

func (p *parser) literal(word string) error {
	if !bytes.HasPrefix(p.data[p.pos:], []byte(word)) {
		return p.fail(Syntax, "not the start of a value")
	}
	p.pos += len(word) // a longer word fails at whatever comes next
	return nil
}

func (p *parser) enter() error {
	if p.depth--; p.depth < 0 {
		return p.fail(TooLarge, "too deep")
	}
	p.pos++
	p.space()
	return nil
}

func (p *parser) array() (any, error) {
	if err := p.enter(); err != nil {
		return nil, err
	}
	list := []any{}
	for first := true; !p.accept(']'); first = false {
		if !first {
			if !p.accept(',') {
				return nil, p.fail(Syntax, "neither ',' nor ']' after an array's element")
			}
			p.space()
		}
		v, err := p.value()
		if err != nil {
			return nil, err
		}
		list = append(list, v)
		p.space()
	}
	p.depth++
	return list, nil
}

func (p *parser) object() (any, error) {
	if err := p.enter(); err != nil {
		return nil, err
	}
	members := map[string]any{}
	var others map[string]bool // folded forms of the names that folding changes
	for first := true; !p.accept('}'); first = false {
		if !first {
			if !p.accept(',') {
				return nil, p.fail(Syntax, "neither ',' nor '}' after an object's member")
			}
			p.space()
		}
		start := p.pos
		if p.pos == len(p.data) || p.data[p.pos] != '"' {
			return nil, p.fail(Syntax, "not a name in double quotes")
		}
		name, err := p.string()
		if err != nil {
			return nil, err
		}
		// A folded form can stand in members only as a name that folding does
		// not change, so that two look-ups find every clash.
		folded, control := fold(name)
		if control {
			p.pos = start
			return nil, p.fail(Ambiguous, "control character in the name "+quote(name))
		}
		if _, dup := members[folded]; dup || others[folded] {
			p.pos = start
			return nil, p.fail(Ambiguous, "duplicate name "+quote(name)+" (upper and lower case are one)")
		}
		if folded != name {
			if others == nil {
				others = map[string]bool{}
			}
			others[folded] = true
		}
		p.space()
		if !p.accept(':') {
			return nil, p.fail(Syntax, "no ':' after a name")
		}
		p.space()
		if members[name], err = p.value(); err != nil {
			return nil, err
		}
		p.space()
	}
	p.depth++
	return members, nil
}

func (p *parser) boxedString() (any, error) {
	s, err := p.string()
	if err != nil {
		return nil, err
	}
	return s, nil
}

// string reads a string at its opening quote.
func (p *parser) string() (string, error) {
	p.pos++
	start := p.pos
	var buf []byte // what was unescaped, up to start; nil: nothing was
	for p.pos < len(p.data) {
		switch c := p.data[p.pos]; {
		case c == '"':
			s := string(p.data[start:p.pos])
			if buf != nil {
				s = string(append(buf, p.data[start:p.pos]...))
			}
			p.pos++
			return s, nil
		case c == '\\':
			buf = append(buf, p.data[start:p.pos]...)
			r, err := p.escape()
			if err != nil {
				return "", err
			}
			buf = utf8.AppendRune(buf, r)
			start = p.pos
		case c < ' ':
			return "", p.fail(Syntax, "control character in a string")
		case c < utf8.RuneSelf:
			p.pos++
		default:
			r, size := utf8.DecodeRune(p.data[p.pos:])
			if r == utf8.RuneError && size == 1 {
				return "", p.fail(Syntax, "not UTF-8")
			}
			p.pos += size
		}
	}
	return "", p.fail(Syntax, "ends inside a string")
}

// escape reads an escape at its backslash, a surrogate pair in one.
func (p *parser) escape() (rune, error) {
	if p.pos+1 == len(p.data) {
		return 0, p.fail(Syntax, "ends inside a string")
	}
	const from, to = `"\/bfnrt`, "\"\\/\b\f\n\r\t"
	if i := strings.IndexByte(from, p.data[p.pos+1]); i >= 0 {
		p.pos += 2
		return rune(to[i]), nil
	}
	r, ok := p.hexEscape(p.pos)
	if !ok {
		return 0, p.fail(Syntax, "not an escape sequence")
	}
	if !utf16.IsSurrogate(r) {
		p.pos += 6
		return r, nil
	}
	low, _ := p.hexEscape(p.pos + 6)
	pair := utf16.DecodeRune(r, low)
	if pair == unicode.ReplacementChar {
		return 0, p.fail(Syntax, "lone surrogate")
	}
	p.pos += 12
	return pair, nil
}

// hexEscape gives the code unit of a \uXXXX at a position, false if none is there.
func (p *parser) hexEscape(at int) (rune, bool) {
	if at+6 > len(p.data) || p.data[at] != '\\' || p.data[at+1] != 'u' {
		return 0, false
	}
	var r rune
	for _, c := range p.data[at+2 : at+6] {
		switch {
		case isDigit(c):
			c -= '0'
		case 'a' <= c|0x20 && c|0x20 <= 'f':
			c = c | 0x20 - 'a' + 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	return r, true
}

func (p *parser) number() (any, error) {
	num, ok := scanNumber(p.data[p.pos:])
	if !ok {
		return nil, p.fail(Syntax, "not a number as JSON writes it")
	}
	if broken := num.bound(); broken != "" {
		return nil, p.fail(Ambiguous, broken)
	}
	n := Number(p.data[p.pos : p.pos+num.size])
	p.pos += num.size
	return n, nil
}

// fold gives the form that all spellings of a name share which differ by
// Unicode simple case folding (what strings.EqualFold compares by), and whether
// the name has a control character.
func fold(name string) (folded string, control bool) {
	upper := false
	for i := 0; i < len(name); i++ {
		switch c := name[i]; {
		case c >= utf8.RuneSelf:
			return strings.Map(foldRune, name), strings.ContainsFunc(name, unicode.IsControl)
		case c < ' ' || c == 0x7f:
			control = true
		case 'A' <= c && c <= 'Z':
			upper = true
		}
	}
	if upper {
		return strings.ToLower(name), control
	}
	return name, control
}

// foldRune gives the least rune of a folding orbit (K, k, Kelvin sign), in
// lower case if that is ASCII, so that most names are their own folded form.
func foldRune(r rune) rune {
	least := r
	for f := unicode.SimpleFold(r); f != r; f = unicode.SimpleFold(f) {
		least = min(least, f)
	}
	if 'A' <= least && least <= 'Z' {
		least += 'a' - 'A'
	}
	return least
}

// quote makes a name fit for a log line.
func quote(name string) string {
	const most = 64
	if len(name) > most {
		return strconv.QuoteToASCII(strings.ToValidUTF8(name[:most], "")) + "…"
	}
	return strconv.QuoteToASCII(name)
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }
