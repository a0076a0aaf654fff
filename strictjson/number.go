package strictjson

import (
	"bytes"
	"cmp"
	"fmt"
	"math"
	"strconv"
)

// Bounds on a number's text.
const (
	maxDigits   = 64
	maxExponent = 308
	maxSafe     = "9007199254740991" // 2^53-1, Number.MAX_SAFE_INTEGER of ECMAScript

	unsafeInteger = "integer beyond 2^53-1, which not every reader keeps"
)

// Number is the text of a JSON number as it was written. One that Parse gave is
// within the bounds of the package comment; of another, ask Valid. Equal
// numbers may have different texts: compare with Compare.
type Number string

// Valid reports whether Parse accepts the text as a number.
func (n Number) Valid() bool {
	num, ok := scanNumber([]byte(n))
	return ok && num.size == len(n) && num.bound() == ""
}

// Int64 gives the number as an integer; "1.0" and "1e2" are integers. It is
// false if the number is not integral or out of int64; one that Parse gave is
// then beyond 10^21, for nearer integers beyond 2^53-1 do not parse.
func (n Number) Int64() (int64, bool) {
	d, ok := n.decimal()
	if !ok {
		return 0, false
	}
	u, ok := d.scale(0)
	return signed(u, d.neg, ok)
}

// Units gives the number in units of 10^-4. It is false if the number is not a
// whole count of them, if the count is out of int64, or if a reader that uses
// doubles would print another decimal.
func (n Number) Units() (int64, bool) {
	d, ok := n.decimal()
	if !ok {
		return 0, false
	}
	u, ok := d.scale(4)
	// Doubles tell any two decimals of 15 digits apart.
	if !ok || d.n > 15 && !n.IsDouble() {
		return 0, false
	}
	return signed(u, d.neg, true)
}

// Compare gives -1, 0 or +1 as n is less than, equal to or greater than o. It is
// exact. Both must be Valid; a text that is not counts as zero.
func (n Number) Compare(o Number) int {
	a, _ := n.decimal()
	b, _ := o.decimal()
	switch {
	case a.sign() != b.sign():
		return cmp.Compare(a.sign(), b.sign())
	case a.neg:
		a, b = b, a
	}
	return cmp.Or(cmp.Compare(a.exp, b.exp), bytes.Compare(a.dig[:a.n], b.dig[:b.n]))
}

// MarshalJSON implements json.Marshaler: a number, never a string.
func (n Number) MarshalJSON() ([]byte, error) {
	if !n.Valid() {
		return nil, fmt.Errorf("%s is not a number", quote(string(n)))
	}
	return []byte(n), nil
}

// UnmarshalJSON implements json.Unmarshaler: a number, neither a string nor null.
func (n *Number) UnmarshalJSON(b []byte) error {
	if !Number(b).Valid() {
		return fmt.Errorf("not a number within bounds")
	}
	*n = Number(b)
	return nil
}

// double gives what IEEE 754 readers see, as RFC 8785, Section 3.2.2.3 (that is
// ECMAScript) prints it.
func (n Number) double() (string, bool) {
	f, err := strconv.ParseFloat(string(n), 64)
	if err != nil {
		return "", false
	}
	if f == 0 {
		return "0", true // -0 as well
	}
	format := byte('f')
	if abs := math.Abs(f); abs < 1e-6 || abs >= 1e21 {
		format = 'e'
	}
	b := strconv.AppendFloat(nil, f, format, -1, 64)
	if k := len(b); k > 4 && b[k-4] == 'e' && b[k-2] == '0' { // e-09 to e-9
		b[k-2] = b[k-1]
		b = b[:k-1]
	}
	return string(b), true
}

// IsDouble reports whether the double nearest to n prints as n's very value: if
// not, a reader that keeps doubles (IEEE 754) sees another number.
func (n Number) IsDouble() bool {
	s, ok := n.double()
	return ok && n.Compare(Number(s)) == 0
}

// written is a number's text, taken apart.
type written struct {
	neg         bool
	whole, frac []byte
	exp         int  // held at ±10,000
	plain       bool // neither fraction nor exponent
	digits      int  // all that are in the text, the exponent's too
	size        int  // bytes
}

