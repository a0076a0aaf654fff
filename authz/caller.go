package authz

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/toolgrant/toolgrant/grants"
	"github.com/toolgrant/toolgrant/token"
)

// caller is who the one credential names; of an expired token, its task and
// grants alone.
type caller struct {
	agent  grants.Principal
	task   grants.ID      // of a grant token
	ends   time.Time      // of the credential; a token may end before its grants do
	grants []token.Detail // of a grant token, in its order
}

// grantsFor returns the ids of the token's grants for a tool.
func (c *caller) grantsFor(tool string) []grants.ID {
	var ids []grants.ID
	for _, det := range c.grants {
		if det.Tool == tool {
			ids = append(ids, det.GrantID)
		}
	}
	return ids
}

// named is the first of the token's grants for a tool, whatever became of it; ""
// for none.
func (c *caller) named(tool string) grants.ID {
	for _, det := range c.grants {
		if det.Tool == tool {
			return det.GrantID
		}
	}
	return ""
}

// names reports whether the token's agent and task are the grant's.
func (c *caller) names(live grants.Live) bool {
	g := live.Grant()
	return g.Agent.ID() == c.agent.ID() && g.Task == c.task
}

// identify verifies the credential: a grant token for this server, an identity
// token whose audience is this server and not the broker too, or without either
// the client certificate. The text is for the caller; "": the reason's own.
func (d *Door) identify(ctx context.Context, c *check) (grants.Reason, string) {
	if c.call.credential == "" {
		return d.identifyByCertificate(c)
	}
	resource := c.call.server.Resource
	if typ, ok := token.UnverifiedType(c.call.credential); ok && !strings.EqualFold(typ, token.Typ) {
		return d.identifyByIdentity(c, resource)
	}
	claims, why := d.cfg.Tokens.Verify(c.call.credential, resource, c.now)
	if why == grants.ExpiredToken {
		// For the record. Its agent stays unnamed, or whoever holds one old token
		// could fill the log with denials that are not folded.
		c.caller.task, c.caller.grants = d.cfg.Tokens.Names(c.call.credential)
	}
	if why != grants.None {
		return why, ""
	}
	if !claims.CNF.Digest().IsZero() {
		return grants.UnboundToken, "the token is bound to a key, and this door cannot verify the proof"
	}
	alias, sub, ok := strings.Cut(claims.Subject, "/")
	if !ok {
		return grants.BadCredential, ""
	}
	c.caller = caller{
		agent: grants.Principal{Issuer: alias, Subject: sub},
		task:  claims.Task.ID, ends: claims.Expires, grants: claims.Details,
	}
	// A node that has not yet seen the grant's writing waits for it, a little.
	if d.cfg.Table.Rev().Compare(claims.Rev) < 0 {
		wait, cancel := context.WithTimeout(ctx, d.cfg.MaxLag)
		defer cancel()
		if d.cfg.Table.Wait(wait, claims.Rev) != nil {
			return grants.NotFresh, ""
		}
		c.now = d.cfg.Table.Now()
	}
	if !c.now.Before(claims.Expires) {
		return grants.ExpiredToken, ""
	}
	return grants.None, ""
}

func (d *Door) identifyByIdentity(c *check, resource string) (grants.Reason, string) {
	who, why := d.cfg.Identity.Verify(c.call.credential, c.now)
	if why != grants.None {
		return why, ""
	}
	// One token for both doors would let a tool server, which sees its callers'
	// tokens, buy grants with them.
	if broker, _ := d.cfg.Identity.BrokerAudience(who.Issuer); !who.For(resource) || who.For(broker) {
		return grants.CredentialKind, "this tool takes a grant's token, for which ask the broker; or, where policy needs no grant, an identity token whose aud is " +
			strconv.Quote(resource) + " and not also the broker's"
	}
	if !c.call.peer.sentBy(who.Principal) {
		return grants.NoGrant, othersCertificate
	}
	c.caller = caller{agent: who.Principal, ends: who.Expires}
	return grants.None, ""
}
