package broker

import (
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/toolgrant/toolgrant/grants"
)

// identify says who makes an API call. The door asks before it reads the body,
// and the handler again: its refusal comes after what is noted of the request.
func (b *Broker) identify(r *request) (grants.Reason, string) {
	if !r.asked {
		r.asked = true
		r.refusal, r.detail = b.bearer(r)
	}
	return r.refusal, r.detail
}

// verified reports whether it is known who asks, within its agent's allowance.
func (r *request) verified() bool { return r.asked && r.refusal == grants.None }

// bearer verifies the bearer identity token (RFC 6750, Section 2.1; header alone).
func (b *Broker) bearer(r *request) (grants.Reason, string) {
	values := r.Header.Values("Authorization")
	switch {
	case r.URL.Query().Has("access_token"):
		return grants.Ambiguous, "a token in the query is not read: send it in the Authorization header"
	case len(values) == 0:
		return grants.NoCredential, ""
	case len(values) > 1:
		return grants.Ambiguous, ""
	}
	scheme, compact, ok := strings.Cut(values[0], " ")
	if !ok || !strings.EqualFold(scheme, "Bearer") || strings.ContainsAny(compact, " ,\t") {
		return grants.Ambiguous, "send Authorization: Bearer and one identity token"
	}
	return b.verify(r, compact)
}

// verify checks that an identity token is genuine and meant for the broker and
// for no tool server: one for both would let a server that sees it buy grants.
func (b *Broker) verify(r *request, compact string) (grants.Reason, string) {
	who, why := b.limits.verify(r, compact, b.cfg.Identity.Names, b.cfg.Identity.Verify)
	if why != grants.None {
		return why, ""
	}
	// It is known who this is, so its denials are its own from here on and never
	// folded, be the token meant for us or not. Its allowance is not spent before
	// that is clear: whoever else is given one of its tokens could spend it.
	r.who = who
	aud, ok := b.cfg.Identity.BrokerAudience(who.Issuer)
	if !ok || !who.For(aud) {
		return grants.CredentialKind, "the identity token is not meant for the broker: get one whose aud is " + strconv.Quote(aud)
	}
	for i := range b.cfg.Catalog.Servers {
		if who.For(b.cfg.Catalog.Servers[i].Resource) {
			return grants.CredentialKind, "the identity token's aud names the broker and a tool server: get one whose aud is " + strconv.Quote(aud) + " alone"
		}
	}
	if !b.limits.allow(r) {
		return grants.Limit, "too many requests of this agent: wait a second"
	}
	return grants.None, ""
}

// mustBeJSON refuses a body of another type.
func (r *request) mustBeJSON() (grants.Reason, string) {
	if ct, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";"); !strings.EqualFold(strings.TrimSpace(ct), "application/json") {
		return grants.Encoding, "the body's content-type is application/json"
	}
	return grants.None, ""
}

// noBody refuses a body that nobody reads: who sends one means something by it.
func (r *request) noBody() (grants.Reason, string) {
	if len(r.body) > 0 {
		return grants.Malformed, "this call takes no body"
	}
	return grants.None, ""
}

// parameters reads the query: the named ones alone, each at most once.
func (r *request) parameters(names ...string) (url.Values, grants.Reason, string) {
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, grants.Malformed, "the query is not well formed"
	}
	for name, values := range q {
		if !slices.Contains(names, name) {
			return nil, grants.Malformed, "the query may have " + strings.Join(names, ", ") + ", and not " + strconv.Quote(cut(name))
		}
		if len(values) > 1 || values[0] == "" {
			return nil, grants.Malformed, "in the query, " + name + " comes once, with a value"
		}
	}
	return q, grants.None, ""
}

// cut keeps what a caller sent from growing an answer.
func cut(s string) string {
	const most = 64
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}

// sourceAddress is the address out of a request's RemoteAddr; "" for none.
func sourceAddress(remote string) string {
	at, err := netip.ParseAddrPort(remote)
	if err != nil {
		return ""
	}
	return at.Addr().Unmap().String()
}
