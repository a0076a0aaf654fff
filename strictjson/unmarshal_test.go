package strictjson

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

type document struct {
	Name  string          `json:"name"`
	Count Number          `json:"count"`
	Inner []inner         `json:"inner"`
	Raw   json.RawMessage `json:"raw"`
}

type inner struct {
	A int `json:"a"`
}

func TestUnmarshal(t *testing.T) {
	const in = `{"name":"n","count":1.50,"inner":[{"a":1}],"raw":{"x": [1]}}`
	want := document{"n", "1.50", []inner{{1}}, json.RawMessage(`{"x": [1]}`)}
	for name, decode := range map[string]func([]byte, Limits, any) error{"Unmarshal": Unmarshal, "UnmarshalOpen": UnmarshalOpen} {
		var got document
		if err := decode([]byte(in), Limits{}, &got); err != nil {
			t.Errorf("%s: %v", name, err)
		} else if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: (-want +got)\n%s", name, diff)
		}
		for _, bad := range []struct {
			in   string
			kind Kind
		}{
			{`{"name":"a","NAME":"b"}`, Ambiguous},
			{`{"x":1,"x":2}`, Ambiguous}, // in what no field is for
			{`{"x":{"y":9007199254740992}}`, Ambiguous},
			{`{"raw":{"x":1,"X":2}}`, Ambiguous},
			{`{"name":"a"} {}`, Syntax},
			{`{"name":"` + "\xff" + `"}`, Syntax},
			{`{"name":1}`, Shape},
			{`{"count":"1"}`, Shape},
			{`{"inner":{"a":1}}`, Shape},
			{`{"inner":[{"a":1.5}]}`, Shape},
			{`[]`, Shape},
		} {
			err := decode([]byte(bad.in), Limits{}, &document{})
			var e *Error
			if !errors.As(err, &e) || e.Kind != bad.kind {
				t.Errorf("%s(%s): %v, want kind %v", name, bad.in, err, bad.kind)
			}
		}
		var e *Error
		if err := decode([]byte(in), Limits{Values: 3}, &document{}); !errors.As(err, &e) || e.Kind != TooLarge {
			t.Errorf("%s with 3 values: %v", name, err)
		}
		if err := decode([]byte(in), Limits{}, document{}); !errors.As(err, &e) {
			t.Errorf("%s into no pointer: %v", name, err)
		}
	}
}

// TestWhatIsExpected: a member of another type is named, with what it must be,
// and its value is not.
func TestWhatIsExpected(t *testing.T) {
	type wanted struct {
		N    *int64            `json:"n"`
		U    uint8             `json:"u"`
		F    float64           `json:"f"`
		S    string            `json:"s"`
		B    bool              `json:"b"`
		L    []inner           `json:"l"`
		M    map[string]string `json:"m"`
		Time time.Time         `json:"time"`
		Num  Number            `json:"num"`
	}
	for in, want := range map[string]string{
		`[{"n":"7654321"}]`:         `"/0/n" must be a whole number`,
		`[{},{"n":7654321.5}]`:      `"/1/n" must be a whole number`,
		`[{"u":7654321}]`:           `"/0/u" must be a whole number`,
		`[{"f":"7654321"}]`:         `"/0/f" must be a number`,
		`[{"s":7654321}]`:           `"/0/s" must be a string, in quotes`,
		`[{"b":7654321}]`:           `"/0/b" must be true or false`,
		`[{"l":7654321}]`:           `"/0/l" must be an array`,
		`[{"l":[{"a":"7654321"}]}]`: `"/0/l/0/a" must be a whole number`,
		`[{"l":[7654321]}]`:         `"/0/l/0" must be an object`,
		`[{"m":{"x":7654321}}]`:     `"/0/m/x" must be a string, in quotes`,
		`[{"m":7654321}]`:           `"/0/m" must be an object`,
		`[{"time":7654321}]`:        `"/0/time" must be a string of the right form`,
		`[{"time":"7654321"}]`:      `"/0/time" must be a string of the right form`,
		`[{"num":"7654321"}]`:       `"/0/num" must be a number`,
		`{"n":7654321}`:             `"" must be an array`,
	} {
		err := Unmarshal([]byte(in), Limits{}, &[]wanted{})
		var e *Error
		if !errors.As(err, &e) || e.Kind != Shape || e.Msg != want || strings.Contains(err.Error(), "7654321") {
			t.Errorf("Unmarshal(%s): %v, want %s", in, err, want)
		}
	}
}

func TestUnknownMembers(t *testing.T) {
	for in, want := range map[string]string{
		`{"name":"n","surprise":1}`:         `"surprise"`,
		`{"Name":"n"}`:                      `"Name"`, // names match exactly
		`{"inner":[{"a":1},{"a":2,"b":3}]}`: `"/inner/1/b"`,
	} {
		var got document
		err := Unmarshal([]byte(in), Limits{}, &got)
		var e *Error
		if !errors.As(err, &e) || e.Kind != Shape || !strings.Contains(e.Msg, want) {
			t.Errorf("Unmarshal(%s): %v, want kind Shape and %s named", in, err, want)
		}
		got = document{}
		if err := UnmarshalOpen([]byte(in), Limits{}, &got); err != nil {
			t.Errorf("UnmarshalOpen(%s): %v", in, err)
		}
		if in == `{"Name":"n"}` && got.Name != "" {
			t.Errorf("UnmarshalOpen took Name for name")
		}
	}
}
