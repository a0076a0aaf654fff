package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"github.com/spf13/cobra"
)

const policyTestHelp = `Play what policies and manifests are meant to do, and compare. Nothing has to run,
nothing is sent anywhere, and nobody's keys are used.

A case is one question to policy, with all that policy sees of it: start_task,
end_task, grant, ask_for, revoke, call or mcp. A story goes through both doors of
this program, with tokens, grants, budgets and ends: start, grant, call, mcp, revoke
and end. What a manifest says of a grant, a case need not repeat. Names that are not
there are errors, so that no test passes for a misspelling.

A denial without a reason is one that was decided: by a policy, a manifest, or what
a grant bounds. Where it is for a fault of the request itself, the test says so by
reason. "by" lists exactly the policies that decide, and by: [] that none does.

PATH is a file, or a folder of *.yaml; without one it is the folder tests beside that
of the policies. A failure is one line, and what would have to differ for another
answer. A policy is covered by tests in which it decides.`

const policyTestExample = `  toolgrant policy test
  toolgrant policy test --run 'bill' --watch policies/tests

  # In CI.
  toolgrant policy test --junit report.xml --require-coverage

  # tests/pay-bill.yaml
  agents:
    front: {id: corp/front-1, groups: [front-ends]}
    clerk: {id: corp/clerk}
  tests:
  - name: an assistant starts nothing
    start_task: {agent: clerk, kind: pay-bill, params: {recipient: ACME, limit: 1}}
    expect: deny
  - name: a stopped recipient is not paid, grant or none
    call:
      agent: clerk
      tool: bank/send_money
      input: {recipient: "stopped: ACME", amount: 1}
      grant: {task: {kind: pay-bill, owner: front, params: {recipient: "stopped: ACME", limit: 1}}, age: 1m, ttl: 1m}
    expect: deny
    by: [stopped-recipients]
  - name: one bill is paid, and nothing else
    story:
    - start: {as: front, kind: pay-bill, agents: [clerk], params: {recipient: ACME, limit: 9}, grant: true}
      granted: [bank/send_money]
    - call: {as: clerk, tool: bank/send_money, input: {recipient: ACME, amount: 9}}
    - call: {as: clerk, tool: bank/send_money, input: {recipient: Mallory, amount: 9}}
      expect: deny
      reason: constraint
    - end: {as: front}
    - call: {as: clerk, tool: bank/send_money, input: {recipient: ACME, amount: 9}}
      expect: deny
      reason: task_ended`

// policyTester is the command with what was asked of it.
type policyTester struct {
	config   configFlag
	places   []string
	only     string
	junit    string
	coverage bool
	watch    bool

	out, errs io.Writer
}

func policyTestCommand() *cobra.Command {
	var t policyTester
	cmd := &cobra.Command{
		Use:     "test [PATH...] [--config FILE] [--run REGEXP] [--watch] [--junit FILE] [--require-coverage]",
		Short:   "Play tests of policies and manifests",
		Long:    policyTestHelp,
		Example: policyTestExample,
		Args:    cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			t.places, t.out, t.errs = args, cmd.OutOrStdout(), cmd.ErrOrStderr()
			if t.coverage && t.only != "" {
				return usagef("--require-coverage is about all tests, and --run chooses some")
			}
			if t.watch {
				return t.watching(cmd.Context())
			}
			return t.once(cmd.Context())
		},
	}
	t.config.register(cmd)
	cmd.Flags().StringVar(&t.only, "run", "", "only the tests whose name matches `REGEXP`")
	cmd.Flags().StringVar(&t.junit, "junit", "", "write the results to `FILE` as JUnit's XML, too")
	cmd.Flags().BoolVar(&t.coverage, "require-coverage", false, "fail if a policy decided nothing")
	cmd.Flags().BoolVar(&t.watch, "watch", false, "run again at each change, until ^C")
	return cmd
}

// once reads everything, plays all tests and says what came.
func (t *policyTester) once(ctx context.Context) error {
	cfg, err := t.config.load()
	if err != nil {
		return err
	}
	var only *regexp.Regexp
	if t.only != "" {
		if only, err = regexp.Compile(t.only); err != nil {
			return usagef("--run: %w", err)
		}
	}
	run, err := runTests(ctx, cfg, t.testsOf(cfg), only)
	if err != nil {
		return err
	}
	if _, err := io.WriteString(t.out, run.text()); err != nil {
		return fmt.Errorf("writing the result: %w", err)
	}
	if t.junit != "" {
		text, err := run.junit()
		if err == nil {
			err = replaceFile(t.junit, text)
		}
		if err != nil {
			return fmt.Errorf("--junit: %w", err)
		}
	}
	if run.failed() > 0 || t.coverage && len(run.uncovered()) > 0 {
		return &commandExit{code: exitFailed}
	}
	return nil
}

// testsOf is where the tests are.
func (t *policyTester) testsOf(cfg *Config) []string {
	if len(t.places) > 0 {
		return t.places
	}
	return []string{filepath.Join(filepath.Dir(filepath.Clean(cfg.Policies)), "tests")}
}

// watchEvery is how often the files are looked at, restTime how long they must
// have been left alone: who edits several is not told of what is half-written.
const (
	watchEvery = time.Second
	restTime   = watchEvery / 4
	watchBytes = 4 << 20 // of a file: more than any of them may have
)

// watching runs the tests now, and again whenever what they rest on has changed,
// until ctx ends. Contents are compared, not times (see cedar.Live).
func (t *policyTester) watching(ctx context.Context) error {
	for ran := ([sha256.Size]byte{}); ; {
		now := t.fingerprint()
		if now != ran {
			if !sleep(ctx, restTime) {
				return nil
			}
			if t.fingerprint() != now {
				continue // it does not rest yet
			}
			ran = now
			fmt.Fprintf(t.out, "%s\n", time.Now().Format(time.TimeOnly))
			if err := t.once(ctx); ctx.Err() != nil {
				return nil
			} else if said := (*commandExit)(nil); err != nil && !errors.As(err, &said) {
				fmt.Fprintf(t.errs, "%v\n", err)
			}
		}
		if !sleep(ctx, watchEvery) {
			return nil
		}
	}
}

// sleep reports whether d went by before ctx ended.
func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// fingerprint is a SHA-256 over all files that a run reads, and over what keeps
// one from being read.
func (t *policyTester) fingerprint() [sha256.Size]byte {
	h := sha256.New()
	add := func(path string) {
		info, err := os.Stat(path)
		if err == nil && !info.Mode().IsRegular() {
			return
		}
		text, err := readFile(path, watchBytes)
		fmt.Fprintf(h, "%q %d %v\n", path, len(text), err)
		h.Write(text)
	}
	add(t.config.path())
	cfg, err := t.config.load()
	if err != nil { // which the run says
		return [sha256.Size]byte(h.Sum(nil))
	}
	add(cfg.Catalogue)
	for _, place := range append(t.testsOf(cfg), cfg.Policies, cfg.Manifests) {
		if place == "" {
			continue
		}
		entries, err := os.ReadDir(place)
		if err != nil {
			add(place) // a file, or the fault
			continue
		}
		for _, e := range entries {
			add(filepath.Join(place, e.Name()))
		}
	}
	return [sha256.Size]byte(h.Sum(nil))
}
