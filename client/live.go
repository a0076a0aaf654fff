package client

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"time"
)

// LiveGrant is a grant that is alive at the broker, as GET /v1/grants shows it:
// without its token and without the text of its constraints.
type LiveGrant struct {
	ID                string            `json:"grant_id"` // "g_…"
	Task              string            `json:"task"`
	Kind              string            `json:"kind"`      // the task's
	Agent             string            `json:"agent"`     // agent id of who may call
	Requester         string            `json:"requester"` // agent id of who asked for it
	Tool              string            `json:"tool"`      // "SERVER/TOOL"
	NotBefore         time.Time         `json:"not_before"`
	ExpiresAt         time.Time         `json:"expires_at"`         // no call passes at or after it
	TTL               int64             `json:"ttl"`                // seconds that are left
	MaxCalls          int64             `json:"max_calls,omitzero"` // 0: not bounded
	MaxSum            map[string]string `json:"max_sum,omitempty"`  // JSON Pointer into the input -> decimal
	ConstraintsDigest string            `json:"constraints_digest,omitempty"`
	Once              bool              `json:"once,omitzero"` // for one call, of the input that it was asked for
	Depth             int               `json:"depth"`         // how often it was delegated
}

// GrantFilter says which grants to list: those to which every field that is
// not "" applies.
type GrantFilter struct {
	Task  string // task id
	Agent string // agent id
	Tool  string // "SERVER/TOOL"
}

// Grants lists live grants (GET /v1/grants): at most 1000 of those that the
// caller may see; more says that there are others. Errors as StartTask.
func (c *Client) Grants(ctx context.Context, f GrantFilter) (grants []LiveGrant, more bool, err error) {
	if f.Task != "" {
		if err := checkTask(f.Task); err != nil {
			return nil, false, err
		}
	}
	var out struct {
		Grants []LiveGrant `json:"grants"`
		More   bool        `json:"more"`
	}
	query := url.Values{"task": {f.Task}, "agent": {f.Agent}, "tool": {f.Tool}}
	if err := c.call(ctx, http.MethodGet, []string{"v1", "grants"}, query, nil, &out); err != nil {
		return nil, false, fmt.Errorf("listing grants: %w", err)
	}
	if !allValid(out.Grants) {
		return nil, false, fmt.Errorf("listing grants: the broker's answer is no list of grants")
	}
	return out.Grants, out.More, nil
}

func allValid(grants []LiveGrant) bool {
	for _, g := range grants {
		if !validID(g.ID, "g_") || !validID(g.Task, "t_") {
			return false
		}
	}
	return true
}

// Revoke ends one grant (DELETE /v1/grants/{id}): no call that starts after
// this returned nil passes under it. Errors as StartTask.
func (c *Client) Revoke(ctx context.Context, grant string) error {
	if err := checkGrant(grant); err != nil {
		return err
	}
	var out struct {
		Grant string `json:"grant"`
		State string `json:"state"`
	}
	if err := c.call(ctx, http.MethodDelete, []string{"v1", "grants", grant}, nil, nil, &out); err != nil {
		return fmt.Errorf("revoking the grant: %w", err)
	}
	if out.Grant != grant || out.State != "revoked" {
		return fmt.Errorf("revoking the grant: the broker does not say that %s is revoked", grant)
	}
	return nil
}

// Scope says what RevokeAll matches.
type Scope string

// The scopes of RevokeAll; its key is then a task id, an agent id or
// "SERVER/TOOL".
const (
	ScopeTask  Scope = "task"
	ScopeAgent Scope = "agent"
	ScopeTool  Scope = "tool"
)

// RevokeAll ends every grant that matches and was issued before (DELETE
// /v1/grants?SCOPE=KEY); with ScopeTask the task ends, too. No call that starts
// after this returned nil passes under one of them. Errors as StartTask.
func (c *Client) RevokeAll(ctx context.Context, scope Scope, key string) error {
	done := "revoked"
	switch scope {
	case ScopeTask:
		done = StateEnded
		if err := checkTask(key); err != nil {
			return err
		}
	case ScopeAgent, ScopeTool:
		if key == "" {
			return fmt.Errorf("%w: the %s whose grants are to end is not named", ErrInvalid, scope)
		}
	default:
		return fmt.Errorf("%w: scope %q: write task, agent or tool", ErrInvalid, scope)
	}
	var out struct {
		Scope Scope  `json:"scope"`
		Key   string `json:"key"`
		State string `json:"state"`
	}
	if err := c.call(ctx, http.MethodDelete, []string{"v1", "grants"}, url.Values{string(scope): {key}}, nil, &out); err != nil {
		return fmt.Errorf("revoking grants: %w", err)
	}
	if out.Scope != scope || out.Key != key || out.State != done {
		return fmt.Errorf("revoking grants: the broker does not say that those of %s %s are revoked", scope, key)
	}
	return nil
}

func checkGrant(id string) error {
	if !validID(id, "g_") {
		return fmt.Errorf("%w: %q is not a grant id (g_ and 26 characters)", ErrInvalid, id)
	}
	return nil
}
