package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/toolgrant/toolgrant/audit"
	"github.com/toolgrant/toolgrant/authz"
	"github.com/toolgrant/toolgrant/broker"
	"github.com/toolgrant/toolgrant/catalog"
	"github.com/toolgrant/toolgrant/cedar"
	"github.com/toolgrant/toolgrant/envoy"
	"github.com/toolgrant/toolgrant/grants"
	"github.com/toolgrant/toolgrant/identity"
	"github.com/toolgrant/toolgrant/token"
)

func serveCommand() *cobra.Command {
	var file string
	var check bool
	cmd := &cobra.Command{
		Use:   "serve --config FILE",
		Short: "Run the broker and the ext_authz server in one process",
		Long: `Run both doors: the broker (HTTP), where an identity token buys a grant for a
task, and the ext_authz server (gRPC), which Envoy asks about every call.

Everything is read and checked before either door opens; a fault ends the
program with exit code 2 and the place of the fault. Tasks and grants are kept
in memory: a restart ends them all.`,
		Example: `  toolgrant serve --config toolgrant.yaml
  toolgrant serve --config toolgrant.yaml --check    # read everything, say what is wrong, exit`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := LoadConfig(file)
			if err != nil {
				return usageError(err)
			}
			log := newLogger(cmd.ErrOrStderr())
			defer func() { _ = log.Sync() }()
			if check {
				if _, err := loadRules(cfg); err != nil {
					return usageError(err)
				}
				if err := checkKeys(cfg); err != nil {
					return usageError(err)
				}
				fmt.Fprintln(cmd.OutOrStdout(), file+": configuration, catalogue, policies, issuers and keys are in order")
				return nil
			}
			return serve(cmd.Context(), cfg, log)
		},
	}
	cmd.Flags().StringVar(&file, "config", "toolgrant.yaml", "the configuration file")
	cmd.Flags().BoolVar(&check, "check", false, "read and check configuration, catalogue, policies, issuers and keys, and exit")
	return cmd
}

// checkKeys reads the signing keys if there are any yet; it makes none.
func checkKeys(cfg *Config) error {
	found, err := filepath.Glob(filepath.Join(cfg.Keys.Dir, "*.jwk"))
	if err != nil || len(found) == 0 {
		return err
	}
	_, err = token.OpenKeys(cfg.Keys.Dir, cfg.Keys.Alg)
	return err
}

// newLogger writes JSON lines to w: INFO is a change of state.
func newLogger(w io.Writer) *zap.Logger {
	enc := zap.NewProductionEncoderConfig()
	enc.EncodeTime = zapcore.ISO8601TimeEncoder
	return zap.New(zapcore.NewCore(zapcore.NewJSONEncoder(enc), zapcore.Lock(zapcore.AddSync(w)), zapcore.InfoLevel))
}

// rules is what is read from files and never changes while serving.
type rules struct {
	catalog  *catalog.Catalog
	policies *cedar.Set
	identity *identity.Verifier
}

func loadRules(cfg *Config) (*rules, error) {
	var r rules
	var err error
	if r.catalog, err = catalog.Load(cfg.Catalogue); err != nil {
		return nil, fmt.Errorf("catalogue: %w", err)
	}
	issuers := make([]identity.Issuer, 0, len(cfg.Identity.Issuers))
	for _, i := range cfg.Identity.Issuers {
		issuers = append(issuers, identity.Issuer{
			Alias: i.Alias, URL: i.Issuer, JWKSFile: i.JWKSFile, Audience: i.Audience,
			GroupsClaim: i.GroupsClaim, Groups: i.Groups,
		})
	}
	if r.identity, err = identity.New(identity.Config{Issuers: issuers}); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("%w (for development, `toolgrant identity --dir FOLDER` makes an issuer and its jwks.json)", err)
		}
		return nil, err
	}
	// An audience that is also a tool server's would make one token good for
	// both doors.
	for _, i := range issuers {
		if s, ok := r.catalog.ServerByResource(i.Audience); ok {
			return nil, fmt.Errorf("identity: issuer %q: audience %q is the resource of server %q: the broker needs one of its own", i.Alias, i.Audience, s.ID)
		}
	}
	// What cannot be printed for Envoy cannot be served either.
	if _, err := envoy.Config(envoy.Options{
		Catalog: r.catalog, Listen: cfg.Envoy.Listen, Authz: cfg.Authz.Listen, CredentialHeader: cfg.Token.Header,
	}); err != nil {
		return nil, err
	}
	if r.policies, err = cedar.Load(cedar.Config{Dir: cfg.Policies, Catalog: r.catalog, Groups: r.identity.KnownGroups()}); err != nil {
		return nil, fmt.Errorf("policies: %w", err)
	}
	return &r, nil
}

// parts is everything behind the two doors, wired.
type parts struct {
	rules
	keys   *token.Keys
	tokens *token.Verifier
	trail  *audit.Log
	store  *grants.Memory
	table  *grants.Table
	check  *authz.Door
	issue  *broker.Broker
}

