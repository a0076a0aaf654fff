package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/toolgrant/toolgrant/client"
)

// The task of an exec that is killed ends when its beats have been missing for
// taskBeat: within 10 s, whenever the broker looks.
const (
	taskBeat  = 6 * time.Second
	beatEvery = 2 * time.Second
	endWithin = 5 * time.Second // for ending the task, when CMD has ended
)

// Exit codes of exec when CMD could not be started, as env(1) has them.
const (
	exitNotRunnable = 126
	exitNotFound    = 127
)

const execExitHelp = `
Exit codes:
  CMD's own; 128+N when signal N ended it. Before CMD has begun:
  1    failed: the broker could not be reached or could not decide, or a fault here
  2    wrong use; nothing was done
  3    refused: the broker's answer is no
  126  CMD cannot be run
  127  CMD is not there
`

func execCommand() *cobra.Command {
	var (
		broker        brokerFlags
		grant         grantFlags
		taskTTL       ttlFlag
		header        headerFlag
		params        paramFlags
		kind, proxyTo string
	)
	cmd := &cobra.Command{
		Use:   "exec --kind KIND [--tool SERVER/TOOL]... [--param NAME=TEXT]... [flags] -- CMD [ARG]...",
		Short: "Run a command inside a task of its own",
		Long: `Run CMD with grants for a task that lives exactly as long as CMD does. The task
ends when CMD exits, or cannot be started. When toolgrant itself is killed, or
stopped (^Z), it cannot say that the work goes on, and the broker ends the task
within 10 seconds; CMD is sent a SIGTERM when toolgrant is killed (on Linux).

CMD finds in its environment

  TOOLGRANT_TOKEN       the token that it may use at first; it holds to its end
  TOOLGRANT_TOKEN_FILE  a file, only for its eyes, that always holds a token that
                        is good: it is replaced before the old one expires, as
                        long as the task and policy permit it. Read it for each
                        call. A call that is overtaken by the change is refused
                        (superseded), and may be made again
  TOOLGRANT_TASK        the task's id

and no identity credential: other TOOLGRANT_ variables but TOOLGRANT_URL are
taken out. With tools of several servers there is also a TOOLGRANT_TOKEN_FILE_ID
for each of these (ID in upper case, with _ for what is neither letter nor
digit); TOOLGRANT_TOKEN and TOOLGRANT_TOKEN_FILE are the first server's.

INT, TERM, HUP and QUIT go on to CMD. (What is typed at a terminal, such as ^C,
the terminal sends to CMD itself.) toolgrant's own words go to stderr and begin
with "toolgrant exec:".

With --proxy an unmodified client works: toolgrant listens on loopback, adds the
token to each request, and passes it on to that origin and to nowhere else.

  TOOLGRANT_HTTP_PROXY  for a client that is told its proxy (http_proxy)
  TOOLGRANT_PROXY_URL   base URL to use in the origin's place

Where the kind has a manifest, the task has the parameters that this asks for
(--param), and without --tool CMD gets all that the manifest has and policy
permits. What is refused is told, and CMD runs with the rest.

Both hold a secret. On Linux the proxy also answers processes of this user
alone; elsewhere keep the URLs out of command lines, which everybody can read.`,
		Example: `  # The header is written anew for each call: the token changes.
  toolgrant exec --kind monthly-report --tool reports/export --ttl 10m -- sh -c '
    printf "Authorization: Bearer %s" "$(cat "$TOOLGRANT_TOKEN_FILE")" |
      curl -H @- --json "{\"month\":\"2026-10\"}" "http://127.0.0.1:10000/export?format=csv"'

  # A client that knows nothing of tokens.
  toolgrant exec --kind monthly-report --tool reports/export --max-calls 2 \
    --proxy http://127.0.0.1:10000 -- \
    sh -c 'http_proxy=$TOOLGRANT_HTTP_PROXY \
      curl --json "{\"month\":\"2026-10\"}" "http://127.0.0.1:10000/export?format=csv"'`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usagef("CMD is missing: what to run, after --")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			x := &execution{
				kind: kind, taskTTL: taskTTL.Duration, header: header, argv: args,
				stdin: cmd.InOrStdin(), stdout: cmd.OutOrStdout(), stderr: cmd.ErrOrStderr(),
			}
			if kind == "" {
				return usagef("--kind is missing: the kind of work, as the policy names it")
			}
			var err error
			if x.params, err = params.object(cmd); err != nil {
				return err
			}
			if x.hint = params.typeHint; len(grant.tools) > 0 {
				if x.asks, err = grant.asks(); err != nil {
					return err
				}
			} else if grant.narrows() {
				return usagef("--tool is missing: what --ttl, --max-calls, --max-sum and --constraint are about")
			}
			if proxyTo != "" {
				if ids := servers(x.asks); len(ids) > 1 { // of a manifest's it shows later
					return usagef("--proxy is for one server's token, and these are of %s", strings.Join(ids, ", "))
				}
				if x.proxyTo, err = origin(proxyTo); err != nil {
					return usagef("--proxy: %w", err)
				}
			} else if cmd.Flags().Changed("header-name") {
				return usagef("--header-name goes with --proxy")
			}
			if broker.file() == "-" || isStandard(broker.file()) {
				return usagef("the identity token is read again and again, and this is CMD's, too: give a file")
			}
			if x.client, err = broker.client(cmd); err != nil {
				return err
			}
			return x.run(cmd.Context())
		},
	}
	cmd.SetHelpTemplate(cmd.HelpTemplate() + execExitHelp)
	cmd.Flags().SetInterspersed(false) // what follows CMD is CMD's, also without --
	broker.register(cmd)
	cmd.Flags().StringVar(&kind, "kind", "", "`KIND` of work, as the policy names it (required)")
	grant.register(cmd)
	params.register(cmd)
	cmd.Flags().Var(&taskTTL, "task-ttl", "`TIME` after which the task ends, even if CMD still runs (default the broker's maximum)")
	cmd.Flags().StringVar(&proxyTo, "proxy", "", "`ORIGIN` to pass requests on to with the token: where Envoy listens, such as http://127.0.0.1:10000")
	header.register(cmd)
	return cmd
}

