package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/toolgrant/toolgrant/audit"
	"github.com/toolgrant/toolgrant/authz"
	"github.com/toolgrant/toolgrant/authz/mcp"
	"github.com/toolgrant/toolgrant/broker"
	"github.com/toolgrant/toolgrant/catalog"
	"github.com/toolgrant/toolgrant/cedar"
	"github.com/toolgrant/toolgrant/envoy"
	"github.com/toolgrant/toolgrant/grants"
	"github.com/toolgrant/toolgrant/identity"
	"github.com/toolgrant/toolgrant/replay"
	"github.com/toolgrant/toolgrant/surface"
	"github.com/toolgrant/toolgrant/token"
)

// rules is what is read from files. The policies and the issuers' keys are read
// again while serving; the catalogue, which Envoy's configuration was made from,
// is not.
type rules struct {
	catalog  *catalog.Catalog
	identity *identity.Verifier
	clients  *identity.Clients // nil: none are configured
	decides  engine
	policies *cedar.Live // that it decides by; nil: it is another engine
	shadow   *cedar.Live // candidates; nil: there are none
}

// hooks hear of what is read again while serving; the zero value hears nothing.
type hooks struct {
	policies cedar.LiveConfig
	shadow   cedar.LiveConfig
	engine   func() // another engine, or what bounds it, has changed
	issuer   func(alias string, changed bool, err error)
}

func loadRules(cfg *Config, log *zap.Logger, hear hooks) (*rules, error) {
	var r rules
	var err error
	if r.catalog, err = catalog.Load(cfg.Catalogue); err != nil {
		return nil, fmt.Errorf("catalogue: %w", err)
	}
	if err := r.loadIdentity(cfg, log, hear); err != nil {
		return nil, err
	}
	// What cannot be printed for Envoy cannot be served either.
	if _, err := envoy.Config(envoyOptions(cfg, r.catalog)); err != nil {
		return nil, err
	}
	if cfg.PDP.on() {
		changed := hear.engine
		if changed == nil {
			changed = func() {}
		}
		r.decides, err = openTheirs(cfg, r.catalog, log, changed)
		return &r, err
	}
	from := cedar.Config{
		Dir: cfg.Policies, Manifests: cfg.Manifests, Catalog: r.catalog, Groups: r.identity.KnownGroups(), Aliases: aliases(cfg),
	}
	if r.policies, err = cedar.Open(from, hear.policies); err != nil {
		return nil, fmt.Errorf("policies: %w", err)
	}
	r.decides = ours{r.policies}
	if cfg.Shadow.on() {
		from.Dir, from.Manifests = cfg.Shadow.Policies, cmp.Or(cfg.Shadow.Manifests, cfg.Manifests)
		if r.shadow, err = cedar.Open(from, hear.shadow); err != nil {
			return nil, fmt.Errorf("shadow: %w", err)
		}
	}
	return &r, nil
}

// aliases are the names before the slash of every agent that there can be.
func aliases(cfg *Config) []string {
	var names []string
	for _, i := range cfg.Identity.Issuers {
		names = append(names, i.Alias)
	}
	if a := cfg.Identity.Certificates.Alias; a != "" && !slices.Contains(names, a) {
		names = append(names, a)
	}
	return names
}

func (r *rules) loadIdentity(cfg *Config, log *zap.Logger, hear hooks) error {
	issuers := make([]identity.Issuer, 0, len(cfg.Identity.Issuers))
	for _, i := range cfg.Identity.Issuers {
		issuers = append(issuers, identity.Issuer{
			Alias: i.Alias, URL: i.Issuer, Audience: i.Audience, GroupsClaim: i.GroupsClaim, Groups: i.Groups,
			JWKSFile: i.JWKSFile, JWKSURL: i.JWKSURL, CAFile: i.CA, BearerFile: i.BearerFile,
		})
		// An audience that is also a tool server's would make one token good for
		// both doors.
		if s, ok := r.catalog.ServerByResource(i.Audience); ok {
			return fmt.Errorf("identity: issuer %q: audience %q is the resource of server %q: the broker needs one of its own", i.Alias, i.Audience, s.ID)
		}
	}
	var err error
	if r.identity, err = identity.New(identity.Config{
		Issuers: issuers, Certificates: cfg.Identity.Certificates.Alias, OnRefresh: hear.issuer, Logger: log,
	}); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("%w (for development, `toolgrant identity --dir FOLDER` makes an issuer and its jwks.json)", err)
		}
		return err
	}
	if len(cfg.Clients) == 0 {
		return nil
	}
	clients := make([]identity.Client, 0, len(cfg.Clients))
	for _, c := range cfg.Clients {
		clients = append(clients, identity.Client{ID: c.ID, Auth: c.Auth, JWKSFile: c.JWKSFile})
	}
	r.clients, err = identity.NewClients(clients)
	return err
}

