package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/toolgrant/toolgrant/client"
)

// Exit codes; exitHelp tells them to users, and scripts rely on them.
const (
	exitDone    = 0
	exitFailed  = 1
	exitUsage   = 2
	exitRefused = 3
)

const exitHelp = `
Exit codes:
  0  done
  1  failed: the broker could not be reached or could not decide, or a fault here
  2  wrong use or configuration; nothing was done
  3  refused: the broker's answer is no, and nothing is on stdout
`

const rootHelp = `toolgrant gives AI agents a tool for one task and a short time.

A broker decides by policy whether this agent may have this tool for this task,
and issues a short-lived grant. Envoy asks toolgrant about every call, and lets
it through only inside a live grant's window. When the task ends, the tool is
gone.

Commands that talk to the broker find it by --url or TOOLGRANT_URL, and show who
they are by an identity token from --identity-token-file or
TOOLGRANT_IDENTITY_TOKEN_FILE. Where the broker's certificate is of a CA of your
own, set SSL_CERT_FILE to it.`

const rootExample = `  # Both doors, by a configuration file.
  toolgrant serve --config toolgrant.yaml

  # The planner starts a task, the agent buys a grant for it and makes a call,
  # and the planner ends the task.
  task=$(toolgrant task start --kind monthly-report --agent corp/report-bot \
    --identity-token-file planner.jwt)
  toolgrant grant --task "$task" --tool reports/export --ttl 5m --header \
    --identity-token-file bot.jwt |
    curl -H @- --json '{"month":"2026-06"}' 'http://127.0.0.1:10000/export?format=csv'
  toolgrant task end "$task" --identity-token-file planner.jwt

  # Or all of it around one command, which sees the token and no identity.
  toolgrant exec --kind monthly-report --tool reports/export -- ./write-report

  # Everything up on this machine, to try it.
  toolgrant dev`

// run is the whole program but for the process: it returns the exit code.
// Errors are one line on stderr, never a wall of usage.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	root := rootCommand(stdin, stdout, stderr)
	root.SetArgs(args)
	if len(args) > 0 && strings.HasPrefix(args[0], cobra.ShellCompRequestCmd) {
		forCompletion(root)
	}
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitDone
	}
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		err = errors.New("interrupted")
	}
	var ended *commandExit
	if errors.As(err, &ended) && ended.err == nil {
		return ended.code
	}
	fmt.Fprintf(stderr, "%s: %v\n", cmd.CommandPath(), err)
	var m *misuse
	if errors.As(err, &m) && m.hint {
		fmt.Fprintf(stderr, "See: %s --help\n", cmd.CommandPath())
	}
	return exitCode(err)
}

func exitCode(err error) int {
	var (
		answer *client.Error
		config *ConfigError
		wrong  *misuse
		ended  *commandExit
	)
	switch {
	case err == nil:
		return exitDone
	case errors.As(err, &ended):
		return ended.code
	case errors.As(err, &answer) && answer.Denied():
		return exitRefused
	case errors.As(err, &wrong), errors.As(err, &config), errors.Is(err, client.ErrInvalid):
		return exitUsage
	}
	return exitFailed
}

// misuse is an error of whoever typed the command or wrote its files.
type misuse struct {
	err  error
	hint bool // point to --help
}

func (m *misuse) Error() string { return m.err.Error() }
func (m *misuse) Unwrap() error { return m.err }

// usageError makes err the fault of the caller's files or operands: exit code 2.
func usageError(err error) error { return &misuse{err: err} }

// usagef is about the command line itself.
func usagef(format string, args ...any) error {
	return &misuse{err: fmt.Errorf(format, args...), hint: true}
}

func rootCommand(stdin io.Reader, stdout, stderr io.Writer) *cobra.Command {
	root := group("toolgrant", "Just-in-time tools for AI agents",
		serveCommand(), readyCommand(),
		taskCommand(), grantCommand(), grantsCommand(), revokeCommand(), execCommand(),
		policyCommand(), manifestCommand(), tokenCommand(), explainCommand(), auditCommand(),
		devCommand(), identityCommand(), keysCommand(), envoyCommand(), catalogueCommand(), versionCommand(),
	)
	root.Long, root.Example = rootHelp, rootExample
	root.Version = buildInfo().String()
	root.SetVersionTemplate("{{.Version}}\n")
	root.SilenceUsage, root.SilenceErrors = true, true
	root.SetHelpTemplate(root.HelpTemplate() + exitHelp)
	root.SetFlagErrorFunc(flagError)
	root.SetIn(stdin)
	root.SetOut(stdout) // before the completion command is made, which keeps it
	root.SetErr(stderr)
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	beStrict(root)
	return root
}

// group is a command that only holds others.
func group(use, short string, subs ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short}
	cmd.AddCommand(subs...)
	return cmd
}

// beStrict makes every complaint about operands a misuse, also those of
// cobra's own validators, and a misuse of what cobra would answer with its help
// and success: a group of commands without one, or with one that is not there.
func beStrict(cmd *cobra.Command) {
	if cmd.HasSubCommands() && cmd.RunE == nil {
		cmd.Args, cmd.RunE = knownCommand, sayWhat
		cmd.SuggestionsMinimumDistance = 2
	}
	if check := cmd.Args; check != nil {
		cmd.Args = func(cmd *cobra.Command, args []string) error {
			err := check(cmd, args)
			var m *misuse
			if err == nil || errors.As(err, &m) {
				return err
			}
			return usagef("%w", err)
		}
	}
	for _, sub := range cmd.Commands() {
		beStrict(sub)
	}
}

func knownCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	text := fmt.Sprintf("unknown command %q", args[0])
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		text += "; did you mean " + strings.Join(near, " or ") + "?"
	}
	return usagef("%s", text)
}

func sayWhat(cmd *cobra.Command, _ []string) error {
	if !cmd.HasParent() {
		return cmd.Help()
	}
	var names []string
	for _, sub := range cmd.Commands() {
		names = append(names, sub.Name())
	}
	return usagef("say what to do: %s", strings.Join(names, " or "))
}

// operands takes exactly the operands with these names.
func operands(names ...string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		switch {
		case len(args) < len(names):
			return usagef("%s is missing", names[len(args)])
		case len(args) > len(names):
			return usagef("unexpected operand %q", args[len(names)])
		}
		return nil
	}
}
