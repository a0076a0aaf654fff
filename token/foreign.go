package token

import (
	"errors"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/toolgrant/toolgrant/strictjson"
)

// maxTime is the last second of the year 9999, behind which RFC 3339 ends.
const maxTime = 253402300799

// foreignLimits bound the claims of another issuer's token; what it may weigh
// is VerifyCompact's maxBytes.
var foreignLimits = strictjson.Limits{Depth: 16, Values: 4096}

// UnverifiedIssuer reads the iss of a compact JWS of at most maxBytes bytes, to
// find the keys that can verify it. Nothing else may be decided on it.
func UnverifiedIssuer(compact string, maxBytes int) (iss string, ok bool) {
	p, ok := parseCompact(compact, maxBytes)
	if !ok {
		return "", false
	}
	var unverified struct {
		Issuer string `json:"iss"`
	}
	err := strictjson.UnmarshalOpen(p.unverifiedPayload, foreignLimits, &unverified)
	return unverified.Issuer, err == nil && unverified.Issuer != ""
}

// ParsePayload reads the claims of another issuer's token from the payload
// that VerifyCompact gave: strict JSON, any claims. A string, []any and
// map[string]any are what they are in JSON; for a date see NumericDate.
func ParsePayload(payload []byte) (map[string]any, error) {
	v, err := strictjson.Parse(payload, foreignLimits)
	if err != nil {
		return nil, err
	}
	claims, ok := v.(map[string]any)
	if !ok {
		return nil, errors.New("payload: not an object")
	}
	return claims, nil
}

// NumericDate reads a claim that is a time (RFC 7519, Section 2). The standard
// permits fractions; they are refused, as is everything outside the years 1970
// to 9999, which no clock will show.
func NumericDate(claim any) (at time.Time, ok bool) {
	number, _ := claim.(strictjson.Number)
	n, ok := number.Int64()
	if !ok || n <= 0 || n > maxTime {
		return time.Time{}, false
	}
	return unix(n), true
}

func unix(seconds int64) time.Time { return time.Unix(seconds, 0).UTC() }

// ValidText reports whether s can be a name in logs and policies: 1 to limit
// bytes of UTF-8 in which nothing would be invisible there, such as control
// characters or the marks that turn the direction of writing.
func ValidText(s string, limit int) bool {
	return s != "" && len(s) <= limit && utf8.ValidString(s) &&
		strings.IndexFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) < 0
}
