package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/toolgrant/toolgrant/client"
)

const renewWithin = 10 * time.Second

// purse holds the token for one server while a command runs, in memory for the
// proxy and in a file for the command.
type purse struct {
	server string
	asks   []client.GrantRequest // what was asked for at first
	file   string

	// Written by the loop that renews, which alone reads them without mu.
	mu   sync.Mutex
	held client.Token
	ends time.Time // of the first grant, by this machine's clock
}

func (p *purse) token() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.held.AccessToken
}

// purses writes the token files, and says what was granted. asked is when the
// tokens were asked for: their time began no sooner.
func (x *execution) purses(tokens []client.Token, asked time.Time, dir string) ([]*purse, error) {
	var all []*purse
	variables := map[string]string{}
	for _, t := range tokens {
		if other, twice := variables[fileVariable(t.Server)]; twice {
			return nil, usageError(fmt.Errorf("servers %s and %s would share the variable %s: run them apart", other, t.Server, fileVariable(t.Server)))
		}
		variables[fileVariable(t.Server)] = t.Server
		p := &purse{server: t.Server, file: filepath.Join(dir, t.Server+".token")}
		for _, a := range x.asks {
			if strings.HasPrefix(a.Tool, t.Server+"/") {
				p.asks = append(p.asks, a)
			}
		}
		if err := p.put(t, asked); err != nil {
			return nil, err
		}
		for _, g := range t.Grants {
			x.say("%s: %s for %q until %s", how(g), g.ID, g.Tool, g.ExpiresAt.Local().Format(time.RFC3339))
		}
		all = append(all, p)
	}
	return all, nil
}

// put takes a token into use.
func (p *purse) put(t client.Token, asked time.Time) error {
	p.mu.Lock()
	p.held, p.ends = t, asked.Add(time.Duration(t.ExpiresIn)*time.Second)
	for _, g := range t.Grants { // a manifest has times of its own for each tool
		if end := asked.Add(time.Duration(g.TTL) * time.Second); end.Before(p.ends) {
			p.ends = end
		}
	}
	p.mu.Unlock()
	if err := replaceFile(p.file, t.AccessToken); err != nil {
		return fmt.Errorf("writing the token file: %w", err)
	}
	return nil
}

// keep renews the token when two thirds of what is left of it are over, and
// again at two thirds of the rest if that fails, until it has expired or the
// task leaves no more.
func (x *execution) keep(ctx context.Context, p *purse) {
	for {
		left := time.Until(p.ends)
		switch {
		case left <= 0:
			x.say("the grants for %s are over, and could not be renewed", p.server)
			return
		case !p.expires().Before(x.task.Deadline.Truncate(time.Second)):
			return // no renewal goes past the task's deadline
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(max(left*2/3, time.Second)):
		}
		before := p.expires()
		if err := x.renew(ctx, p); ctx.Err() != nil {
			return
		} else if err != nil {
			x.say("renewing the grants for %s, which end in %s: %v", p.server, inWords(time.Until(p.ends)), err)
		} else if !p.expires().After(before) {
			x.say("the grants for %s are renewed and end no later (does the identity token end?)", p.server)
		}
	}
}

// expires is the end of the first grant, by the broker's clock.
func (p *purse) expires() time.Time {
	first := p.held.Grants[0].ExpiresAt
	for _, g := range p.held.Grants {
		if g.ExpiresAt.Before(first) {
			first = g.ExpiresAt
		}
	}
	return first
}

// renew buys a further token, as at the start: a new decision, whose budgets are
// the task's and are not refilled. It leaves the grants that are held to their
// own end, so that a call that is under way with the old token is not cut off.
func (x *execution) renew(ctx context.Context, p *purse) error {
	ctx, cancel := context.WithTimeout(ctx, renewWithin)
	defer cancel()
	asked := time.Now()
	tokens, err := x.client.Grant(ctx, client.GrantsRequest{Task: x.task.ID, Grants: p.asks})
	if err != nil {
		return err
	}
	if len(tokens) != 1 || tokens[0].Server != p.server {
		return fmt.Errorf("the broker's answer is not one token for %s", p.server)
	}
	return p.put(tokens[0], asked)
}