// wire reads all files and puts the parts together. The caller closes trail.
func wire(cfg *Config, log *zap.Logger) (*parts, error) {
	r, err := loadRules(cfg)
	if err != nil {
		return nil, usageError(err)
	}
	p := &parts{rules: *r}
	if p.keys, err = token.OpenKeys(cfg.Keys.Dir, cfg.Keys.Alg); err != nil {
		return nil, usageError(err)
	}
	if p.tokens, err = token.NewVerifier(cfg.Broker.Issuer, p.keys.Public()); err != nil {
		return nil, usageError(err)
	}
	p.trail, err = audit.Open(audit.Config{File: cfg.Audit.File, Fsync: cfg.Audit.Fsync, Key: p.keys.AuditKey(), Logger: log})
	if err != nil {
		return nil, err
	}
	p.store = grants.NewMemory(grants.MemoryConfig{})
	p.table = grants.NewTable(grants.TableConfig{Draw: p.store.Draw, Broke: func(err error) {
		log.Warn("the watch of the store broke; starting it anew", zap.Error(err))
	}})
	p.check = authz.New(p.doorConfig(cfg, log))
	p.issue = broker.New(p.brokerConfig(cfg, log))
	return p, nil
}

// doorConfig is what the call door works with.
func (p *parts) doorConfig(cfg *Config, log *zap.Logger) authz.Config {
	return authz.Config{
		Catalog: p.catalog, Table: p.table, Decide: p.policies.Decide, Tokens: p.tokens, Identity: p.identity,
		Record: p.trail.Append, Digest: p.trail.Digest, Logger: log, CredentialHeader: cfg.Token.Header,
	}
}

// brokerConfig is what the issue door works with.
func (p *parts) brokerConfig(cfg *Config, log *zap.Logger) broker.Config {
	return broker.Config{
		Catalog: p.catalog, Store: p.store, Table: p.table, Decide: p.policies.Decide, Identity: p.identity,
		Keys: p.keys, Issuer: cfg.Broker.Issuer, Record: p.trail.AppendAll, Logger: log,
		MaxTTL: cfg.Limits.MaxTTL, MaxTask: cfg.Limits.MaxTask,
	}
}

// run keeps the parts going until ctx ends.
func (p *parts) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return ended(p.store.Run(ctx)) })
	g.Go(func() error { return ended(p.table.Follow(ctx, p.store, nil)) })
	g.Go(func() error { return ended(p.trail.Run(ctx)) })
	return g.Wait()
}

// serve opens both doors and blocks until ctx ends or one of them fails. Doors
// close first, then what they stand on.
func serve(ctx context.Context, cfg *Config, log *zap.Logger) (err error) {
	p, err := wire(cfg, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.trail.Close()) }()
	issueAt, err := (&net.ListenConfig{}).Listen(ctx, "tcp", cfg.Broker.Listen)
	if err != nil {
		return fmt.Errorf("broker: %w", err)
	}
	defer issueAt.Close()
	callAt, err := authz.Listen(ctx, cfg.Authz.Listen)
	if err != nil {
		return err
	}
	defer callAt.Close()

	behind, stop := context.WithCancel(context.WithoutCancel(ctx))
	var ranErr error
	ran := make(chan struct{})
	go func() { defer close(ran); ranErr = p.run(behind) }()
	defer func() { stop(); <-ran; err = errors.Join(err, ranErr) }()

	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP) // else it would end the process, and every grant with it
	defer signal.Stop(hup)

	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		for {
			select {
			case <-hup:
				log.Warn("SIGHUP: nothing is read again while serving; start anew to change files, which ends all tasks")
			case <-ctx.Done():
				return nil
			}
		}
	})
	g.Go(func() error { // without what is behind them the doors would only deny
		select {
		case <-ran:
			return errors.New("a background loop has ended")
		case <-ctx.Done():
			return nil
		}
	})
	g.Go(func() error { return serveHTTP(ctx, issueAt, p.issue.Handler(), log) })
	g.Go(func() error { return serveGRPC(ctx, callAt, authz.NewServer(p.check, authz.DefaultMaxBody, log)) })
	log.Info("serving",
		zap.String("broker", "http://"+issueAt.Addr().String()), zap.String("authz", cfg.Authz.Listen),
		zap.Int("servers", len(p.catalog.Servers)), zap.Strings("policies", p.policies.Policies()),
		zap.Stringer("revision", p.policies.Revision()))
	err = g.Wait()
	log.Info("stopped")
	return err
}

// ended makes the end of a background loop that was told to stop no error.
func ended(err error) error {
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// graceTime is how long an answer may take after the door has closed.
const graceTime = 5 * time.Second

func serveHTTP(ctx context.Context, l net.Listener, h http.Handler, log *zap.Logger) error {
	s := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       60 * time.Second,
		MaxHeaderBytes:    32 << 10,
		ErrorLog:          zap.NewStdLog(log.WithOptions(zap.IncreaseLevel(zapcore.ErrorLevel))),
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	select {
	case err := <-done:
		return fmt.Errorf("broker: %w", err)
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), graceTime)
	defer cancel()
	if err := s.Shutdown(grace); err != nil {
		_ = s.Close()
	}
	<-done
	return nil
}

func serveGRPC(ctx context.Context, l net.Listener, s *grpc.Server) error {
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	select {
	case err := <-done:
		return fmt.Errorf("authz: %w", err)
	case <-ctx.Done():
	}
	force := time.AfterFunc(graceTime, s.Stop) // Envoy keeps its connection open
	s.GracefulStop()
	force.Stop()
	<-done
	return nil
}
