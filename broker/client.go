package broker

import (
	"net/url"

	"github.com/toolgrant/toolgrant/grants"
	"github.com/toolgrant/toolgrant/identity"
)

const invalidClient = "invalid_client" // RFC 6749, Section 5.2

// authenticate finds out which OAuth client sends a token request, in one of
// two ways: it is a configured one and proves it (RFC 7523), or it says nothing
// of a client, and the subject token alone says who asks. Whoever presents more,
// or something else, must not be left to believe that it was looked at; so
// nothing falls back from the first way to the second.
func (b *Broker) authenticate(r *request, form url.Values) reply {
	bad := func(why grants.Reason, detail string) reply {
		return reply{why: why, code: invalidClient, detail: detail}
	}
	switch {
	case len(r.Header.Values("Authorization")) > 0:
		return bad(grants.BadCredential, "no Authorization header is looked at here: a client authenticates in the form, and who asks is the subject_token's subject")
	case b.cfg.Clients != nil:
	case form.Has("client_secret"), form.Has("client_assertion"), form.Has("client_assertion_type"):
		return bad(grants.BadCredential, "no client is configured here: the subject_token says who asks")
	default:
		return reply{}
	}
	// RFC 7523, Section 3 has the token endpoint's URL as an audience; the
	// issuer is what newer profiles ask for.
	audiences := []string{b.cfg.Issuer, b.publicURL() + "/oauth2/token"}
	id, err := b.cfg.Clients.Authenticate(form, "", audiences, r.now)
	switch err {
	case nil:
		r.client = id
	case identity.ErrNoClient:
	case identity.ErrBusy:
		return refused(grants.Limit, err.Error())
	default:
		return bad(grants.BadCredential, err.Error())
	}
	return reply{}
}

// sameParty refuses a subject token that was issued to another client than the
// one that sends it, and one of a client that must authenticate and did not:
// whoever came by it is not that client.
func (b *Broker) sameParty(r *request) reply {
	switch party := r.who.Party; {
	case r.client == "" && b.cfg.Clients.Must(party):
		return reply{why: grants.BadCredential, code: invalidClient, detail: "the subject_token was issued to a client that authenticates by private_key_jwt: send its client_assertion"}
	case r.client != "" && party != "" && party != r.client:
		return reply{why: grants.CredentialKind, code: "invalid_target", detail: "the subject_token was issued to another client"}
	}
	return reply{}
}

// mayBuy refuses to sell grants by the JSON API, in which no client
// authenticates, for an identity token of a client that must.
func (b *Broker) mayBuy(r *request) (grants.Reason, string) {
	if b.cfg.Clients.Must(r.who.Party) {
		return grants.CredentialKind, "the identity token was issued to an OAuth client that authenticates: buy at POST /oauth2/token, with its client_assertion"
	}
	return grants.None, ""
}