// parts is everything behind the doors, wired.
type parts struct {
	rules
	log     *zap.Logger
	keys    *token.Keys
	tokens  *token.Verifier
	trail   *audit.Log
	inputs  *replay.Inputs // nil: not kept
	beside  *replay.Shadow // nil: no candidates
	signals *audit.Signals
	metrics *metrics
	health  *health
	store   *grants.Memory
	table   *grants.Table
	check   *authz.Door
	seal    *mcp.Seal
	surface *surface.Surface // nil: the catalogue has no MCP server
	issue   *broker.Broker
	swapped chan struct{} // the policies were reloaded; holds one
}

// wire reads all files and puts the parts together. The caller closes trail.
func wire(cfg *Config, log *zap.Logger) (*parts, error) {
	p := &parts{log: log, metrics: newMetrics(), swapped: make(chan struct{}, 1)}
	r, err := loadRules(cfg, log, hooks{
		policies: cedar.LiveConfig{OnReload: p.reloaded, OnFailure: p.notReloaded},
		shadow: cedar.LiveConfig{
			OnReload: func(_, now *cedar.Set) {
				log.Info("the candidates of the shadow were reloaded", zap.Stringer("revision", now.Revision()))
			},
			OnFailure: func(err error) {
				log.Error("the changed candidates of the shadow do not load; the last good ones are compared", zap.Error(err))
			},
		},
		engine: p.sweepSoon,
		issuer: func(alias string, _ bool, err error) { p.metrics.refreshed(alias, err) },
	})
	if err != nil {
		return nil, usageError(err)
	}
	p.rules = *r
	if p.keys, err = token.OpenKeys(cfg.Keys.Dir, cfg.Keys.Alg); err != nil {
		return nil, usageError(err)
	}
	if p.tokens, err = p.keys.Verifier(cfg.Broker.Issuer, cfg.Limits.MaxTTL); err != nil {
		return nil, usageError(err)
	}
	p.trail, err = audit.Open(audit.Config{File: cfg.Audit.File, Fsync: cfg.Audit.Fsync, Key: p.keys.AuditKey(), Logger: log})
	if err != nil {
		return nil, err
	}
	if err := p.keepQuestions(cfg, log); err != nil {
		return nil, errors.Join(err, p.close())
	}
	p.metrics.know(p.catalog)
	p.signals = audit.NewSignals(audit.SignalsConfig{
		GrantRequests: cfg.Detect.GrantRequests, Window: cfg.Detect.Window, Logger: log,
		OnOutside: p.metrics.outsideWindow, OnSpike: p.metrics.spike,
	})
	p.store = grants.NewMemory(grants.MemoryConfig{
		GrantsPerAgent: cfg.Limits.GrantsPerAgent, TasksPerOwner: cfg.Limits.TasksPerOwner,
	})
	p.table = grants.NewTable(grants.TableConfig{Draw: p.store.Draw, Broke: func(err error) {
		log.Warn("the watch of the store broke; starting it anew", zap.Error(err))
	}})
	p.watch(log)
	p.check = authz.New(p.doorConfig(cfg, log))
	p.issue = broker.New(p.brokerConfig(cfg, log))
	p.lookAfter()
	return p, nil
}

