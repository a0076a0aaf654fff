package strictjson

import (
	"math"
	"reflect"
	"strconv"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

func TestCanonical(t *testing.T) {
	for in, want := range map[string]string{
		` { "b" : [ 1.0 , 1e2 , null ] , "a" : true } `: `{"a":true,"b":[1,100,null]}`,
		`[-0, -0.0, 0e5]`: `[0,0,0]`,
		`[1E21, 1e15, 1e-6, 1e-7, 1.5e-300, 123e-2]`:             `[1e+21,1000000000000000,0.000001,1e-7,1.5e-300,1.23]`,
		`[0.1, 1.7976931348623157e308, 5e-308]`:                  `[0.1,1.7976931348623157e+308,5e-308]`,
		`"\u0000\u001f\u007f\b\t\n\f\r\"\\\/<>&\u2028\u00e9"`:    "\"\\u0000\\u001f\x7f\\b\\t\\n\\f\\r\\\"\\\\/<>&\u2028é\"",
		`{"\ufb33":1,"\ud83d\ude00":2,"\u00f6":3,"1":4,"\\r":5}`: "{\"1\":4,\"\\\\r\":5,\"ö\":3,\"😀\":2,\"\ufb33\":1}", // RFC 8785, Section 3.2.3
		`{"aa":1,"a":2,"":3}`:                                    `{"":3,"a":2,"aa":1}`,
		`[[],{},"",false]`:                                       `[[],{},"",false]`,
	} {
		v, err := Parse([]byte(in), Limits{})
		if err != nil {
			t.Errorf("Parse(%s): %v", in, err)
			continue
		}
		if got, err := Canonical(v); err != nil || string(got) != want {
			t.Errorf("Canonical(%s) = %s, %v; want %s", in, got, err, want)
		}
	}
}

func TestCanonicalRefuses(t *testing.T) {
	for _, v := range []any{
		Number("1.00000000000000000001"), Number("9007199254740993.0"), Number("9007199254740993.5"), Number("0.1000000000000000055511151231257827"),
		[]any{map[string]any{"a": Number("1.00000000000000000001")}},
		Number(""), Number("1e400"), Number("01"), Number("00"), Number("0x0p0"), "\xff", map[string]any{"\xff": nil},
		1.5, 1, math.NaN(), struct{}{}, []string{},
	} {
		if text, err := Canonical(v); err == nil {
			t.Errorf("Canonical(%#v) = %s, want an error", v, text)
		}
	}
}

// FuzzParse holds Parse against another strict decoder: what we accept, it
// accepts, with equal values, and the canonical text is stable and as it would
// write it.
func FuzzParse(f *testing.F) {
	for _, s := range []string{
		string(body1K), `{"name":1,"n\u0061me":1}`, "{\"key\":1,\"\u212aey\":2}", `["\ud83d\ude00","\ud800"]`, "\xef\xbb\xbf{}",
		`[1.5e300,1e-308,-0,9007199254740991,0.1,1E+2]`, `{"a":[{"b":null},true,false,"\n\u0000"]} `, `[1,]`, `{"a":1,}`, `{} {}`,
		`{"\ufb33":1,"\ud83d\ude00":2}`, "\"\xc0\x80\"", `10e308`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		before := string(data)
		v, err := Parse(data, Limits{})
		if string(data) != before {
			t.Fatal("Parse changed its input")
		}
		if err != nil {
			if v != nil {
				t.Fatalf("Parse gave %v beside an error", v)
			}
			return
		}
		var theirs any
		if err := json.Unmarshal(data, &theirs); err != nil {
			t.Fatalf("accepted, but not by go-json-experiment/json: %v", err)
		}
		if ours := doubles(t, v); !reflect.DeepEqual(ours, theirs) {
			t.Fatalf("read as %#v, by go-json-experiment/json as %#v", ours, theirs)
		}
		text, err := Canonical(v)
		if err != nil {
			return // a number that no double keeps; FuzzNumber holds that
		}
		reference := jsontext.Value(before)
		if err := reference.Canonicalize(); err != nil {
			t.Fatalf("canonical for us, not for jsontext: %v", err)
		}
		if string(text) != string(reference) {
			t.Fatalf("canonical text %s, by jsontext %s", text, reference)
		}
		again, err := Parse(text, Limits{Bytes: 8 * DefaultBytes})
		if err != nil {
			t.Fatalf("canonical text %s is refused: %v", text, err)
		}
		stable, err := Canonical(again)
		if err != nil || string(stable) != string(text) {
			t.Fatalf("canonical text %s became %s, %v", text, stable, err)
		}
	})
}

// doubles gives v with float64 in place of Number.
func doubles(t *testing.T, v any) any {
	switch v := v.(type) {
	case Number:
		f, err := strconv.ParseFloat(string(v), 64)
		if err != nil {
			t.Fatalf("number %s: %v", v, err)
		}
		return f
	case []any:
		list := make([]any, len(v))
		for i, e := range v {
			list[i] = doubles(t, e)
		}
		return list
	case map[string]any:
		members := make(map[string]any, len(v))
		for name, e := range v {
			members[name] = doubles(t, e)
		}
		return members
	}
	return v
}
