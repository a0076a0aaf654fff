package strictjson

import (
	"bytes"
	"fmt"
	"slices"
	"unicode/utf8"
)

// Canonical gives the RFC 8785 text of a value as Parse gives it. RFC 8785
// prints numbers as doubles; a number that is not exactly what its double
// prints back to is an error, so that two different values never share a text.
func Canonical(v any) ([]byte, error) { return appendCanonical(nil, v) }

func appendCanonical(b []byte, v any) (_ []byte, err error) {
	switch v := v.(type) {
	case nil:
		return append(b, "null"...), nil
	case bool:
		if v {
			return append(b, "true"...), nil
		}
		return append(b, "false"...), nil
	case string:
		return appendString(b, v)
	case Number:
		if !v.Valid() {
			return nil, fmt.Errorf("canonical JSON: %s is not a number", quote(string(v)))
		}
		s, ok := v.double()
		if !ok || v.Compare(Number(s)) != 0 {
			return nil, fmt.Errorf("canonical JSON: a number has more digits than a double keeps")
		}
		return append(b, s...), nil
	case []any:
		b = append(b, '[')
		for i, e := range v {
			if i > 0 {
				b = append(b, ',')
			}
			if b, err = appendCanonical(b, e); err != nil {
				return nil, err
			}
		}
		return append(b, ']'), nil
	case map[string]any:
		names := make([]string, 0, len(v))
		for name := range v {
			names = append(names, name)
		}
		slices.SortFunc(names, compareUTF16)
		b = append(b, '{')
		for i, name := range names {
			if i > 0 {
				b = append(b, ',')
			}
			if b, err = appendString(b, name); err != nil {
				return nil, err
			}
			b = append(b, ':')
			if b, err = appendCanonical(b, v[name]); err != nil {
				return nil, err
			}
		}
		return append(b, '}'), nil
	}
	return nil, fmt.Errorf("canonical JSON: %T is not a type of a parsed value", v)
}

// compareUTF16 orders names by UTF-16 code units (RFC 8785, Section 3.2.3). That
// is the order of their UTF-8 bytes, but for runes past U+FFFF, whose
// surrogates come before U+E000.
func compareUTF16(a, b string) int {
	i := 0
	for i < len(a) && i < len(b) && a[i] == b[i] {
		i++
	}
	if i < len(a) && i < len(b) && a[i] >= 0xee && b[i] >= 0xee {
		if a4, b4 := a[i] >= 0xf0, b[i] >= 0xf0; a4 != b4 {
			if a4 {
				return -1
			}
			return 1
		}
	}
	return bytes.Compare([]byte(a[i:]), []byte(b[i:]))
}

func appendString(b []byte, s string) ([]byte, error) {
	if !utf8.ValidString(s) {
		return nil, fmt.Errorf("canonical JSON: a string is not UTF-8")
	}
	b = append(b, '"')
	for i := 0; i < len(s); i++ {
		switch c := s[i]; c {
		case '"', '\\':
			b = append(b, '\\', c)
		case '\b':
			b = append(b, `\b`...)
		case '\t':
			b = append(b, `\t`...)
		case '\n':
			b = append(b, `\n`...)
		case '\f':
			b = append(b, `\f`...)
		case '\r':
			b = append(b, `\r`...)
		default:
			if c < ' ' {
				b = fmt.Appendf(b, `\u%04x`, c)
			} else {
				b = append(b, c)
			}
		}
	}
	return append(b, '"'), nil
}