// watch makes the surface, if there are MCP servers whose answers have to be seen.
func (p *parts) watch(log *zap.Logger) {
	for i := range p.catalog.Servers {
		if p.catalog.Servers[i].MCP != nil {
			p.seal = mcp.NewSeal()
			p.surface = surface.New(surface.Config{Catalog: p.catalog, Seal: p.seal, Logger: log})
			return
		}
	}
}

// watched is what the call door hears of the surface.
func (p *parts) watched() *authz.Watched {
	if p.surface == nil {
		return nil
	}
	return &authz.Watched{
		Seal: p.seal, Session: p.surface.Session, PinSession: p.surface.PinSession, EndSession: p.surface.EndSession,
		Task: func(server, id string) (authz.Started, bool) {
			t, known := p.surface.Task(server, id)
			return authz.Started(t), known
		},
	}
}

// doorConfig is what the call door works with.
func (p *parts) doorConfig(cfg *Config, log *zap.Logger) authz.Config {
	return authz.Config{
		Watched: p.watched(),
		Catalog: p.catalog, Table: p.table, Decide: p.decides.Decide, Asked: p.asked(), Tokens: p.tokens, Identity: p.identity,
		Record: func(r audit.Record) error { return p.record([]audit.Record{r}) }, Digest: p.trail.Digest,
		Logger: log, CredentialHeader: cfg.Token.Header,
	}
}

// brokerConfig is what the issue door works with.
func (p *parts) brokerConfig(cfg *Config, log *zap.Logger) broker.Config {
	return broker.Config{
		Catalog: p.catalog, Store: p.store, Table: p.table, Decide: p.decides.Decide, Manifests: p.decides.Manifests, Asked: p.asked(),
		Identity: p.identity, Clients: p.clients,
		Keys: p.keys, Issuer: cfg.Broker.Issuer, PublicURL: cfg.Broker.PublicURL, Record: p.record, Logger: log,
		MaxTTL: cfg.Limits.MaxTTL, MaxTask: cfg.Limits.MaxTask, RatePerAgent: cfg.Limits.RequestsPerAgent,
	}
}

// record writes the decisions of one request; who counts and watches sees what
// is on record.
func (p *parts) record(rs []audit.Record) error {
	err := p.trail.AppendAll(rs)
	p.metrics.recorded(rs, err)
	if err == nil {
		p.signals.Observe(rs)
	}
	return err
}

// lookAfter says what /readyz asks and what /metrics shows of the parts.
func (p *parts) lookAfter() {
	p.health = &health{checks: []healthCheck{
		{"audit", func() (string, error) { return "", p.trail.Healthy() }},
		{"grants", func() (string, error) {
			if !p.table.Fresh() {
				return "", errors.New("the view of grants is not fresh")
			}
			return "", nil
		}},
		{"policies", func() (string, error) {
			s := p.decides.Status()
			if s.Down != nil {
				return "", s.Down
			}
			note := fmt.Sprintf("revision %s, loaded %s", s.Revision, s.Loaded.UTC().Format(time.RFC3339))
			if s.Failed != nil { // the last good ones decide: that is no reason to refuse calls
				note += fmt.Sprintf("; a reload failed at %s, see the log", s.FailedAt.UTC().Format(time.RFC3339))
			}
			return note, nil
		}},
	}}
	for _, s := range p.identity.Status() {
		p.metrics.gauge("issuer_keys_read_timestamp_seconds", "When the issuer's keys in use were read.", func() float64 {
			for _, now := range p.identity.Status() {
				if now.Alias == s.Alias {
					return float64(now.Read.UnixMilli()) / 1000
				}
			}
			return 0
		}, "issuer", s.Alias)
	}
	truth := func(b bool) float64 {
		if b {
			return 1
		}
		return 0
	}
	p.metrics.gauge("ready", "1 if a call inside a grant could be allowed now.", func() float64 { return truth(p.health.err() == nil) })
	p.metrics.gauge("tasks", "Tasks in the table, the dead that are not yet forgotten included.", func() float64 { return float64(p.table.Counts().Tasks) })
	p.metrics.gauge("grants", "Grants in the table, the dead that are not yet forgotten included.", func() float64 { return float64(p.table.Counts().Grants) })
	p.metrics.gauge("policy_loaded_timestamp_seconds", "When the policies in force were loaded.", func() float64 {
		return float64(p.decides.Status().Loaded.UnixMilli()) / 1000
	})
	p.metrics.gauge("policy_reload_failed", "1 if what is in the policy folder does not load, and older policies decide.", func() float64 {
		return truth(p.decides.Status().Failed != nil)
	})
}