// scanNumber reads the number that b starts with (RFC 8259, Section 6).
func scanNumber(b []byte) (w written, ok bool) {
	i := 0
	digits := func() []byte {
		from := i
		for i < len(b) && isDigit(b[i]) {
			i++
		}
		w.digits += i - from
		return b[from:i]
	}
	next := func(set string) bool {
		if i < len(b) && bytes.IndexByte([]byte(set), b[i]) >= 0 {
			i++
			return true
		}
		return false
	}
	w.neg = next("-")
	w.whole = digits()
	if len(w.whole) == 0 || len(w.whole) > 1 && w.whole[0] == '0' {
		return w, false
	}
	w.plain = true
	if next(".") {
		w.plain = false
		if w.frac = digits(); len(w.frac) == 0 {
			return w, false
		}
	}
	if next("eE") {
		w.plain = false
		minus := next("-")
		if !minus {
			next("+")
		}
		exp := digits()
		for _, c := range exp {
			w.exp = min(w.exp*10+int(c-'0'), 10_000)
		}
		if len(exp) == 0 {
			return w, false
		}
		if minus {
			w.exp = -w.exp
		}
	}
	w.size = i
	return w, true
}

// bound names the bound that the number breaks, "" for none.
func (w *written) bound() string {
	if w.digits > maxDigits {
		return "number of over 64 digits"
	}
	if w.plain {
		if k := len(w.whole); k > len(maxSafe) || k == len(maxSafe) && string(w.whole) > maxSafe {
			return unsafeInteger
		}
		return ""
	}
	if w.exp < -maxExponent || w.exp > maxExponent {
		return "exponent beyond 308"
	}
	d := w.decimal()
	if d.n == 0 {
		return ""
	}
	// 9007199254740993.0 is no better than without its fraction. From 10^21 on
	// readers write an exponent (RFC 8785, Section 3.2.2.3) and expect no integer.
	if d.n <= d.exp && d.exp <= 21 {
		if u, ok := d.scale(0); !ok || u > 1<<53-1 {
			return unsafeInteger
		}
	}
	// The point can move the magnitude past what a double holds: some readers
	// would see infinity or zero.
	scientific := d.exp - 1
	if scientific < -maxExponent || scientific > maxExponent {
		return "number beyond what a double holds"
	}
	if scientific == maxExponent {
		// About 1.79769313486231581e308 is the least that rounds to infinity.
		text := fmt.Sprintf("%s.%se308", d.dig[:1], append(d.dig[1:d.n:d.n], '0'))
		if _, err := strconv.ParseFloat(text, 64); err != nil {
			return "number beyond what a double holds"
		}
	}
	return ""
}

// decimal is ±0.dig × 10^exp, in one way only: dig[:n] has no zero at either
// end, what is behind it is zero bytes, and zero is the zero value.
type decimal struct {
	neg bool
	n   int
	dig [maxDigits]byte // ASCII
	exp int
}

func (n Number) decimal() (decimal, bool) {
	w, ok := scanNumber([]byte(n))
	if !ok || w.size != len(n) || w.digits > maxDigits {
		return decimal{}, false
	}
	return w.decimal(), true
}

func (w *written) decimal() decimal {
	d := decimal{neg: w.neg, exp: len(w.whole) + w.exp}
	for _, part := range [2][]byte{w.whole, w.frac} {
		for _, c := range part {
			if d.n == 0 && c == '0' {
				d.exp--
				continue
			}
			d.dig[d.n] = c
			d.n++
		}
	}
	for d.n > 0 && d.dig[d.n-1] == '0' {
		d.n--
		d.dig[d.n] = 0
	}
	if d.n == 0 {
		return decimal{}
	}
	return d
}

func (d *decimal) sign() int {
	switch {
	case d.n == 0:
		return 0
	case d.neg:
		return -1
	}
	return 1
}

// scale gives the magnitude times 10^places, if it is whole and below 10^19.
func (d *decimal) scale(places int) (uint64, bool) {
	if d.n == 0 {
		return 0, true
	}
	width := d.exp + places // digits before the point
	if width < d.n || width > 19 {
		return 0, false
	}
	var u uint64
	for i := range width {
		u *= 10
		if i < d.n {
			u += uint64(d.dig[i] - '0')
		}
	}
	return u, true
}

func signed(u uint64, neg, ok bool) (int64, bool) {
	switch {
	case !ok, u > 1<<63, u == 1<<63 && !neg:
		return 0, false
	case neg:
		return -int64(u), true
	}
	return int64(u), true
}