// isStandard reports whether a file is what the command gets as its standard
// input, output or error.
func isStandard(path string) bool {
	info, err := os.Stat(path)
	if err != nil {
		return false
	}
	for _, f := range []*os.File{os.Stdin, os.Stdout, os.Stderr} {
		if std, err := f.Stat(); err == nil && os.SameFile(info, std) {
			return true
		}
	}
	return false
}

// commandExit is the exit code that CMD's end, or its failed start, comes to.
type commandExit struct {
	code int
	err  error // nil: CMD has said itself what there was to say
}

func (e *commandExit) Error() string { return fmt.Sprint(e.err) }
func (e *commandExit) Unwrap() error { return e.err }

// execution is a command inside a task.
type execution struct {
	client         *client.Client
	kind           string
	params         json.RawMessage       // of the task; nil: none
	asks           []client.GrantRequest // none: what the kind's manifest has
	hint           func(error) error     // says more about what the broker did not take
	taskTTL        time.Duration
	proxyTo        *url.URL // nil: none
	header         headerFlag
	argv           []string
	stdin          io.Reader
	stdout, stderr io.Writer
	said           sync.Mutex // stderr is several goroutines'
	task           client.Task
}

func (x *execution) say(format string, args ...any) {
	x.said.Lock()
	defer x.said.Unlock()
	fmt.Fprintf(x.stderr, "toolgrant exec: "+format+"\n", args...)
}

// run starts the task, buys the grants, runs CMD, and ends the task.
func (x *execution) run(ctx context.Context) error {
	if _, err := exec.LookPath(x.argv[0]); err != nil { // before anything is asked of the broker
		return cannotRun(err)
	}
	program := exec.Command(x.argv[0], x.argv[1:]...)
	// From here on no signal ends this process before its task. Until CMD runs,
	// one of them gives up; then they are CMD's.
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)
	defer signal.Stop(signals)
	setup, stop := signal.NotifyContext(ctx, syscall.SIGHUP, syscall.SIGQUIT)
	defer stop()

	asked := time.Now()
	started, err := x.client.StartTask(setup, client.TaskRequest{
		Kind: x.kind, Params: x.params, Grant: len(x.asks) == 0, TTL: x.taskTTL, Beat: taskBeat,
	})
	if err != nil {
		return interrupted(setup, x.hint(err))
	}
	x.task = started.Task
	defer x.end(ctx)
	work, done := context.WithCancel(context.WithoutCancel(ctx))
	var loops sync.WaitGroup
	defer loops.Wait()
	defer done()
	loops.Go(func() { x.beat(work) })

	tokens := started.Tokens
	if len(x.asks) > 0 {
		asked = time.Now()
		if tokens, err = x.client.Grant(setup, client.GrantsRequest{Task: x.task.ID, Grants: x.asks}); err != nil {
			return interrupted(setup, err)
		}
	} else if err := x.allOf(&started); err != nil {
		return err
	}
	dir, err := newScratch("exec")
	if err != nil {
		return err
	}
	defer func() {
		if err := dir.remove(); err != nil {
			x.say("taking away its files: %v", err)
		}
	}()
	purses, err := x.purses(tokens, asked, dir.dir)
	if err != nil {
		return err
	}
	program.Env = append(commandEnv(os.Environ()), "TOOLGRANT_TASK="+x.task.ID)
	program.Env = append(program.Env, tokenEnv(purses)...)
	if x.proxyTo != nil {
		proxy, err := newProxy(x.proxyTo, x.header, purses[0].token)
		if err != nil {
			return err
		}
		loops.Go(func() { proxy.run(work) })
		program.Env = append(program.Env, "TOOLGRANT_PROXY_URL="+proxy.base(), "TOOLGRANT_HTTP_PROXY="+proxy.asProxy())
	}
	for _, p := range purses {
		loops.Go(func() { x.keep(work, p) })
	}
	program.Stdin, program.Stdout, program.Stderr = x.stdin, x.stdout, x.stderr
	if setup.Err() != nil {
		return interrupted(setup, setup.Err())
	}
	return runCommand(program, signals)
}