// reloaded hears of new policies in force.
func (p *parts) reloaded(_, now *cedar.Set) {
	p.metrics.reloads.WithLabelValues("done").Inc()
	p.log.Info("policies were reloaded", zap.Stringer("revision", now.Revision()), zap.Strings("policies", now.Policies()))
	p.tellOf(now)
	p.sweepSoon()
}

// sweepSoon has older grants decided anew.
func (p *parts) sweepSoon() {
	select {
	case p.swapped <- struct{}{}:
	default: // a sweep is due already
	}
}

// tellOf says what is worth a look in a set that is in force: what needs no
// grant, and what is probably not meant.
func (p *parts) tellOf(set *cedar.Set) {
	for _, b := range set.Baseline() {
		p.log.Info("a policy permits calls without a grant", zap.String("policy", b.ID), zap.String("at", b.At), zap.Strings("tools", b.Tools), zap.Strings("methods", b.Methods))
	}
	for _, w := range set.Warnings() {
		p.log.Warn("policies: " + w)
	}
}

func (p *parts) notReloaded(err error) {
	p.metrics.reloads.WithLabelValues("failed").Inc()
	p.log.Error("the changed policies do not load; the last good ones stay in force", zap.Error(err))
}

// sweep decides older grants anew after each reload, and fences what no longer
// holds, until it has seen all of them. A call meanwhile is decided by the new
// policies all the same.
func (p *parts) sweep(ctx context.Context) error {
	for again := time.Duration(0); ; {
		select {
		case <-ctx.Done():
			return nil
		case <-p.swapped:
		case <-after(again):
		}
		decided, fenced, err := p.issue.Sweep(ctx)
		p.metrics.swept.WithLabelValues("kept").Add(float64(decided - fenced))
		p.metrics.swept.WithLabelValues("fenced").Add(float64(fenced))
		if again = 0; err != nil && ctx.Err() == nil {
			p.log.Error("sweeping older grants; it is tried again, and each is decided anew when it is used", zap.Error(err))
			again = time.Second
			continue
		}
		p.log.Info("older grants were decided anew", zap.Int("decided", decided), zap.Int("fenced", fenced))
	}
}

// after is a channel that never fires for no time at all.
func after(d time.Duration) <-chan time.Time {
	if d == 0 {
		return nil
	}
	return time.After(d)
}

// followKeys takes up signing keys that were added, and gives up those that were
// taken away, within token.Grace.
func (p *parts) followKeys(ctx context.Context) error {
	tick := time.NewTicker(5 * time.Second)
	defer tick.Stop()
	var told string
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		changed, err := p.keys.Reload()
		switch {
		case err != nil && err.Error() != told: // once, and not every few seconds
			told = err.Error()
			p.log.Error("reading the signing keys again; the last good ones stay in use", zap.Error(err))
		case changed:
			p.log.Info("the signing keys have changed")
		}
		if err == nil {
			told = ""
		}
	}
}

// run keeps the parts going until ctx ends.
func (p *parts) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, loop := range []func(context.Context) error{
		p.store.Run, p.trail.Run, p.signals.Run, p.identity.Run, p.issue.Run, p.sweep,
		func(ctx context.Context) error { return p.table.Follow(ctx, p.store, nil) },
		func(ctx context.Context) error { p.decides.Run(ctx); return nil },
		p.runShadow,
		p.followKeys,
	} {
		g.Go(func() error { return ended(loop(ctx)) })
	}
	return g.Wait()
}

// ended makes the end of a background loop that was told to stop no error.
func ended(err error) error {
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}
