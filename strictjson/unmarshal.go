package strictjson

import (
	"errors"

	"github.com/go-json-experiment/json"
)

// Unmarshal parses as Parse does, then decodes into the value that into points
// to: names match exactly, and a member that it has no field for is an error of
// kind Shape that names it. On an error, into may have been written in part.
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
	case where == "":
		at.Msg = "the text does not hold what is expected"
	default:
		at.Msg = "not what is expected at " + quote(string(where))
	}
	return at
}