// allOf takes what was granted of the manifest for what was asked for: that is
// what is renewed.
func (x *execution) allOf(s *client.Started) error {
	for _, no := range s.Refused {
		x.say("%s", notGranted(no))
	}
	for _, t := range s.Tokens {
		for _, g := range t.Grants {
			x.asks = append(x.asks, client.GrantRequest{Tool: g.Tool})
		}
	}
	switch {
	case len(x.asks) == 0:
		return &commandExit{exitRefused, errors.New("nothing that the manifest has was granted; the command was not started")}
	case x.proxyTo != nil && len(s.Tokens) > 1:
		return usagef("--proxy is for one server's token, and the manifest has tools of %s", strings.Join(servers(x.asks), ", "))
	}
	return nil
}

// interrupted says so if a signal is why something failed.
func interrupted(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return errors.New("interrupted: the command was not started")
	}
	return err
}

// runCommand runs the program to its end and passes signals on to it.
func runCommand(program *exec.Cmd, signals <-chan os.Signal) error {
	// See childAttr: the thread must not end before the child.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	program.SysProcAttr = childAttr(syscall.SIGTERM)
	if err := keepFiles(); err != nil {
		return fmt.Errorf("keeping this program's files from the command: %w", err)
	}
	if err := program.Start(); err != nil {
		return cannotRun(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- program.Wait() }()
	for {
		select {
		case s := <-signals:
			// The terminal sends these two to CMD itself; a second ^C means
			// something else to many programs.
			if (s == syscall.SIGINT || s == syscall.SIGQUIT) && inForeground() {
				continue
			}
			_ = program.Process.Signal(s)
		case err := <-ended:
			return exitOf(err)
		}
	}
}

func cannotRun(err error) error {
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
		return &commandExit{exitNotFound, err}
	}
	return &commandExit{exitNotRunnable, err}
}

// exitOf makes the end of a command this program's own.
func exitOf(err error) error {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return nil
	case !errors.As(err, &exit):
		return fmt.Errorf("waiting for the command: %w", err)
	}
	if ws, ok := exit.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return &commandExit{code: 128 + int(ws.Signal())}
	}
	return &commandExit{code: exit.ExitCode()}
}

// end ends the task: CMD has ended, or never began.
func (x *execution) end(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), endWithin)
	defer cancel()
	if err := x.client.EndTask(ctx, x.task.ID); err != nil {
		x.say("%v; it ends by itself within 10 s", err)
	}
}

// beat keeps the task open. A beat that is lost is no fault, the next one
// counts; so none may take as long as it is until then.
func (x *execution) beat(ctx context.Context) {
	tick := time.NewTicker(beatEvery)
	defer tick.Stop()
	missed := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		one, cancel := context.WithTimeout(ctx, beatEvery)
		err := x.client.Beat(one, x.task.ID)
		cancel()
		var answer *client.Error
		switch {
		case ctx.Err() != nil:
			return
		case errors.As(err, &answer) && slices.Contains([]string{"task_ended", "unknown_task", "bad_request"}, answer.Reason):
			x.say("%v; the command goes on, and its calls are refused", err)
			return
		case err != nil && !missed:
			x.say("%v; still trying", err)
		case err == nil && missed:
			x.say("the broker answers again")
		}
		missed = err != nil
	}
}

// commandEnv is what CMD may know of ours: nothing that says who started it.
func commandEnv(env []string) []string {
	var kept []string
	for _, kv := range env {
		if !strings.HasPrefix(kv, "TOOLGRANT_") || strings.HasPrefix(kv, envURL+"=") {
			kept = append(kept, kv)
		}
	}
	return kept
}

func tokenEnv(purses []*purse) []string {
	env := []string{"TOOLGRANT_TOKEN=" + purses[0].token(), "TOOLGRANT_TOKEN_FILE=" + purses[0].file}
	if len(purses) > 1 {
		for _, p := range purses {
			env = append(env, fileVariable(p.server)+"="+p.file)
		}
	}
	return env
}

// fileVariable names the variable with the token file of one server.
func fileVariable(server string) string {
	return "TOOLGRANT_TOKEN_FILE_" + strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z':
			return r - 'a' + 'A'
		case r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
			return r
		}
		return '_'
	}, server)
}
