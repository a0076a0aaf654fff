package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/toolgrant/toolgrant/authz"
	"github.com/toolgrant/toolgrant/broker"
	"github.com/toolgrant/toolgrant/cedar"
	"github.com/toolgrant/toolgrant/surface"
	"github.com/toolgrant/toolgrant/token"
)

func serveCommand() *cobra.Command {
	var config configFlag
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
			cfg, err := config.load()
			if err != nil {
				return usageError(err)
			}
			log := newLogger(cmd.ErrOrStderr())
			defer func() { _ = log.Sync() }()
			if check {
				r, err := loadRules(cfg, log, hooks{})
				if err != nil {
					return usageError(err)
				}
				for _, one := range []struct {
					what string
					set  *cedar.Live
				}{{"policies", r.policies}, {"shadow", r.shadow}} {
					if one.set == nil {
						continue
					}
					for _, w := range one.set.Current().Warnings() {
						fmt.Fprintln(cmd.ErrOrStderr(), "warning: "+one.what+": "+w)
					}
				}
				if err := errors.Join(checkKeys(cfg), checkFolders(cfg), checkCertificates(cfg)); err != nil {
					return usageError(err)
				}
				fmt.Fprintln(cmd.OutOrStdout(), config.path()+": configuration, catalogue, policies, issuers and keys are in order")
				return nil
			}
			return serve(cmd.Context(), cfg, log)
		},
	}
	config.register(cmd)
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

// checkCertificates reads the doors' TLS files.
func checkCertificates(cfg *Config) error {
	var faults []error
	for _, d := range []struct {
		key   string
		files TLSConfig
	}{{"broker.tls", cfg.Broker.TLS}, {"authz.tls", cfg.Authz.TLS}, {"admin.tls", cfg.Admin.TLS}} {
		if _, err := openCertificates(d.files, zap.NewNop()); err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", d.key, err))
		}
	}
	return errors.Join(faults...)
}

// checkFolders looks for the folders that serve writes into and does not make.
func checkFolders(cfg *Config) error {
	var faults []error
	look := func(what, file string) {
		if info, err := os.Stat(filepath.Dir(file)); err != nil || !info.IsDir() {
			faults = append(faults, fmt.Errorf("%s: the folder of %s is not there: mkdir -p %s", what, file, filepath.Dir(file)))
		}
	}
	if network, path := cfg.Authz.Address(); network == "unix" {
		look("authz.listen", path)
	}
	if path, unix := strings.CutPrefix(cfg.Surface.Listen, "unix://"); unix {
		look("surface.listen", path)
	}
	look("audit.file", cfg.Audit.File)
	if cfg.Audit.Inputs != "" {
		look("audit.inputs", cfg.Audit.Inputs)
	}
	if cfg.Shadow.on() {
		look("shadow.file", cfg.Shadow.File)
	}
	return errors.Join(faults...)
}

// serve opens both doors and blocks until ctx ends or one of them fails. Doors
// close first, then what they stand on.
func serve(ctx context.Context, cfg *Config, log *zap.Logger) (err error) {
	if err := checkFolders(cfg); err != nil {
		return usageError(err)
	}
	p, err := wire(cfg, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.close()) }()
	d, err := openDoors(ctx, cfg, p)
	if err != nil {
		return err
	}
	defer d.close()

	behind, stop := context.WithCancel(context.WithoutCancel(ctx))
	var ranErr error
	ran := make(chan struct{})
	go func() { defer close(ran); ranErr = p.run(behind) }()
	defer func() { stop(); <-ran; err = errors.Join(err, ranErr) }()

	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return reloadOnHangup(ctx, p) })
	g.Go(func() error { // without what is behind them the doors would only deny
		select {
		case <-ran:
			return errors.New("a background loop has ended")
		case <-ctx.Done():
			return nil
		}
	})
	d.serve(ctx, g, p)
	log.Info("serving",
		zap.String("broker", cfg.Broker.PublicURL), zap.String("authz", cfg.Authz.Listen), zap.String("admin", cfg.Admin.Listen),
		zap.Int("servers", len(p.catalog.Servers)), zap.Strings("policies", p.names()), zap.Strings("manifests", p.decides.Manifests().Kinds()),
		zap.Stringer("revision", p.decides.Status().Revision))
	if p.policies != nil {
		p.tellOf(p.policies.Current())
	}
	err = g.Wait()
	log.Info("stopped")
	return err
}

