package strictjson

import (
	"encoding/json"
	"math"
	"math/big"
	"strconv"
	"strings"
	"testing"
)

func TestNumberInt64AndUnits(t *testing.T) {
	type result struct {
		v  int64
		ok bool
	}
	no := result{}
	for _, tc := range []struct {
		n            Number
		int64, units result
	}{
		{"0", result{0, true}, result{0, true}},
		{"-0", result{0, true}, result{0, true}},
		{"-0.0e5", result{0, true}, result{0, true}},
		{"1.0", result{1, true}, result{10_000, true}},
		{"1e2", result{100, true}, result{1_000_000, true}},
		{"-100e-2", result{-1, true}, result{-10_000, true}},
		{"1.5", no, result{15_000, true}},
		{"-0.0001", no, result{-1, true}},
		{"0.00010", no, result{1, true}},
		{"1e-4", no, result{1, true}},
		{"0.00001", no, no},
		{"0.00015", no, no},
		{"10.00001", no, no},
		{"9007199254740991", result{1<<53 - 1, true}, no},
		{"922337203685477", result{922337203685477, true}, result{9223372036854770000, true}},
		{"-922337203685477.5", no, result{-9223372036854775000, true}},
		{"922337203685477.5807", no, no}, // doubles see .6
		{"900719925474.0993", no, no},    // and here .0992
		{"922337203685478", result{922337203685478, true}, no},
		{"1e17", result{1e17, true}, no},
		{"1e18", result{1e18, true}, no},
		{"9.223372036854775808e18", no, no},
		{"-9.223372036854775808e18", result{math.MinInt64, true}, no},
		{"1e19", no, no},
		{"1e308", no, no},
		{"1e-308", no, no},
		{"", no, no},
		{"x", no, no},
		{"1 ", no, no},
		{Number(strings.Repeat("1", 100)), no, no},
	} {
		if v, ok := tc.n.Int64(); (result{v, ok}) != tc.int64 {
			t.Errorf("Number(%q).Int64() = %d, %v; want %v", tc.n, v, ok, tc.int64)
		}
		if v, ok := tc.n.Units(); (result{v, ok}) != tc.units {
			t.Errorf("Number(%q).Units() = %d, %v; want %v", tc.n, v, ok, tc.units)
		}
	}
}

func TestNumberCompare(t *testing.T) {
	// In order; those on one line are equal.
	ordered := [][]Number{
		{"-1.7e308", "-17e307"},
		{"-10", "-1e1", "-10.0"},
		{"-9.99"},
		{"-1e-308"},
		{"0", "-0", "0.000", "0e5", "-0e-5"},
		{"1e-308", "0.1e-307"},
		{"0.1", "1e-1", "0.10"},
		{"0.100000000000000000000000000000000000000000000000000000000001"},
		{"0.11"},
		{"1", "1.0", "10e-1"},
		{"9007199254740991"},
		{"9007199254740992.0"},
		{"9007199254740993.0"},
		{"1e22", "10000000000000000000000.0"},
		{"1e308"},
	}
	for i, a := range ordered {
		for j, b := range ordered {
			want := 0
			if i < j {
				want = -1
			} else if i > j {
				want = 1
			}
			for _, x := range a {
				for _, y := range b {
					if got := x.Compare(y); got != want {
						t.Errorf("Number(%q).Compare(%q) = %d, want %d", x, y, got, want)
					}
				}
			}
		}
	}
}

func TestNumberJSON(t *testing.T) {
	b, err := json.Marshal(map[string]any{"n": Number("1.50")})
	if err != nil || string(b) != `{"n":1.50}` {
		t.Errorf("Marshal gave %s, %v", b, err)
	}
	for _, bad := range []Number{"", "1e309", `1,"x":2`, "9007199254740992"} {
		if b, err := json.Marshal(bad); err == nil {
			t.Errorf("Marshal(%q) gave %s", string(bad), b)
		}
	}
	var n Number
	for _, bad := range []string{`"1"`, `null`, `1e309`} {
		if err := n.UnmarshalJSON([]byte(bad)); err == nil {
			t.Errorf("UnmarshalJSON(%s) gave %q", bad, n)
		}
	}
}

// FuzzNumber holds Number against math/big.
func FuzzNumber(f *testing.F) {
	for _, s := range []string{"0", "-0", "1.0", "1e2", "0.0001", "-9007199254740991", "9007199254740993.0", "1e-308", "1.7976931348623157e308", "922337203685477.5807", "12345678901234567890e-4"} {
		f.Add(s, "1")
		f.Add("-1e2", s)
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		x, ok := exact(t, a)
		if !ok {
			return
		}
		n := Number(a)

		fits := func(places int64) (int64, bool) {
			scaled := new(big.Rat).Mul(x, big.NewRat(places, 1))
			return scaled.Num().Int64(), scaled.IsInt() && scaled.Num().IsInt64()
		}
		want, ok := fits(1)
		if got, gotOK := n.Int64(); gotOK != ok || ok && got != want {
			t.Errorf("Number(%q).Int64() = %d, %v; want %d, %v", a, got, gotOK, want, ok)
		}

		shown, err := strconv.ParseFloat(a, 64)
		if err != nil {
			t.Fatalf("Number(%q) is valid, and no double: %v", a, err)
		}
		if x.Sign() != 0 && shown == 0 {
			t.Errorf("Number(%q) is valid, and zero as a double", a)
		}
		printed, _ := new(big.Rat).SetString(strconv.FormatFloat(shown, 'g', -1, 64))
		same := printed.Cmp(x) == 0
		want, ok = fits(10_000)
		if got, gotOK := n.Units(); gotOK != (ok && same) || gotOK && got != want {
			t.Errorf("Number(%q).Units() = %d, %v; want %d, %v", a, got, gotOK, want, ok && same)
		}
		text, err := Canonical(n)
		if (err == nil) != same {
			t.Errorf("Canonical(%q) = %s, %v; prints back: %v", a, text, err, same)
		}
		if err == nil {
			if c, ok := exact(t, string(text)); !ok || c.Cmp(x) != 0 {
				t.Errorf("Canonical(%q) = %s is another number", a, text)
			}
		}

		if y, ok := exact(t, b); ok {
			if got := n.Compare(Number(b)); got != x.Cmp(y) {
				t.Errorf("Number(%q).Compare(%q) = %d", a, b, got)
			}
		}
	})
}

// exact gives a valid Number as math/big reads it.
func exact(t *testing.T, s string) (*big.Rat, bool) {
	if !Number(s).Valid() {
		return nil, false
	}
	if !json.Valid([]byte(s)) {
		t.Fatalf("Number(%q) is valid, but not to encoding/json", s)
	}
	r, ok := new(big.Rat).SetString(s)
	if !ok {
		t.Fatalf("Number(%q) is valid, but not to math/big", s)
	}
	return r, true
}
