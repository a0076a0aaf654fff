package identity

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/toolgrant/toolgrant/token"
)

const (
	maxSubject   = 256 // bytes
	maxGroup     = 128 // bytes
	maxGroups    = 128
	maxAudience  = 1024 // bytes
	maxAudiences = 16
)

// claims is what is read of a payload; other claims are ignored.
type claims struct {
	issuer, subject, id string
	party               string // azp, or else client_id; "" for none
	audiences, groups   []string
	issuedAt, notBefore time.Time // zero if absent
	expires             time.Time
}

func (iss *issuer) parse(payload []byte) (claims, error) {
	m, err := token.ParsePayload(payload)
	if err != nil {
		return claims{}, err
	}
	c, err := registered(m)
	if err != nil {
		return claims{}, err
	}
	if v, found := m[iss.GroupsClaim]; found {
		c.groups, err = iss.groups(v)
	}
	return c, err
}

// registered reads the claims whose names are registered with IANA.
func registered(m map[string]any) (claims, error) {
	var c claims
	var client string
	var errs [9]error
	c.issuer, errs[0] = text(m, "iss", maxAudience, true)
	c.subject, errs[1] = text(m, "sub", maxSubject, true)
	c.id, errs[2] = text(m, "jti", maxSubject, false)
	if errs[1] == nil && !validSubject(c.subject) {
		errs[1] = errors.New("sub: a blank at its begin or end")
	}
	c.expires, errs[3] = date(m, "exp", true)
	c.notBefore, errs[4] = date(m, "nbf", false)
	c.issuedAt, errs[5] = date(m, "iat", false)
	c.audiences, errs[6] = audiences(m["aud"])
	c.party, errs[7] = text(m, "azp", maxSubject, false)      // OpenID Connect Core 1.0, Section 2
	client, errs[8] = text(m, "client_id", maxSubject, false) // RFC 9068, Section 2.2
	if err := errors.Join(errs[:]...); err != nil {
		return claims{}, err
	}
	c.party = cmp.Or(c.party, client)
	return c, nil
}

func text(m map[string]any, name string, limit int, required bool) (string, error) {
	v, found := m[name]
	if !found && !required {
		return "", nil
	}
	s, ok := v.(string)
	if !ok || !token.ValidText(s, limit) {
		return "", fmt.Errorf("%s: not a printable string of 1 to %d bytes", name, limit)
	}
	return s, nil
}

func date(m map[string]any, name string, required bool) (time.Time, error) {
	v, found := m[name]
	if !found && !required {
		return time.Time{}, nil
	}
	at, ok := token.NumericDate(v)
	if !ok {
		return time.Time{}, fmt.Errorf("%s: not whole seconds since 1970", name)
	}
	return at, nil
}

// audiences reads aud: a string, or an array of them (RFC 7519, Section
// 4.1.3).
func audiences(v any) ([]string, error) {
	if s, ok := v.(string); ok {
		v = []any{s}
	}
	return texts("aud", v, 1, maxAudiences, maxAudience)
}

func (iss *issuer) groups(v any) ([]string, error) {
	groups, err := texts(iss.GroupsClaim, v, 0, maxGroups, maxGroup)
	if err != nil {
		return nil, err
	}
	for i, g := range groups {
		if to, mapped := iss.Groups[g]; mapped {
			groups[i] = to
		} else {
			groups[i] = iss.Alias + "/" + g
		}
	}
	slices.Sort(groups)
	return slices.Compact(groups), nil
}

func texts(name string, v any, least, most, limit int) ([]string, error) {
	list, ok := v.([]any)
	if !ok || len(list) < least || len(list) > most {
		return nil, fmt.Errorf("%s: not an array of %d to %d strings", name, least, most)
	}
	var out []string
	for _, item := range list {
		s, ok := item.(string)
		if !ok || !token.ValidText(s, limit) {
			return nil, fmt.Errorf("%s: not printable strings of 1 to %d bytes", name, limit)
		}
		out = append(out, s)
	}
	return out, nil
}