// reloadOnHangup reads the policies again at each SIGHUP, which would otherwise
// end the process and every grant with it. (A change is seen without it, too, a
// second later.)
func reloadOnHangup(ctx context.Context, p *parts) error {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-hup:
			if changed, err := p.decides.Reload(); err == nil && !changed { // else its hooks tell
				p.log.Info("SIGHUP: the policies are those in force already")
			}
		}
	}
}

// doors are the open addresses of the program.
type doors struct {
	issue, admin          net.Listener // admin may be nil
	issueHandler          http.Handler
	call                  *authz.Server
	surface               *surface.Server // nil: no MCP server
	issueFiles, callFiles *certificates
	adminFiles            *certificates
	log                   *zap.Logger
}

// openDoors takes the addresses, before anything is answered on them.
func openDoors(ctx context.Context, cfg *Config, p *parts) (d *doors, err error) {
	d = &doors{log: p.log}
	defer func() {
		if err != nil {
			d.close()
		}
	}()
	if d.issueFiles, err = openCertificates(cfg.Broker.TLS, d.log, "h2", "http/1.1"); err != nil {
		return d, usageError(fmt.Errorf("broker.tls: %w", err))
	}
	if d.callFiles, err = openCertificates(cfg.Authz.TLS, d.log, "h2"); err != nil {
		return d, usageError(fmt.Errorf("authz.tls: %w", err))
	}
	if d.adminFiles, err = openCertificates(cfg.Admin.TLS, d.log, "h2", "http/1.1"); err != nil {
		return d, usageError(fmt.Errorf("admin.tls: %w", err))
	}
	if d.issueHandler, err = p.withAuthZEN(cfg, p.issue.Handler()); err != nil {
		return d, usageError(err)
	}
	var lc net.ListenConfig
	if d.issue, err = lc.Listen(ctx, "tcp", cfg.Broker.Listen); err != nil {
		return d, fmt.Errorf("broker: %w", err)
	}
	if cfg.Admin.Listen != "" {
		if d.admin, err = lc.Listen(ctx, "tcp", cfg.Admin.Listen); err != nil {
			return d, fmt.Errorf("admin: %w", err)
		}
	}
	d.call, err = authz.Open(ctx, authz.ServerConfig{
		Listen: cfg.Authz.Listen, TLS: d.callFiles.config(), Check: p.check, MaxBody: authz.DefaultMaxBody,
		Healthy: func() bool { return p.health.err() == nil }, Logger: d.log,
	})
	if err == nil && p.surface != nil {
		if d.surface, err = p.surface.Open(ctx, cfg.Surface.Listen); err != nil {
			err = fmt.Errorf("surface: %w", err)
		}
	}
	return d, err
}

// close is for doors that are not served, or not any more.
func (d *doors) close() {
	if d.issue != nil {
		_ = d.issue.Close()
	}
	if d.admin != nil {
		_ = d.admin.Close()
	}
	if d.call != nil {
		_ = d.call.Close()
	}
	if d.surface != nil {
		_ = d.surface.Close()
	}
}

// serve answers at each door, in g, until ctx ends.
func (d *doors) serve(ctx context.Context, g *errgroup.Group, p *parts) {
	g.Go(func() error { return d.issueFiles.run(ctx) })
	g.Go(func() error { return d.callFiles.run(ctx) })
	g.Go(func() error { return d.adminFiles.run(ctx) })
	g.Go(func() error {
		s := broker.NewServer(d.issueHandler, broker.ServerConfig{TLS: d.issueFiles.config(), Logger: d.log})
		return s.Serve(ctx, d.issue)
	})
	g.Go(func() error { return d.call.Run(ctx) })
	if d.surface != nil {
		g.Go(func() error { return d.surface.Run(ctx) })
	}
	if d.admin != nil {
		g.Go(func() error {
			return serveAdmin(ctx, d.admin, d.adminFiles.config(), adminHandler(p.metrics, p.health), d.log)
		})
	}
}
