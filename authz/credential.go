package authz

import (
	"encoding/base64"
	"net/url"
	"regexp"
	"strconv"
	"strings"

	"github.com/toolgrant/toolgrant/grants"
	"github.com/toolgrant/toolgrant/token"
)

// readCredential reads the one credential, which stands in its header: RFC 6750,
// Section 2.1 and no other way. Two of them, one that Envoy joined from two
// ("A,B"), and one in a place that is not read are refused, whatever they hold.
// With none at all it is left "" where a client certificate may stand in for it.
// brokers says of a JWT whether it is an identity token for the broker.
func (c *call) readCredential(where wanted, brokers func(string) bool) (grants.Reason, string) {
	h, header := &c.headers, where.credential
	in := "the header " + strconv.Quote(header) + form(header)
	if inQuery(c.query) {
		return grants.Ambiguous, "a token in the query is not read: send it in " + in
	}
	stray := h.misplaced
	if stray == "" && !where.passAuthorization && len(h.authorization) > 0 {
		stray = "authorization" // no tool's, and yet where clients put tokens
	}
	switch {
	case len(h.credentials) == 0 && stray != "":
		return grants.NoCredential, "this tool takes no token in " + strconv.Quote(stray) + ": send it in " + in
	case len(h.credentials) == 0 && c.peer.name == "":
		return grants.NoCredential, "send the grant's token in " + in
	case len(h.credentials) == 1 && serialisedAsJSON(h.credentials[0]):
		return grants.BadCredential, "a token is a JWS in compact form"
	case len(h.credentials) > 1, len(h.credentials) == 1 && strings.Contains(h.credentials[0], ","):
		return grants.Ambiguous, "send one credential, in " + in
	case h.misplaced != "":
		return grants.Ambiguous, strconv.Quote(h.misplaced) + " is for the tokens of other tools: send one credential, in " + in
	case len(h.credentials) == 1 && stray != "":
		return grants.Ambiguous, strconv.Quote(stray) + " is where clients put tokens, and this tool takes none there: send one credential, in " + in
	}
	if len(h.credentials) == 1 {
		value := h.credentials[0]
		if header == "authorization" {
			scheme, rest, ok := strings.Cut(value, " ")
			if !ok || !strings.EqualFold(scheme, "Bearer") {
				return grants.BadCredential, "the scheme is Bearer"
			}
			value = strings.TrimLeft(rest, " ")
		}
		if value == "" || strings.ContainsAny(value, " \t") {
			return grants.Ambiguous, "the header holds more or less than one token"
		}
		c.credential = value
	}
	if where.passAuthorization && handsOver(h.authorization, c.credential, brokers) {
		return grants.Ambiguous, "authorization is the tool's own here, once, and not a place for a token that buys or holds grants: send a grant's in " + in
	}
	return grants.None, ""
}

// inQuery reports whether the query holds a token as RFC 6750, Section 2.3 has it.
func inQuery(query string) bool {
	for part := range strings.SplitSeq(query, "&") {
		name, _, _ := strings.Cut(part, "=")
		if plain, err := url.QueryUnescape(name); err == nil {
			name = plain
		}
		if strings.EqualFold(name, "access_token") {
			return true
		}
	}
	return false
}

// dotted finds runs of segments in which a JWS in compact form may stand.
var dotted = regexp.MustCompile(`[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+){2,}`)

// handsOver reports whether the authorization that the tool gets holds what is
// kept from it: the credential, any grant token, or an identity token with which
// the tool could buy grants; also behind another word, percent-encoded, or inside
// base64, as Basic has it (RFC 7617, Section 2). It keeps a client from giving away
// by mistake what it holds; who means to can write it into an argument as well.
// Two of the header, which Envoy may have joined ("A,B"), count too: nobody knows
// which one the tool reads.
func handsOver(authorization []string, credential string, brokers func(string) bool) bool {
	if len(authorization) == 0 {
		return false
	}
	value := authorization[0]
	if len(authorization) > 1 || strings.Contains(value, ",") {
		return true
	}
	texts := []string{value}
	if plain, err := url.PathUnescape(value); err == nil {
		texts = append(texts, plain)
	}
	for word := range strings.FieldsSeq(value) {
		word = strings.TrimRight(word, "=")
		for _, enc := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
			if plain, err := enc.DecodeString(word); err == nil {
				texts = append(texts, string(plain))
			}
		}
	}
	for _, text := range texts {
		if credential != "" && strings.Contains(text, credential) {
			return true
		}
		for _, run := range dotted.FindAllString(text, -1) {
			segments := strings.Split(run, ".")
			for i := range len(segments) - 2 {
				found := strings.Join(segments[i:i+3], ".")
				if typ, ok := token.UnverifiedType(found); ok && strings.EqualFold(typ, token.Typ) || brokers(found) {
					return true
				}
			}
		}
	}
	return false
}

// buysGrants reports whether a JWT is an identity token that is good at the
// broker.
func (d *Door) buysGrants(compact string) bool {
	who, why := d.cfg.Identity.Verify(compact, d.cfg.Table.Now())
	if why != grants.None {
		return false
	}
	broker, ok := d.cfg.Identity.BrokerAudience(who.Issuer)
	return ok && who.For(broker)
}

// serialisedAsJSON reports whether the value is, or has behind a scheme, a JSON
// object: a JWS in the form of RFC 7515, Section 7.2, whose commas do not say
// that it is more than one.
func serialisedAsJSON(value string) bool {
	_, rest, _ := strings.Cut(value, " ")
	return strings.HasPrefix(value, "{") || strings.HasPrefix(strings.TrimLeft(rest, " "), "{")
}

// form is how a credential is written in a header of that name.
func form(header string) string {
	if header == "authorization" {
		return ": Bearer TOKEN"
	}
	return ": the token alone"
}
