package strictjson

import (
	"encoding"
	"errors"
	"reflect"

	"github.com/go-json-experiment/json"
)

// Unmarshal parses as Parse does, then decodes into the value that into points
// to: names match exactly, and a member that it has no field for is an error of
// kind Shape that names it, as one of another type is, which says what is
// expected. On an error, into may have been written in part.
// An `any` in into receives numbers as float64, rounded; use Parse, or a Number.
func Unmarshal(data []byte, lim Limits, into any) error {
	return unmarshal(data, lim, into, json.RejectUnknownMembers(true))
}

// UnmarshalOpen is Unmarshal, but members without a field are ignored. They are
// checked as strictly as the others.
func UnmarshalOpen(data []byte, lim Limits, into any) error {
	return unmarshal(data, lim, into)
}

func unmarshal(data []byte, lim Limits, into any, opts ...json.Options) error {
	if _, err := Parse(data, lim); err != nil {
		return err
	}
	err := json.Unmarshal(data, into, opts...)
	if err == nil {
		return nil
	}
	// The library's own text may quote the value; this one must not.
	var sem *json.SemanticError
	if !errors.As(err, &sem) {
		return &Error{Kind: Shape, Msg: "cannot be decoded"}
	}
	at := &Error{Offset: int(sem.ByteOffset), Kind: Shape}
	switch where := sem.JSONPointer; {
	case errors.Is(sem.Err, json.ErrUnknownName):
		at.Msg = "unknown member " + quote(where.LastToken()) + " at " + quote(string(where))
	default:
		at.Msg = quote(string(where)) + " must be " + expected(sem.GoType)
	}
	return at
}

var textUnmarshaler = reflect.TypeFor[encoding.TextUnmarshaler]()

// expected says in words what JSON a Go type is decoded from.
func expected(t reflect.Type) string {
	switch t {
	case nil:
		return "of another type"
	case reflect.TypeFor[Number]():
		return "a number"
	}
	if reflect.PointerTo(t).Implements(textUnmarshaler) {
		return "a string of the right form"
	}
	switch t.Kind() {
	case reflect.Pointer:
		return expected(t.Elem())
	case reflect.Bool:
		return "true or false"
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return "a whole number"
	case reflect.Float32, reflect.Float64:
		return "a number"
	case reflect.String:
		return "a string, in quotes"
	case reflect.Slice, reflect.Array:
		return "an array"
	case reflect.Map, reflect.Struct:
		return "an object"
	}
	return "of another type"
}
