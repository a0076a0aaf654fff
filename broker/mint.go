package broker

import (
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/toolgrant/toolgrant/catalog"
	"github.com/toolgrant/toolgrant/grants"
	"github.com/toolgrant/toolgrant/token"
)

// detailAnswer is one object of the answer's authorization_details: what was
// granted (RFC 9396, Section 7).
type detailAnswer struct {
	Type              string            `json:"type"`
	GrantID           grants.ID         `json:"grant_id"`
	Tool              string            `json:"tool"`
	Task              grants.ID         `json:"task"`
	TTL               int64             `json:"ttl"` // seconds left
	ExpiresAt         time.Time         `json:"expires_at"`
	MaxCalls          int64             `json:"max_calls,omitempty"`
	MaxSum            map[string]string `json:"max_sum,omitempty"`
	Constraints       []json.RawMessage `json:"constraints,omitempty"`
	ConstraintsDigest grants.Digest     `json:"constraints_digest,omitzero"`
	Once              bool              `json:"once,omitempty"` // for one call, of the input that was asked for
	Reused            bool              `json:"reused"`
	Renewed           grants.ID         `json:"renewed,omitempty"` // the grant that it stands in for
}

// tokenAnswer is RFC 8693, Section 2.2.1, and which server it is for.
type tokenAnswer struct {
	Server          string         `json:"server"`   // id
	Resource        string         `json:"resource"` // URI: the token's audience
	AccessToken     string         `json:"access_token"`
	IssuedTokenType string         `json:"issued_token_type"`
	TokenType       string         `json:"token_type"`
	ExpiresIn       int64          `json:"expires_in"` // seconds
	Scope           string         `json:"scope"`
	Details         []detailAnswer `json:"authorization_details"`
}

// mintAll mints one token for each server, in the order of first mention.
func (b *Broker) mintAll(r *request, gs []granted, rev grants.Rev) ([]tokenAnswer, error) {
	var servers []*catalog.Server
	of := map[*catalog.Server][]granted{}
	for _, g := range gs {
		if !slices.Contains(servers, g.tool.Server) {
			servers = append(servers, g.tool.Server)
		}
		of[g.tool.Server] = append(of[g.tool.Server], g)
	}
	tokens := make([]tokenAnswer, len(servers))
	for i, s := range servers {
		var err error
		if tokens[i], err = b.mint(r, s, of[s], rev); err != nil {
			return nil, err
		}
	}
	return tokens, nil
}

// mint makes the token of one server's grants.
func (b *Broker) mint(r *request, server *catalog.Server, gs []granted, rev grants.Rev) (tokenAnswer, error) {
	task, first := gs[0].task, &gs[0].grant
	ans := tokenAnswer{Server: server.ID, Resource: server.Resource, IssuedTokenType: typeAccessToken, TokenType: "Bearer"}
	c := token.Claims{
		Issuer: b.cfg.Issuer, Subject: first.Agent.ID(), Audience: server.Resource, ID: grants.NewID(token.IDPrefix),
		IssuedAt: r.now, NotBefore: first.NotBefore, Client: first.Client,
		Task: token.Task{ID: task.ID, Kind: task.Kind}, Rev: rev,
	}
	var scope []string
	for _, g := range gs {
		digest, err := grants.ConstraintsDigest(g.grant.Constraints)
		if err != nil {
			return tokenAnswer{}, err
		}
		if g.end.After(c.Expires) {
			c.Expires = g.end
		}
		c.Details = append(c.Details, token.Detail{
			Type: token.DetailType, GrantID: g.grant.ID, Tool: g.tool.ID, ConstraintsDigest: digest,
		})
		left := max(1, int64(g.end.Sub(b.cfg.Table.Now())/time.Second))
		ans.ExpiresIn = max(ans.ExpiresIn, left)
		d := detailAnswer{
			Type: token.DetailType, GrantID: g.grant.ID, Tool: g.tool.ID, Task: task.ID,
			TTL: left, ExpiresAt: g.end, MaxCalls: calls(&g.grant), MaxSum: sums(&g.grant),
			Constraints: g.grant.Constraints, ConstraintsDigest: digest, Once: !g.grant.Once.IsZero(), Reused: g.reused,
		}
		if g.old != nil {
			d.Renewed = g.old.ID
		}
		ans.Details = append(ans.Details, d)
		scope = append(scope, g.tool.ID)
	}
	ans.Scope = strings.Join(scope, " ")
	var err error
	ans.AccessToken, err = b.cfg.Keys.Mint(c)
	return ans, err
}
