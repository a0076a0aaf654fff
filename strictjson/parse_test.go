package strictjson

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode"

	"github.com/google/go-cmp/cmp"
)

func TestParseRefuses(t *testing.T) {
	deep := strings.Repeat("[", DefaultDepth+1) + strings.Repeat("]", DefaultDepth+1)
	for _, tc := range []struct {
		name, in string
		kind     Kind
	}{
		{"duplicate", `{"a":1,"a":1}`, Ambiguous},
		{"duplicate, escaped", `{"name":1,"n\u0061me":1}`, Ambiguous},
		{"duplicate, nested", `{"x":{"y":{"a":1,"b":2,"a":3}}}`, Ambiguous},
		{"duplicate in an array", `[1,[{"a":1,"a":2}]]`, Ambiguous},
		{"duplicate of null", `{"a":null,"a":null}`, Ambiguous},
		{"duplicate empty name", `{"":1,"":2}`, Ambiguous},
		{"duplicate, not ASCII", `{"é":1,"é":2}`, Ambiguous},
		{"folded, upper second", `{"name":"danger","NAME":"safe"}`, Ambiguous},
		{"folded, upper first", `{"NAME":"danger","name":"safe"}`, Ambiguous},
		{"folded, both mixed", `{"nAme":1,"Name":2}`, Ambiguous},
		{"folded, same mixed", `{"nAme":1,"nAme":2}`, Ambiguous},
		{"folded, escaped", `{"name":1,"\u004eame":2}`, Ambiguous},
		{"folded, Kelvin", "{\"key\":1,\"\u212aey\":2}", Ambiguous},
		{"folded, Kelvin and K", "{\"Key\":1,\"\u212aEY\":2}", Ambiguous},
		{"folded, Kelvin escaped", `{"key":1,"\u212aey":2}`, Ambiguous},
		{"folded, long s", "{\"params\":1,\"param\u017f\":2}", Ambiguous},
		{"folded, long s first", "{\"param\u017f\":1,\"params\":2}", Ambiguous},
		{"folded, Greek sigma", `{"σ":1,"ς":2}`, Ambiguous},
		{"folded, astral", `{"𐐀":1,"𐐨":2}`, Ambiguous},

		{"name with NUL behind", `{"name\u0000":1}`, Ambiguous},
		{"name with newline", `{"a\nb":1}`, Ambiguous},
		{"name with DEL", "{\"a\x7f\":1}", Ambiguous},
		{"name with C1", `{"a\u0085":1}`, Ambiguous},
		{"name with NUL, not ASCII", `{"é\u0000":1}`, Ambiguous},

		{"BOM", "\xef\xbb\xbf{}", Syntax},
		{"UTF-16 LE", "\xff\xfe{\x00}\x00", Syntax},
		{"UTF-16 BE", "\x00{\x00}", Syntax},
		{"bad UTF-8", "\"\xff\"", Syntax},
		{"bad UTF-8 in a name", "{\"a\xff\":1}", Syntax},
		{"overlong", "\"\xc0\xaf\"", Syntax},
		{"overlong NUL", "\"\xc0\x80\"", Syntax},
		{"cut UTF-8", "\"\xe2\x82\"", Syntax},
		{"surrogate in UTF-8", "\"\xed\xa0\x80\"", Syntax},
		{"past U+10FFFF", "\"\xf4\x90\x80\x80\"", Syntax},
		{"lone high", `"\ud800"`, Syntax},
		{"lone low", `"\udc00"`, Syntax},
		{"high and a letter", `"\ud800a"`, Syntax},
		{"high and high", `"\ud800\ud800"`, Syntax},
		{"low and high", `"\udc00\ud800"`, Syntax},
		{"lone in a name", `{"\ud800":1}`, Syntax},

		{"empty", ``, Syntax},
		{"white space", " \n", Syntax},
		{"trailing", `{}x`, Syntax},
		{"trailing NUL", "{}\x00", Syntax},
		{"two values", `{} {}`, Syntax},
		{"NDJSON", "{}\n{}", Syntax},
		{"comment", `{/**/}`, Syntax},
		{"line comment", "{} // x", Syntax},
		{"hash comment", "# x\n{}", Syntax},
		{"single quotes", `{'a':1}`, Syntax},
		{"no quotes", `{a:1}`, Syntax},
		{"trailing comma, object", `{"a":1,}`, Syntax},
		{"trailing comma, array", `[1,]`, Syntax},
		{"leading comma", `[,1]`, Syntax},
		{"no comma", `[1 2]`, Syntax},
		{"no comma, object", `{"a":1 "b":2}`, Syntax},
		{"no colon", `{"a" 1}`, Syntax},
		{"no value", `{"a":}`, Syntax},
		{"closed by another", `[1}`, Syntax},
		{"open array", `[1`, Syntax},
		{"open object", `{"a":1`, Syntax},
		{"open after comma", `{"a":1,`, Syntax},
		{"open string", `"a`, Syntax},
		{"open escape", `"\`, Syntax},
		{"short escape", `"\u12"`, Syntax},
		{"bad escape", `"\x41"`, Syntax},
		{"bad hex", `"\u00g0"`, Syntax},
		{"tab in a string", "\"\t\"", Syntax},
		{"newline in a string", "\"\n\"", Syntax},
		{"form feed as space", "\f1", Syntax},
		{"no-break space", "\u00a01", Syntax},
		{"NaN", `NaN`, Syntax},
		{"Infinity", `-Infinity`, Syntax},
		{"True", `True`, Syntax},
		{"nul", `nul`, Syntax},
		{"nullx", `nullx`, Syntax},

		{"plus", `+1`, Syntax},
		{"leading zero", `01`, Syntax},
		{"minus leading zero", `-01`, Syntax},
		{"minus alone", `-`, Syntax},
		{"point first", `.5`, Syntax},
		{"point last", `5.`, Syntax},
		{"exponent empty", `1e`, Syntax},
		{"exponent sign alone", `1e+`, Syntax},
		{"hex", `0x1`, Syntax},
		{"underscore", `1_0`, Syntax},
		{"65 digits", "0." + strings.Repeat("1", 64), Ambiguous},
		{"65 digits with the exponent's", "1." + strings.Repeat("1", 62) + "e10", Ambiguous},
		{"400 digits", strings.Repeat("1", 400), Ambiguous},
		{"exponent 309", `1e309`, Ambiguous},
		{"exponent -309", `1e-309`, Ambiguous},
		{"zero with exponent 309", `0e309`, Ambiguous},
		{"zero with exponent -309", `0e-309`, Ambiguous},
		{"exponent that its point takes back", `1000e-310`, Ambiguous},
		{"exponent of an overflow", `1e99999999999999999999`, Ambiguous},
		{"exponent that panics libraries", `1e10000000`, Ambiguous},
		{"infinity by its point", `10e308`, Ambiguous},
		{"infinity by rounding", `1.7976931348623159e308`, Ambiguous},
		{"negative infinity by rounding", `-179.76931348623159e306`, Ambiguous},
		{"zero by its point", `0.01e-308`, Ambiguous},
		{"2^53", `9007199254740992`, Ambiguous},
		{"-2^53", `-9007199254740992`, Ambiguous},
		{"17 digits", `10000000000000000`, Ambiguous},
		{"2^53 with a fraction", `9007199254740992.0`, Ambiguous},
		{"2^53 with an exponent", `-900719925474099.2e1`, Ambiguous},
		{"2^53 by its point", `90071992547409930e-1`, Ambiguous},
		{"integer of 21 digits", `1e20`, Ambiguous},

		{"too deep", deep, TooLarge},
		{"too deep, objects", strings.Repeat(`{"a":`, DefaultDepth+1), TooLarge},
		{"too deep, 10^6", strings.Repeat("[", DefaultBytes), TooLarge},
		{"too many values", "[" + strings.Repeat("1,", DefaultValues) + "1]", TooLarge},
		{"too many bytes", `"` + strings.Repeat("a", DefaultBytes) + `"`, TooLarge},
	} {
		t.Run(tc.name, func(t *testing.T) {
			v, err := Parse([]byte(tc.in), Limits{})
			var e *Error
			if !errors.As(err, &e) {
				t.Fatalf("Parse gave %v, %v; want an *Error", v, err)
			}
			if e.Kind != tc.kind || v != nil {
				t.Errorf("Parse gave %v and kind %v (%v), want nil and %v", v, e.Kind, e, tc.kind)
			}
			if e.Offset < 0 || e.Offset > len(tc.in) {
				t.Errorf("offset %d is outside", e.Offset)
			}
		})
	}
}

func TestParseAccepts(t *testing.T) {
	type object = map[string]any
	for in, want := range map[string]any{
		`null`:                             nil,
		" \t\r\n[true , false]\n":          []any{true, false},
		`{}`:                               object{},
		`[]`:                               []any{},
		`{"a":{"b":[{"c":1},{"c":2}]}}`:    object{"a": object{"b": []any{object{"c": Number("1")}, object{"c": Number("2")}}}},
		`{"a":{"a":{"A":1}}}`:              object{"a": object{"a": object{"A": Number("1")}}},
		`[{"a":1},{"A":2}]`:                []any{object{"a": Number("1")}, object{"A": Number("2")}},
		`{"protocolVersion":1,"ProtoV":2}`: object{"protocolVersion": Number("1"), "ProtoV": Number("2")},
		`{"ss":1,"ß":2}`:                   object{"ss": Number("1"), "ß": Number("2")}, // full folding only
		`""`:                               "",
		`"\"\\\/\b\f\n\r\t\u0041\u0000"`:   "\"\\/\b\f\n\r\tA\x00",
		`"a\ud83d\ude00b\uD83D\uDE00"`:     "a😀b😀",
		`"\u00e9\ufeff\uffff\uFFFD"`:       "é\ufeff\uffff\ufffd",
		"\"\u007f\u2028\ufffd\U0010ffff\"": "\u007f\u2028\ufffd\U0010ffff",
		`-0`:                               Number("-0"),
		`9007199254740991`:                 Number("9007199254740991"),
		`-9007199254740991`:                Number("-9007199254740991"),
		`1E+21`:                            Number("1E+21"),
		`9.007199254740991e15`:             Number("9.007199254740991e15"),
		`9007199254740992.5`:               Number("9007199254740992.5"),
		`1.7976931348623157e308`:           Number("1.7976931348623157e308"),
		`1e-308`:                           Number("1e-308"),
		`0.00e-308`:                        Number("0.00e-308"),
		"0." + strings.Repeat("1", 63):     Number("0." + strings.Repeat("1", 63)),
	} {
		got, err := Parse([]byte(in), Limits{})
		if err != nil {
			t.Errorf("Parse(%q): %v", in, err)
		} else if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("Parse(%q): (-want +got)\n%s", in, diff)
		}
	}
}

func TestLimits(t *testing.T) {
	for _, tc := range []struct {
		in  string
		lim Limits
		ok  bool
	}{
		{`[[1]]`, Limits{Depth: 2}, true},
		{`[[1]]`, Limits{Depth: 1}, false},
		{`[[],[],{"a":{}}]`, Limits{Depth: 2}, false},
		{`[{},[],{},[]]`, Limits{Depth: 2}, true}, // what was left does not count
		{`[1,{"a":2}]`, Limits{Values: 4}, true},
		{`[1,{"a":2}]`, Limits{Values: 3}, false},
		{`1`, Limits{Values: 1}, true},
		{`12345`, Limits{Bytes: 5}, true},
		{`12345 `, Limits{Bytes: 5}, false},
		{strings.Repeat("[", DefaultDepth) + strings.Repeat("]", DefaultDepth), Limits{}, true},
		{"[" + strings.Repeat("1,", DefaultValues-2) + "1]", Limits{}, true},
		{`"` + strings.Repeat("a", DefaultBytes-2) + `"`, Limits{}, true},
		{`1`, Limits{-1, -1, -1}, true},
	} {
		if _, err := Parse([]byte(tc.in), tc.lim); (err == nil) != tc.ok {
			t.Errorf("Parse(%.20q, %+v): %v, want ok %v", tc.in, tc.lim, err, tc.ok)
		}
	}
}

// A flood of names must not cost more than in proportion. The counts of work are
// those of the allocator, which do not depend on the machine's load.
func TestParseIsLinear(t *testing.T) {
	object := func(n int) []byte {
		var b strings.Builder
		b.WriteString(`{"A":0`)
		for i := range n {
			fmt.Fprintf(&b, `,"nAme%d":0`, i)
		}
		return []byte(b.String() + "}")
	}
	lim := Limits{Bytes: 10 << 20, Values: 1 << 20}
	allocs := func(n int) float64 {
		data := object(n)
		return testing.AllocsPerRun(1, func() {
			if _, err := Parse(data, lim); err != nil {
				t.Fatal(err)
			}
		})
	}
	if small, large := allocs(5_000), allocs(100_000); large > 40*small {
		t.Errorf("5,000 names: %.0f allocations, 100,000 names: %.0f", small, large)
	}
}

func TestErrorsHoldNoValues(t *testing.T) {
	const secret = "hunter2"
	for _, in := range []string{
		`{"password":"` + secret + `"`, `{"password":"` + secret + "\x00\"}", `{"password":"` + secret + `"}x`,
		`{"password":"` + secret + `","password":"` + secret + `"}`, `{"password":"` + secret + `\ud800"}`,
	} {
		_, err := Parse([]byte(in), Limits{})
		if err == nil || strings.Contains(err.Error(), secret) {
			t.Errorf("Parse(%q): %v", in, err)
		}
	}
	var into struct {
		Password int `json:"password"`
		Nested   struct {
			N Number `json:"n"`
		} `json:"nested"`
	}
	for _, in := range []string{`{"password":"` + secret + `"}`, `{"nested":{"n":"` + secret + `"}}`, `"` + secret + `"`} {
		err := Unmarshal([]byte(in), Limits{}, &into)
		if err == nil || strings.Contains(err.Error(), secret) {
			t.Errorf("Unmarshal(%q): %v", in, err)
		}
	}
	// A long name is cut, and one that would break a log line is escaped.
	_, err := Parse([]byte(`{"`+strings.Repeat("é", 1000)+`\n":1}`), Limits{})
	if err == nil || len(err.Error()) > 500 || strings.Contains(err.Error(), "\n") {
		t.Errorf("long name: %v", err)
	}
}

// fold must agree with what Go's own decoders match names by, for every rune.
func TestFoldIsSimpleFolding(t *testing.T) {
	for r := rune(0); r <= unicode.MaxRune; r++ {
		if r >= 0xd800 && r < 0xe000 {
			continue
		}
		a, _ := fold(string(r))
		if again, _ := fold(a); again != a {
			t.Fatalf("fold(%U) = %q folds on to %q", r, a, again)
		}
		if !strings.EqualFold(a, string(r)) {
			t.Fatalf("fold(%U) = %q is not equal to it under folding", r, a)
		}
		for f := unicode.SimpleFold(r); f != r; f = unicode.SimpleFold(f) {
			if b, _ := fold(string(f)); a != b {
				t.Fatalf("fold(%U) = %q, fold(%U) = %q", r, a, f, b)
			}
		}
	}
}

// ours are the members of the corpus that RFC 8259 allows and the package
// comment refuses.
var ours = map[string]string{
	"y_object_duplicated_key.json":           "duplicate name",
	"y_object_duplicated_key_and_value.json": "duplicate name",
	"y_object_escaped_null_in_key.json":      "control character in a name",
	"y_number_double_close_to_zero.json":     "over 64 digits",
}

func TestJSONTestSuite(t *testing.T) {
	const dir = "../../shared/data/JSONTestSuite/test_parsing"
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Skip("JSONTestSuite (github.com/nst/JSONTestSuite) is not at " + dir)
	}
	seen := map[string]int{}
	for _, f := range files {
		data, err := os.ReadFile(filepath.Join(dir, f.Name()))
		if err != nil {
			t.Fatal(err)
		}
		_, err = Parse(data, Limits{})
		class, reason := f.Name()[:2], ours[f.Name()]
		seen[class]++
		switch {
		case class == "n_" && err == nil:
			t.Errorf("%s is accepted", f.Name())
		case class == "y_" && reason == "" && err != nil:
			t.Errorf("%s is refused: %v", f.Name(), err)
		case reason != "" && err == nil:
			t.Errorf("%s is accepted, though %s", f.Name(), reason)
		case class == "i_" && err == nil && !json.Valid(data):
			t.Errorf("%s is accepted, but not by encoding/json", f.Name())
		}
	}
	if seen["n_"] < 180 || seen["y_"] < 90 {
		t.Errorf("the corpus is not whole: %v", seen)
	}
}

var body1K = []byte(`{"jsonrpc":"2.0","id":17,"method":"tools/call","params":{"name":"merge_pr","arguments":{"owner":"example","repo":"infra","pull_number":4211,"method":"squash","commit_title":"Raise the limits of the ingest service","commit_message":"` +
	strings.Repeat("The limits were set before the move and are too low by now. ", 10) +
	`","labels":["ops","urgent","reviewed"],"draft":false,"weight":0.25},"_meta":{"progressToken":"b7a2","io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}`)

func BenchmarkParse1KiB(b *testing.B) {
	b.SetBytes(int64(len(body1K)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Parse(body1K, Limits{}); err != nil {
			b.Fatal(err)
		}
	}
}

// For scale: the standard library on the same body.
func BenchmarkEncodingJSON1KiB(b *testing.B) {
	b.SetBytes(int64(len(body1K)))
	b.ReportAllocs()
	for b.Loop() {
		var v any
		if err := json.Unmarshal(body1K, &v); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkParse100kNames(b *testing.B) {
	var s strings.Builder
	s.WriteString(`{"A":0`)
	for i := range 99_000 {
		fmt.Fprintf(&s, `,"N%d":0`, i)
	}
	s.WriteString("}")
	data := []byte(s.String())
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Parse(data, Limits{Bytes: 4 << 20}); err != nil {
			b.Fatal(err)
		}
	}
}
